//! Claims of real processes that are killed, stopped and replaced. The time of day is the system's.

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, SystemTime};

use seen_store::{Claim, Config, ErrorKind, Lease, SeenStore, Token};

use crate::common::{Place, ms};
use crate::support_process::{Child, Random, lines, role, say, variable};

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("worker") => work(),
        Some("crowd") => crowd(),
        Some(role) => panic!("unknown role {role:?}"),
    }
}

/// Holds one claim and does with it what it is told.
fn work() {
    let store = SeenStore::open(variable("SEEN_PATH")).unwrap();
    let mut held = None;
    for line in lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["claim", id, lease_ms] = words[..] {
            held = match store.claim(id, ms(lease_ms.parse().unwrap())).unwrap() {
                Claim::Granted(lease) => {
                    say(format!("granted {} {}", lease.attempt(), lease.token()));
                    Some(lease)
                }
                other => {
                    say(format!("{other:?}"));
                    None
                }
            };
            continue;
        }
        let lease: &mut Lease = held.as_mut().expect("claimed before");
        let done = match words[..] {
            ["confirm"] => lease.confirm(),
            ["receipt"] => lease.confirm_with("receipt"),
            ["renew"] => lease.renew(ms(60_000)),
            ["release"] => lease.release(),
            ["fail"] => lease.fail("told to"),
            ["confirm-and-die"] => {
                lease.confirm_with("receipt").unwrap();
                // SAFETY: ends this very process, with no destructor run and nothing said.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                unreachable!("killed")
            }
            _ => panic!("unknown command {line:?}"),
        };
        say(done.map_or_else(|e| format!("{:?}", e.kind()), |()| "ok".to_owned()));
    }
}

struct Worker(Child);

impl Worker {
    fn on(path: &Path) -> Self {
        Self(Child::spawn("worker", &[("SEEN_PATH", path)]))
    }

    /// Claims the id, which must be free, as this attempt.
    fn claim(&mut self, id: &str, lease: Duration, attempt: u32) -> Token {
        let said = self.0.ask(&format!("claim {id} {}", lease.as_millis()));
        let token = said.strip_prefix(&format!("granted {attempt} "));
        token.unwrap_or_else(|| panic!("instead of attempt {attempt}: {said}")).parse().unwrap()
    }
}

/// Claims the id as soon as whoever has it has let its lease run out, and not before.
fn claim_after_lease(store: &SeenStore, id: &str) -> Lease {
    let ends = store.get(id).unwrap().unwrap().lease_until.unwrap();
    loop {
        match store.claim(id, ms(60_000)).unwrap() {
            Claim::Granted(lease) => {
                // The lease of the new claim begins at the moment of the decision.
                assert!(lease.expires_at() - ms(60_000) >= ends, "granted before {ends:?}");
                return lease;
            }
            Claim::InFlight { until, .. } => assert_eq!(until, ends),
            other => panic!("{other:?}"),
        }
        // What is waited for here is the time of day itself.
        thread::sleep(ms(2));
    }
}

#[test]
fn after_a_crash_between_claim_and_confirm_the_id_is_anothers_once_the_lease_ends() {
    let place = Place::new();
    let store = place.open(Config::default());
    let mut dead = Worker::on(place.path());
    let token = dead.claim("a", ms(500), 1);
    dead.0.kill();
    let mut lease = claim_after_lease(&store, "a");
    assert_eq!(lease.attempt(), 2);
    assert_eq!(store.confirm("a", &token).unwrap_err().kind(), ErrorKind::LeaseLost);
    lease.confirm().unwrap();
}

#[test]
fn after_a_crash_between_a_confirms_commit_and_its_answer_the_id_is_seen() {
    let place = Place::new();
    let mut dead = Worker::on(place.path());
    let token = dead.claim("a", ms(60_000), 1);
    dead.0.tell("confirm-and-die");
    assert_eq!(dead.0.hear(), None, "it dies before it answers");
    let mut next = Worker::on(place.path());
    assert!(next.0.ask("claim a 1000").starts_with("Seen"));
    let store = place.open(Config::default());
    assert!(matches!(store.claim("a", ms(1)).unwrap(), Claim::Seen(_)));
    // Whoever does not know whether it was confirmed may do it again.
    store.confirm("a", &token).unwrap();
    store.confirm_with("a", &token, "another receipt").unwrap();
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!((entry.attempts, entry.receipt.as_deref()), (1, Some(&b"receipt"[..])));
}

