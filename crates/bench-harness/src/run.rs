//! The measuring: takes a contender through a plan.
//!
//! What always holds: every answer is checked, so that no contender wins by wrong answers; one reading of
//! the clock a call, whose interval contains the making of the id (the baseline `nothing` shows what
//! that costs); the start of a run is not measured, so that caches are warm.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::ids::{FIRST_NEW, mix};
use crate::{Ids, Latency, Outcome, Plan, Result, Workload, memory};

const BATCH: usize = 1_000;
/// How many ids a filling transaction holds.
const FILL_BATCH: usize = 10_000;
/// The paced load: each thread makes so many calls, then waits for the next tick.
const TICK: Duration = Duration::from_millis(1);
const CALLS_A_TICK: u64 = 5;

/// What a contender says about itself.
pub struct Report {
    /// Its version, and that of what it is built on.
    pub version: String,
    /// The settings that decide its speed and its durability.
    pub settings: String,
}

/// A store under test.
pub trait Contender: Sync + Sized {
    /// Opens the store in `plan.dir`, creating it if it is not there.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn open(plan: &Plan) -> Result<Self>;

    /// Its version and settings.
    fn report(&self) -> Report;

    /// What one thread works with; called on that thread.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn worker(&self) -> Result<Box<dyn Worker + '_>>;

    /// Why a plan is beyond it, if it is.
    #[must_use]
    fn unsupported(plan: &Plan) -> Option<String> {
        matches!(plan.workload, Workload::Claim | Workload::Purge)
            .then(|| "measured for this store only".to_owned())
    }

    /// Takes all ids at once into an empty store, if it has a way for that and the way leads to the
    /// same state at rest; otherwise returns false and is filled batch by batch.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn load(&self, _ids: &mut dyn Iterator<Item = String>) -> Result<bool> {
        Ok(false)
    }

    /// Brings a filled store to rest, so that later runs do not pay for the filling.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// The process whose memory counts.
    fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Figures that the store itself gives.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn extra(&self) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }

    /// Marks ids that are expired by the time this returns.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn mark_expired(&self, _ids: &[String]) -> Result<()> {
        Err("not supported".into())
    }

    /// Removes what has expired; how many.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn purge(&self) -> Result<u64> {
        Err("not supported".into())
    }

    /// Runs the plan's threads to their end. Only for contenders whose callers are not threads.
    ///
    /// # Errors
    ///
    /// Whatever its library says, and wrong answers.
    fn drive(&self, plan: &Plan) -> Result<Vec<Measured>> {
        let start = Barrier::new(plan.threads);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..plan.threads)
                .map(|thread| {
                    let start = &start;
                    scope.spawn(move || {
                        let worker = self.worker();
                        // All threads arrive here, even one that failed: the others wait for it.
                        start.wait();
                        run_worker(&mut *worker?, Pace::new(plan, thread))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a worker panicked")).collect()
        })
    }

    /// Closes the store in good order.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// One thread's way to the store.
pub trait Worker {
    /// Marks `id`; whether it was new. `likely_new` is what the caller expects: a contender whose
    /// quickest way differs for new ids and duplicates may take the one that suits.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool>;

    /// Marks all of `ids` with one commit; how many were new.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64>;

    /// Claims `id` and confirms the claim; whether it was granted.
    ///
    /// # Errors
    ///
    /// Whatever its library says.
    fn claim_and_confirm(&mut self, _id: &str) -> Result<bool> {
        Err("not supported".into())
    }
}

/// What one thread measured.
pub struct Measured {
    ops: u64,
    time: Duration,
    latency: Histogram<u64>,
}

/// When the calls of a caller are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Window {
    /// Not yet.
    WarmUp,
    /// From its first call after the warm-up to its first one after the time.
    Own,
    /// Those that return between `begin` and `end`, as for all other callers. Of many callers, one may get through
    /// few calls or none in this time.
    Common,
}

/// One caller's sequence of calls, and their times. The caller alternates [`next`](Self::next), the
/// call, and [`done`](Self::done).
pub struct Pace {
    ids: Ids,
    workload: Workload,
    held: u64,
    next_new: u64,
    random: u64,
    calls: u64,
    buffers: Vec<String>,
    expected_new: bool,
    begin: Instant,
    end: Instant,
    last: Instant,
    window: Window,
    ops: u64,
    latency: Histogram<u64>,
}

impl Pace {
    /// The sequence of the plan's thread number `thread`, beginning now.
    #[must_use]
    pub fn new(plan: &Plan, thread: usize) -> Self {
        Self::from(Instant::now(), plan, thread)
    }

