//! The layer that speaks to the servers of a cluster.
//!
//! Owns the connections, the slot map, what happens to a command until it has an answer, and the servers' time. The
//! verbs above it give it commands with the key that decides where they go.
//!
//! What always holds:
//!
//! - A write that may have been executed is never sent again by this layer. It fails at once, with an error that says
//!   so; the verb decides.
//! - A command that certainly was not executed is sent again until the deadline: after redirects, during a failover,
//!   while a server cannot be reached.
//! - Each command of a pipeline has its own answer.
//! - `WAIT` runs on the connection of the writes that it waits for, after them.
//! - A future can be dropped at any time, on any thread; what other callers were to get, they get.
//! - What others wait for is no caller's alone: one that is neither polled nor dropped holds up the others of its server
//!   for some milliseconds, and the map is asked for in a task. All of it is in the runtime that the cluster was connected
//!   in, on any thread that calls.
//!
//! This is not `ClusterConnection` of the crate `redis` for three reasons. It sends `WAIT` to all masters, over
//! connections that may be others than the writes'. If one command of a pipeline is answered with a redirect, it sends
//! the whole pipeline again, also what was executed. After a lost connection it sends again by itself, and its errors do
//! not say whether a command may have been executed. Nor is it that crate's `MultiplexedConnection`: its one error for a
//! closed connection does not tell what was sent from what was not, a failed pipeline loses the replies that came, and
//! each command passes through another task.
//!
//! Must not know what the commands mean.

mod address;
mod clock;
mod cluster;
mod error;
mod home;
mod lane;
mod map;
mod node;
mod pause;
mod reply;
mod route;
mod settings;
mod slots;
mod survey;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::task::JoinSet;

pub(crate) use self::address::Address;
pub(crate) use self::clock::Deadline;
use self::cluster::Cluster;
pub(crate) use self::error::{NodeError, NodeErrorKind};
use self::lane::Request;
use self::map::Master;
use self::node::Purpose;
use self::reply::Reply;
use self::route::Command;
pub(crate) use self::settings::{Settings, Tls};
pub(crate) use self::slots::slot;

/// A cluster's servers. Cheap to clone. Belongs to the Tokio runtime that it was connected in.
#[derive(Clone)]
pub(crate) struct Nodes {
    cluster: Arc<Cluster>,
}

/// The answer to a write.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) value: Value,
    pub(crate) replicated: Replicated,
}

/// How many replicas have received a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replicated {
    /// As many as the settings want.
    Enough,
    /// The write was executed, and fewer replicas have it.
    TooFew { by: u32 },
    /// The settings want none.
    Unneeded,
}

/// How long the replicas of a new cluster may take to connect, and to tell their masters that they have copied all.
const REPLICAS_MAY_TAKE: Duration = Duration::from_secs(10);
const ASKED_FOR_REPLICAS: Duration = Duration::from_millis(100);
/// How long a replica that is connected may take to say what it has.
const REPLICA_ANSWERS_WITHIN_MS: u64 = 250;

impl Nodes {
    /// Finds the cluster and connects to its masters.
    ///
    /// # Errors
    ///
    /// By the deadline, no seed answers, or some slot has no master; at once if a seed that answers is no member of a
    /// cluster, wants another password, or has a bad certificate, and no other seed answers better; if all masters have
    /// fewer replicas than each write must reach; if no master can be reached where the cluster says that it is.
    pub(crate) async fn connect(settings: Settings, deadline: Deadline) -> Result<Self, NodeError> {
        let cluster = Cluster::find(settings, deadline).await?;
        let nodes = Self { cluster };
        nodes.open_all(deadline).await?;
        nodes.check_replicas(deadline).await?;
        Ok(nodes)
    }

    /// Checks that writes can reach the replicas that are wanted. Some masters may lack theirs for a while, after a failover
    /// and while a replica starts again; all of them never had any.
    async fn check_replicas(&self, deadline: Deadline) -> Result<(), NodeError> {
        let wanted = self.cluster.settings().min_replicas;
        if wanted == 0 {
            return Ok(());
        }
        let patience = deadline.within(REPLICAS_MAY_TAKE);
        loop {
            let map = self.cluster.map();
            let mut short = Vec::new();
            for master in map.masters() {
                let found = self.replicas_of(master, deadline).await?;
                short.extend(found.filter(|found| *found < wanted).map(|found| (master, found)));
            }
            let Some(&(first, found)) = short.first() else { return Ok(()) };
            if short.len() < map.masters().len() {
                for (master, found) in short {
                    let node = &master.member.address;
                    log::warn!(
                        // What a connection meets is told by errors; this is not.
                        target: "seen_cluster",
                        node:%;
                        "the master {node} has {found} of the {wanted} replicas that each write must reach: until it has \
                         them, the outcome of each write there is unknown"
                    );
                }
                return Ok(());
            }
            if patience.has_passed() {
                let address = &first.member.address;
                let message = format!(
                    "each write must reach {wanted} replicas, and no master has so many ({address} has {found}): add \
                     replicas, or set min_replicas={found} in the URL (with 0 a failover may lose the last writes)"
                );
                return Err(NodeError::new(NodeErrorKind::TooFewReplicas, message));
            }
            tokio::time::sleep(ASKED_FOR_REPLICAS).await;
        }
    }

