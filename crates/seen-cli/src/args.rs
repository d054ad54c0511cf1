//! What the arguments of several commands share: which store, which ids, which entries, which claim, how long.
//!
//! Knows nothing of what a command does with them.

pub(crate) mod claiming;
pub(crate) mod database;
pub(crate) mod duration;
pub(crate) mod every;
pub(crate) mod holder;
pub(crate) mod ids;
pub(crate) mod line_ends;
pub(crate) mod place;
pub(crate) mod retention;
pub(crate) mod selection;
pub(crate) mod statuses;
