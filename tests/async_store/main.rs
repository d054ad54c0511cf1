//! The store for tasks: the promises of the store for threads, and that no thread of the runtime is blocked.
//!
//! - Promises 2 (acknowledged means durable) and 3 (atomic), for tasks.
//! - A future that is dropped: what it began is done or not, a claim is not left behind, and others go on.

mod blocked_runtime;
mod cancelled;
mod closing;
#[path = "../common/mod.rs"]
mod common;
mod held;
mod polled;
mod queue;
#[path = "../support_process/mod.rs"]
mod support_process;
mod verbs;
mod waits;
