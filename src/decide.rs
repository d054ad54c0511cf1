//! What a verb makes of what is known: rules without locks, SQL or clocks.
//!
//! Each function is given what the file holds of an id and the time, and returns what is to be written. The
//! verbs (`store`) ask for the one and write the other, under the write lock.

pub(crate) mod claim;
pub(crate) mod lifetime;
pub(crate) mod mark;
pub(crate) mod merge;
