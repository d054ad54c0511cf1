//! The verbs: what each decides of one id.
//!
//! Owns every decision on a mark or a claim, for all stores: the file, a store in memory, and one on another engine. What
//! always holds: a decision reads and writes nothing but [`Rows`](super::rows::Rows), so two stores with the same rows
//! answer the same. Knows no clock, no lock and no SQL.

mod claims;
mod marks;
mod restore;
mod settle;
mod sight;

pub(crate) use self::claims::Decided;
pub(crate) use self::marks::first_of_equals;
pub use self::marks::{Observation, Verdict};
#[cfg_attr(not(feature = "backend"), expect(unreachable_pub, reason = "for other stores"))]
pub use self::restore::Restored;
pub(crate) use self::restore::check_notes;
pub(crate) use self::settle::{Confirmed, prolong};
pub use self::settle::{Ownership, Resolution};
pub(crate) use self::sight::Look;

use std::sync::Arc;

use super::lifetime::Lifetime;
use crate::config::{Abandoned, Config};
use crate::token::Tokens;

/// What a handle's decisions depend on besides the rows.
#[derive(Clone, Copy)]
pub(crate) struct Verbs<'a> {
    /// The name of the store in messages.
    pub(crate) store: &'a str,
    pub(crate) config: &'a Config,
    pub(crate) lifetime: Lifetime,
    pub(crate) abandoned: Abandoned,
    pub(crate) holder: &'a Arc<str>,
    pub(crate) tokens: &'a Tokens,
}
