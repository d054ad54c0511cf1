//! Several stores on one file, asleep, waking and awake, do anything in any order. What each answers is compared with what
//! the table says: the newest row of an id decides.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;

use rusqlite::Connection;
use seen_store::{
    Claim, Clock as _, Config, ErrorKind, Filter, IndexMode, ManualClock, Reader, SeenStore, State,
    Verdict,
};

use crate::common::{Place, clock_and_config, ms, secs, unix_ms};
use crate::place;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n as u64) as usize
    }
}

const SCOPES: [&str; 3] = ["", "a", "b"];
const MODES: [IndexMode; 3] = [IndexMode::Asleep, IndexMode::Wakes, IndexMode::Awake];

struct World {
    place: Place,
    clock: Arc<ManualClock>,
    config: Config,
    stores: Vec<SeenStore>,
    sql: Connection,
    random: Random,
    ids: usize,
    backup: Option<PathBuf>,
    log: Vec<String>,
    made: usize,
    may_go_back: bool,
}

type Seen = BTreeSet<(String, String)>;

impl World {
    fn new(seed: u64, ids: usize, may_go_back: bool) -> Self {
        let place = place();
        let (clock, config) = clock_and_config();
        let config = config.ttl(secs(600)).purge_interval(None);
        let stores = (0..3).map(|n| place.open(config.clone().index(MODES[n]))).collect();
        let sql = place.sql();
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self {
            place,
            clock,
            config,
            stores,
            sql,
            random,
            ids,
            backup: None,
            log: vec![],
            made: 0,
            may_go_back,
        }
    }

    fn now_ms(&self) -> i64 {
        unix_ms(self.clock.now())
    }