    /// The sequences of the plan's tasks, all beginning now and measured in the same time.
    #[must_use]
    pub fn of_tasks(plan: &Plan) -> Vec<Self> {
        let begin = Instant::now();
        let pace = |task| Self { window: Window::Common, ..Self::from(begin, plan, task) };
        (0..plan.threads).map(pace).collect()
    }

    fn from(begin: Instant, plan: &Plan, thread: usize) -> Self {
        // A large store takes longer to become warm: its pages have to come in.
        let warm_up = 0.3 * plan.seconds + 0.2 * (plan.ids as f64 / 1e6).min(10.0);
        let warm_end = begin + Duration::from_secs_f64(warm_up);
        Self {
            ids: Ids(plan.id_length),
            workload: plan.workload,
            held: plan.ids.max(1),
            next_new: FIRST_NEW + ((thread as u64) << 32),
            random: mix(thread as u64),
            calls: 0,
            buffers: vec![String::new(); if plan.workload == Workload::Batch { BATCH } else { 1 }],
            expected_new: false,
            begin: warm_end,
            end: warm_end + Duration::from_secs_f64(plan.seconds),
            last: begin,
            window: Window::WarmUp,
            ops: 0,
            latency: new_histogram(),
        }
    }

    /// The ids of the next call; `None` when the time is up.
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from it")]
    pub fn next(&mut self) -> Option<&[String]> {
        if self.last >= self.end {
            return None;
        }
        self.calls += 1;
        self.expected_new = match self.workload {
            Workload::Duplicate | Workload::Purge => false,
            Workload::Mixed => self.calls.is_multiple_of(20),
            Workload::Steady => self.calls.is_multiple_of(CALLS_A_TICK),
            _ => true,
        };
        for buffer in &mut self.buffers {
            let n = if self.expected_new {
                self.next_new += 1;
                self.next_new
            } else {
                self.random = self.random.wrapping_add(1);
                mix(self.random) % self.held
            };
            self.ids.write(n, buffer);
        }
        Some(&self.buffers)
    }

    /// Which kind of calls it is a sequence of.
    #[must_use]
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// Whether a caller of this workload would expect every id to be new.
    #[must_use]
    pub fn likely_new(&self) -> bool {
        matches!(self.workload, Workload::New | Workload::Batch | Workload::Claim)
    }

    /// The call returned and found so many ids new. How long to wait before the next one.
    ///
    /// # Errors
    ///
    /// When that is the wrong answer.
    pub fn done(&mut self, new: u64) -> Result<Option<Duration>> {
        let expected = if self.expected_new { self.buffers.len() as u64 } else { 0 };
        if new != expected {
            return Err(format!("{new} of {:?} found new, not {expected}", self.buffers[0]).into());
        }
        let now = Instant::now();
        let counts = match self.window {
            Window::WarmUp => false,
            Window::Own => true,
            Window::Common => self.begin <= now && now < self.end,
        };
        if counts {
            self.ops += self.buffers.len() as u64;
            self.latency.saturating_record(nanos(now - self.last));
        } else if self.window == Window::WarmUp && now >= self.begin {
            self.window = Window::Own;
            self.begin = now;
        }
        self.last = now;
        let paced = matches!(self.workload, Workload::Steady | Workload::Purge);
        if paced && self.calls.is_multiple_of(CALLS_A_TICK) {
            return Ok(Some(TICK));
        }
        Ok(None)
    }

    /// The caller waited: the next call begins now.
    pub fn resume(&mut self) {
        self.last = Instant::now();
    }

    /// What was measured.
    #[must_use]
    pub fn finish(self) -> Measured {
        let end = if self.window == Window::Common { self.end } else { self.last };
        let time = end.saturating_duration_since(self.begin);
        Measured { ops: self.ops, time, latency: self.latency }
    }
}

/// Takes one worker through its sequence.
///
/// # Errors
///
/// Whatever the store's library says, and wrong answers.
pub fn run_worker(worker: &mut dyn Worker, mut pace: Pace) -> Result<Measured> {
    let (workload, likely_new) = (pace.workload, pace.likely_new());
    while let Some(ids) = pace.next() {
        let new = match workload {
            Workload::Batch => worker.test_and_set_all(ids)?,
            Workload::Claim => u64::from(worker.claim_and_confirm(&ids[0])?),
            _ => u64::from(worker.test_and_set(&ids[0], likely_new)?),
        };
        if let Some(wait) = pace.done(new)? {
            thread::sleep(wait);
            pace.resume();
        }
    }
    Ok(pace.finish())
}

