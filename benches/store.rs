//! What the verbs cost. Run with `make bench`; the README and DESIGN.md quote its figures.
//!
//! The stores lie in the build's own temporary folder, on a real disk rather than in memory.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use seen_store::{Claim, Config, Item, Lease, Once, SeenStore, Verdict, Window};
use tempfile::TempDir;

const SIZES: [u64; 2] = [10_000, 1_000_000];
const THREADS: u64 = 16;
const BATCH: u64 = 1_000;
const LEASE: Duration = Duration::from_secs(60);
const RECEIPT: [u8; 100] = [b'r'; 100];
const WAKE_UPS: usize = 2_000;

/// 25 bytes that follow no order, as ids of real feeds are.
fn id(n: u64) -> String {
    // Fibonacci hashing scatters the numbers and keeps them distinct.
    format!("item-{:020}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Numbers of ids that no store of this run holds yet.
static NEXT_NEW: AtomicU64 = AtomicU64::new(1 << 32);

fn new_id() -> String {
    id(NEXT_NEW.fetch_add(1, Relaxed))
}

/// A store's file, filled once for each size, and copied for each benchmark that changes it.
struct Files {
    folder: TempDir,
}

impl Files {
    fn fill() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let files = Self { folder };
        for size in SIZES {
            let store = SeenStore::open(files.path(size)).unwrap();
            assert_eq!(store.seed((0..size).map(id)).unwrap(), size);
            store.close().unwrap();
            files.report(size);
        }
        files
    }

    fn path(&self, size: u64) -> PathBuf {
        self.folder.path().join(format!("{size}.db"))
    }

    fn open(&self, size: u64) -> SeenStore {
        SeenStore::open(self.path(size)).unwrap()
    }

    fn copy(&self, size: u64, config: Config) -> (SeenStore, PathBuf) {
        let path = self.folder.path().join(format!("copy-{}.db", NEXT_NEW.fetch_add(1, Relaxed)));
        std::fs::copy(self.path(size), &path).unwrap();
        (SeenStore::open_with(&path, config).unwrap(), path)
    }

    fn report(&self, size: u64) {
        let stats = self.open(size).stats().unwrap();
        let each = |bytes: u64| bytes as f64 / size as f64;
        println!(
            "{size} ids of 25 bytes: {:.1} bytes of memory and {:.1} bytes of disk an id",
            each(stats.memory_bytes),
            each(stats.file_bytes),
        );
    }
}

fn remove(store: &SeenStore, path: &Path) {
    store.close().unwrap();
    std::fs::remove_file(path).unwrap();
}

/// How long `iterations` calls take, shared out among threads that begin together.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the real time")]
fn shared_out(threads: u64, iterations: u64, call: impl Fn(u64) + Sync) -> Duration {
    let barrier = Barrier::new(usize::try_from(threads).unwrap() + 1);
    let (each, rest) = (iterations / threads, iterations % threads);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (call, barrier) = (&call, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for n in 0..each + u64::from(thread < rest) {
                        call(n * threads + thread);
                    }
                })
            })
            .collect();
        barrier.wait();
        let began = Instant::now();
        for worker in workers {
            worker.join().unwrap();
        }
        began.elapsed()
    })
}

fn lookups(c: &mut Criterion, files: &Files) {
    let mut group = c.benchmark_group("is_seen");
    for size in SIZES {
        let known: Vec<String> = (0..size).map(id).collect();
        let unknown: Vec<String> = (size..2 * size).map(id).collect();
        let exclusive = Config::default().exclusive(true);
        let shared = files.open(size);
        let mut measure = |name: &str, store: &SeenStore, ids: &[String]| {
            group.bench_function(BenchmarkId::new(name, size), |b| {
                // A stride that shares no factor with the sizes, so that the index is visited in no
                // order while the ids themselves are at hand.
                let mut at = 0;
                b.iter(|| {
                    at = (at + 7_919) % ids.len();
                    black_box(store.is_seen(&ids[at]))
                });
            });
        };
        measure("hit", &shared, &known);
        measure("miss", &shared, &unknown);
        drop(shared);
        let (alone, path) = files.copy(size, exclusive);
        measure("miss, exclusive", &alone, &unknown);
        remove(&alone, &path);
    }
    group.finish();
}

