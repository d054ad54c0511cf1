//! A command on its way.
//!
//! Owns what is remembered of its tries, and how commands are packed into requests. What always holds: a request is no
//! larger than a pipeline may be, unless it is one command.

use crate::nodes::address::Address;
use crate::nodes::error::{NodeError, NodeErrorKind};
use crate::nodes::lane::{MAX_BYTES, MAX_COMMANDS, Request};
use crate::nodes::node::Purpose;
use crate::nodes::route::Outcome;

/// How many redirects a command follows without a pause. Two servers may each think that the other one has the slot.
const REDIRECTS: u32 = 5;

/// `ASKING`: the next command may use a slot that is on its way here.
const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

#[derive(Debug)]
pub(in crate::nodes) struct Command {
    /// Among those of the caller.
    pub(super) place: usize,
    pub(super) slot: u16,
    packed: Vec<u8>,
    /// The node that a redirect named for this try alone.
    pub(super) asking: Option<Address>,
    redirects: u32,
    pub(super) tries: u32,
    /// Why it must pause now.
    pub(super) trouble: Option<NodeError>,
    /// Why it paused last.
    last: Option<NodeError>,
}

impl Command {
    pub(in crate::nodes) fn new(place: usize, slot: u16, packed: Vec<u8>) -> Self {
        Self {
            place,
            slot,
            packed,
            asking: None,
            redirects: 0,
            tries: 0,
            trouble: None,
            last: None,
        }
    }

    /// The pause is over.
    pub(super) fn rested(&mut self) {
        self.last = self.trouble.take();
    }

    pub(super) fn in_trouble(mut self, error: NodeError) -> Self {
        self.trouble = Some(error);
        self.asking = None;
        self.redirects = 0;
        self.tries += 1;
        self
    }

    pub(super) fn redirected(mut self, asking: Option<Address>, by: &Address) -> Self {
        self.asking = asking;
        self.redirects += 1;
        if self.redirects <= REDIRECTS {
            return self;
        }
        let message = format!("{by} and others redirect slot {} in circles", self.slot);
        self.in_trouble(NodeError::new(NodeErrorKind::NotReady, message))
    }

    /// Takes in that no reply came: the command is to be sent again, or this is its outcome.
    pub(super) fn failed(self, error: NodeError, purpose: Purpose) -> Result<Self, Outcome> {
        if error.kind() == NodeErrorKind::Timeout && !error.may_be_executed() {
            return Err((self.place, Err(self.timed_out())));
        }
        let is_answer = error.kind() == NodeErrorKind::Timeout
            || error.is_final()
            || purpose == Purpose::Write && error.may_be_executed();
        if is_answer { Err((self.place, Err(error))) } else { Ok(self.in_trouble(error)) }
    }

    pub(super) fn timed_out(self) -> NodeError {
        NodeError::timed_out(self.trouble.or(self.last))
    }

    /// Returns how many commands and bytes it is in a request.
    fn size(&self) -> (usize, usize) {
        match self.asking {
            Some(_) => (2, ASKING.len() + self.packed.len()),
            None => (1, self.packed.len()),
        }
    }
}

/// Cuts commands into what fits into a pipeline.
pub(super) fn pieces(commands: Vec<Command>) -> Vec<Vec<Command>> {
    let mut pieces: Vec<Vec<Command>> = Vec::with_capacity(1);
    let (mut count, mut bytes) = (0, 0);
    for command in commands {
        let (more, more_bytes) = command.size();
        match pieces.last_mut() {
            Some(piece) if count + more <= MAX_COMMANDS && bytes + more_bytes <= MAX_BYTES => {
                piece.push(command);
                (count, bytes) = (count + more, bytes + more_bytes);
            }
            _ => {
                pieces.push(vec![command]);
                (count, bytes) = (more, more_bytes);
            }
        }
    }
    pieces
}

/// Packs a piece. The commands are kept, for they may have to be sent again.
pub(super) fn request(piece: &[Command]) -> Request {
    let (commands, bytes) = piece.iter().fold((0, 0), |(commands, bytes), command| {
        let (more, more_bytes) = command.size();
        (commands + more, bytes + more_bytes)
    });
    let mut packed = Vec::with_capacity(bytes);
    for command in piece {
        if command.asking.is_some() {
            packed.extend_from_slice(ASKING);
        }
        packed.extend_from_slice(&command.packed);
    }
    Request { bytes: packed, commands }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(bytes: usize) -> Command {
        Command::new(0, 0, vec![b'x'; bytes])
    }

    fn sizes(commands: Vec<Command>) -> Vec<usize> {
        pieces(commands).iter().map(Vec::len).collect()
    }

    #[test]
    fn a_piece_has_a_thousand_commands_or_a_megabyte_at_most() {
        assert_eq!(sizes(Vec::new()), [0; 0]);
        assert_eq!(sizes((0..2_001).map(|_| command(9)).collect()), [1_000, 1_000, 1]);
        assert_eq!(sizes((0..5).map(|_| command(400_000)).collect()), [2, 2, 1]);
        assert_eq!(sizes(vec![command(5_000_000), command(1)]), [1, 1]);
        let asking = |_| command(9).redirected(Some(Address::new("h", 1)), &Address::new("g", 1));
        assert_eq!(sizes((0..600).map(asking).collect()), [500, 100]);
    }

    #[test]
    fn a_moving_slot_is_asked_for_with_each_command() {
        let asking = command(1).redirected(Some(Address::new("h", 1)), &Address::new("g", 1));
        let request = request(&[command(2), asking]);
        assert_eq!(request.bytes, b"xx*1\r\n$6\r\nASKING\r\nx");
        assert_eq!(request.commands, 3);
    }

    #[test]
    fn a_command_pauses_after_five_redirects() {
        let by = Address::new("g", 1);
        let mut command = command(1);
        for _ in 0..5 {
            command = command.redirected(None, &by);
            assert!(command.trouble.is_none());
        }
        assert!(command.redirected(None, &by).trouble.is_some());
    }

    #[test]
    fn a_write_that_may_be_executed_is_not_sent_again_and_a_read_is() {
        let lost = || NodeError::new(NodeErrorKind::Lost, "lost");
        assert!(command(1).failed(lost(), Purpose::Read).is_ok());
        let (_, outcome) = command(1).failed(lost(), Purpose::Write).unwrap_err();
        assert!(outcome.unwrap_err().may_be_executed());
        let unreachable = NodeError::new(NodeErrorKind::Unreachable, "unreachable");
        assert!(command(1).failed(unreachable, Purpose::Write).is_ok());
    }
}
