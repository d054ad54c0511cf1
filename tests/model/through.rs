//! The handle that a verb is called through, and how long what it makes lasts.
//!
//! The simulator compiles this too.

use std::time::Duration;

use seen_store::{Abandoned, SeenStore, Window};

use crate::state::{Life, Span, Windowing};

/// How long a mark lasts that is made through a store itself.
pub(crate) const DEFAULT_TTL_MS: u64 = 10 * 60_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Through {
    /// `None` leaves the store's own TTL in force.
    pub(crate) ttl: Option<Span>,
    /// `None` leaves the store's own window in force.
    pub(crate) window: Option<Windowing>,
    /// Whether claims are held once they are abandoned.
    pub(crate) hold: bool,
    /// For how long after a mark what is known is kept.
    pub(crate) retention: Option<Span>,
}

impl Through {
    pub(crate) const PLAIN: Self = Self { ttl: None, window: None, hold: false, retention: None };

    /// The handle of the store in this scope.
    pub(crate) fn handle(self, store: &SeenStore, scope: &str) -> SeenStore {
        let mut handle = store.scope(scope);
        if let Some(ttl) = self.ttl {
            handle = handle.ttl(ttl.ttl());
        }
        if let Some(window) = self.window {
            handle = handle.window(window_of(window));
        }
        if self.hold {
            handle = handle.abandoned(Abandoned::Hold);
        }
        if let Some(retention) = self.retention {
            handle = handle.retention(retention.duration());
        }
        handle
    }

    /// How long what the handle makes lasts, of a store with this window.
    pub(crate) fn life(self, window: Windowing) -> Life {
        Life {
            ttl: self.ttl.unwrap_or(Span::Ms(DEFAULT_TTL_MS)),
            window: self.window.unwrap_or(window),
            retention: self.retention,
        }
    }

    /// Whether every verb is refused: what is known would be kept for a shorter time than the id is seen.
    pub(crate) fn is_refused(self) -> bool {
        let ttl = self.ttl.unwrap_or(Span::Ms(DEFAULT_TTL_MS));
        let is_shorter = |retention: Span| retention.duration() < ttl.duration();
        ttl != Span::Never && self.retention.is_some_and(is_shorter)
    }
}

pub(crate) fn window_of(window: Windowing) -> Window {
    match window {
        Windowing::Fixed => Window::Fixed,
        Windowing::Sliding { max_age_ms } => {
            Window::Sliding { max_age: max_age_ms.map(Duration::from_millis) }
        }
    }
}
