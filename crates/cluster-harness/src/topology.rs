//! Who has which slots, as the running servers tell.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::node::{Node, Role};
use crate::waiting::until;

/// How many slots the keys are spread over.
pub(crate) const SLOTS: u16 = 16_384;

/// A line of `CLUSTER NODES`.
#[derive(Debug)]
struct Known {
    id: String,
    flags: Vec<String>,
    master: String,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

impl Known {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }
}

/// What `node` knows about all.
fn view(node: &Node) -> Result<Vec<Known>, String> {
    let answer = node.try_command(&["CLUSTER", "NODES"]).map_err(|error| error.to_string())?;
    answer.text().lines().map(parse).collect()
}

/// What `node` says about itself.
fn own_view(node: &Node) -> Option<Known> {
    view(node).ok()?.into_iter().find(|known| known.has("myself"))
}

fn parse(line: &str) -> Result<Known, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let [id, _, flags, master, _, _, epoch, _, slots @ ..] = words.as_slice() else {
        return Err(format!("CLUSTER NODES says {line:?}"));
    };
    let number = |text: &str| text.parse().map_err(|_| format!("CLUSTER NODES says {line:?}"));
    // `[5-<-id]` and `[5->-id]` are slots on the move: they are listed where they are as well.
    let slots = slots.iter().filter(|slot| !slot.starts_with('[')).map(|slot| {
        let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
        Ok(number(first)?..=number(last)?)
    });
    Ok(Known {
        id: (*id).to_owned(),
        flags: flags.split(',').map(str::to_owned).collect(),
        master: (*master).to_owned(),
        epoch: epoch.parse().map_err(|_| format!("CLUSTER NODES says {line:?}"))?,
        slots: slots.collect::<Result<_, String>>()?,
    })
}

/// Who has which slots, at one moment.
pub(crate) struct Owners<'a> {
    claims: Vec<(&'a Node, Known)>,
}

impl<'a> Owners<'a> {
    #[track_caller]
    pub(crate) fn master_of(&self, slot: u16) -> &'a Node {
        let claimed = |own: &Known| own.slots.iter().any(|range| range.contains(&slot));
        let claims = self.claims.iter().filter(|(_, own)| claimed(own));
        let newest = claims.max_by_key(|(_, own)| own.epoch);
        newest.unwrap_or_else(|| panic!("no running node has slot {slot}")).0
    }
}

