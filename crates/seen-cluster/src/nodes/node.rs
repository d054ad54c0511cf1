//! One server, and the two lanes to it.
//!
//! Owns a server's address, its clock, and what its connections are opened with. What always holds: reads and writes
//! have a connection each, so a read never waits behind a `WAIT`. Knows nothing of slots.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::address::Address;
use super::clock::{Deadline, ServerClock};
use super::error::NodeError;
use super::lane::{Answer, Lane, Request};
use super::settings::Settings;
use super::wire::{SharedOpening, Wire};

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    /// Each pipeline ends with `WAIT`, if the settings want replicas.
    Write,
}

pub(super) struct Node {
    address: Address,
    certificate_name: Option<Arc<str>>,
    opening: SharedOpening,
    clock: ServerClock,
    reads: Lane,
    writes: Lane,
}

impl Node {
    pub(super) fn new(
        address: Address,
        certificate_name: Option<Arc<str>>,
        opening: SharedOpening,
    ) -> Self {
        Self {
            address,
            certificate_name,
            opening,
            clock: ServerClock::default(),
            reads: Lane::default(),
            writes: Lane::default(),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    pub(super) fn runtime(&self) -> &Handle {
        self.opening.home.runtime()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.opening.settings
    }

    pub(super) fn lane(&self, purpose: Purpose) -> &Lane {
        match purpose {
            Purpose::Read => &self.reads,
            Purpose::Write => &self.writes,
        }
    }

    /// Sends a request in the next pipeline of this lane. See [`Lane`].
    pub(super) async fn call(
        self: &Arc<Self>,
        purpose: Purpose,
        request: Request,
        deadline: Deadline,
    ) -> Answer {
        Lane::call(self, purpose, request, deadline).await
    }

    pub(super) async fn open(&self) -> Result<Wire, NodeError> {
        let name = self.certificate_name.as_deref();
        Wire::open(&self.opening, &self.address, name, &self.clock).await
    }

    /// Ends the connections that are not in use, and each other one when its pipeline is answered.
    pub(super) fn close(&self) {
        self.reads.close();
        self.writes.close();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.address).finish()
    }
}
