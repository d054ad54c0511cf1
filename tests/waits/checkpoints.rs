//! The write-ahead log is copied into the file beside the callers, stays short, and goes when the store
//! closes.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "waits are measured")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use seen_store::{Config, SeenStore, Synchronous};

use crate::common::{Place, ms};
use crate::support_process::{Child, Random, role, say, variable};

const MIB: u64 = 1 << 20;

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("stream") => stream(),
        Some("writer") => {
            let store = SeenStore::open(variable("SEEN_PATH")).unwrap();
            let shares = variable("SEEN_SHARES").parse().unwrap();
            Rate::named(&variable("SEEN_WHAT")).write(&store, &variable("SEEN_TAG"), shares);
        }
        Some(role) => panic!("unknown role {role:?}"),
    }
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// How many threads of this process have the name.
fn threads_named(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|comm| comm.trim_end() == name)
        .count()
}

/// Marks `count` new ids by each of `threads`; how long the log was at most.
fn longest_log(place: &Place, config: Config, threads: u64, count: u64) -> u64 {
    let store = place.open(config);
    let (done, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Relaxed) {
                longest.fetch_max(bytes(&place.beside("-wal")), Relaxed);
                thread::sleep(Duration::from_micros(200));
            }
        });
        let marking: Vec<_> = (0..threads)
            .map(|thread| {
                let store = store.clone();
                scope.spawn(move || {
                    for number in 0..count {
                        store.mark_seen(format!("{thread}/{number}/of-some-length")).unwrap();
                    }
                })
            })
            .collect();
        for marking in marking {
            marking.join().unwrap();
        }
        done.store(true, Relaxed);
        watcher.join().unwrap();
    });
    assert_eq!(store.stats().unwrap().seen, threads * count);
    assert!(bytes(place.path()) > MIB, "nothing was copied into the file");
    store.close().unwrap();
    assert_eq!(place.files(), ["seen.db"], "side files were left behind");
    longest.into_inner()
}

#[test]
fn a_stream_of_marks_keeps_the_log_below_8_mib() {
    for (threads, count) in [(1, 30_000), (4, 10_000)] {
        let longest = longest_log(&Place::new(), Config::default(), threads, count);
        assert!(longest > MIB && longest <= 8 * MIB, "{threads} threads: {longest} bytes of log");
    }
}

/// How one of several stores writes.
#[derive(Clone, Copy, Debug)]
enum Rate {
    Marks,
    Batches,
}

impl Rate {
    fn named(name: &str) -> Self {
        if name == "Marks" { Self::Marks } else { Self::Batches }
    }

    /// Writes a share of what makes 20 MiB of log and more.
    fn write(self, store: &SeenStore, tag: &str, shares: usize) {
        match self {
            Self::Marks => {
                for number in 0..20_000 / shares {
                    store.mark_seen(format!("{tag}/{number}/of-some-length")).unwrap();
                }
            }
            Self::Batches => {
                for batch in 0..300 / shares {
                    let ids = (0..1_000).map(|n| format!("{tag}/{batch}/{n}/of-some-length"));
                    store.seed(ids).unwrap();
                }
            }
        }
    }
}

/// How long the log is at most while a store for each of `rates` writes as fast as it can.
fn longest_log_of_several(rates: &[Rate], in_processes: bool) -> u64 {
    let place = Place::new();
    let (done, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    let store = place.open(Config::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                longest.fetch_max(bytes(&place.beside("-wal")), Relaxed);
                thread::sleep(Duration::from_micros(200));
            }
        });
        let (mut children, mut threads) = (Vec::new(), Vec::new());
        for (number, rate) in rates.iter().copied().enumerate() {
            let tag = number.to_string();
            if in_processes {
                let (path, what) = (place.path().to_str().unwrap(), format!("{rate:?}"));
                let variables = [
                    ("SEEN_PATH", path),
                    ("SEEN_WHAT", &what),
                    ("SEEN_TAG", &tag),
                    ("SEEN_SHARES", &rates.len().to_string()),
                ];
                children.push(Child::spawn("writer", &variables));
            } else {
                let store = place.open(Config::default());
                threads.push(scope.spawn(move || rate.write(&store, &tag, rates.len())));
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        for child in children {
            child.finish();
        }
        done.store(true, Relaxed);
    });
    store.close().unwrap();
    assert_eq!(place.files(), ["seen.db"], "side files were left behind");
    longest.into_inner()
}