fn marks(c: &mut Criterion, files: &Files) {
    let mut group = c.benchmark_group("check_and_mark");
    let mut new = |name: &str, size: u64, config: Config, threads: u64| {
        let (store, path) = files.copy(size, config);
        group.bench_function(BenchmarkId::new(name, size), |b| {
            b.iter_custom(|iterations| {
                shared_out(threads, iterations, |_| {
                    let _ = black_box(store.check_and_mark(new_id()).unwrap());
                })
            });
        });
        remove(&store, &path);
    };
    for size in SIZES {
        new("new, 1 thread", size, Config::default(), 1);
        new("new, 1 thread, exclusive", size, Config::default().exclusive(true), 1);
    }
    new("new, 16 threads", SIZES[0], Config::default(), THREADS);

    let size = SIZES[0];
    let known: Vec<String> = (0..size).map(id).collect();
    let (store, path) = files.copy(size, Config::default());
    for threads in [1, THREADS] {
        let name = format!("duplicate, {threads} thread{}", if threads == 1 { "" } else { "s" });
        group.bench_function(BenchmarkId::new(name, size), |b| {
            b.iter_custom(|iterations| {
                shared_out(threads, iterations, |n| {
                    let id = &known[usize::try_from(n % size).unwrap()];
                    let _ = black_box(store.check_and_mark(id).unwrap());
                })
            });
        });
    }
    remove(&store, &path);
    group.finish();
}

fn claims(c: &mut Criterion, files: &Files) {
    let mut group = c.benchmark_group("claim");
    let size = SIZES[0];
    let (store, path) = files.copy(size, Config::default());
    for threads in [1, THREADS] {
        let name =
            format!("claim and confirm, {threads} thread{}", if threads == 1 { "" } else { "s" });
        group.bench_function(BenchmarkId::new(name, size), |b| {
            b.iter_custom(|iterations| {
                shared_out(threads, iterations, |_| {
                    granted(&store, &new_id()).confirm().unwrap();
                })
            });
        });
    }
    let known: Vec<String> = (0..size).map(id).collect();
    for (name, store) in [
        ("duplicate, fixed window", &store),
        ("duplicate, sliding window", &store.window(Window::SLIDING)),
    ] {
        // In a sliding window the first round extends each mark; from then on they are reads until a
        // sixteenth of the TTL has passed.
        group.bench_function(BenchmarkId::new(name, size), |b| {
            let mut at = 0;
            b.iter(|| {
                at = (at + 7_919) % known.len();
                black_box(store.check_and_mark(&known[at]).unwrap())
            });
        });
    }
    remove(&store, &path);
    group.finish();
}

/// Returns the lease of an id that is not seen and that no worker has.
fn granted(store: &SeenStore, id: &str) -> Lease {
    match store.claim(id, LEASE).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{id} is free, not {other:?}"),
    }
}

