//! The servers of a cluster, and the map that is believed now.
//!
//! Owns the map, the servers by address, and when the map is asked for again. What always holds: one refresh is under
//! way at most, however many calls want one, and none begins within 50 ms of the last; a call that wanted one goes on
//! with the map of that one. It is a task's, so a call that is not polled holds up no other. Knows nothing of commands.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::address::Address;
use super::clock::{Deadline, ServerClock, steady_us};
use super::error::{NodeError, NodeErrorKind};
use super::home::Home;
use super::map::SlotMap;
use super::node::Node;
use super::settings::Settings;
use super::survey;
use super::wire::{Opening, SharedOpening};

/// How long after a refresh the next one may begin: for calls that failed, and after redirects, which say themselves
/// where a slot is.
const REFRESH_INTERVAL_US: i64 = 50_000;
const REDIRECT_REFRESH_INTERVAL_US: i64 = 1_000_000;

pub(super) struct Cluster {
    opening: SharedOpening,
    seeds: Vec<Address>,
    map: RwLock<Arc<SlotMap>>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    is_refreshing: Mutex<bool>,
    /// How often the map was asked for, with or without an answer.
    refreshes: watch::Sender<u64>,
    refreshed_us: AtomicI64,
    /// Whether the last refresh failed, and that was logged.
    is_stale: AtomicBool,
    /// The offset of the servers' clocks when one was last measured, for when none is known.
    offset_us: AtomicI64,
    /// Shows the time of slots without an owner.
    ownerless: ServerClock,
    process: u32,
}

/// The refresh that is under way. Those that wait are told when it is dropped, also with its runtime.
struct Refreshing(Arc<Cluster>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        let mut is_refreshing = self.0.is_refreshing.lock();
        self.0.refreshed_us.store(steady_us(), Ordering::Relaxed);
        *is_refreshing = false;
        self.0.refreshes.send_modify(|count| *count += 1);
    }
}

impl Cluster {
    /// Asks the seeds for the map.
    pub(super) async fn find(
        settings: Settings,
        deadline: Deadline,
    ) -> Result<Arc<Self>, NodeError> {
        let seeds: Vec<_> =
            settings.seeds.iter().map(|(host, port)| Address::new(host, *port)).collect();
        let opening = Arc::new(Opening::new(settings)?);
        let nodes: HashMap<_, _> = seeds
            .iter()
            .map(|seed| (seed.clone(), Arc::new(Node::new(seed.clone(), None, opening.clone()))))
            .collect();
        let map = survey::first_map(nodes.values().cloned().collect(), deadline).await?;
        let cluster = Arc::new(Self {
            opening,
            seeds,
            map: RwLock::new(Arc::new(map)),
            nodes: Mutex::new(nodes),
            is_refreshing: Mutex::new(false),
            refreshes: watch::Sender::new(0),
            refreshed_us: AtomicI64::new(steady_us()),
            is_stale: AtomicBool::new(false),
            offset_us: AtomicI64::new(0),
            ownerless: ServerClock::default(),
            process: std::process::id(),
        });
        cluster.offset_us.store(cluster.mean_offset_us(), Ordering::Relaxed);
        Ok(cluster)
    }

    pub(super) fn home(&self) -> &Arc<Home> {
        &self.opening.home
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.opening.settings
    }

    pub(super) fn map(&self) -> Arc<SlotMap> {
        self.map.read().clone()
    }

    /// Returns the server at an address of the map or of a redirect.
    pub(super) fn node(&self, address: &Address) -> Arc<Node> {
        if let Some(node) = self.nodes.lock().get(address) {
            return node.clone();
        }
        let map = self.map();
        let member = map.members().find(|member| member.address == *address);
        let name = member.and_then(|member| member.announced_name.clone());
        let new = || Arc::new(Node::new(address.clone(), name, self.opening.clone()));
        self.nodes.lock().entry(address.clone()).or_insert_with(new).clone()
    }