#[test]
fn a_holder_that_was_paused_past_its_lease_is_told_by_every_verb_when_it_wakes() {
    let place = Place::new();
    let store = place.open(Config::default());
    let verbs = ["confirm", "receipt", "renew", "release", "fail"];
    let mut holders = verbs.map(|verb| {
        let mut holder = Worker::on(place.path());
        let token = holder.claim(verb, ms(500), 1);
        holder.0.stop();
        (holder, token)
    });
    for (verb, (holder, token)) in verbs.into_iter().zip(&mut holders) {
        let mut taker = claim_after_lease(&store, verb);
        holder.0.go_on();
        assert_eq!(holder.0.ask(verb), "LeaseLost", "{verb}, while the taker holds it");
        taker.confirm_with("the taker's").unwrap();
        assert_eq!(holder.0.ask(verb), "LeaseLost", "{verb}, after the taker has confirmed");
        assert_eq!(store.confirm(verb, token).unwrap_err().kind(), ErrorKind::LeaseLost);
        let entry = store.get(verb).unwrap().unwrap();
        assert_eq!((entry.attempts, entry.receipt.as_deref()), (2, Some(&b"the taker's"[..])));
        assert_eq!(entry.last_error, None);
    }
}

#[test]
fn a_holder_that_was_paused_past_its_lease_and_not_taken_over_confirms_when_it_wakes() {
    let place = Place::new();
    let mut holder = Worker::on(place.path());
    holder.claim("a", ms(1), 1);
    holder.0.stop();
    let store = place.open(Config::default());
    let ends = store.get("a").unwrap().unwrap().lease_until.unwrap();
    while !has_passed(ends) {
        thread::sleep(ms(1));
    }
    holder.0.go_on();
    assert_eq!(holder.0.ask("confirm"), "ok");
    assert!(store.is_seen("a"));
}

#[expect(clippy::disallowed_methods, reason = "the clock that the processes go by")]
fn has_passed(time: SystemTime) -> bool {
    SystemTime::now() > time
}

const IDS: usize = 1_000;
const PROCESSES: usize = 4;
const THREADS: usize = 8;
/// Long enough for a claim that waits for its turn on a busy machine, most of the time. Where it is
/// not, the claim is lost and told to be; that is no failure.
const LEASE: Duration = Duration::from_millis(400);

/// Eight threads that claim all ids, each in an order of its own, and go on until every id is seen.
/// Each says what it was granted, waits for its parent to say "go on", confirms, and says what came
/// of it.
fn crowd() {
    let store = SeenStore::open(variable("SEEN_PATH")).unwrap();
    let mut random = Random(variable("SEEN_SEED").parse().unwrap());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (store, mut random) = (&store, Random(random.below(u64::MAX)));
            scope.spawn(move || {
                let mut left: Vec<usize> = (0..IDS).collect();
                while !left.is_empty() {
                    let n = usize::try_from(random.below(left.len() as u64)).unwrap();
                    match store.claim(left[n].to_string(), LEASE).unwrap() {
                        Claim::Granted(lease) => confirm_when_told(left[n], lease),
                        Claim::Seen(_) => drop(left.swap_remove(n)),
                        // Nothing but the claims of others is left to this thread: it waits for
                        // their end, which may be a lease's.
                        _ if left.len() <= PROCESSES * THREADS => thread::sleep(ms(1)),
                        _ => {}
                    }
                }
            });
        }
    });
    store.close().unwrap();
    say("done");
}

fn confirm_when_told(id: usize, mut lease: Lease) {
    say(format!("granted {id} {}", lease.token()));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let answer = match lease.confirm() {
        Ok(()) => "confirmed",
        Err(e) if e.kind() == ErrorKind::LeaseLost => "lost",
        Err(e) => panic!("{e}"),
    };
    say(format!("{answer} {id} {}", lease.token()));
}

/// What the processes of one place have said, one after the other: ids and tokens.
#[derive(Default)]
struct Heard {
    /// Granted, and nothing was said of what came of it: by processes that were killed.
    unanswered: BTreeSet<(usize, String)>,
    confirmed: Vec<(usize, String)>,
    lost: Vec<(usize, String)>,
    done: bool,
}

impl Heard {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, id, token] = words[..] else {
            assert_eq!(line, "done");
            self.done = true;
            return;
        };
        let claim = (id.parse().unwrap(), token.to_owned());
        if what == "granted" {
            assert!(self.unanswered.insert(claim), "a token was granted twice");
            return;
        }
        assert!(self.unanswered.remove(&claim), "answered without a grant: {line}");
        let answers = if what == "confirmed" { &mut self.confirmed } else { &mut self.lost };
        answers.push(claim);
    }
}

