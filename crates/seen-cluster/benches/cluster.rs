//! What the verbs cost on a cluster: three masters and three replicas on this machine. `make cluster-bench`.
//!
//! Owns the figures of `docs/performance-cluster.md`. What always holds: what is compared is interleaved, round by round, on
//! one cluster; a figure is the median of the rounds, a ratio that of the ratios in each round. Without a server program it
//! says so and measures nothing.

use std::fmt::Write as _;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use cluster_harness::{Cluster, Connection, Options, available};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use seen_cluster::{AsyncClusterStore, ClusterStore};
use seen_store::{Claim, Verdict};

const ROUNDS: usize = 41;
const CALLS: usize = 400;
const DAY_MS: u64 = 86_400_000;

/// The most that a new id may cost, in bare commands, and the least that a batch must save.
const MOST_OF_BARE: f64 = 1.15;
const LEAST_OF_BATCH: f64 = 10.0;

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark")]
fn now() -> Instant {
    Instant::now()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Returns the median of the ratios of two figures in each round: what slows the machine slows both.
fn ratio(figures: &[f64], to: &[f64]) -> f64 {
    median(figures.iter().zip(to).map(|(figure, to)| figure / to).collect())
}

/// Returns the microseconds for each of the calls.
fn us_each(begun: Instant, calls: usize) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / calls as f64
}

fn url(cluster: &Cluster, min_replicas: u32, namespace: &str) -> String {
    format!("{}{namespace}?min_replicas={min_replicas}", cluster.url())
}

fn main() {
    // `cargo test --benches` runs it without the argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    if !available() {
        eprintln!("no redis-server on PATH: nothing is measured");
        return;
    }
    let cluster = Cluster::start_with(&Options::new());
    let mut report = String::from(
        "# The cost on a cluster\n\nWritten by `make cluster-bench`: three masters and three replicas on one machine of two \
         processors, where servers and clients share them. Compare the rows, not the numbers with other machines.\n\n",
    );
    a_new_id(&cluster, &mut report);
    batches(&cluster, &mut report);
    callers(&cluster, &mut report);
    memory(&cluster, &mut report);
    print!("{report}");
    if let Some(path) = std::env::var_os("SEEN_CLUSTER_REPORT") {
        std::fs::write(path, report).unwrap();
    }
}

/// A task with one call at a time, against the bare command by the client of the crate `redis`.
fn a_new_id(cluster: &Cluster, report: &mut String) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mut bare, mut bare_wait, mut verb, mut verb_wait, mut duplicate, mut claim) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    runtime.block_on(async {
        let store = AsyncClusterStore::open(&url(cluster, 0, "one")).await.unwrap();
        let replicated = AsyncClusterStore::open(&url(cluster, 1, "two")).await.unwrap();
        // All keys of the bare commands are in slots of this master.
        let master = cluster.master_of_slot(0);
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", master.port())).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for round in 0..ROUNDS {
            let begun = now();
            for n in 0..CALLS {
                set(&mut connection, &format!("{{06S}}bare-{round}-{n:010}"), 0).await;
            }
            bare.push(us_each(begun, CALLS));
            let begun = now();
            for n in 0..CALLS {
                assert_eq!(
                    store.check_and_mark(format!("incident-{round}-{n:010}")).await.unwrap(),
                    Verdict::New
                );
            }
            verb.push(us_each(begun, CALLS));
            let begun = now();
            for n in 0..CALLS {
                let id = format!("incident-{round}-{n:010}");
                assert_eq!(store.check_and_mark(id).await.unwrap(), Verdict::Duplicate);
            }
            duplicate.push(us_each(begun, CALLS));
            let begun = now();
            for n in 0..CALLS / 4 {
                set(&mut connection, &format!("{{06S}}wait-{round}-{n:010}"), 1).await;
            }
            bare_wait.push(us_each(begun, CALLS / 4));
            let begun = now();
            for n in 0..CALLS / 4 {
                let id = format!("incident-{round}-{n:010}");
                assert_eq!(replicated.check_and_mark(id).await.unwrap(), Verdict::New);
            }
            verb_wait.push(us_each(begun, CALLS / 4));
            let begun = now();
            for n in 0..CALLS / 4 {
                let id = format!("claim-{round}-{n:010}");
                let Claim::Granted(mut lease) =
                    store.claim(id, Duration::from_secs(60)).await.unwrap()
                else {
                    panic!()
                };
                lease.confirm().await.unwrap();
            }
            claim.push(us_each(begun, CALLS / 4));
        }
        store.close().await.unwrap();
    });
    writeln!(report, "One task, one call at a time, medians of {ROUNDS} rounds:\n\n| call | us | to the bare command |\n| --- | --- | --- |").unwrap();
    for (name, us, to) in [
        ("bare `SET NX PX`, by a `MultiplexedConnection` of the crate `redis`", &bare, &bare),
        ("`check_and_mark`, new, `min_replicas=0`", &verb, &bare),
        ("`check_and_mark`, a duplicate", &duplicate, &bare),
        ("bare `SET NX PX` and `WAIT 1` in a pipeline", &bare_wait, &bare_wait),
        ("`check_and_mark`, new, `min_replicas=1`", &verb_wait, &bare_wait),
        ("`claim` and `confirm`, `min_replicas=0`", &claim, &bare),
    ] {
        let us_each = median(us.clone());
        writeln!(report, "| {name} | {us_each:.1} | {:.2} |", ratio(us, to)).unwrap();
    }
    writeln!(
        report,
        "\nTarget: a new id with `min_replicas=0` takes at most {MOST_OF_BARE} times the bare command: {}.\n",
        met(ratio(&verb, &bare) <= MOST_OF_BARE)
    )
    .unwrap();
}

