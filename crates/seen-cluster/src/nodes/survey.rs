//! Asking servers for the slot map.
//!
//! Owns whom to ask and how long to wait. What always holds: servers are asked at the same time, so one that does not
//! answer delays the others' answers by 100 ms at most. Which of several maps is believed is said at
//! [`SlotMap::choose`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::clock::Deadline;
use super::error::{NodeError, NodeErrorKind, server_text};
use super::lane::Request;
use super::map::SlotMap;
use super::node::{Node, Purpose};
use super::pause::pause;
use super::reply::Reply;

/// How many are asked at a time, and how many answers are enough.
const ASKED: usize = 5;
const ENOUGH: usize = 3;
/// How long to wait for further answers after the first.
const GRACE: Duration = Duration::from_millis(100);

/// Asks the seeds until one of them shows a map in which each slot has an owner.
pub(super) async fn first_map(
    seeds: Vec<Arc<Node>>,
    deadline: Deadline,
) -> Result<SlotMap, NodeError> {
    if seeds.is_empty() {
        return Err(NodeError::new(NodeErrorKind::Unreachable, "no server is named"));
    }
    let mut tries = 0;
    let mut last = None;
    loop {
        // The error of the last whole try says more than that the time is over.
        let asked = tokio::time::timeout_at(deadline.instant(), map(Vec::new(), seeds.clone()));
        let error = match asked.await {
            Ok(Ok(map)) => match map.first_without_owner() {
                None => return Ok(map),
                Some(slot) => NodeError::new(
                    NodeErrorKind::NotReady,
                    format!(
                        "slot {slot} has no master: see `redis-cli --cluster check`, and make a new cluster with \
                         `redis-cli --cluster create`"
                    ),
                ),
            },
            Ok(Err(error)) => error,
            Err(_) => return Err(last.unwrap_or_else(none_answered)),
        };
        if error.is_final() || deadline.has_passed() {
            return Err(error);
        }
        last = Some(error);
        tries += 1;
        pause(tries, deadline).await;
    }
}

fn none_answered() -> NodeError {
    NodeError::new(NodeErrorKind::Unreachable, "no server of the cluster answered by the deadline")
}

/// Asks some of the members; if none of them answers, the rest and the seeds.
pub(super) async fn map(
    mut members: Vec<Arc<Node>>,
    seeds: Vec<Arc<Node>>,
) -> Result<SlotMap, NodeError> {
    shuffle(&mut members);
    let rest = members.split_off(members.len().min(ASKED));
    let mut asked = HashSet::new();
    let mut error = None;
    for round in [members, [rest, seeds].concat()] {
        let round: Vec<_> =
            round.into_iter().filter(|node| asked.insert(node.address().clone())).collect();
        match ask_all(round).await {
            Ok(Some(map)) => return Ok(map),
            Ok(None) => {}
            Err(new) => error = Some(new),
        }
    }
    Err(error.unwrap_or_else(|| NodeError::new(NodeErrorKind::Unreachable, "no server is known")))
}

/// Returns the map to believe, nothing if nobody was asked, or the error that says the most.
async fn ask_all(nodes: Vec<Arc<Node>>) -> Result<Option<SlotMap>, NodeError> {
    let mut asking = JoinSet::new();
    for node in nodes {
        asking.spawn(async move { ask(&node).await });
    }
    let mut maps = Vec::new();
    let mut error: Option<NodeError> = None;
    // Until the first answer, each server's own timeouts end the wait.
    let mut until = None::<Deadline>;
    while maps.len() < ENOUGH {
        let next = match until {
            None => asking.join_next().await,
            Some(until) => {
                let next = tokio::time::timeout_at(until.instant(), asking.join_next());
                next.await.unwrap_or(None)
            }
        };
        match next {
            Some(Ok(Ok(map))) => {
                maps.push(map);
                until.get_or_insert_with(|| Deadline::after(GRACE));
            }
            Some(Ok(Err(new))) => {
                if error.as_ref().is_none_or(|old| !old.is_final() && new.is_final()) {
                    error = Some(new);
                }
            }
            Some(Err(failed)) if failed.is_panic() => {
                std::panic::resume_unwind(failed.into_panic())
            }
            Some(Err(_)) => {}
            None => break,
        }
    }
    match (SlotMap::choose(maps), error) {
        (None, Some(error)) => Err(error),
        (map, _) => Ok(map),
    }
}

async fn ask(node: &Arc<Node>) -> Result<SlotMap, NodeError> {
    let mut bytes = Vec::new();
    redis::cmd("CLUSTER").arg("SLOTS").write_packed_command(&mut bytes);
    redis::cmd("CLUSTER").arg("INFO").write_packed_command(&mut bytes);
    let settings = node.settings();
    let deadline =
        Deadline::after(settings.connect_timeout.saturating_add(settings.response_timeout));
    let answer = node.call(Purpose::Read, Request { bytes, commands: 2 }, deadline).await;
    if let Some(failure) = answer.failure {
        return Err(failure);
    }
    let address = node.address();
    let [slots, info] = &answer.values[..] else { unreachable!("there are two replies") };
    match Reply::of(slots.clone(), address) {
        Reply::Value(slots) => SlotMap::parse(&slots, info, address)
            .map_err(|what| NodeError::new(NodeErrorKind::NotReady, what)),
        Reply::NotReady(error) => Err(NodeError::not_ready(address, error)),
        Reply::Refused(error) if error.code() == "NOPERM" => {
            let text = server_text(&error);
            let message = format!("{address} does not let this user say CLUSTER SLOTS: {text}");
            Err(NodeError::because(NodeErrorKind::Denied, message, error))
        }
        Reply::Refused(error) => {
            let text = server_text(&error);
            let message = format!(
                "{address} is no member of a cluster ({text}): start it with `cluster-enabled yes` and join it by \
                 `redis-cli --cluster create`"
            );
            Err(NodeError::because(NodeErrorKind::NotACluster, message, error))
        }
        Reply::Moved { .. } | Reply::Ask { .. } => Err(NodeError::new(
            NodeErrorKind::NotReady,
            format!("{address} answers CLUSTER SLOTS with a redirect"),
        )),
    }
}

/// Orders the nodes anew, so that not all clients ask the same ones.
fn shuffle(nodes: &mut [Arc<Node>]) {
    for last in (1..nodes.len()).rev() {
        nodes.swap(last, super::pause::random_below(last + 1));
    }
}
