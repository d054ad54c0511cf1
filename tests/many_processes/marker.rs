//! The role of a marker: marks one id at a time, and measures how long each call waits.
//!
//! Owns the order of its calls. Now and then it looks a known id up, a random number of times, instead of
//! marking: a store that marks without a pause holds the write lock most of the time, one that marks now and
//! then has to get it first. A mortal one ends its process now and then in the moment in which a mark was acknowledged.

use std::thread;
use std::time::Duration;

use seen_store::{ErrorKind, SeenStore, Verdict};

use crate::child::{KNOWN, Me, die};
use crate::ledger::{Answer, Event, Line};
use crate::support_process::{Random, variable};

/// How many marks are made on average before a marker looks ids up, and how often it does so at most.
const MARKS_A_PAUSE: u64 = 8;
const LOOKUPS: u64 = 100;

/// How many marks a mortal marker's thread makes on average.
const MARKS_OF_A_LIFE: u64 = 60;

pub(crate) fn run(me: &Me) {
    let number = |name: &str| variable(name).parse::<u64>().unwrap();
    let (stores, threads) = (number("SEEN_STORES"), number("SEEN_THREADS"));
    let (is_mortal, is_rare) = (number("SEEN_MORTAL") == 1, number("SEEN_RARE") == 1);
    let stores: Vec<SeenStore> = (0..stores).map(|_| me.open()).collect();
    thread::scope(|scope| {
        for thread in 0..threads {
            let store = &stores[usize::try_from(thread).unwrap() % stores.len()];
            scope.spawn(move || Thread { me, store, number: thread, is_mortal, is_rare }.mark());
        }
    });
    // Of one store: while its index is in doubt, the figures take their time.
    let begun = me.ledger.begin();
    match stores[0].stats() {
        Ok(stats) => {
            me.ledger.write(&begun, &Event::Rebuilds { count: stats.since_opened.rebuilds });
        }
        Err(e) => me.failed(&begun, "stats", &e),
    }
    stores.iter().for_each(|store| me.close(store));
}

struct Thread<'m> {
    me: &'m Me,
    store: &'m SeenStore,
    number: u64,
    is_mortal: bool,
    is_rare: bool,
}

impl Thread<'_> {
    fn mark(&self) {
        let mut random = self.me.random(self.number);
        // An own id that the store was too busy for: it must be New the next time.
        let mut put_off = None;
        for round in 0_u64.. {
            if !self.me.goes_on() {
                return;
            }
            if self.is_rare {
                self.wait_for_a_batch();
            }
            let own = || format!("{}/{}/{round}", self.me.name, self.number);
            let (id, is_own) = match put_off.take() {
                Some(id) => (id, true),
                None => match random.below(8) {
                    0 | 1 => (self.me.shared_id(&mut random, "shared"), false),
                    2 => match self.me.id_of_another() {
                        Some(id) => (id, false),
                        None => (own(), true),
                    },
                    _ => (own(), true),
                },
            };
            match self.check(&id, &mut random) {
                Some(Answer::Busy) if is_own => put_off = Some(id),
                Some(Answer::Duplicate) if is_own => {
                    self.me.wrong(format!("{id} was never marked and is a Duplicate"));
                }
                _ => {}
            }
            self.look_up(&mut random);
        }
    }

    fn check(&self, id: &str, random: &mut Random) -> Option<Answer> {
        let begun = self.me.ledger.begin();
        let answer = match self.store.check_and_mark(id) {
            Ok(Verdict::New) => Answer::New,
            Ok(Verdict::Duplicate) => Answer::Duplicate,
            Ok(verdict) => {
                self.me.wrong(format!("{id}, which is never claimed, is {verdict:?}"));
                return None;
            }
            Err(e) if e.kind() == ErrorKind::Busy => Answer::Busy,
            Err(e) => {
                self.me.failed(&begun, "check_and_mark", &e);
                return None;
            }
        };
        self.me.ledger.write(&begun, &Event::Mark { id: id.to_owned(), answer });
        if self.is_mortal && answer == Answer::New && random.below(MARKS_OF_A_LIFE) == 0 {
            die();
        }
        Some(answer)
    }

    fn wait_for_a_batch(&self) {
        let from = self.me.ledger.bytes();
        let is_batch = |line: &Line| matches!(line.event, Event::Batch { .. });
        while !self.me.is_told_to_end() && !self.me.ledger.read(from).0.iter().any(is_batch) {
            // What it waits for is the work of other processes, which need the processor.
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn look_up(&self, random: &mut Random) {
        if random.below(MARKS_A_PAUSE) > 0 {
            return;
        }
        for _ in 0..random.below(LOOKUPS) {
            match self.store.try_is_seen(KNOWN) {
                Ok(true) => {}
                Ok(false) => self.me.wrong(format!("{KNOWN} is not seen")),
                Err(e) => self.me.failed(&self.me.ledger.begin(), "try_is_seen", &e),
            }
        }
        let Some(id) = self.me.id_of_another() else { return };
        if let Ok(false) = self.store.try_is_seen(&id) {
            self.me.wrong(format!("{id} was acknowledged to another process and is not seen"));
        }
    }
}
