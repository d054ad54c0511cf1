//! Bringing each command to the master of its slot.
//!
//! Owns what happens to a command until it has an answer: which node it goes to, redirects, pauses, and when to give up.
//! What always holds: a write that may have been executed is not sent again; one command's error is that one's alone;
//! commands of different nodes do not wait for each other. Knows nothing of verbs.

mod command;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinSet;

pub(super) use self::command::Command;
use self::command::{pieces, request};
use super::address::Address;
use super::clock::Deadline;
use super::cluster::Cluster;
use super::error::{NodeError, NodeErrorKind};
use super::lane::Answer;
use super::node::{Node, Purpose};
use super::pause::pause;
use super::reply::Reply;
use super::{Replicated, Written};

/// The place of a command among those of its caller, and what became of it.
pub(super) type Outcome = (usize, Result<Written, NodeError>);

/// One way that commands go next.
enum Way {
    To(Arc<Node>),
    /// A pause, and a new look at the map.
    Pause,
}

/// Answers all commands by the deadline, in any order.
pub(super) async fn run(
    cluster: &Arc<Cluster>,
    purpose: Purpose,
    mut commands: Vec<Command>,
    deadline: Deadline,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(commands.len());
    while !commands.is_empty() {
        let mut ways = part(cluster, commands);
        if ways.len() > 1 {
            outcomes.extend(run_each(cluster, purpose, ways, deadline).await);
            break;
        }
        let Some((way, part)) = ways.pop() else { break };
        commands = go(cluster, purpose, way, part, deadline, &mut outcomes).await;
    }
    outcomes
}

/// Goes all ways at once. If this future is dropped, so are its tasks.
async fn run_each(
    cluster: &Arc<Cluster>,
    purpose: Purpose,
    ways: Vec<(Way, Vec<Command>)>,
    deadline: Deadline,
) -> Vec<Outcome> {
    let mut tasks = JoinSet::new();
    for (way, part) in ways {
        tasks.spawn(go_to_the_end(cluster.clone(), purpose, way, part, deadline));
    }
    let mut outcomes = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(part) => outcomes.extend(part),
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // The runtime is shutting down. What is missing is filled in by the caller.
            Err(_) => {}
        }
    }
    outcomes
}

/// The type is written out because [`run`] is part of it.
fn go_to_the_end(
    cluster: Arc<Cluster>,
    purpose: Purpose,
    way: Way,
    part: Vec<Command>,
    deadline: Deadline,
) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>> {
    Box::pin(async move {
        let mut outcomes = Vec::with_capacity(part.len());
        let left = go(&cluster, purpose, way, part, deadline, &mut outcomes).await;
        outcomes.extend(run(&cluster, purpose, left, deadline).await);
        outcomes
    })
}

/// Sorts commands by where they go next.
fn part(cluster: &Cluster, commands: Vec<Command>) -> Vec<(Way, Vec<Command>)> {
    let map = cluster.map();
    let mut pausing = Vec::new();
    let mut by_address: HashMap<Address, Vec<Command>> = HashMap::new();
    for mut command in commands {
        let address = command.asking.as_ref().or_else(|| map.owner(command.slot)).cloned();
        match address {
            Some(address) if command.trouble.is_none() => {
                by_address.entry(address).or_default().push(command);
            }
            Some(_) => pausing.push(command),
            None => {
                command.trouble.get_or_insert_with(|| {
                    let message = format!("slot {} has no master", command.slot);
                    NodeError::new(NodeErrorKind::NotReady, message)
                });
                pausing.push(command);
            }
        }
    }
    let to = |(address, part)| (Way::To(cluster.node(&address)), part);
    let mut ways: Vec<_> = by_address.into_iter().map(to).collect();
    if !pausing.is_empty() {
        ways.push((Way::Pause, pausing));
    }
    ways
}

