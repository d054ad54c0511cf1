//! The locks that the queue runs on, in the shape that `model` also gives to those of the model checkers.

pub(super) use crate::machine::{Condvar, Mutex, MutexGuard, unlock_fair, yield_now};
pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize};
