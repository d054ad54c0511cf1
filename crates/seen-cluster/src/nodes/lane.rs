//! One connection that many tasks share, with at most one pipeline under way (group commit).
//!
//! Owns the queue of requests, who sends them, and the hand-over between senders. A request that finds the lane idle is
//! sent and answered in its caller's own task. Requests that come meanwhile queue; a task of the lane's own sends them, as
//! many as fit into a pipeline at a time, until the queue is empty. A caller that sends and is not polled is relieved of it
//! by those that wait.
//!
//! What always holds: while the lane is busy, exactly one [`Turn`] exists, and whatever drops it hands the lane on. A
//! request is sent at most once. A caller that is dropped before its request was sent takes the request back; after
//! that the pipeline is carried on without it, so all others get their answers. Locks are not held across an `await`.
//!
//! Knows nothing of slots, and of replies only how many there are.

mod group;
mod led;
mod ticket;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use redis::Value;
use tokio::sync::oneshot;

use self::group::Group;
use self::led::{Lead, Led};
use self::ticket::Ticket;
use super::clock::{Deadline, steady_us};
use super::error::{NodeError, NodeErrorKind};
use super::node::{Node, Purpose};
use super::wire::Wire;

/// The most commands and bytes of one pipeline. One request may have more bytes.
pub(super) const MAX_COMMANDS: usize = 1_000;
pub(super) const MAX_BYTES: usize = 1 << 20;

/// How long a failure to connect is the answer to further requests, so that callers that all try again do not storm a
/// server that is about to come back. It is shorter than any pause between two tries.
const SHARED_FAILURE_US: i64 = 5_000;

/// How long a request waits for a pipeline that a caller sends. Then a task sends it.
const HELD_UP: Duration = Duration::from_millis(5);

/// Commands that stay together in one pipeline.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    /// How many commands these bytes are, each of which has one reply.
    pub(super) commands: usize,
}

/// What came back for a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// A reply for each command, or for the first ones if `failure` says why no more came.
    pub(super) values: Vec<Value>,
    /// How many replicas have received the writes, if they were waited for and the server told.
    pub(super) acknowledged: Option<u32>,
    pub(super) failure: Option<NodeError>,
}

impl Answer {
    fn failed(error: NodeError) -> Self {
        Self { values: Vec::new(), acknowledged: None, failure: Some(error) }
    }
}

#[derive(Default)]
pub(super) struct Lane {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_busy: bool,
    is_closed: bool,
    /// The connection while the lane is idle.
    wire: Option<Wire>,
    /// Empty while the lane is idle.
    waiting: VecDeque<Entry>,
    /// The pipeline that a caller sends, or sent last.
    lead: Option<Lead<Answer>>,
    /// When the connection could not be opened last, and why.
    failed: Option<(i64, NodeError)>,
}

/// A request in the queue.
struct Entry {
    request: Request,
    ticket: Arc<Ticket>,
    answer: oneshot::Sender<Answer>,
}

enum Entered {
    /// The lane was idle.
    Leads(Led<Answer>),
    Waits(oneshot::Receiver<Answer>),
    Closed,
}

impl Lane {
    /// Sends a request of the lane of `node` and returns what came back, by the deadline.
    pub(super) async fn call(
        node: &Arc<Node>,
        purpose: Purpose,
        request: Request,
        deadline: Deadline,
    ) -> Answer {
        let ticket = Arc::new(Ticket::default());
        // Takes the request back if this future is dropped.
        let held = ticket.hold();
        let in_time = match Self::enter(node, purpose, request, &ticket) {
            Entered::Leads(pipeline) => tokio::time::timeout_at(deadline.instant(), pipeline).await,
            Entered::Waits(answer) => {
                let answer = Self::wait(node, purpose, answer);
                tokio::time::timeout_at(deadline.instant(), answer).await
            }
            Entered::Closed => Ok(Some(Answer::failed(NodeError::closed()))),
        };
        let answer = in_time.unwrap_or_else(|_| {
            Some(Answer::failed(if held.take_back() {
                NodeError::timed_out(None)
            } else {
                NodeError::timed_out_after_sending(node.address())
            }))
        });
        // Otherwise the runtime that sent the pipeline has ended.
        answer.unwrap_or_else(|| Answer::failed(lost(node, "its sender has ended")))
    }

    /// Waits for the answer of a request in the queue.
    async fn wait(
        node: &Node,
        purpose: Purpose,
        mut answer: oneshot::Receiver<Answer>,
    ) -> Option<Answer> {
        loop {
            if let Ok(answer) = tokio::time::timeout(HELD_UP, &mut answer).await {
                return answer.ok();
            }
            let lead = node.lane(purpose).state.lock().lead.clone();
            if lead.is_none_or(|lead| lead.take_over(node.runtime())) {
                return answer.await.ok();
            }
        }
    }