async fn set(connection: &mut MultiplexedConnection, key: &str, replicas: u32) {
    let mut set = cmd("SET");
    set.arg(key).arg("1").arg("NX").arg("PX").arg(DAY_MS);
    if replicas == 0 {
        set.query_async::<()>(connection).await.unwrap();
        return;
    }
    let mut pipeline = redis::pipe();
    pipeline.add_command(set).cmd("WAIT").arg(replicas).arg(1_000);
    pipeline.query_async::<((), i64)>(connection).await.unwrap();
}

fn batches(cluster: &Cluster, report: &mut String) {
    let store = ClusterStore::open(&url(cluster, 1, "batches")).unwrap();
    let (mut single, mut batch) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let begun = now();
        for n in 0..100 {
            let _ = store.check_and_mark(format!("single-{round}-{n}")).unwrap();
        }
        single.push(us_each(begun, 100));
        let ids: Vec<_> = (0..1_000).map(|n| format!("batch-{round}-{n}")).collect();
        let begun = now();
        assert!(
            store.check_and_mark_all(&ids).unwrap().iter().all(|verdict| *verdict == Verdict::New)
        );
        batch.push(us_each(begun, 1_000));
    }
    let times = ratio(&single, &batch);
    let (single, batch) = (median(single), median(batch));
    writeln!(
        report,
        "A thread, `min_replicas=1`: a new id {single:.1} us alone, {batch:.1} us in a batch of 1,000: {:.0} times as many. \
         Target: at least {LEAST_OF_BATCH}: {}.\n",
        times,
        met(times >= LEAST_OF_BATCH)
    )
    .unwrap();
}

/// Many threads at once.
fn callers(cluster: &Cluster, report: &mut String) {
    writeln!(
        report,
        "Threads on one `ClusterStore`, new ids, medians of 3 rounds:\n\n| threads | min_replicas | ids/s | calls in a pipeline | \
         median us | 99 % us | 99.9 % us |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    .unwrap();
    for min_replicas in [0, 1] {
        for threads in [1_usize, 16, 64] {
            let mut rounds = Vec::new();
            for round in 0..3 {
                let namespace = format!("t{threads}-{round}-{min_replicas}");
                rounds.push(measure(&url(cluster, min_replicas, &namespace), threads));
            }
            let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
            writeln!(
                report,
                "| {threads} | {min_replicas} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} |",
                of(|it| it.ids_per_second),
                of(|it| it.group),
                of(|it| it.median_us),
                of(|it| it.p99_us),
                of(|it| it.p999_us)
            )
            .unwrap();
        }
    }
    report.push('\n');
}

struct Figures {
    ids_per_second: f64,
    group: f64,
    median_us: f64,
    p99_us: f64,
    p999_us: f64,
}

fn measure(url: &str, threads: usize) -> Figures {
    let store = ClusterStore::open(url).unwrap();
    let calls = (16_000 / threads).min(4_000);
    let barrier = Barrier::new(threads);
    let begun = now();
    let mut took: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let call = |n| {
                        let begun = now();
                        assert_eq!(
                            store.check_and_mark(format!("{thread}-{n}")).unwrap(),
                            Verdict::New
                        );
                        begun.elapsed().as_secs_f64() * 1e6
                    };
                    (0..calls).map(call).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    // In thousandths.
    let at = |share: usize| took[(took.len() - 1) * share / 1_000];
    let activity = store.stats().unwrap().since_opened;
    let pipelines = activity.commits.max(1) as f64;
    Figures {
        ids_per_second: took.len() as f64 / seconds,
        group: took.len() as f64 / pipelines,
        median_us: at(500),
        p99_us: at(990),
        p999_us: at(999),
    }
}

/// The memory of a master for each id.
fn memory(cluster: &Cluster, report: &mut String) {
    const IDS: usize = 100_000;
    let used = || -> i64 {
        let of = |node: &cluster_harness::Node| {
            let mut connection: Connection = node.connect().unwrap();
            let info = connection.command(&["INFO", "memory"]).unwrap().text();
            let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
            used.unwrap().trim().parse::<i64>().unwrap()
        };
        cluster.masters().into_iter().map(of).sum()
    };
    let store = ClusterStore::open(&url(cluster, 1, "memory")).unwrap();
    let before = used();
    let ids: Vec<_> = (0..IDS).map(|n| format!("incident-{n:016}")).collect();
    for batch in ids.chunks(10_000) {
        store.seed(batch).unwrap();
    }
    let each = (used() - before) as f64 / IDS as f64;
    writeln!(report, "Memory of a master: {each:.0} bytes an id of 25 bytes, with its expiry; each replica takes as much.").unwrap();
}