    fn oracle(&self) -> Seen {
        let mut statement = self
            .sql
            .prepare_cached("SELECT scope, id, expires_at, max(seq) FROM seen GROUP BY scope, id")
            .unwrap();
        let now_ms = self.now_ms();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<i64>>(2)?)));
        rows.unwrap()
            .map(Result::unwrap)
            .filter(|(_, _, at)| at.is_none_or(|at| now_ms < at))
            .map(|(scope, id, _): (String, String, _)| (scope, id))
            .collect()
    }

    fn pick(&mut self) -> (usize, String, String) {
        let n = self.random.below(self.stores.len());
        let scope = SCOPES[self.random.below(SCOPES.len())].to_owned();
        (n, scope, format!("id-{}", self.random.below(self.ids)))
    }

    fn note(&mut self, what: String) {
        self.log.push(what);
    }

    /// A mark that another store has removed may be seen for 100 ms.
    fn check(&self, n: usize, scope: &str, id: &str) {
        let expected = self.oracle().contains(&(scope.to_owned(), id.to_owned()));
        let store = self.stores[n].scope(scope);
        let seen = store.try_is_seen(id).unwrap();
        if seen == expected {
            return;
        }
        if seen {
            sleep(ms(130));
            if store.try_is_seen(id).unwrap() == expected {
                return;
            }
        }
        let rows: Vec<_> = crate::common::rows(&self.sql)
            .into_iter()
            .filter(|row| row.scope == scope && row.id == id.to_owned().into())
            .collect();
        let runs: Vec<(i64, i64, i64, i64)> = self
            .sql
            .prepare("SELECT run, state, after, last FROM runs")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        self.fail(&format!(
            "store {n}: {scope}/{id} is seen: {seen}, expected {expected}; now {}, rows {rows:?}, runs {runs:?}, \
             got {:?}, again {:?}, clock in the file {:?}",
            self.now_ms(),
            store.get(id),
            store.try_is_seen(id),
            self.sql.query_row("SELECT value FROM meta WHERE key = 'clock'", [], |row| row.get::<_, i64>(0))
        ));
    }

    fn fail(&self, what: &str) -> ! {
        let from = self.log.len().saturating_sub(60);
        panic!("{what}\n{}", self.log[from..].join("\n"));
    }

    fn check_all(&self) {
        sleep(ms(130));
        let expected = self.oracle();
        let reader = Reader::open_with(self.place.path(), self.config.clone()).unwrap();
        for (n, store) in self.stores.iter().enumerate() {
            let mut listed = Seen::new();
            for entry in store.entries(Filter::default().state(State::Seen)) {
                let entry = entry.unwrap();
                let id = String::from_utf8(entry.id).unwrap();
                if !listed.insert((entry.scope.clone(), id.clone())) {
                    self.fail(&format!("store {n} lists {id} twice"));
                }
            }
            if listed != expected {
                let (more, less): (Vec<_>, Vec<_>) = (
                    listed.difference(&expected).collect(),
                    expected.difference(&listed).collect(),
                );
                self.fail(&format!("store {n} lists {more:?} more, and {less:?} not"));
            }
            let mut problems = store.verify().unwrap().problems;
            if problems.iter().all(|problem| problem.contains("compact the store")) {
                // The damage was told, and compacting mends it.
                while store.compact().is_err_and(|e| e.kind() == ErrorKind::Busy) {}
                problems = store.verify().unwrap().problems;
            }
            if !problems.is_empty() && !self.may_go_back {
                self.fail(&format!("store {n}: {problems:?}"));
            }
            for scope in SCOPES {
                for id in 0..self.ids {
                    let id = format!("id-{id}");
                    let is_expected = expected.contains(&(scope.to_owned(), id.clone()));
                    if store.scope(scope).try_is_seen(&id).unwrap() != is_expected {
                        self.fail(&format!("store {n}: {scope}/{id}, expected {is_expected}"));
                    }
                    let got = store.scope(scope).get(&id).unwrap();
                    let is_seen = got.is_some_and(|entry| entry.state == State::Seen);
                    if is_seen != is_expected {
                        self.fail(&format!("store {n}: get {scope}/{id}, expected {is_expected}"));
                    }
                }
            }
        }
        for scope in SCOPES {
            let reader = reader.scope(scope);
            for id in 0..self.ids {
                let id = format!("id-{id}");
                let is_expected = expected.contains(&(scope.to_owned(), id.clone()));
                if reader.try_is_seen(&id).unwrap() != is_expected {
                    self.fail(&format!("reader: {scope}/{id}, expected {is_expected}"));
                }
            }
        }
        let problems = reader.verify().unwrap().problems;
        // A row that lives again beside a newer one of its id, as the clock went back, is told.
        if !problems.is_empty() && !self.may_go_back {
            self.fail(&format!("{problems:?}"));
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each verb")]
    fn step(&mut self, may_go_back: bool) {
        let (n, scope, id) = self.pick();
        let before = self.oracle();
        let was_seen = before.contains(&(scope.clone(), id.clone()));
        let handle = self.stores[n].scope(&scope);
        let kind = self.random.below(100);
        self.note(format!("{kind}: store {n} {scope}/{id} (seen {was_seen}) at {}", self.now_ms()));
        match kind {
            0..25 => {
                let ttl = [secs(1), secs(60), secs(600), secs(100_000)][self.random.below(4)];
                handle.ttl(ttl).mark_seen(&id).unwrap();
            }
            25..45 => {
                let verdict = handle.check_and_mark(&id).unwrap();
                if verdict == Verdict::New && was_seen {
                    self.fail("a seen id was new");
                }
            }
            45..55 => {
                handle.forget(&id).unwrap();
            }
            55..62 => {
                let ids: Vec<_> = (0..self.random.below(30)).map(|_| self.pick().2).collect();
                let verdicts = handle.check_and_mark_all(&ids).unwrap();
                for (id, verdict) in ids.iter().zip(verdicts) {
                    let was_seen = before.contains(&(scope.clone(), id.clone()));
                    if was_seen && verdict == Verdict::New {
                        self.fail(&format!("{id} of a batch was new"));
                    }
                }
            }
            // A claim that was made while a mark had expired stands beside it when the clock goes back.
            62..66 if !may_go_back => {
                if let Claim::Granted(mut lease) = handle.claim(&id, secs(30)).unwrap() {
                    if was_seen {
                        self.fail("a seen id was granted");
                    }
                    if self.random.below(2) == 0 {
                        lease.confirm().unwrap();
                    } else {
                        lease.fail("no").unwrap();
                    }
                }
            }
            66..69 => {
                handle.purge_expired().unwrap();
            }
            69..71 => {
                handle.cleanup_old_entries(secs(300)).unwrap();
            }
            71..72 => {
                handle.remove(Filter::default().prefix("id-1")).unwrap();
            }
            72..80 => {
                self.clock.advance([ms(10), secs(1), secs(100), secs(700)][self.random.below(4)]);
                // A store that did nothing at the later time does not notice what was purged then.
                for store in &self.stores {
                    store.try_is_seen("no").unwrap();
                }
            }
            80..82 if may_go_back => {
                let now = self.clock.now();
                self.clock.set(now - [secs(70), secs(500), secs(5_000)][self.random.below(3)]);
            }
            82..88 => {
                let mode = MODES[self.random.below(3)];
                if self.random.below(2) == 0 {
                    self.stores[n].close().unwrap();
                }
                self.stores[n] = self.place.open(self.config.clone().index(mode));
                self.note(format!("opened again as {mode:?}"));
            }
            88..90 => {
                self.made += 1;
                let copy = self.place.folder().join(format!("copy-{}", self.made));
                handle.backup(&copy).unwrap();
                self.backup = Some(copy);
            }
            90..91 => {
                if let Some(copy) = &self.backup {
                    let progress = None::<fn(rusqlite::backup::Progress)>;
                    loop {
                        match self.sql.restore("main", copy, progress) {
                            Ok(()) => break,
                            Err(_) => sleep(ms(2)),
                        }
                    }
                    sleep(ms(130));
                }
            }
            91..93 => match handle.compact() {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Busy => {}
                // The runs are damaged: the next one makes them anew.
                Err(e) if e.kind() == ErrorKind::Corrupt => handle.compact().unwrap(),
                Err(e) => self.fail(&format!("compact: {e}")),
            },
            93..94 => {
                let damages = [
                    "DELETE FROM blocks",
                    "UPDATE blocks SET entries = zeroblob(length(entries))",
                    "DELETE FROM runs; DELETE FROM blocks; DELETE FROM counts",
                    "UPDATE runs SET last = last + 1",
                ];
                self.sql.execute_batch(damages[self.random.below(damages.len())]).unwrap();
            }
            _ => {
                for _ in 0..10 {
                    let (n, scope, id) = self.pick();
                    self.check(n, &scope, &id);
                }
            }
        }
        let (n, scope, id) = self.pick();
        self.check(n, &scope, &id);
    }
}

fn run(seeds: std::ops::Range<u64>, steps: usize, may_go_back: bool) {
    for seed in seeds {
        eprintln!("seed {seed}");
        let mut world = World::new(seed, [12, 40, 120][(seed % 3) as usize], may_go_back);
        for step in 0..steps {
            world.step(may_go_back);
            if step % 150 == 149 {
                world.check_all();
            }
        }
        world.check_all();
    }
}

fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let given = std::env::var("SEEDS").ok();
    let parsed = given
        .as_deref()
        .and_then(|it| it.split_once(".."))
        .map(|(from, to)| from.parse().unwrap()..to.parse().unwrap());
    parsed.unwrap_or(usual)
}

#[test]
fn stores_asleep_and_awake_agree_with_the_table() {
    run(seeds(1..4), 300, false);
}

#[test]
fn stores_asleep_and_awake_agree_with_the_table_when_the_clock_goes_back() {
    run(seeds(100..103), 300, true);
}