fn new_histogram() -> Histogram<u64> {
    // Two digits: a hundredth is finer than the noise, and the table stays in the cache.
    Histogram::new_with_bounds(1, 1 << 40, 2).expect("the bounds are valid")
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The `main` of a program of contenders: reads the plan, prints the outcome.
pub fn main(run: impl FnOnce(&Plan) -> Result<Outcome>) {
    let outcome = Plan::from_args(std::env::args().skip(1)).and_then(|plan| run(&plan));
    match outcome.and_then(|outcome| Ok(serde_json::to_string(&outcome)?)) {
        Ok(line) => println!("{line}"),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1);
        }
    }
}

impl Plan {
    /// Takes a contender through this plan.
    ///
    /// # Errors
    ///
    /// Whatever its library says, and wrong answers.
    pub fn run<C: Contender>(&self) -> Result<Outcome> {
        if let Some(reason) = C::unsupported(self) {
            return Ok(Outcome { unsupported: Some(reason), ..Outcome::default() });
        }
        if self.workload.is_start() {
            return self.start::<C>();
        }
        let before = memory::resident(std::process::id());
        let store = C::open(self)?;
        let report = store.report();
        let mut outcome = match self.workload {
            Workload::Fill => self.fill(&store)?,
            Workload::Survive => self.survive(&store)?,
            Workload::Survivors => self.survivors(&store)?,
            Workload::Purge => self.purge(&store)?,
            _ => watch(&self.dir, store.pid(), || Ok(summarise(&store.drive(self)?)))?,
        };
        outcome.extra.extend(store.extra()?);
        outcome.version = report.version;
        outcome.settings = report.settings;
        // What this process had before it opened the store is not the store's.
        if store.pid() == std::process::id() {
            outcome.anon_bytes = outcome.anon_bytes.saturating_sub(before.0);
            outcome.rss_bytes = outcome.rss_bytes.saturating_sub(before.0 + before.1);
        }
        store.close()?;
        outcome.disk_bytes = memory::on_disk(&self.dir);
        Ok(outcome)
    }

    fn fill<C: Contender>(&self, store: &C) -> Result<Outcome> {
        let ids = Ids(self.id_length);
        let begin = Instant::now();
        if !store.load(&mut (0..self.ids).map(|n| ids.id(n)))? {
            let mut worker = store.worker()?;
            for n in (0..self.ids).step_by(FILL_BATCH) {
                let batch: Vec<String> =
                    (n..self.ids).take(FILL_BATCH).map(|n| ids.id(n)).collect();
                if worker.test_and_set_all(&batch)? != batch.len() as u64 {
                    return Err("the folder to fill was not empty".into());
                }
            }
        }
        let ns_per_op = begin.elapsed().as_nanos() as f64 / self.ids as f64;
        store.settle()?;
        Ok(Outcome { ops: self.ids, ns_per_op, ..Outcome::default() })
    }

    /// Says on its output how many were acknowledged, one line each, until it is killed.
    fn survive<C: Contender>(&self, store: &C) -> Result<Outcome> {
        use std::io::Write;
        let mut worker = store.worker()?;
        let ids = Ids(self.id_length);
        let mut id = String::new();
        let mut out = std::io::stdout();
        for n in 0.. {
            ids.write(FIRST_NEW + n, &mut id);
            if !worker.test_and_set(&id, true)? {
                return Err(format!("{id} was not new").into());
            }
            writeln!(out, "{}", n + 1)?;
            out.flush()?;
        }
        Ok(Outcome::default())
    }

    fn survivors<C: Contender>(&self, store: &C) -> Result<Outcome> {
        let mut worker = store.worker()?;
        let ids = Ids(self.id_length);
        let mut lost = 0;
        for n in 0..self.ids {
            lost += u64::from(worker.test_and_set(&ids.id(FIRST_NEW + n), false)?);
        }
        let extra = BTreeMap::from([("lost".to_owned(), lost as f64)]);
        Ok(Outcome { ops: self.ids, extra, ..Outcome::default() })
    }

    /// As many expired ids as live ones go while readers ask for the live.
    fn purge<C: Contender>(&self, store: &C) -> Result<Outcome> {
        self.fill(store)?;
        let ids = Ids(self.id_length);
        for n in (0..self.ids).step_by(FILL_BATCH) {
            let numbers = (n..self.ids).take(FILL_BATCH).map(|n| (FIRST_NEW << 1) + n);
            let expired: Vec<String> = numbers.map(|n| ids.id(n)).collect();
            store.mark_expired(&expired)?;
        }
        thread::scope(|scope| {
            let readers = scope.spawn(|| store.drive(self));
            // The readers warm up first.
            thread::sleep(Duration::from_secs_f64(0.3 * self.seconds + 0.25));
            let begin = Instant::now();
            let purged = store.purge()?;
            let took = begin.elapsed();
            let mut outcome = summarise(&readers.join().expect("the readers panicked")?);
            outcome.extra.insert("purged".to_owned(), purged as f64);
            outcome.extra.insert("purge_seconds".to_owned(), took.as_secs_f64());
            Ok(outcome)
        })
    }
}

