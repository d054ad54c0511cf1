//! With the usual sizes, each test in a process of its own: what things cost, and how long others wait.

#![expect(clippy::disallowed_methods, reason = "times and waits are measured")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use seen_store::{Config, IndexMode, SeenStore, Ttl};

use crate::common::{Place, ms, secs};
use crate::{USUAL, asleep, id, wakes};

/// Runs the calling test again in a process with the usual sizes; returns true there.
fn is_usual(name: &str) -> bool {
    if std::env::var_os(USUAL).is_some() {
        return true;
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("usual::{name}"), "--nocapture", "--include-ignored"])
        .env(USUAL, "1")
        .env_remove("SEEN_SMALL_INDEX")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    let said: Vec<_> = said.lines().filter(|line| line.starts_with("= ")).collect();
    eprintln!("{}", said.join("\n"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    false
}

fn config() -> Config {
    Config::default().ttl(Ttl::Never)
}

fn many(place: &Place, count: usize) {
    let store = place.open(config());
    store.seed((0..count).map(id)).unwrap();
    store.close().unwrap();
}

/// Marks single ids in another store until told to stop; returns the longest wait and how many.
struct Beside {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(Duration, usize)>,
}

impl Beside {
    fn start(place: &Place, mode: IndexMode) -> Self {
        Self::with(place.open(config().index(mode)))
    }

    fn with(store: SeenStore) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut longest, mut count) = (Duration::ZERO, 0);
            while !is_stopped.load(SeqCst) {
                let begun = Instant::now();
                store.mark_seen(format!("beside-{count}")).unwrap();
                longest = longest.max(begun.elapsed());
                count += 1;
                thread::sleep(ms(1));
            }
            (longest, count)
        });
        thread::sleep(ms(50));
        Self { stop, thread }
    }

    fn stop(self) -> (Duration, usize) {
        self.stop.store(true, SeqCst);
        self.thread.join().unwrap()
    }
}

const THROWN_AWAY: &str = "DELETE FROM runs; DELETE FROM blocks; DELETE FROM counts";

#[test]
#[ignore = "takes long, and measures"]
fn a_mark_does_not_wait_for_a_store_that_opens_a_file_without_runs() {
    if !is_usual("a_mark_does_not_wait_for_a_store_that_opens_a_file_without_runs") {
        return;
    }
    let place = Place::in_ram();
    many(&place, 1_500_000);
    let beside = place.open(config().index(IndexMode::Awake));
    place.sql().execute_batch(THROWN_AWAY).unwrap();
    let beside = Beside::with(beside);
    let begun = Instant::now();
    let store = place.open(config());
    let opened = begun.elapsed();
    let (longest, count) = beside.stop();
    eprintln!("= opened in {opened:?}; a mark beside it waited {longest:?} ({count} marks)");
    drop(store);
    // DESIGN.md: about 0.3 s for a million ids, once.
    assert!(longest < secs(10));
}

#[test]
#[ignore = "takes long, and measures"]
fn damage_that_is_found_asleep_costs_one_reading_of_the_file() {
    if !is_usual("damage_that_is_found_asleep_costs_one_reading_of_the_file") {
        return;
    }
    let place = Place::in_ram();
    many(&place, 1_500_000);
    let reading = Instant::now();
    drop(place.open(config().index(IndexMode::Awake)));
    let reading = reading.elapsed();
    let store = place.open(asleep(config()));
    assert!(store.is_seen(id(5)));
    place
        .sql()
        .execute_batch("UPDATE blocks SET entries = zeroblob(length(entries)) WHERE place % 7 = 0")
        .unwrap();
    let mut longest = Duration::ZERO;
    let mut memory = 0;
    for n in 0..2_000 {
        let begun = Instant::now();
        assert!(store.try_is_seen(id(n * 700)).unwrap());
        longest = longest.max(begun.elapsed());
        memory = memory.max(store.stats().unwrap().memory_bytes);
        thread::sleep(ms(1));
    }
    eprintln!(
        "= a lookup waited {longest:?}, opening awake takes {reading:?}, memory {memory}, then {}",
        store.stats().unwrap().memory_bytes
    );
    assert!(longest < reading * 2 + ms(100));
}

