//! What a command does while it holds claims.

pub(crate) mod attempt;
pub(crate) mod child;
pub(crate) mod crew;
pub(crate) mod memory;
pub(crate) mod renewer;
pub(crate) mod replay;
pub(crate) mod stop;