/// Notes, while something runs, the most memory and threads that a process has, and how long a write-ahead log
/// becomes.
fn watch(dir: &Path, pid: u32, run: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let longest_log = || -> u64 {
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.file_name().to_string_lossy().ends_with("-wal"));
        logs.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or(0)
    };
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut anon, mut rss, mut log, mut threads) = (0, 0, 0, 0);
            while running.load(Relaxed) {
                thread::sleep(Duration::from_millis(20));
                let now = memory::resident(pid);
                (anon, rss) = (now.0.max(anon), (now.0 + now.1).max(rss));
                log = longest_log().max(log);
                threads = memory::threads(pid).max(threads);
            }
            (anon, rss, log, threads)
        });
        let outcome = run();
        running.store(false, Relaxed);
        let (anon, rss, log, threads) = watcher.join().expect("the watcher panicked");
        let mut outcome = outcome?;
        (outcome.anon_bytes, outcome.rss_bytes) = (anon, rss);
        outcome.extra.insert("wal_bytes".to_owned(), log as f64);
        // One of this process's threads is the watcher.
        let threads = threads.saturating_sub(u64::from(pid == std::process::id()));
        outcome.extra.insert("threads".to_owned(), threads as f64);
        Ok(outcome)
    })
}

fn summarise(threads: &[Measured]) -> Outcome {
    let mut latency = new_histogram();
    let mut per_second = 0.0;
    for thread in threads {
        latency.add(&thread.latency).expect("all histograms are alike");
        if !thread.time.is_zero() {
            per_second += thread.ops as f64 / thread.time.as_secs_f64();
        }
    }
    Outcome {
        ops: threads.iter().map(|thread| thread.ops).sum(),
        ns_per_op: if per_second > 0.0 { 1e9 / per_second } else { f64::NAN },
        latency: quantiles(&latency),
        ..Outcome::default()
    }
}

fn quantiles(latency: &Histogram<u64>) -> Latency {
    let at = |quantile| latency.value_at_quantile(quantile) as f64;
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: latency.max() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, IdLength};

    const HOUR: Duration = Duration::from_secs(3600);

    fn plan() -> Plan {
        Plan {
            contender: "store".into(),
            workload: Workload::New,
            threads: 2,
            ids: 0,
            durability: Durability::Kill,
            id_length: IdLength::Short,
            seconds: HOUR.as_secs_f64(),
            dir: "/nowhere".into(),
        }
    }

    fn call(pace: &mut Pace) {
        let id = pace.next().expect("there is time left")[0].clone();
        assert!(!id.is_empty());
        assert_eq!(pace.done(1).unwrap(), None);
    }

    #[test]
    fn tasks_are_measured_in_one_time_whether_or_not_they_get_through_a_call_in_it() {
        let mut paces = Pace::of_tasks(&plan());
        assert_eq!(paces.len(), 2);
        assert!(paces[0].begin == paces[1].begin && paces[0].end == paces[1].end);
        // The warm-up.
        call(&mut paces[0]);
        for pace in &mut paces {
            pace.begin = pace.last;
            pace.end = pace.begin + HOUR;
        }
        call(&mut paces[0]);
        call(&mut paces[0]);
        // Its call returns when the time is over.
        assert!(paces[1].next().is_some());
        paces[1].end = Instant::now();
        paces[1].begin = paces[1].end.checked_sub(HOUR).unwrap();
        paces[1].done(1).unwrap();
        assert!(paces[1].next().is_none());
        let measured: Vec<_> = paces.into_iter().map(Pace::finish).collect();
        assert_eq!(measured.iter().map(|task| task.ops).collect::<Vec<_>>(), [2, 0]);
        assert!(measured.iter().all(|task| task.time == HOUR));
    }

    #[test]
    fn a_thread_is_measured_from_its_first_call_after_the_warm_up() {
        let mut pace = Pace::new(&plan(), 0);
        call(&mut pace);
        pace.begin = pace.last;
        call(&mut pace);
        let begin = pace.last;
        call(&mut pace);
        let last = pace.last;
        let measured = pace.finish();
        assert_eq!((measured.ops, measured.time), (1, last - begin));
    }
}
