//! One pipeline.
//!
//! Owns what is sent together, the questions of the layer's own in it (`TIME` at its start, `WAIT` at its end), and which
//! reply is whose. What always holds: `WAIT` goes over the connection of the writes that it waits for, after them.

use redis::Value;
use tokio::sync::oneshot;

use super::{Answer, MAX_BYTES, MAX_COMMANDS, Request, lost};
use crate::nodes::clock::steady_us;
use crate::nodes::error::{NodeError, NodeErrorKind, server_text};
use crate::nodes::node::{Node, Purpose};
use crate::nodes::wire::{Replies, SendError, Wire, time_command, time_us};

pub(super) struct Group {
    purpose: Purpose,
    bytes: Vec<u8>,
    commands: usize,
    /// For each request how many replies it has, and whom to tell: nobody for that of the caller that leads.
    requests: Vec<(usize, Option<oneshot::Sender<Answer>>)>,
}

/// A group whose replies came, or will not come.
pub(super) struct Answered {
    requests: Vec<(usize, Option<oneshot::Sender<Answer>>)>,
    values: Vec<Value>,
    acknowledged: Option<u32>,
    failure: Option<NodeError>,
}

impl Group {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose, bytes: Vec::new(), commands: 0, requests: Vec::new() }
    }

    /// Returns whether the request can be added. The first one always can.
    pub(super) fn has_room(&self, request: &Request) -> bool {
        self.requests.is_empty()
            || self.commands + request.commands <= MAX_COMMANDS
                && self.bytes.len() + request.bytes.len() <= MAX_BYTES
    }

    pub(super) fn add(&mut self, request: Request, answer: Option<oneshot::Sender<Answer>>) {
        self.commands += request.commands;
        self.requests.push((request.commands, answer));
        if self.bytes.is_empty() {
            self.bytes = request.bytes;
        } else {
            self.bytes.extend_from_slice(&request.bytes);
        }
    }

    /// Sends all and reads the replies.
    pub(super) async fn exchange(self, node: &Node, wire: &mut Wire) -> Answered {
        let Self { purpose, mut bytes, commands, requests } = self;
        let settings = node.settings();
        if commands == 0 {
            return Answered { requests, values: Vec::new(), acknowledged: None, failure: None };
        }
        let mut timeout = settings.response_timeout;
        let waits = purpose == Purpose::Write && settings.min_replicas > 0;
        if waits {
            // 0 would mean for ever.
            let wait_ms = settings.wait_timeout.as_millis().max(1);
            let mut wait = redis::cmd("WAIT");
            wait.arg(settings.min_replicas).arg(u64::try_from(wait_ms).unwrap_or(u64::MAX));
            wait.write_packed_command(&mut bytes);
            timeout = timeout.saturating_add(settings.wait_timeout);
        }
        let sent_us = steady_us();
        let asks_time = node.clock().is_due(sent_us);
        if asks_time {
            bytes = [time_command().get_packed_command(), bytes].concat();
        }

        let mut replies = Replies::default();
        let all = async {
            wire.send(&bytes).await.map_err(|error| unsent(node, error))?;
            let count = usize::from(asks_time) + commands + usize::from(waits);
            wire.receive(count, &mut replies).await.map_err(|error| {
                let why = lost(node, &error.to_string());
                NodeError::because(why.kind(), why.to_string(), error)
            })
        };
        let failure = match tokio::time::timeout(timeout, all).await {
            Ok(result) => result.err(),
            Err(_) => Some(lost(node, &format!("it did not come within {timeout:?}"))),
        };
        if let (None, Purpose::Write, Some(on_group)) = (&failure, purpose, &settings.on_group) {
            on_group(commands);
        }
        if let Some(failure) = &failure {
            log::warn!(node:% = node.address(), commands; "{failure}");
        }

        let first_us = replies.first_us;
        let mut values = replies.values;
        if asks_time && !values.is_empty() {
            // A server that does not tell its time was refused when the connection was opened.
            if let Some(server_us) = time_us(&values.remove(0)) {
                node.clock().record(sent_us, first_us, server_us);
            }
        }
        let acknowledged = if waits && failure.is_none() {
            values.pop().map(|reply| replicas(&reply, node))
        } else {
            None
        };
        Answered { requests, values, acknowledged, failure }
    }
}

fn unsent(node: &Node, error: SendError) -> NodeError {
    match error {
        SendError::Part(error) => {
            let why = lost(node, &format!("the connection broke while sending: {error}"));
            NodeError::because(why.kind(), why.to_string(), error)
        }
        SendError::Nothing(error) => {
            let message = format!("cannot send to {}: {error}", node.address());
            NodeError::because(NodeErrorKind::Unreachable, message, error)
        }
    }
}

/// Reads the reply to `WAIT`. An error means that no replica is known to have the writes: the server may have lost its
/// place as a master meanwhile.
fn replicas(reply: &Value, node: &Node) -> u32 {
    match reply {
        Value::Int(count) => u32::try_from(*count).unwrap_or(0),
        Value::ServerError(error) => {
            log::warn!(node:% = node.address(); "WAIT: {}", server_text(error));
            0
        }
        _ => 0,
    }
}

impl Answered {
    /// Returns whether no reply is outstanding.
    pub(super) fn is_answered(&self) -> bool {
        self.failure.is_none()
    }

    /// Tells all their answers, and returns that of the caller that leads.
    pub(super) fn hand_out(self) -> Option<Answer> {
        let mut own = None;
        let mut values = self.values.into_iter();
        for (count, waiting) in self.requests {
            let values: Vec<_> = values.by_ref().take(count).collect();
            // What came before the failure stands.
            let failure = self.failure.clone().filter(|_| values.len() < count);
            let answer = Answer { values, acknowledged: self.acknowledged, failure };
            match waiting {
                // A caller that was dropped has no use for it.
                Some(waiting) => _ = waiting.send(answer),
                None => own = Some(answer),
            }
        }
        own
    }
}
