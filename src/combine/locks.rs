//! The locks that the queue runs on, in the shape that `model` also gives to the model checker's.

pub(super) use crate::machine::{Condvar, Mutex, MutexGuard, unlock_fair, yield_now};
pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize};