impl Cluster {
    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes().iter().filter(|node| node.is_running())
    }

    fn by_id(&self, id: &str) -> Option<&Node> {
        self.nodes().iter().find(|node| node.id() == id)
    }

    /// Returns the running masters, also those without slots.
    pub fn masters(&self) -> Vec<&Node> {
        self.running().filter(|node| own_view(node).is_some_and(|own| own.has("master"))).collect()
    }

    /// Returns the running master of `slot`. Where two take themselves for it, as for a moment after a failed
    /// master comes back, it is the one with the newer claim.
    ///
    /// # Panics
    ///
    /// If no running node has the slot.
    #[track_caller]
    pub fn master_of_slot(&self, slot: u16) -> &Node {
        self.owners().master_of(slot)
    }

    /// Asks all running nodes which slots they claim.
    pub(crate) fn owners(&self) -> Owners<'_> {
        let claim = |node| own_view(node).filter(|own| own.has("master")).map(|own| (node, own));
        Owners { claims: self.running().filter_map(claim).collect() }
    }

    /// Returns the running replicas of `master`.
    pub fn replicas_of(&self, master: &Node) -> Vec<&Node> {
        let follows = |node: &&Node| own_view(node).is_some_and(|own| own.master == master.id());
        self.running().filter(follows).collect()
    }

    /// Returns the first running replica of `master`.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[track_caller]
    pub fn replica_of(&self, master: &Node) -> &Node {
        let replicas = self.replicas_of(master);
        replicas.first().unwrap_or_else(|| panic!("node {} has no running replica", master.index()))
    }

    /// Returns the slot of `key`, as the servers compute it.
    ///
    /// # Panics
    ///
    /// If no node is running.
    pub fn slot_of(&self, key: &str) -> u16 {
        let node = self.running().next().expect("a running node");
        let slot = node.command(&["CLUSTER", "KEYSLOT", key]).int().expect("a number");
        u16::try_from(slot).expect("a slot")
    }

    /// Makes `replica` the master of its slots, with its master's agreement, and returns when it is.
    ///
    /// # Panics
    ///
    /// If it is no replica, or has not become the master after 10 seconds.
    #[track_caller]
    pub fn failover(&self, replica: &Node) {
        let answer = replica.command(&["CLUSTER", "FAILOVER"]);
        assert!(!answer.is_error(), "CLUSTER FAILOVER: {}", answer.text());
        until(Duration::from_secs(10), "the replica is the master", || match replica.role() {
            Role::Master => Ok(()),
            Role::Replica => Err("it is a replica"),
        });
    }

    /// Returns when the running nodes (neither killed nor paused) are a whole cluster: each says
    /// `cluster_state:ok`, all agree on who has which slots and who is whose replica, a running master has each slot,
    /// no running node counts as failed, and each replica has a link to its master.
    ///
    /// # Panics
    ///
    /// With what is still missing, after `timeout`.
    #[track_caller]
    pub fn wait_until_ok(&self, timeout: Duration) {
        until(timeout, "the cluster is ok", || self.check());
    }

    fn check(&self) -> Result<(), String> {
        let mut agreed = None;
        for node in self.running() {
            let problem = |problem: &str| Err(format!("node {}: {problem}", node.index()));
            if !info(node, &["CLUSTER", "INFO"])?.contains("cluster_state:ok") {
                return problem("says that the cluster is not ok");
            }
            let replication = info(node, &["INFO", "replication"])?;
            if replication.contains("role:slave") && !replication.contains("master_link_status:up")
            {
                return problem("has no link to its master");
            }
            let mut views = view(node)?;
            // A node that is down and has no slots is left out: the others learn of it at different times.
            views.retain(|known| {
                !known.slots.is_empty() || self.by_id(&known.id).is_some_and(Node::is_running)
            });
            for known in &views {
                let running = self.by_id(&known.id).is_some_and(Node::is_running);
                if !running {
                    return problem(&format!("{} has slots, but does not run", known.id));
                }
                if known.has("fail") || known.has("fail?") {
                    return problem(&format!("takes {} for failed", known.id));
                }
            }
            let roles = Roles::of(&views);
            if *agreed.get_or_insert_with(|| roles.clone()) != roles {
                return problem("disagrees with another about slots or replicas");
            }
        }
        let roles = agreed.ok_or("no node runs")?;
        let slots: usize = roles.slots.values().map(BTreeSet::len).sum();
        if slots == usize::from(SLOTS) {
            Ok(())
        } else {
            Err(format!("only {slots} slots have a master"))
        }
    }
}

/// What all nodes have to agree on. A master that does not know a replica yet ignores its wish for a failover.
#[derive(Clone, PartialEq, Eq)]
struct Roles {
    slots: BTreeMap<String, BTreeSet<u16>>,
    masters_of_replicas: BTreeMap<String, String>,
}

impl Roles {
    fn of(views: &[Known]) -> Roles {
        let (masters, replicas): (Vec<&Known>, Vec<&Known>) =
            views.iter().partition(|known| known.has("master"));
        let slots = |known: &Known| known.slots.iter().cloned().flatten().collect();
        Roles {
            slots: masters.iter().map(|known| (known.id.clone(), slots(known))).collect(),
            masters_of_replicas: replicas
                .iter()
                .map(|known| (known.id.clone(), known.master.clone()))
                .collect(),
        }
    }
}

fn info(node: &Node, command: &[&str]) -> Result<String, String> {
    node.try_command(command).map(|answer| answer.text()).map_err(|error| error.to_string())
}
