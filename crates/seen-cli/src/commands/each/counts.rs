//! What became of the lines of `seen each`, in numbers.

use crate::args::claiming::Refusal;

/// How many lines there were of each kind.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) read: u64,
    pub(super) done: u64,
    pub(super) done_before: u64,
    pub(super) failed: u64,
    pub(super) repeated: u64,
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    pub(super) given_up: u64,
    pub(super) unresolved: u64,
    /// Inputs that could not be read, or not to their end.
    pub(super) unreadable: u64,
}

impl Counts {
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        *match refusal {
            Refusal::Seen(_) => &mut self.done_before,
            Refusal::InFlight { .. } => &mut self.in_flight,
            Refusal::Waiting { .. } => &mut self.waiting,
            Refusal::GivenUp { .. } => &mut self.given_up,
            Refusal::Unresolved { .. } => &mut self.unresolved,
        } += 1;
    }

    /// Whether each line is done.
    pub(super) fn went_well(&self) -> bool {
        self.failed + self.in_flight + self.waiting + self.given_up + self.unresolved == 0
    }

    /// The summary.
    pub(super) fn told(&self) -> String {
        let always = [
            ("read", self.read),
            ("done", self.done),
            ("done before", self.done_before),
            ("failed", self.failed),
        ];
        let if_any = [
            ("repeated", self.repeated),
            ("in flight", self.in_flight),
            ("not yet tried again", self.waiting),
            ("given up", self.given_up),
            ("unresolved", self.unresolved),
        ];
        let told = always.into_iter().chain(if_any.into_iter().filter(|(_, count)| *count > 0));
        told.map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }
}
