//! One attempt at a claimed id: what its command is told, and how the claim is ended after it.
//!
//! Owns the messages about that. What always holds: an id that is given up is told of as an error, also with `-q`,
//! by the attempt that was its last. Does not know what started the command.

use seen_store::{ErrorKind, Failure, Lease, Previous};

use crate::Result;
use crate::args::claiming::Refusal;
use crate::output::message::with_causes;

pub(crate) struct Attempt {
    lease: Lease,
    /// The id as messages name it.
    name: String,
    /// After how many attempts the id is given up.
    retries: Option<u32>,
}

impl Attempt {
    pub(crate) fn new(lease: Lease, name: String, retries: Option<u32>) -> Self {
        Self { lease, name, retries }
    }

    /// Returns what the command finds in its environment.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let previous = match self.lease.previous() {
            Previous::None => "none",
            Previous::Released => "released",
            Previous::Failed { .. } => "failed",
            Previous::Abandoned { .. } => "abandoned",
            Previous::Superseded(_) => "superseded",
            _ => "unknown",
        };
        [("SEEN_ATTEMPT", self.lease.attempt().to_string()), ("SEEN_PREVIOUS", previous.to_owned())]
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Confirms the id, with the receipt that is stored for it.
    pub(crate) fn confirm(&mut self, receipt: Option<Vec<u8>>) -> Result<()> {
        self.settle("confirmed", |lease| match receipt {
            Some(receipt) => lease.confirm_with(receipt),
            None => lease.confirm(),
        })
    }

    /// Gives the id back: the command was not started.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.settle("released", Lease::release)
    }

    /// Records that the command failed. The last attempt is final, so that listings and figures count its id as given up.
    pub(crate) fn fail(&mut self, reason: String) -> Result<()> {
        let failure = Failure::new(reason);
        let failure = if self.is_last() { failure.is_final() } else { failure };
        self.settle("failed", |lease| lease.fail(failure))
    }

    fn is_last(&self) -> bool {
        self.retries.is_some_and(|most| self.lease.attempt() >= most)
    }

    /// Tells of an id that is given up with this attempt. To be called when the attempt was in vain.
    pub(crate) fn tell_if_given_up(&self) {
        if self.is_last() {
            let attempts = self.lease.attempt();
            log::error!("{}", Refusal::GivenUp { attempts }.told(&self.name));
        }
    }

    /// Leaves the claim to its lease, which may be that of a command that still runs.
    pub(crate) fn leave(self) {
        self.lease.into_token();
    }

    fn settle(
        &mut self,
        how: &str,
        settle: impl FnOnce(&mut Lease) -> seen_store::Result<()>,
    ) -> Result<()> {
        let settled = settle(&mut self.lease);
        let name = &self.name;
        match settled {
            Ok(()) => log::info!("{name}: {how}"),
            Err(e) if e.kind() == ErrorKind::LeaseLost => log::warn!(
                "{name}: the claim was lost while the command ran: its lease had ended and another worker \
                 took it over, or it was forgotten or marked; the command may run twice"
            ),
            Err(e) => {
                let error = with_causes(&e);
                return Err(format!(
                    "{name}: could not be written down as {how}, and is free again when its lease ends: \
                     {error}"
                )
                .into());
            }
        }
        Ok(())
    }
}
