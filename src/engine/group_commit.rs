//! Combining: callers that come at the same time share one turn with what a mutex protects.
//!
//! Owns the mutex and the queue beside it. Whoever finds the mutex free and nobody waiting takes it and
//! pays nothing. Who finds it taken leaves a job in the queue; the next *leader* takes the waiting jobs,
//! first come, first served, does them in one turn and answers each. (Flat combining: Hendler, Incze,
//! Shavit and Tzafrir, 2010. Databases call it group commit.)
//!
//! What always holds:
//!
//! - While jobs wait, somebody is in charge of them: the holder of the mutex, who hands over when it
//!   lets go, or the waiter that was told to lead and finds the mutex free. A job is queued *before* its
//!   waiter tries the mutex and the queue is looked at *after* the mutex is free, so none is left behind
//!   between the two.
//! - A job that was taken is answered or given back; one that is dropped, by a panic of its leader, is
//!   reported to its waiter as abandoned. A job is gone before its waiter is told. A waiter that leaves, also by a panic, takes its job with it and puts
//!   the next one in charge.
//! - Lock order: the mutex, the queue, a promise. Neither of the latter is held while a job runs.
//!
//! Knows nothing of stores or SQL. The code is in `queue` and is compiled three times: with these locks, and
//! in `model` with those of two model checkers, of which one tries many interleavings and the other what
//! weak orderings allow as well.

mod locks;
#[cfg(test)]
mod model;
mod queue;

pub(crate) use queue::{GroupCommit, Jobs, LeadResult, JobOutcome, TakenJob};
