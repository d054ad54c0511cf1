//! The locks that the queue uses. `model` gives the locks of the model checkers the same interface.

pub(super) use crate::machine::{Condvar, Mutex, MutexGuard, unlock_fair, yield_now};
pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize};
