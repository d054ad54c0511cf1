//! Works in steps let the single marks of their own store in between two steps, however fast the steps follow
//! each other.
#![cfg(target_os = "linux")]

use std::fs;
use std::mem::size_of_val;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::SystemTime;

use seen_store::{Clock, Config, Filter, ManualClock, SeenStore, State, Synchronous};

use crate::common::{Place, ms, secs};

/// How often the clock may be read by the work between the moment when a mark begins to wait and the mark
/// itself: in the rest of the step, in one more where the thread of the index had its turn between, and for the commit.
const READINGS: u64 = 9;

/// How many marks are made beside each work at most.
const MARKS: usize = 20;

/// A clock that is a millisecond later at each reading by the thread that works. At some readings, all of
/// them within a step, it has the other thread begin a mark, and waits until that thread sleeps.
struct Steps {
    clock: ManualClock,
    works: AtomicBool,
    readings: AtomicU64,
    marker: Mutex<Option<Marker>>,
    /// When each mark was begun.
    begun: Mutex<Vec<SystemTime>>,
}

/// A thread that marks when it is told to, and how many marks it has begun and ended.
#[derive(Clone)]
struct Marker {
    tell: mpsc::Sender<()>,
    stat: String,
    begun: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

impl Marker {
    fn sleeps(&self) -> bool {
        let stat = fs::read_to_string(&self.stat).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('S')
    }
}

impl Clock for Steps {
    fn now(&self) -> SystemTime {
        if thread::current().name() == Some("works") && self.works.load(SeqCst) {
            self.clock.advance(ms(1));
            if self.readings.fetch_add(1, SeqCst) % 7 == 3 {
                self.begin_a_mark();
            }
        }
        self.clock.now()
    }
}

impl Steps {
    fn begin_a_mark(&self) {
        let (mut begun, marker) = (self.begun.lock().unwrap(), self.marker.lock().unwrap());
        let marker = marker.as_ref().unwrap();
        let count = begun.len() as u64;
        if begun.len() == MARKS || marker.ended.load(SeqCst) < count {
            return;
        }
        begun.push(self.clock.now());
        marker.tell.send(()).unwrap();
        while marker.begun.load(SeqCst) <= count || !marker.sleeps() {
            thread::yield_now();
        }
    }
}

/// Puts this thread on the first processor that it may use, on which it goes before no thread that wakes it.
fn on_one_processor() {
    // SAFETY: changes where and how the calling thread is scheduled; the arguments are plain structures.
    unsafe {
        let mut all: libc::cpu_set_t = std::mem::zeroed();
        let mut first: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&all), &raw mut all), 0);
        let allowed = (0..1_024).find(|cpu| libc::CPU_ISSET(*cpu, &all)).unwrap();
        libc::CPU_SET(allowed, &mut first);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&first), &raw const first), 0);
        let parameter: libc::sched_param = std::mem::zeroed();
        assert_eq!(libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter), 0);
    }
}

/// By how many readings of the clock each mark was made later than it was begun.
fn waits_beside(work: fn(&SeenStore)) -> Vec<u64> {
    let clock = Arc::new(Steps {
        clock: ManualClock::default(),
        works: AtomicBool::new(false),
        readings: AtomicU64::new(0),
        marker: Mutex::new(None),
        begun: Mutex::new(Vec::new()),
    });
    let place = Place::in_ram();
    // With `Full` a waiter that finds the mutex taken sleeps at once, and is late when it is woken.
    let config =
        Config::default().clock(clock.clone()).purge_interval(None).synchronous(Synchronous::Full);
    let store = place.open(config);
    store.seed((0..20_000).map(|n| format!("live {n}"))).unwrap();
    store.scope("expired").ttl(secs(1)).seed((0..20_000).map(|n| format!("{n}"))).unwrap();
    store.mark_seen("newest").unwrap();
    clock.clock.advance(secs(1));
    let (tell, told) = mpsc::channel();
    let (begun, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let marks = {
        let marker = store.scope("marks");
        let (begins, ends) = (begun.clone(), ended.clone());
        let (say, heard) = mpsc::channel();
        let marks = thread::spawn(move || {
            on_one_processor();
            let thread = fs::read_link("/proc/thread-self").unwrap();
            say.send(format!("/proc/{}/stat", thread.display())).unwrap();
            for () in told {
                let id = format!("mark {}", begins.fetch_add(1, SeqCst));
                marker.mark_seen(id).unwrap();
                ends.fetch_add(1, SeqCst);
            }
        });
        let stat = heard.recv().unwrap();
        *clock.marker.lock().unwrap() = Some(Marker { tell, stat, begun, ended });
        marks
    };
    let works = {
        let (store, clock) = (store.clone(), clock.clone());
        thread::Builder::new().name("works".into()).spawn(move || {
            on_one_processor();
            clock.works.store(true, SeqCst);
            work(&store);
            clock.works.store(false, SeqCst);
        })
    };
    works.unwrap().join().unwrap();
    drop(clock.marker.lock().unwrap().take());
    marks.join().unwrap();
    let begun = clock.begun.lock().unwrap();
    let mut waits = Vec::new();
    for (number, begun) in begun.iter().enumerate() {
        let entry = store.scope("marks").get(format!("mark {number}")).unwrap().unwrap();
        let waited = entry.first_seen.duration_since(*begun).unwrap();
        waits.push(u64::try_from(waited.as_millis()).unwrap());
    }
    waits
}

type Work = (&'static str, fn(&SeenStore));

#[test]
fn a_mark_comes_between_two_steps_of_each_work_of_its_store() {
    let works: [Work; 7] = [
        ("a listing", |store| assert!(store.entries(Filter::default()).count() > 20_000)),
        ("a listing of what has expired", |store| {
            let expired = Filter::default().state(State::Expired);
            assert_eq!(store.entries(expired).count(), 20_000);
        }),
        ("a verify", |store| assert!(store.verify().unwrap().is_ok())),
        ("a purge", |store| assert_eq!(store.purge_expired().unwrap(), 20_000)),
        ("a purge that finds nothing", |store| {
            store.purge_expired().unwrap();
            assert_eq!(store.purge_expired().unwrap(), 0);
        }),
        ("a scope that is forgotten", |store| {
            assert_eq!(store.scope("expired").forget_scope().unwrap(), 20_000);
        }),
        ("a count of what has expired", |store| {
            assert_eq!(store.count_expired().unwrap(), 20_000);
        }),
    ];
    for (what, work) in works {
        let waits = waits_beside(work);
        println!("{what}: {waits:?}");
        assert!(!waits.is_empty(), "{what} has no steps");
        assert!(waits.iter().all(|waited| *waited <= READINGS), "{what}: {waits:?}");
    }
}