    /// Returns an error when the home runtime has ended; and in a fork of the process that connected: both would read each
    /// other's replies.
    pub(super) fn check_usable(&self) -> Result<(), NodeError> {
        if std::process::id() == self.process {
            return if self.home().has_ended() { Err(NodeError::ended()) } else { Ok(()) };
        }
        Err(NodeError::new(
            NodeErrorKind::Forked,
            "this process is a fork of the one that connected: connect again in it",
        ))
    }

    /// Returns the time of the server that owns the slot.
    pub(super) fn now_ms(&self, slot: u16) -> i64 {
        let owner = self.map().owner(slot).map(|address| self.node(address));
        let clock = owner.as_ref().map_or(&self.ownerless, |node| node.clock());
        clock.now_ms(steady_us(), || self.mean_offset_us())
    }

    /// Returns the mean of the offsets that are known.
    fn mean_offset_us(&self) -> i64 {
        let nodes = self.nodes.lock();
        let known: Vec<_> = nodes.values().filter_map(|node| node.clock().offset_us()).collect();
        match i64::try_from(known.len()) {
            Ok(count) if count > 0 => known.iter().map(|offset| offset / count).sum(),
            _ => self.offset_us.load(Ordering::Relaxed),
        }
    }

    /// Takes in that a slot is elsewhere for good. The whole map is asked for in the background, now and then.
    pub(super) fn moved(self: &Arc<Self>, slot: u16, to: &Address) {
        {
            let mut map = self.map.write();
            if map.owner(slot) == Some(to) {
                return;
            }
            *map = Arc::new(map.moved(slot, to));
        }
        log::debug!(slot, node:% = to; "a slot has moved");
        if self.since_refresh_us() >= REDIRECT_REFRESH_INTERVAL_US {
            self.refresh(self.refreshes());
        }
    }

    /// Returns a number that changes with each refresh.
    pub(super) fn refreshes(&self) -> u64 {
        *self.refreshes.borrow()
    }

    fn since_refresh_us(&self) -> i64 {
        steady_us() - self.refreshed_us.load(Ordering::Relaxed)
    }

    /// Has the map asked for in the background, unless that was done since [`refreshes`](Self::refreshes) returned `seen`,
    /// or a moment ago. Returns whether the number will change.
    pub(super) fn refresh(self: &Arc<Self>, seen: u64) -> bool {
        let mut is_refreshing = self.is_refreshing.lock();
        if self.refreshes() != seen {
            return false;
        }
        if *is_refreshing {
            return true;
        }
        if self.since_refresh_us() < REFRESH_INTERVAL_US {
            return false;
        }
        *is_refreshing = true;
        drop(is_refreshing);
        let refreshing = Refreshing(Arc::clone(self));
        self.home().spawn(async move { refreshing.0.ask_for_map().await });
        true
    }

    /// Has the map asked for, as [`refresh`](Self::refresh), and waits for it. A failure leaves the map as it is.
    pub(super) async fn refreshed(self: &Arc<Self>, seen: u64) {
        if self.refresh(seen) {
            _ = self.refreshes.subscribe().wait_for(|count| *count != seen).await;
        }
    }

    async fn ask_for_map(&self) {
        let map = self.map();
        let members = map.members().map(|member| self.node(&member.address)).collect();
        let seeds = self.seeds.iter().map(|seed| self.node(seed)).collect();
        match survey::map(members, seeds).await {
            Ok(map) => {
                self.believe(map);
                self.is_stale.store(false, Ordering::Relaxed);
            }
            Err(error) if self.is_stale.swap(true, Ordering::Relaxed) => {
                log::debug!("the slot map cannot be refreshed: {error}");
            }
            Err(error) => log::warn!("the slot map cannot be refreshed: {error}"),
        }
    }

    fn believe(&self, map: SlotMap) {
        self.offset_us.store(self.mean_offset_us(), Ordering::Relaxed);
        // A server that left the cluster is let go of. What is under way to it goes on.
        self.nodes.lock().retain(|address, _| map.members().any(|m| m.address == *address));
        log::debug!(masters = map.masters().len(); "the slot map is refreshed");
        *self.map.write() = Arc::new(map);
    }

    pub(super) fn close(&self) {
        for node in self.nodes.lock().values() {
            node.close();
        }
    }
}
