//! A thread of a store, which does one job after the other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use seen_store::Machine;

use crate::scheduler::Scheduler;

/// What a thread of a store is to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// A thread of a store. It does one job after the other.
#[derive(Clone)]
pub struct Caller {
    pub job: Arc<Mutex<Option<Job>>>,
    /// From the moment at which it gets a job to that at which it has told what came of it.
    pub busy: Arc<AtomicBool>,
}

pub fn start_caller(scheduler: &'static Scheduler, process: usize) -> Caller {
    let caller = Caller { job: Arc::default(), busy: Arc::default() };
    let job = Arc::clone(&caller.job);
    let work = move || loop {
        scheduler.wait(&|| job.lock().is_some(), None);
        let next = job.lock().take();
        if let Some(next) = next {
            next();
        }
    };
    scheduler.start(process, "caller", Box::new(work));
    caller
}
