//! What a command does between the claim of an id and the end of that claim.

pub(crate) mod child;
pub(crate) mod memory;
pub(crate) mod renewer;