/// What the file remembers of an id besides that it is seen: versions, receipts, the answer of work.
fn answers(c: &mut Criterion, files: &Files) {
    let size = SIZES[0];
    let (store, path) = files.copy(size, Config::default());
    // Beside the ids of the file, which have neither a version nor a receipt.
    let known: Vec<String> = (0..BATCH).map(|_| new_id()).collect();
    for id in &known {
        granted(&store, id).confirm_with(RECEIPT).unwrap();
    }
    let mut at = 0;
    let mut next = || {
        at = (at + 7) % known.len();
        known[at].as_str()
    };
    let refused = |id: &str| match store.claim(id, LEASE).unwrap() {
        Claim::Seen(known) => known,
        other => panic!("{id} is seen, not {other:?}"),
    };
    let mut group = c.benchmark_group("refused claim, receipt of 100 bytes");
    group.bench_function("the answer alone", |b| b.iter(|| black_box(refused(next()))));
    group.bench_function("with the receipt", |b| {
        b.iter(|| assert_eq!(refused(next()).receipt().unwrap().unwrap().len(), RECEIPT.len()));
    });
    group.finish();

    let mut group = c.benchmark_group("check_and_mark with a version");
    let (mut version, mut id) = (0_u64, new_id());
    let mut check = |is_changed: bool, expected: Verdict| {
        version += u64::from(is_changed);
        let item = Item::new(&id).version(version.to_le_bytes());
        assert_eq!(store.check_and_mark(item).unwrap(), expected);
    };
    check(true, Verdict::New);
    group.bench_function("changed", |b| b.iter(|| check(true, Verdict::Changed)));
    group.bench_function("unchanged", |b| b.iter(|| check(false, Verdict::Duplicate)));
    group.bench_function("new", |b| {
        b.iter(|| {
            id = new_id();
            let item = Item::new(&id).version("1");
            assert_eq!(store.check_and_mark(item).unwrap(), Verdict::New);
        });
    });
    group.finish();

    let once = |id: &str| store.once(id, LEASE, || Ok::<_, String>(RECEIPT)).unwrap();
    let mut group = c.benchmark_group("once, answer of 100 bytes");
    group.bench_function("runs", |b| {
        b.iter(|| assert!(matches!(once(&new_id()), Once::Ran(_))));
    });
    group.bench_function("replays", |b| {
        b.iter(|| assert!(matches!(once(next()), Once::Replayed(Some(_)))));
    });
    group.finish();
    remove(&store, &path);
}

/// How long after the call of `confirm` a thread that waits for the claim has its answer. Not criterion's: what
/// matters is how the times are spread.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the real time")]
fn wake_ups(files: &Files) {
    let (store, path) = files.copy(SIZES[0], Config::default());
    let waiting = store.waiting(LEASE);
    let mut times: Vec<Duration> = (0..WAKE_UPS)
        .map(|_| {
            let id = new_id();
            let mut lease = granted(&store, &id);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    assert!(matches!(waiting.claim(&id, LEASE).unwrap(), Claim::Seen(_)));
                    Instant::now()
                });
                // Until the waiter waits.
                thread::sleep(Duration::from_millis(1));
                let confirmed = Instant::now();
                lease.confirm().unwrap();
                waiter.join().unwrap() - confirmed
            })
        })
        .collect();
    times.sort_unstable();
    println!(
        "a waiter's wake-up, from the call of confirm to its answer: median {:?}, p99 {:?}, of {WAKE_UPS}",
        times[WAKE_UPS / 2],
        times[WAKE_UPS * 99 / 100],
    );
    remove(&store, &path);
}

fn batches(c: &mut Criterion, files: &Files) {
    let mut group = c.benchmark_group("check_and_mark_all, batch of 1,000");
    group.throughput(Throughput::Elements(BATCH));
    for size in SIZES {
        let (store, path) = files.copy(size, Config::default());
        group.bench_function(BenchmarkId::new("new", size), |b| {
            b.iter_batched(
                || (0..BATCH).map(|_| new_id()).collect::<Vec<_>>(),
                |ids| store.check_and_mark_all(ids).unwrap(),
                criterion::BatchSize::SmallInput,
            );
        });
        remove(&store, &path);
    }
    group.finish();
}

fn opening(c: &mut Criterion, files: &Files) {
    let mut group = c.benchmark_group("open and close");
    for size in SIZES {
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| files.open(size).close().unwrap());
        });
    }
    group.finish();
}

fn all(c: &mut Criterion) {
    let files = Files::fill();
    opening(c, &files);
    lookups(c, &files);
    marks(c, &files);
    claims(c, &files);
    answers(c, &files);
    wake_ups(&files);
    batches(c, &files);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = all
}
criterion_main!(benches);