/// At most so many claims are granted to the processes of a place between two accidents.
const GRANTS: u64 = 60;

/// What the places of the crowd share.
struct Accidents<'a> {
    path: &'a Path,
    store: &'a SeenStore,
    kills: AtomicUsize,
    /// Held while a process is stopped: the others must go on, to take its claims over.
    one_stopped: Mutex<()>,
}

impl Accidents<'_> {
    /// Keeps one place filled until a process there has seen every id. The first accident is that the
    /// process is stopped until another has taken its claim over, the others that it is killed:
    /// before a claim is confirmed, or while it is being confirmed.
    fn happen(&self, mut random: Random) -> Heard {
        let mut heard = Heard::default();
        let (mut grants_left, mut was_stopped) = (random.below(GRANTS), false);
        while !heard.done {
            let seed = random.below(u64::MAX).to_string();
            let variables = [("SEEN_PATH", self.path.as_os_str()), ("SEEN_SEED", seed.as_ref())];
            let mut process = Child::spawn("crowd", &variables);
            while let Some(line) = process.hear() {
                heard.note(&line);
                let Some(granted) = line.strip_prefix("granted ") else { continue };
                if grants_left > 0 {
                    grants_left -= 1;
                    process.tell("go on");
                    continue;
                }
                grants_left = random.below(GRANTS);
                if !was_stopped && let Ok(_one) = self.one_stopped.try_lock() {
                    // So that it lives to tell what came of it.
                    grants_left += 2 * THREADS as u64;
                    process.stop();
                    was_stopped = self.another_takes(granted.split(' ').next().unwrap());
                    process.go_on();
                    process.tell("go on");
                    continue;
                }
                if random.below(3) > 0 {
                    process.tell("go on");
                }
                for last_words in process.kill() {
                    heard.note(&last_words);
                }
                self.kills.fetch_add(1, SeqCst);
            }
        }
        heard
    }

    /// False when nobody does: the process was stopped in the midst of a commit, and all others wait
    /// for that.
    fn another_takes(&self, id: &str) -> bool {
        let attempt = || self.store.get(id).unwrap().map_or(0, |entry| entry.attempts);
        let first = attempt();
        (0..200).any(|_| {
            thread::sleep(ms(5));
            attempt() != first
        })
    }
}

#[test]
fn of_a_thousand_ids_each_is_confirmed_once_though_processes_are_killed_and_stopped() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let mut random = Random::new("of_a_thousand_ids_each_is_confirmed_once");
    let accidents = Accidents {
        path: place.path(),
        store: &store,
        kills: AtomicUsize::new(0),
        one_stopped: Mutex::new(()),
    };
    let all: Vec<Heard> = thread::scope(|scope| {
        let places: Vec<_> = (0..PROCESSES)
            .map(|_| {
                let random = Random(random.below(u64::MAX));
                scope.spawn(|| accidents.happen(random))
            })
            .collect();
        places.into_iter().map(|place| place.join().unwrap()).collect()
    });

    let sql = place.sql();
    let mut statement = sql.prepare("SELECT id, lower(hex(token)) FROM seen").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).unwrap();
    let mut file: BTreeMap<usize, String> = BTreeMap::new();
    for row in rows {
        let (id, token) = row.unwrap();
        assert!(file.insert(id.parse().unwrap(), token).is_none(), "{id} was confirmed twice");
    }
    assert_eq!(file.len(), IDS);
    let claims: i64 = sql.query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap();
    assert_eq!(claims, 0);

    let mut acknowledged = BTreeSet::new();
    let mut lost = 0;
    for heard in &all {
        for (id, token) in &heard.confirmed {
            assert!(acknowledged.insert(*id), "{id}: two confirms were acknowledged");
            assert_eq!(&file[id], token, "{id}: another claim's confirm is in the file");
        }
        for (id, token) in &heard.lost {
            assert_ne!(&file[id], token, "{id}: was told lost and is confirmed");
            lost += 1;
        }
    }
    // The others were confirmed by a process that was killed before it could say so.
    let silent: Vec<usize> = (0..IDS).filter(|id| !acknowledged.contains(id)).collect();
    for id in &silent {
        let claim = (*id, file[id].clone());
        assert!(all.iter().any(|heard| heard.unanswered.contains(&claim)), "{id}: by whom?");
    }
    let (kills, silent) = (accidents.kills.into_inner(), silent.len());
    println!("{kills} kills, {silent} confirmed by the killed without a word, {lost} leases lost");
    assert!(kills >= 8 && lost > 0, "too little happened");
    assert!(store.verify().unwrap().is_ok());
}