    /// Returns how many replicas a master has, up to the number that is wanted; `None` if it does not say: it may be about
    /// to be replaced. The map alone does not tell: servers leave a replica out of it until they know how much it has copied,
    /// which takes 10 s in a new cluster without writes.
    async fn replicas_of(
        &self,
        master: &Master,
        deadline: Deadline,
    ) -> Result<Option<u32>, NodeError> {
        let wanted = self.cluster.settings().min_replicas;
        let mut count = redis::cmd("WAIT");
        // They are asked up to where the master is now, also on a connection that has written nothing.
        count.arg(wanted).arg(REPLICA_ANSWERS_WITHIN_MS);
        match self.on_master(&master.member.address, count, deadline).await {
            Ok(Value::Int(found)) => Ok(Some(u32::try_from(found).unwrap_or(0))),
            Ok(_) => Ok(Some(0)),
            Err(error) if error.is_final() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Opens both connections to each master. That some cannot be opened is no error: the master may be about to be
    /// replaced.
    async fn open_all(&self, deadline: Deadline) -> Result<(), NodeError> {
        let deadline = deadline.within(self.cluster.settings().connect_timeout);
        let mut opening = JoinSet::new();
        for address in self.masters() {
            for purpose in [Purpose::Read, Purpose::Write] {
                let node = self.cluster.node(&address);
                let nothing = Request { bytes: Vec::new(), commands: 0 };
                opening.spawn(async move { node.call(purpose, nothing, deadline).await.failure });
            }
        }
        let failures = opening.join_all().await;
        if failures.iter().any(Option::is_none) {
            return Ok(());
        }
        let Some(error) = failures.into_iter().flatten().next() else { return Ok(()) };
        if error.is_final() {
            return Err(error);
        }
        let message = format!(
            "a seed answered, but no master can be reached where the cluster says that it is ({error}): see \
             `cluster-announce-ip` and `cluster-announce-hostname`"
        );
        Err(NodeError::because(NodeErrorKind::Unreachable, message, error))
    }

    /// Sends a command that changes nothing. It is sent again also after its answer was lost.
    pub(crate) async fn read(
        &self,
        key: &[u8],
        command: Cmd,
        deadline: Deadline,
    ) -> Result<Value, NodeError> {
        self.one(Purpose::Read, key, &command, deadline).await.map(|written| written.value)
    }

    /// Sends a command that changes something, together with those of other callers.
    pub(crate) async fn write(
        &self,
        key: &[u8],
        command: Cmd,
        deadline: Deadline,
    ) -> Result<Written, NodeError> {
        self.one(Purpose::Write, key, &command, deadline).await
    }

    /// Sends many commands that change nothing, to all their masters at once. The answers are in the order of the
    /// commands.
    pub(crate) async fn read_all(
        &self,
        commands: Vec<(Vec<u8>, Cmd)>,
        deadline: Deadline,
    ) -> Vec<Result<Value, NodeError>> {
        let all = self.all(Purpose::Read, &commands, deadline).await;
        all.into_iter().map(|result| result.map(|written| written.value)).collect()
    }

    /// Sends many commands that change something, to all their masters at once. The answers are in the order of the
    /// commands.
    pub(crate) async fn write_all(
        &self,
        commands: Vec<(Vec<u8>, Cmd)>,
        deadline: Deadline,
    ) -> Vec<Result<Written, NodeError>> {
        self.all(Purpose::Write, &commands, deadline).await
    }

    async fn one(
        &self,
        purpose: Purpose,
        key: &[u8],
        command: &Cmd,
        deadline: Deadline,
    ) -> Result<Written, NodeError> {
        self.cluster.check_usable()?;
        let command = Command::new(0, slot(key), command.get_packed_command());
        let run = route::run(&self.cluster, purpose, vec![command], deadline);
        let outcomes = self.cluster.home().run(run).await;
        outcomes
            .and_then(|outcomes| outcomes.into_iter().next())
            .map_or_else(|| Err(NodeError::ended_after_sending()), |(_, result)| result)
    }

    async fn all(
        &self,
        purpose: Purpose,
        commands: &[(Vec<u8>, Cmd)],
        deadline: Deadline,
    ) -> Vec<Result<Written, NodeError>> {
        if let Err(error) = self.cluster.check_usable() {
            return commands.iter().map(|_| Err(error.clone())).collect();
        }
        let packed = commands.iter().enumerate().map(|(place, (key, command))| {
            Command::new(place, slot(key), command.get_packed_command())
        });
        let mut results: Vec<_> =
            commands.iter().map(|_| Err(NodeError::ended_after_sending())).collect();
        let run = route::run(&self.cluster, purpose, packed.collect(), deadline);
        for (place, result) in self.cluster.home().run(run).await.into_iter().flatten() {
            results[place] = result;
        }
        results.iter().filter_map(|result| result.as_ref().err()).for_each(|e| self.doubt(e));
        results
    }

    /// Has the map asked for, after an error that may mean that it is old. Not within the call, whose time may be shorter than
    /// that takes.
    fn doubt(&self, error: &NodeError) {
        use NodeErrorKind::{Lost, NotReady, Timeout, Unreachable};
        if matches!(error.kind(), Lost | NotReady | Timeout | Unreachable) {
            self.cluster.refresh(self.cluster.refreshes());
        }
    }

    /// Returns the masters that own slots.
    pub(crate) fn masters(&self) -> Vec<Address> {
        let map = self.cluster.map();
        map.masters().iter().map(|master| master.member.address.clone()).collect()
    }

    /// Sends a command that changes nothing to one master: `SCAN`, `INFO`, `DBSIZE`.
    ///
    /// # Errors
    ///
    /// Also if the server is no master any more: begin again with the new [`masters`](Self::masters).
    pub(crate) async fn on_master(
        &self,
        master: &Address,
        command: Cmd,
        deadline: Deadline,
    ) -> Result<Value, NodeError> {
        self.cluster.check_usable()?;
        let asked = self.cluster.home().run(self.ask_master(master, command, deadline)).await;
        asked.unwrap_or_else(|| Err(NodeError::ended_after_sending()))
    }

    async fn ask_master(
        &self,
        master: &Address,
        command: Cmd,
        deadline: Deadline,
    ) -> Result<Value, NodeError> {
        let bytes = command.get_packed_command();
        let mut tries = 0;
        loop {
            if !self.cluster.map().is_master(master) {
                let message = format!("{master} is no master any more");
                return Err(NodeError::new(NodeErrorKind::NotReady, message));
            }
            let request = Request { bytes: bytes.clone(), commands: 1 };
            let node = self.cluster.node(master);
            let answer = node.call(Purpose::Read, request, deadline).await;
            let trouble = match (answer.values.into_iter().next(), answer.failure) {
                (Some(value), _) => match Reply::of(value, master) {
                    Reply::Value(value) => return Ok(value),
                    Reply::Refused(error) => return Err(NodeError::refused(master, error)),
                    Reply::NotReady(error) => NodeError::not_ready(master, error),
                    Reply::Moved { .. } | Reply::Ask { .. } => {
                        let message = format!("{master} answers with a redirect");
                        return Err(NodeError::new(NodeErrorKind::NotReady, message));
                    }
                },
                (None, Some(error)) => error,
                (None, None) => NodeError::ended_after_sending(),
            };
            if trouble.is_final() || trouble.kind() == NodeErrorKind::Timeout {
                self.doubt(&trouble);
                return Err(trouble);
            }
            if deadline.has_passed() {
                return Err(NodeError::timed_out(Some(trouble)));
            }
            tries += 1;
            route::look_again(&self.cluster, tries, deadline).await;
        }
    }

    /// Returns the time of the server that owns the key's slot, in milliseconds since 1970. Asks no server: it is the local
    /// steady clock and the last known difference. Never goes back for one server, unless its clock was set back by more
    /// than a minute.
    pub(crate) fn now_ms(&self, key: &[u8]) -> i64 {
        self.cluster.now_ms(slot(key))
    }

    /// Sleeps, also where no runtime is.
    pub(crate) async fn sleep(&self, pause: Duration) {
        // A timer is bound to a runtime when it is made.
        _ = self.cluster.home().run(async move { tokio::time::sleep(pause).await }).await;
    }

    /// Ends the connections, each when what is under way on it is answered. Later calls fail.
    #[expect(
        clippy::unused_async,
        reason = "so that the connections can be shut down in order later"
    )]
    pub(crate) async fn close(&self) {
        self.cluster.close();
    }
}