#[test]
#[ignore = "takes long, and measures"]
fn a_mark_does_not_wait_for_a_store_that_closes_with_much_to_merge() {
    if !is_usual("a_mark_does_not_wait_for_a_store_that_closes_with_much_to_merge") {
        return;
    }
    let place = Place::in_ram();
    let store = place.open(config());
    let begun = Instant::now();
    let mut at = 0;
    while begun.elapsed() < secs(8) {
        store.seed((at..at + 10_000).map(id)).unwrap();
        at += 10_000;
    }
    let beside = Beside::start(&place, IndexMode::Asleep);
    let closing = Instant::now();
    store.close().unwrap();
    let closed = closing.elapsed();
    let (longest, count) = beside.stop();
    eprintln!(
        "= {at} ids in {:?}; closed in {closed:?}; a mark beside it waited {longest:?} ({count} marks)",
        begun.elapsed()
    );
    assert!(longest < ms(500));
}

#[test]
#[ignore = "takes long, and measures"]
fn opening_takes_no_longer_with_many_scopes() {
    if !is_usual("opening_takes_no_longer_with_many_scopes") {
        return;
    }
    let mut took = Vec::new();
    for scopes in [1, 200_000] {
        let place = Place::in_ram();
        let store = place.open(config());
        let entries = (0..200_000).map(|n| (format!("scope-{}", n % scopes), id(n)));
        let by_scope = entries;
        for (scope, id) in by_scope {
            store.scope(&scope).mark_seen(&id).unwrap();
        }
        store.close().unwrap();
        let begun = Instant::now();
        for _ in 0..10 {
            let store = place.open(config());
            assert!(store.scope("scope-0").is_seen(id(0)));
            store.close().unwrap();
        }
        took.push(begun.elapsed() / 10);
    }
    eprintln!("= open, ask, close: {took:?}");
    assert!(took[1] < took[0] * 3 + ms(3), "{took:?}");
}

#[test]
#[ignore = "takes long, and measures"]
fn many_short_lived_stores_stay_fast() {
    if !is_usual("many_short_lived_stores_stay_fast") {
        return;
    }
    let place = Place::in_ram();
    let mut took = Vec::new();
    for n in 0..1_000 {
        let begun = Instant::now();
        let store = place.open(config());
        store.seed((n * 100..n * 100 + 100).map(id)).unwrap();
        store.close().unwrap();
        took.push(begun.elapsed());
    }
    let median = |part: &[Duration]| {
        let mut part = part.to_vec();
        part.sort();
        (part[part.len() / 2], part[part.len() - 1])
    };
    let figures: Vec<_> = took.chunks(200).map(median).collect();
    let runs: i64 =
        place.sql().query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap();
    eprintln!("= (median, longest) of each 200 openings: {figures:?}; {runs} runs");
    assert!(figures[4].0 < figures[0].0 * 3, "{figures:?}");
}

#[test]
#[ignore = "takes long, and measures"]
fn many_short_lived_processes_that_never_close_stay_fast() {
    if !is_usual("many_short_lived_processes_that_never_close_stay_fast") {
        return;
    }
    let place = Place::in_ram();
    let mut took = Vec::new();
    for n in 0..1_000 {
        let begun = Instant::now();
        let store = SeenStore::open_with(place.path(), config()).unwrap();
        store.seed((n * 100..n * 100 + 100).map(id)).unwrap();
        took.push(begun.elapsed());
        // As near to a kill as a process can be to itself: a transaction of another connection keeps the close from
        // writing.
        let sql = place.sql();
        sql.execute_batch("BEGIN IMMEDIATE").unwrap();
        drop(store);
        sql.execute_batch("ROLLBACK").unwrap();
    }
    let median = |part: &[Duration]| {
        let mut part = part.to_vec();
        part.sort();
        (part[part.len() / 2], part[part.len() - 1])
    };
    let figures: Vec<_> = took.chunks(100).map(median).collect();
    let runs: i64 =
        place.sql().query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap();
    eprintln!("= (median, longest) of each 100 openings: {figures:?}; {runs} runs");
    // As long as reading a tail of 65,536 rows takes.
    assert!(figures.iter().all(|(median, _)| *median < ms(100)), "{figures:?}");
}

