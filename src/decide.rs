//! Decisions: rules without locks, SQL or clocks.
//!
//! Each function gets what the file holds of an id and the time, and returns what is to be written. The verbs
//! in `store` read the one and write the other, under the write lock.

pub(crate) mod claim;
pub(crate) mod lifetime;
pub(crate) mod mark;
pub(crate) mod merge;
#[cfg(feature = "backend")]
pub(crate) mod record;
pub(crate) mod rows;
pub(crate) mod verbs;