    fn enter(
        node: &Arc<Node>,
        purpose: Purpose,
        request: Request,
        ticket: &Arc<Ticket>,
    ) -> Entered {
        let mut state = node.lane(purpose).state.lock();
        if state.is_closed {
            return Entered::Closed;
        }
        if !state.is_busy {
            state.is_busy = true;
            let wire = state.wire.take();
            let own = Some((request, ticket.clone()));
            let node = node.clone();
            let mut turn = Turn { node, purpose, wire, own, is_handed_on: false };
            let runtime = turn.node.runtime().clone();
            let pipeline = Led::new(runtime, async move { turn.lead().await });
            state.lead = Some(pipeline.lead());
            return Entered::Leads(pipeline);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(Entry { request, ticket: ticket.clone(), answer: sender });
        Entered::Waits(receiver)
    }

    /// Returns how many requests wait for the pipeline that is under way.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let (wire, waiting) = (state.wire.take(), std::mem::take(&mut state.waiting));
        drop(state);
        drop(wire);
        fail_all(waiting, &NodeError::closed());
    }
}

/// Tells all that their request was not sent.
fn fail_all(entries: VecDeque<Entry>, error: &NodeError) {
    for entry in entries {
        _ = entry.answer.send(Answer::failed(error.clone()));
    }
}

fn lost(node: &Node, why: &str) -> NodeError {
    let message = format!("the answer of {} is lost: {why}", node.address());
    NodeError::new(NodeErrorKind::Lost, message)
}

/// The right to use a lane's connection. When it is dropped, the next in the queue are served.
struct Turn {
    node: Arc<Node>,
    purpose: Purpose,
    /// The connection, if there is one that can be used again.
    wire: Option<Wire>,
    /// The request of the caller that leads.
    own: Option<(Request, Arc<Ticket>)>,
    /// Whether a task of the lane's own was to use it, and has not begun.
    is_handed_on: bool,
}

impl Turn {
    /// Sends the caller's request, and what came meanwhile.
    async fn lead(&mut self) -> Answer {
        let own = self.own.take();
        self.send_group(own).await.unwrap_or_else(|| Answer::failed(NodeError::timed_out(None)))
    }

    /// Sends groups until the queue is empty.
    async fn serve(&mut self) {
        self.is_handed_on = false;
        while self.has_waiting() {
            self.send_group(None).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.node.lane(self.purpose).state.lock()
    }

    fn has_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Sends one pipeline and hands out the answers. Returns that of `own`, if it was not taken back.
    async fn send_group(&mut self, own: Option<(Request, Arc<Ticket>)>) -> Option<Answer> {
        let mut wire = match self.wire.take().and_then(usable) {
            Some(wire) => wire,
            None => match self.open().await {
                Ok(wire) => wire,
                Err(error) => return self.fail_group(own, error),
            },
        };
        let answered = self.gather(own).exchange(&self.node, &mut wire).await;
        if answered.is_answered() {
            self.wire = Some(wire);
        }
        answered.hand_out()
    }

    async fn open(&self) -> Result<Wire, NodeError> {
        if let Some((failed_us, error)) = &self.state().failed
            && steady_us() - failed_us < SHARED_FAILURE_US
        {
            return Err(error.clone());
        }
        let opened = self.node.open().await;
        let failed = opened.as_ref().err().map(|error| (steady_us(), error.clone()));
        let before = std::mem::replace(&mut self.state().failed, failed);
        let node = self.node.address();
        match &opened {
            Ok(_) => log::debug!(node:%, purpose:? = self.purpose; "connected"),
            // It is tried many times a second while it is down.
            Err(error) if before.is_some() => log::debug!(node:%; "{error}"),
            Err(error) => log::warn!(node:%; "{error}"),
        }
        opened
    }

    /// Takes what fits into a pipeline, and was not taken back. From here on these requests count as sent.
    fn gather(&self, own: Option<(Request, Arc<Ticket>)>) -> Group {
        let mut group = Group::new(self.purpose);
        if let Some((request, ticket)) = own
            && ticket.seal()
        {
            group.add(request, None);
        }
        let mut state = self.state();
        while state.waiting.front().is_some_and(|entry| group.has_room(&entry.request)) {
            let Some(entry) = state.waiting.pop_front() else { break };
            if entry.ticket.seal() {
                group.add(entry.request, Some(entry.answer));
            }
        }
        group
    }

    /// The connection cannot be opened: all that waited for it are told so, for each of them would find the same.
    fn fail_group(&self, own: Option<(Request, Arc<Ticket>)>, error: NodeError) -> Option<Answer> {
        let waiting = std::mem::take(&mut self.state().waiting);
        fail_all(waiting, &error);
        own.map(|_| Answer::failed(error))
    }
}

fn usable(mut wire: Wire) -> Option<Wire> {
    wire.is_usable().then_some(wire)
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.node.lane(self.purpose).state.lock();
        if state.waiting.is_empty() {
            state.is_busy = false;
            if !state.is_closed {
                state.wire = self.wire.take();
            }
            return;
        }
        if self.is_handed_on {
            // The runtime did not use it: it has ended or is about to.
            state.is_busy = false;
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            fail_all(waiting, &NodeError::ended());
            return;
        }
        drop(state);
        let wire = self.wire.take();
        let (node, purpose) = (self.node.clone(), self.purpose);
        let mut turn = Turn { node, purpose, wire, own: None, is_handed_on: true };
        self.node.runtime().spawn(async move { turn.serve().await });
    }
}