fn check_several(in_processes: bool) {
    use Rate::{Batches, Marks};
    let all: [&[Rate]; 5] = [
        &[Marks; 2],
        &[Batches; 2],
        &[Marks, Batches, Marks],
        &[Marks; 8],
        &[Batches, Marks, Marks, Batches, Marks, Batches, Marks, Marks],
    ];
    for rates in all {
        let longest = longest_log_of_several(rates, in_processes);
        println!("{rates:?}: {longest} bytes of log");
        assert!(longest > MIB && longest <= 16 * MIB, "{rates:?}: {longest} bytes of log");
    }
}

#[test]
fn several_stores_at_full_rate_keep_the_log_below_16_mib() {
    check_several(false);
}

#[test]
fn several_processes_at_full_rate_keep_the_log_below_16_mib() {
    check_several(true);
}

#[test]
fn rows_of_64_kb_keep_the_log_short_as_small_ones_do() {
    let place = Place::new();
    let store = place.open(Config::default());
    let mut longest = 0;
    for number in 0..400 {
        store.mark_seen(format!("{number:065000}")).unwrap();
        longest = longest.max(bytes(&place.beside("-wal")));
    }
    assert!(longest > MIB && longest <= 8 * MIB, "{longest} bytes of log");
}

#[test]
fn a_shorter_log_that_no_thread_copies_is_kept_short_too() {
    let place = Place::new();
    let config = || Config::default().wal_autocheckpoint(500);
    let (done, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                longest.fetch_max(bytes(&place.beside("-wal")), Relaxed);
                thread::sleep(Duration::from_micros(200));
            }
        });
        let writers = ["a", "b", "c", "d"].map(|tag| {
            let store = place.open(config());
            scope.spawn(move || Rate::Marks.write(&store, tag, 2))
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Relaxed);
    });
    let longest = longest.into_inner();
    assert!(longest > MIB / 4 && longest <= 4 * MIB, "{longest} bytes of log");
    assert_eq!(place.open(config()).pragmas().unwrap().wal_autocheckpoint, 500);
}

#[test]
fn a_snapshot_that_is_held_stalls_no_mark_and_the_log_is_short_again_afterwards() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("before").unwrap();
    let reader = place.sql();
    reader.execute_batch("BEGIN; SELECT count(*) FROM seen").unwrap();
    let waits: Vec<Duration> = (0..20_000)
        .map(|number| {
            let asked = Instant::now();
            store.mark_seen(format!("{number}/of-some-length")).unwrap();
            asked.elapsed()
        })
        .collect();
    // That the log is held is found out now and then, not by each commit that finds it long.
    let (worst, stalls) =
        (waits.iter().max(), waits.iter().filter(|wait| **wait > ms(100)).count());
    assert!(worst < Some(&ms(500)) && stalls <= 10, "{stalls} marks waited, up to {worst:?}");
    assert!(bytes(&place.beside("-wal")) > 16 * MIB, "the snapshot did not hold the log");
    drop(reader);
    // The thread tries again by itself. The first commit after that begins the log anew.
    let waited = Instant::now();
    let mut number = 0;
    while bytes(&place.beside("-wal")) > 8 * MIB {
        assert!(waited.elapsed() < Duration::from_secs(20), "the log is still long");
        store.mark_seen(format!("afterwards-{number}")).unwrap();
        number += 1;
        thread::sleep(ms(20));
    }
    store.close().unwrap();
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn so_it_does_where_no_thread_can() {
    let longest = longest_log(&Place::new(), Config::default().exclusive(true), 2, 15_000);
    assert!(longest > MIB && longest <= 8 * MIB, "{longest} bytes of log");
}

