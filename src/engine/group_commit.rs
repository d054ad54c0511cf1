//! Group commit: callers that come at the same time share one use of what a mutex protects.
//!
//! Owns the mutex and the queue beside it. A caller that finds the mutex free and the queue empty takes the
//! mutex and pays nothing for the queue. A caller that finds the mutex taken leaves a job in the queue and
//! waits. The next *leader* takes the waiting jobs in the order in which they came, does them while it holds
//! the mutex, and answers each. (The method is flat combining: Hendler, Incze, Shavit and Tzafrir, 2010.
//! Databases call it group commit.)
//!
//! What always holds:
//!
//! - While jobs wait, one thread is in charge of them: the holder of the mutex, which hands the queue over
//!   when it releases the mutex, or a waiter that was told to lead and finds the mutex free. A job is queued
//!   *before* its waiter tries the mutex, and the queue is checked *after* the mutex is free. So no job is
//!   left behind between the two.
//! - A job that was taken is answered or given back. A job that its leader drops by a panic is reported to
//!   its waiter as abandoned. A job is dropped before its waiter is notified. A waiter that leaves, also by a
//!   panic, takes its job with it and puts the next waiter in charge.
//! - Lock order: the mutex, the queue, a promise. Neither the queue's lock nor a promise's is held while a
//!   job runs.
//!
//! Knows nothing of stores or SQL. The code is in `queue` and is compiled three times: with the locks in
//! `locks`, and in `model` with the locks of two model checkers. One of them tries many interleavings, the
//! other also tries what weak memory orderings allow.

mod locks;
#[cfg(test)]
mod model;
mod queue;

pub(crate) use queue::{GroupCommit, JobOutcome, Jobs, LeadResult, TakenJob};
