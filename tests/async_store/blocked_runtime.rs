//! A runtime of one thread goes on while another process holds the write lock.
#![expect(clippy::disallowed_methods, reason = "measures how late a task is")]

use std::path::Path;
use std::time::{Duration, Instant};

use seen_store::{AsyncSeenStore, Claim, Config, Filter, IndexMode, Resolution};
use tokio::runtime::{Builder, Runtime};

use crate::common::Place;
use crate::support_process::{Child, lines, role, say, variable};

const MINUTE: Duration = Duration::from_secs(60);

/// How long the other process holds the lock.
const HELD: Duration = Duration::from_secs(5);

/// The most by which a task may be late. A worker that blocks is late by all of [`HELD`].
const MOST: Duration = Duration::from_secs(1);

#[test]
fn child() {
    let Some(flavor) = role() else { return };
    let runtime = match &*flavor {
        "one thread" => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(1).enable_all().build(),
    };
    be_busy(&runtime.unwrap(), Path::new(&variable("SEEN_TEST_PATH")));
}

/// Calls each kind of verb while the lock is held, and says how late a task was that does nothing but look at the time.
fn be_busy(runtime: &Runtime, path: &Path) {
    let store = runtime.block_on(async {
        // Asleep: lookups read the file.
        let config = Config::default().index(IndexMode::Asleep);
        let store = AsyncSeenStore::open_with(path, config).await.unwrap();
        store.seed((0..20_000).map(|n| format!("old {n}"))).await.unwrap();
        store
    });
    let leases: Vec<_> = (0..8)
        .map(|n| {
            let claim = runtime.block_on(store.claim(format!("held {n}"), MINUTE)).unwrap();
            let Claim::Granted(lease) = claim else { panic!() };
            lease
        })
        .collect();
    let waits = runtime.block_on(async { store.stats().await.unwrap().since_opened.waits });
    say("ready");
    assert_eq!(lines().next().unwrap(), "go");
    let (late, done) = runtime.block_on(async {
        let ticker = tokio::spawn(async {
            let mut latest = Duration::ZERO;
            loop {
                let before = Instant::now();
                let slept =
                    tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>());
                let _ = slept.await;
                latest = latest.max(before.elapsed());
                LATEST.store(
                    u64::try_from(latest.as_millis()).unwrap(),
                    std::sync::atomic::Ordering::SeqCst,
                );
            }
        });
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        let mut leases = leases.into_iter();
        for n in 0..20 {
            let id = format!("new {n}");
            let s = store.clone();
            match n % 10 {
                0 => drop(tasks.spawn(async move { s.mark_seen(id).await.map(drop) })),
                1 => drop(tasks.spawn(async move { s.check_and_mark(id).await.map(drop) })),
                2 => drop(tasks.spawn(async move { s.claim(id, MINUTE).await.map(drop) })),
                3 => drop(tasks.spawn(async move { s.seed([id]).await.map(drop) })),
                4 => drop(tasks.spawn(async move { s.forget("old 1").await.map(drop) })),
                5 => drop(tasks.spawn(async move { s.observe(id).await.map(drop) })),
                6 => drop(
                    tasks.spawn(async move { s.resolve(id, Resolution::Done).await.map(drop) }),
                ),
                7 => drop(tasks.spawn(async move { s.purge_expired().await.map(drop) })),
                8 => drop(tasks.spawn(async move {
                    s.waiting(MINUTE / 60).claim("held 7", MINUTE).await.map(drop)
                })),
                _ => {
                    let mut lease = leases.next().unwrap();
                    tasks.spawn(async move { lease.confirm().await });
                    // This one is released by its drop.
                    drop(leases.next());
                }
            }
            let s = store.clone();
            tasks.spawn(async move {
                for old in 0..200 {
                    assert!(s.try_is_seen(format!("old {}", 2 + n * 200 + old)).await?);
                    let _ = s.check_and_mark(format!("old {}", 9_000 + n * 200 + old)).await?;
                }
                s.entries(Filter::default()).newest(3).await.map(drop)
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap().unwrap();
        }
        ticker.abort();
        let latest = LATEST.load(std::sync::atomic::Ordering::SeqCst);
        (Duration::from_millis(latest), begun.elapsed())
    });
    let waited =
        runtime.block_on(async { store.stats().await.unwrap().since_opened.waits }) > waits;
    runtime.block_on(store.close()).unwrap();
    say(format!("{} {} {waited}", late.as_millis(), done.as_millis()));
}

static LATEST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn no_task_is_late(flavor: &str) {
    let place = Place::new();
    let mut child = Child::spawn(flavor, &[("SEEN_TEST_PATH", place.path())]);
    assert_eq!(child.hear().unwrap(), "ready");
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    child.tell("go");
    std::thread::sleep(HELD);
    foreign.execute_batch("ROLLBACK").unwrap();
    drop(foreign);
    let said = child.hear().unwrap();
    let figures: Vec<&str> = said.split(' ').collect();
    let ms = |text: &str| Duration::from_millis(text.parse().unwrap());
    assert!(ms(figures[1]) >= HELD.mul_f64(0.9), "no call had to wait: {said}");
    assert_eq!(figures[2], "true", "no call had to wait");
    assert!(ms(figures[0]) < MOST, "a task was {} ms late", figures[0]);
    child.finish();
}

#[test]
fn no_task_of_a_current_thread_runtime_is_late_while_another_process_holds_the_lock() {
    no_task_is_late("one thread");
}

#[test]
fn no_task_of_a_multi_thread_runtime_is_late_while_another_process_holds_the_lock() {
    no_task_is_late("one worker");
}
