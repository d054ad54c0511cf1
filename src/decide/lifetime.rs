//! How long a mark lasts, and how long it is kept: the TTL, the window and the retention of a handle.
//!
//! Owns the arithmetic of expiry. What always holds: sums saturate, and a sliding window never makes a mark last
//! longer than the maximum age. Must not read a clock, nor know how a mark is stored.

use std::time::Duration;

use crate::config::{Ttl, Window};
use crate::error::Result;
use crate::journal::NewMark;

/// The TTL, the window and the retention of a handle: how long its marks last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub(crate) ttl: Ttl,
    pub(crate) window: Window,
    pub(crate) retention: Option<Duration>,
}

impl Lifetime {
    /// Returns a mark of an id that is seen at `seen_at_ms` and whose window began at `first_ms`.
    pub(crate) fn mark<'a>(self, seen_at_ms: i64, first_ms: i64) -> NewMark<'a> {
        let expires_at = self.expires_at(seen_at_ms, first_ms);
        let retain_until = self.retention.map(Ttl::After).and_then(|it| it.expires_at(seen_at_ms));
        NewMark {
            first_seen: first_ms,
            retain_until: retain_until.filter(|until| expires_at.is_some_and(|at| at < *until)),
            ..NewMark::at(seen_at_ms, expires_at)
        }
    }

    /// Returns when a mark made at `at_ms` of an id first seen at `first_ms` expires.
    pub(crate) fn expires_at(self, at_ms: i64, first_ms: i64) -> Option<i64> {
        match (self.window, self.ttl) {
            (Window::Fixed, ttl) => ttl.expires_at(at_ms),
            (Window::Sliding { max_age }, ttl) => {
                let slack = match ttl {
                    Ttl::After(duration) => Ttl::After(duration.saturating_add(duration / 16)),
                    Ttl::Never => ttl,
                };
                let oldest = max_age.map_or(Ttl::Never, Ttl::After).expires_at(first_ms);
                match (slack.expires_at(at_ms), oldest) {
                    (Some(sliding), Some(oldest)) => Some(sliding.min(oldest)),
                    (sliding, oldest) => sliding.or(oldest),
                }
            }
        }
    }

    /// Returns when the window of an id began that was claimed at `claimed_ms` and is confirmed at `now_ms`:
    /// with the claim, unless the maximum age since then is over. In that case the mark would have expired
    /// before it was made, so the window begins now.
    pub(crate) fn window_start(self, claimed_ms: i64, now_ms: i64) -> i64 {
        let end = match self.window {
            Window::Sliding { max_age: Some(age) } => Ttl::After(age).expires_at(claimed_ms),
            _ => None,
        };
        if end.is_some_and(|end| end <= now_ms) { now_ms } else { claimed_ms.min(now_ms) }
    }

    /// Returns true when a sighting at `now_ms` extends a mark that expires at `expires_at`. `is_at_max_age` tells whether
    /// the mark is known to have reached a maximum age.
    pub(crate) fn needs_extension(
        self,
        expires_at: Option<i64>,
        now_ms: i64,
        is_at_max_age: impl FnOnce(Duration) -> Result<bool>,
    ) -> Result<bool> {
        if !self.wants_later_expiry(expires_at, now_ms) {
            return Ok(false);
        }
        match self.window {
            Window::Sliding { max_age: Some(age) } => Ok(!is_at_max_age(age)?),
            _ => Ok(true),
        }
    }

    /// Returns true when a sighting at `now_ms` calls for a later expiry than `expires_at`, if the maximum
    /// age allows one.
    fn wants_later_expiry(self, expires_at: Option<i64>, now_ms: i64) -> bool {
        let Some(expires_at) = expires_at else { return false };
        self.window != Window::Fixed
            && self.ttl.expires_at(now_ms).is_none_or(|wanted| expires_at < wanted)
    }
}
