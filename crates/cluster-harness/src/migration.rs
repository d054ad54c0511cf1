//! Moves slots between masters, as `redis-cli --cluster reshard` does.

use std::ops::RangeInclusive;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::node::Node;
use crate::options::{ADMIN, ADMIN_PASSWORD};
use crate::resp::Reply;

/// Both ends of a move, with a connection each: thousands of slots may move.
struct Move<'a> {
    from: &'a Node,
    to: &'a Node,
    source: Connection,
    target: Connection,
}

impl Cluster {
    /// Moves `slots` with their keys to the master `to`. A slot that stayed half-way is brought to its end.
    /// Slots that it has already stay. The replicas hear of it a moment later: if `to` fails before, its replica takes
    /// over without the slots, and they stay without a master. [`wait_until_ok`](Self::wait_until_ok) returns when
    /// all know.
    ///
    /// # Panics
    ///
    /// If a server refuses.
    #[track_caller]
    pub fn migrate_slots(&self, slots: RangeInclusive<u16>, to: &Node) {
        let owners = self.owners();
        let masters = self.masters();
        let mut under_way: Option<Move> = None;
        for slot in slots {
            let from = owners.master_of(slot);
            if from.index() == to.index() {
                continue;
            }
            if under_way.as_ref().is_none_or(|current| current.from.index() != from.index()) {
                under_way = Some(Move::new(from, to));
            }
            let Some(current) = &mut under_way else { continue };
            current.begin(slot);
            while current.move_keys(slot, 100) > 0 {}
            current.end(slot, &masters);
        }
    }

    /// Begins to move `slot` to the master `to`, and stops after at most `keys` of its keys have moved. Until
    /// [`migrate_slots`](Self::migrate_slots) ends the move, its old master answers `ASK` for keys that it does
    /// not have. Returns how many keys have moved.
    ///
    /// # Panics
    ///
    /// If a server refuses.
    #[track_caller]
    pub fn migrate_half(&self, slot: u16, to: &Node, keys: usize) -> usize {
        let mut half = Move::new(self.master_of_slot(slot), to);
        half.begin(slot);
        if keys == 0 { 0 } else { half.move_keys(slot, keys) }
    }
}

impl<'a> Move<'a> {
    fn new(from: &'a Node, to: &'a Node) -> Move<'a> {
        let connect = |node: &Node| {
            node.connect().unwrap_or_else(|error| panic!("node {}: {error}", node.index()))
        };
        Move { from, to, source: connect(from), target: connect(to) }
    }

    fn begin(&mut self, slot: u16) {
        let slot = slot.to_string();
        done(
            self.target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", self.from.id()]),
            "SETSLOT IMPORTING",
        );
        done(
            self.source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", self.to.id()]),
            "SETSLOT MIGRATING",
        );
    }

    /// Moves at most `count` keys, and returns how many have moved.
    fn move_keys(&mut self, slot: u16, count: usize) -> usize {
        let answer = self.source.command(&[
            "CLUSTER",
            "GETKEYSINSLOT",
            &slot.to_string(),
            &count.to_string(),
        ]);
        let keys = done(answer, "GETKEYSINSLOT");
        if keys.items().is_empty() {
            return 0;
        }
        let port = self.to.server_port().to_string();
        let options = [
            "MIGRATE",
            "127.0.0.1",
            &port,
            "",
            "0",
            "5000",
            "AUTH2",
            ADMIN,
            ADMIN_PASSWORD,
            "KEYS",
        ];
        let mut command: Vec<&[u8]> = options.iter().map(|word| word.as_bytes()).collect();
        for key in keys.items() {
            if let Reply::Bulk(key) = key {
                command.push(key);
            }
        }
        done(self.source.command(&command), "MIGRATE");
        keys.items().len()
    }

    /// Tells all masters about the new one. The target first: it then has a newer claim than the others know of,
    /// and a crash in between leaves no slot without a master.
    fn end(&mut self, slot: u16, masters: &[&Node]) {
        let slot = slot.to_string();
        let command = ["CLUSTER", "SETSLOT", slot.as_str(), "NODE", self.to.id()];
        done(self.target.command(&command), "SETSLOT NODE");
        done(self.source.command(&command), "SETSLOT NODE");
        for other in masters {
            if other.index() != self.from.index() && other.index() != self.to.index() {
                done(other.try_command(&command), "SETSLOT NODE");
            }
        }
    }
}

#[track_caller]
fn done(answer: std::io::Result<Reply>, what: &str) -> Reply {
    let reply = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(!reply.is_error(), "{what}: {}", reply.text());
    reply
}