/// Goes one way, and returns the commands that have no outcome yet.
async fn go(
    cluster: &Arc<Cluster>,
    purpose: Purpose,
    way: Way,
    mut commands: Vec<Command>,
    deadline: Deadline,
    outcomes: &mut Vec<Outcome>,
) -> Vec<Command> {
    // Otherwise a command could be sent whose answer is not waited for.
    if deadline.has_passed() {
        outcomes.extend(commands.into_iter().map(|c| (c.place, Err(c.timed_out()))));
        return Vec::new();
    }
    match way {
        Way::To(node) => send(cluster, &node, purpose, commands, deadline, outcomes).await,
        Way::Pause => {
            let tries = commands.iter().map(|command| command.tries).max().unwrap_or(0);
            look_again(cluster, tries, deadline).await;
            commands.iter_mut().for_each(Command::rested);
            commands
        }
    }
}

/// Pauses after the `tries`th failed try, and refreshes the map unless that was done meanwhile.
pub(super) async fn look_again(cluster: &Arc<Cluster>, tries: u32, deadline: Deadline) {
    let seen = cluster.refreshes();
    pause(tries, deadline).await;
    _ = tokio::time::timeout_at(deadline.instant(), cluster.refreshed(seen)).await;
}

/// Sends commands to one node, and returns those to be sent again.
async fn send(
    cluster: &Arc<Cluster>,
    node: &Arc<Node>,
    purpose: Purpose,
    commands: Vec<Command>,
    deadline: Deadline,
    outcomes: &mut Vec<Outcome>,
) -> Vec<Command> {
    let mut left = Vec::new();
    let mut failure: Option<NodeError> = None;
    for piece in pieces(commands) {
        if let Some(error) = &failure {
            // Not sent: the pieces before it met trouble.
            for command in piece {
                if error.is_final() {
                    outcomes.push((command.place, Err(error.clone())));
                } else {
                    left.push(command.in_trouble(error.clone()));
                }
            }
            continue;
        }
        let answer = node.call(purpose, request(&piece), deadline).await;
        failure.clone_from(&answer.failure);
        take_in(cluster, node, purpose, piece, answer, outcomes, &mut left);
    }
    left
}

/// Takes in what came back for a piece.
fn take_in(
    cluster: &Arc<Cluster>,
    node: &Node,
    purpose: Purpose,
    piece: Vec<Command>,
    answer: Answer,
    outcomes: &mut Vec<Outcome>,
    left: &mut Vec<Command>,
) {
    let Answer { values, acknowledged, failure } = answer;
    let mut values = values.into_iter();
    for command in piece {
        let asked = command.asking.is_some();
        // The reply to ASKING.
        let value = if asked { values.next().and_then(|_| values.next()) } else { values.next() };
        let Some(value) = value else {
            let error = failure.clone().unwrap_or_else(|| {
                let message = format!("{} sent too few replies", node.address());
                NodeError::new(NodeErrorKind::Lost, message)
            });
            match command.failed(error, purpose) {
                Ok(command) => left.push(command),
                Err(outcome) => outcomes.push(outcome),
            }
            continue;
        };
        match Reply::of(value, node.address()) {
            Reply::Value(value) => {
                let replicated = replicated(cluster, node, purpose, acknowledged);
                let written = replicated.map(|replicated| Written { value, replicated });
                outcomes.push((command.place, written));
            }
            Reply::Moved { address } => {
                cluster.moved(command.slot, &address);
                left.push(command.redirected(None, node.address()));
            }
            Reply::Ask { address } => {
                log::debug!(slot = command.slot, node:% = address; "asked for a moving slot");
                left.push(command.redirected(Some(address), node.address()));
            }
            Reply::NotReady(error) => {
                left.push(command.in_trouble(NodeError::not_ready(node.address(), error)));
            }
            Reply::Refused(error) => {
                outcomes.push((command.place, Err(NodeError::refused(node.address(), error))));
            }
        }
    }
}

/// Judges how many replicas have an executed command.
fn replicated(
    cluster: &Cluster,
    node: &Node,
    purpose: Purpose,
    acknowledged: Option<u32>,
) -> Result<Replicated, NodeError> {
    let wanted = cluster.settings().min_replicas;
    if purpose == Purpose::Read || wanted == 0 {
        return Ok(Replicated::Unneeded);
    }
    match acknowledged {
        Some(count) if count >= wanted => Ok(Replicated::Enough),
        Some(count) => Ok(Replicated::TooFew { by: wanted - count }),
        None => {
            let message = format!("{} did not answer WAIT", node.address());
            Err(NodeError::new(NodeErrorKind::Lost, message))
        }
    }
}