#[test]
fn without_automatic_checkpoints_the_log_grows_until_it_is_asked_for_one() {
    let place = Place::in_ram();
    let store = place.open(Config::default().wal_autocheckpoint(0));
    for number in 0..20_000 {
        store.mark_seen(format!("{number}/of-some-length")).unwrap();
    }
    assert!(bytes(&place.beside("-wal")) > 16 * MIB);
    store.checkpoint().unwrap();
    assert_eq!(bytes(&place.beside("-wal")), 0);
}

/// One test for all that counts threads: others run at the same time.
#[test]
fn the_thread_begins_with_a_log_worth_copying_and_ends_with_the_store() {
    let mut child = Child::spawn("stream", &[("SEEN_PATH", ""), ("SEEN_WHAT", "threads")]);
    assert_eq!(child.hear().as_deref(), Some("none, one, none, none"));
    child.finish();
}

fn count_threads() {
    let place = Place::in_ram();
    let counted = || match threads_named("seen-checkpoint") {
        0 => "none",
        1 => "one",
        _ => "several",
    };
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let before = counted();
    let fill = |store: &SeenStore| store.seed((0..100_000).map(|n| format!("id-{n}"))).unwrap();
    fill(&store);
    let during = counted();
    store.close().unwrap();
    let after = counted();
    let store = place.open(Config::default().exclusive(true));
    fill(&store.scope("another"));
    say(format!("{before}, {during}, {after}, {}", counted()));
}

/// Marks in batches until killed, and says which batches are done.
fn stream() {
    if variable("SEEN_WHAT") == "threads" {
        return count_threads();
    }
    let config = Config::default().synchronous(match variable("SEEN_WHAT").as_str() {
        "full" => Synchronous::Full,
        _ => Synchronous::Normal,
    });
    let store = SeenStore::open_with(variable("SEEN_PATH"), config).unwrap();
    let start = store.stats().unwrap().seen;
    for batch in start / 100.. {
        store.seed((0..100).map(|n| format!("{batch}/{n}"))).unwrap();
        say(batch);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_a_process_is_killed_while_its_log_is_copied() {
    let place = Place::new();
    let mut random = Random::new("kill -9 during a checkpoint");
    for round in 0..12 {
        let what = if round % 3 == 0 { "full" } else { "normal" };
        let variables = [("SEEN_PATH", place.path().to_str().unwrap()), ("SEEN_WHAT", what)];
        let mut writer = Child::spawn("stream", &variables);
        for _ in 0..100 + random.below(300) {
            writer.hear().unwrap();
        }
        let last: u64 = writer.kill().last().map_or(0, |batch| batch.parse().unwrap());
        let store = place.open(Config::default());
        let seen = store.stats().unwrap().seen;
        assert!(seen >= last * 100 && seen.is_multiple_of(100), "round {round}: {seen}, {last}");
        assert!(store.verify().unwrap().is_ok(), "round {round}");
        store.close().unwrap();
        assert_eq!(place.files(), ["seen.db"]);
    }
}

#[test]
fn two_processes_copy_one_log_and_lose_nothing() {
    let place = Place::new();
    let variables = [("SEEN_PATH", place.path().to_str().unwrap()), ("SEEN_WHAT", "normal")];
    let mut other = Child::spawn("stream", &variables);
    other.hear().unwrap();
    let store = place.open(Config::default()).scope("mine");
    for number in 0..20_000 {
        store.mark_seen(format!("{number}/of-some-length")).unwrap();
    }
    let last: u64 = other.kill().last().unwrap().parse().unwrap();
    assert!(store.stats().unwrap().seen >= 20_000 + (last + 1) * 100);
    assert!(store.verify().unwrap().is_ok());
    store.close().unwrap();
    assert_eq!(place.files(), ["seen.db"]);
}