#[test]
#[ignore = "takes long, and measures"]
fn ids_of_64_kib_are_written_to_runs_beside_a_mark() {
    if !is_usual("ids_of_64_kib_are_written_to_runs_beside_a_mark") {
        return;
    }
    let place = Place::in_ram();
    let store = place.open(config());
    let beside = Beside::start(&place, IndexMode::Wakes);
    let long = |n: usize| format!("{n:010}{}", "x".repeat(65_526));
    let most = std::env::var("MOST").map_or(6_000, |most| most.parse().unwrap());
    for some in (0..most).collect::<Vec<_>>().chunks(200) {
        store.seed(some.iter().map(|n| long(*n))).unwrap();
    }
    let filled = beside.stop();
    let beside = Beside::start(&place, IndexMode::Wakes);
    let begun = Instant::now();
    store.close().unwrap();
    let closed = begun.elapsed();
    thread::sleep(secs(1));
    let closing = beside.stop();
    eprintln!(
        "= a mark waited {filled:?} while it was filled, {closing:?} while it was closed, in {closed:?}"
    );
    let store = place.open(asleep(config()));
    for n in (0..6_000).step_by(500) {
        assert!(store.try_is_seen(long(n)).unwrap());
        assert!(!store.try_is_seen(long(n + 10_000)).unwrap());
    }
    assert!(filled.0 < ms(500) && closing.0 < ms(500));
}

#[test]
#[ignore = "takes long, and measures"]
fn the_memory_of_a_store_that_stays_asleep_is_bounded() {
    if !is_usual("the_memory_of_a_store_that_stays_asleep_is_bounded") {
        return;
    }
    let place = Place::in_ram();
    many(&place, 600_000);
    let store = place.open(asleep(config()));
    let other = place.open(config());
    let mut most = 0;
    for n in 0..60 {
        for some in 0..1_000 {
            assert!(store.try_is_seen(id(n * 10_000 + some * 10)).unwrap());
            assert!(!store.try_is_seen(format!("no-{n}-{some}")).unwrap());
        }
        other.seed((0..3_000).map(|it| format!("other-{n}-{it}"))).unwrap();
        store.seed((0..3_000).map(|it| format!("own-{n}-{it}"))).unwrap();
        most = most.max(store.stats().unwrap().memory_bytes);
    }
    eprintln!("= at most {most} bytes");
    assert!(most < 12_000_000, "{most}");
}

#[test]
#[ignore = "takes long, and measures"]
fn runs_stay_few_beside_stores_that_write_at_full_speed() {
    if !is_usual("runs_stay_few_beside_stores_that_write_at_full_speed") {
        return;
    }
    let place = Place::in_ram();
    many(&place, 20_000);
    let stop = AtomicBool::new(false);
    thread::scope(|threads| {
        for n in 0..2 {
            let (place, stop) = (&place, &stop);
            threads.spawn(move || {
                let store = place.open(config());
                let mut k = 0;
                while !stop.load(SeqCst) {
                    store.mark_seen(format!("{n}-{k}")).unwrap();
                    store.mark_seen(format!("hot-{n}-{}", k % 1_000)).unwrap();
                    k += 1;
                }
                eprintln!("= {k} pairs of marks");
            });
        }
        let store = place.open(asleep(config()));
        let mut longest = Duration::ZERO;
        for round in 0..6 {
            let begun = Instant::now();
            let (mut sum, mut count) = (Duration::ZERO, 0);
            while begun.elapsed() < ms(1_500) {
                let asked = Instant::now();
                assert!(store.try_is_seen(id(count * 37 % 20_000)).unwrap());
                assert!(!store.try_is_seen(format!("no-{round}-{count}")).unwrap());
                (sum, count) = (sum + asked.elapsed(), count + 1);
                longest = longest.max(asked.elapsed());
            }
            let runs: i64 =
                place.sql().query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap();
            eprintln!("= {runs} runs, {:?} for two lookups", sum / u32::try_from(count).unwrap());
            assert!(runs < 16, "{runs} runs");
        }
        let begun = Instant::now();
        let listed = store.entries(seen_store::Filter::default()).map(Result::unwrap).count();
        eprintln!("= longest {longest:?}; listed {listed} in {:?}", begun.elapsed());
        stop.store(true, SeqCst);
    });
}

