//! Whether a queued request was sent or taken back.
//!
//! Owns the decision between the two, which is made once. Knows nothing of requests.

use std::sync::atomic::{AtomicU8, Ordering};

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const TAKEN_BACK: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    /// The sender decides to send. Returns false if the caller was faster.
    pub(super) fn seal(&self) -> bool {
        self.decide(SENT)
    }

    /// Returns a guard that takes the request back when it is dropped.
    pub(super) fn hold(&self) -> Held<'_> {
        Held(self)
    }

    // No other memory is guarded by this.
    fn decide(&self, outcome: u8) -> bool {
        let order = Ordering::Relaxed;
        self.0.compare_exchange(QUEUED, outcome, order, order).is_ok()
    }
}

/// A caller that waits for its answer.
pub(super) struct Held<'a>(&'a Ticket);

impl Held<'_> {
    /// Returns whether the request is not sent, and never will be.
    pub(super) fn take_back(self) -> bool {
        self.0.decide(TAKEN_BACK)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.decide(TAKEN_BACK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_or_taken_back() {
        let ticket = Ticket::default();
        assert!(ticket.hold().take_back());
        assert!(!ticket.seal());

        let ticket = Ticket::default();
        let held = ticket.hold();
        assert!(ticket.seal());
        assert!(!held.take_back());
    }

    #[test]
    fn a_caller_that_is_dropped_takes_its_request_back() {
        let ticket = Ticket::default();
        drop(ticket.hold());
        assert!(!ticket.seal());
    }
}