/// Returns the length of the tail, and the number of runs.
fn tail_and_runs(place: &Place) -> (i64, i64) {
    let figures = "SELECT (SELECT max(seq) FROM seen) - (SELECT ifnull(max(last), 0) FROM runs WHERE state = 1), \
                          (SELECT count(*) FROM runs)";
    place.sql().query_row(figures, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[test]
fn what_is_left_beside_long_batches_is_done_once_they_pause() {
    if !is_usual("what_is_left_beside_long_batches_is_done_once_they_pause") {
        return;
    }
    let place = Place::in_ram();
    let store = place.open(config());
    for batch in 0..60 {
        store.seed((batch * 10_000..batch * 10_000 + 10_000).map(id)).unwrap();
    }
    let left = tail_and_runs(&place);
    let begun = Instant::now();
    while let (tail, runs) = tail_and_runs(&place)
        && (tail >= 4_096 || runs >= 8)
    {
        assert!(begun.elapsed() < secs(60), "a tail of {tail} rows and {runs} runs are left");
        thread::sleep(ms(50));
    }
    eprintln!(
        "= (tail, runs): {left:?}, and {:?} later {:?}",
        begun.elapsed(),
        tail_and_runs(&place)
    );
}

#[test]
fn a_store_wakes_beside_batches() {
    if !is_usual("a_store_wakes_beside_batches") {
        return;
    }
    let place = Place::in_ram();
    many(&place, 400_000);
    let store = place.open(config());
    let is_awake = || store.stats().unwrap().index_is_awake;
    assert!(!is_awake());
    // A 32nd of all, so that it begins to wake.
    for n in 0..12_600 {
        assert!(store.try_is_seen(id(n * 31)).unwrap());
    }
    let mut batches = 0;
    while !is_awake() {
        let first = 1_000_000 + batches * 10_000;
        store.seed((first..first + 10_000).map(id)).unwrap();
        batches += 1;
        assert!(batches < 100, "it is not awake");
    }
    eprintln!("= awake after {batches} batches of 10,000");
}

#[test]
fn a_store_that_only_reads_wakes_by_itself() {
    if !is_usual("a_store_that_only_reads_wakes_by_itself") {
        return;
    }
    let place = Place::in_ram();
    many(&place, 300_000);
    let store = place.open(config().read_only(true));
    // A 32nd of all lets it begin, and a step of the thread reads 1,000 rows.
    for n in 0..9_400 {
        assert!(store.try_is_seen(id(n * 31)).unwrap());
    }
    assert!(wakes(&store));
}

#[test]
fn a_store_that_only_reads_stays_asleep_beside_one_that_marks() {
    if !is_usual("a_store_that_only_reads_stays_asleep_beside_one_that_marks") {
        return;
    }
    let place = Place::in_ram();
    many(&place, 1_000);
    let reading = place.open(asleep(config().read_only(true)));
    let marking = place.open(config());
    let mut most = 0;
    for n in 0..60 {
        marking.seed((0..10_000).map(|it| format!("{n}-{it}"))).unwrap();
        assert!(reading.try_is_seen(format!("{n}-77")).unwrap());
        most = most.max(reading.stats().unwrap().memory_bytes);
    }
    eprintln!("= at most {most} bytes");
    assert!(most < 12_000_000, "{most}");
}

#[test]
#[ignore = "takes long, and measures"]
fn a_mark_does_not_wait_while_the_marks_of_many_scopes_are_counted() {
    if !is_usual("a_mark_does_not_wait_while_the_marks_of_many_scopes_are_counted") {
        return;
    }
    let place = Place::in_ram();
    let store = place.open(config());
    let beside = Beside::start(&place, IndexMode::Wakes);
    let scope = |n: usize| format!("{:0200}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    for n in 0..70_000 {
        store.scope(scope(n)).mark_seen("x").unwrap();
    }
    store.close().unwrap();
    let (longest, count) = beside.stop();
    let stats = place.open(config()).stats().unwrap();
    assert_eq!((stats.seen, stats.scopes.len()), (70_000 + count as u64, 0));
    eprintln!("= a mark waited {longest:?} ({count} marks)");
    assert!(longest < ms(500), "{longest:?}");
}
