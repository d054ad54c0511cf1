//! Which master owns which slot.
//!
//! Owns the map of one moment, and the choice between the maps of several servers. What always holds: a slot has one
//! owner at most. Knows nothing of connections.

use std::sync::Arc;

use redis::Value;

use super::address::Address;
use super::slots::SLOTS;

const NO_OWNER: u16 = u16::MAX;

/// A cluster as one of its servers sees it.
#[derive(Clone, Debug)]
pub(super) struct SlotMap {
    /// For each slot the place of its owner in `masters`.
    owners: Box<[u16]>,
    masters: Vec<Master>,
    /// The slots and their owners as the server listed them, to compare maps by.
    ranges: Vec<(u16, u16, Address)>,
    /// How often the cluster had changed, as far as the server knew.
    epoch: u64,
    /// Whether the server thought that the cluster works.
    is_up: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Master {
    pub(super) member: Member,
    pub(super) replicas: Vec<Member>,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) address: Address,
    /// The host name that the server announces beside the address. Certificates are made for it.
    pub(super) announced_name: Option<Arc<str>>,
}

impl SlotMap {
    /// Reads the replies to `CLUSTER SLOTS` and `CLUSTER INFO` of the server at `asked`. A server may refuse the second
    /// one: then its map loses to every other.
    pub(super) fn parse(slots: &Value, info: &Value, asked: &Address) -> Result<Self, String> {
        let Value::Array(entries) = slots else {
            return Err(format!("{asked} answers CLUSTER SLOTS with {slots:?}"));
        };
        let mut map = Self {
            owners: vec![NO_OWNER; usize::from(SLOTS)].into(),
            masters: Vec::new(),
            ranges: Vec::new(),
            epoch: 0,
            is_up: false,
        };
        for entry in entries {
            map.add(entry, asked)
                .ok_or_else(|| format!("{asked} answers CLUSTER SLOTS with {entry:?}"))?;
        }
        map.ranges.sort_unstable();
        if let Some(info) = text(info) {
            for line in info.lines() {
                match line.split_once(':') {
                    Some(("cluster_state", state)) => map.is_up = state == "ok",
                    Some(("cluster_current_epoch", n)) => map.epoch = n.parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
        Ok(map)
    }

    /// Takes in `[first, last, master, replica..]`.
    fn add(&mut self, entry: &Value, asked: &Address) -> Option<()> {
        let Value::Array(fields) = entry else { return None };
        let [first, last, master, replicas @ ..] = &fields[..] else { return None };
        let (first, last) = (slot_number(first)?, slot_number(last)?);
        let master = Member::parse(master, asked)?;
        let known = self.masters.iter().position(|known| known.member == master);
        let place = if let Some(place) = known {
            place
        } else {
            let replicas = replicas.iter().map(|replica| Member::parse(replica, asked));
            let replicas = replicas.collect::<Option<_>>()?;
            self.masters.push(Master { member: master.clone(), replicas });
            self.masters.len() - 1
        };
        let place = u16::try_from(place).ok()?;
        self.owners.get_mut(usize::from(first)..=usize::from(last))?.fill(place);
        self.ranges.push((first, last, master.address));
        Some(())
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Address> {
        let place = *self.owners.get(usize::from(slot))?;
        self.masters.get(usize::from(place)).map(|master| &master.member.address)
    }

    pub(super) fn masters(&self) -> &[Master] {
        &self.masters
    }

    pub(super) fn is_master(&self, address: &Address) -> bool {
        self.masters.iter().any(|master| master.member.address == *address)
    }

    /// Returns masters and replicas.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.masters
            .iter()
            .flat_map(|master| std::iter::once(&master.member).chain(&master.replicas))
    }

    /// Returns the first slot that has no owner.
    pub(super) fn first_without_owner(&self) -> Option<u16> {
        self.owners.iter().position(|&place| place == NO_OWNER).and_then(|s| u16::try_from(s).ok())
    }

    /// Returns the map with another owner of this slot, as a redirect told.
    pub(super) fn moved(&self, slot: u16, to: &Address) -> Self {
        let mut map = self.clone();
        let known = map.masters.iter().position(|master| master.member.address == *to);
        let place = known.unwrap_or_else(|| {
            let member = Member { address: to.clone(), announced_name: None };
            map.masters.push(Master { member, replicas: Vec::new() });
            map.masters.len() - 1
        });
        map.owners[usize::from(slot)] = u16::try_from(place).unwrap_or(NO_OWNER);
        map
    }

    /// Chooses the map to believe: of servers that think that the cluster works before others; of these, the one that
    /// knows of the most changes (each failover and each moved slot raises the epoch, and a server that was cut off
    /// has a lower one); of these, the one that most servers agree on. The first of equals.
    pub(super) fn choose(maps: Vec<Self>) -> Option<Self> {
        let rank = |map: &Self| {
            let votes = maps.iter().filter(|other| other.ranges == map.ranges).count();
            (map.is_up, map.epoch, votes)
        };
        let ranks: Vec<_> = maps.iter().map(rank).collect();
        let best = *ranks.iter().max()?;
        let place = ranks.iter().position(|&rank| rank == best)?;
        maps.into_iter().nth(place)
    }
}

impl Member {
    /// Reads `[endpoint, port, id, [name, value, ..]]`. The fourth field is there since Redis 7.
    fn parse(value: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(fields) = value else { return None };
        let [endpoint, port, rest @ ..] = &fields[..] else { return None };
        let Value::Int(port) = port else { return None };
        let metadata = match rest.get(1) {
            Some(Value::Array(pairs)) => &pairs[..],
            _ => &[],
        };
        let named = |wanted: &str| {
            let pair = metadata.chunks_exact(2).find(|pair| text(&pair[0]) == Some(wanted));
            pair.and_then(|pair| text(&pair[1])).filter(|value| !value.is_empty())
        };
        // Nothing: as the client reached the server that it asked. `?`: a host name that was not set.
        let host = match text(endpoint) {
            None | Some("") => asked.host(),
            Some("?") => named("ip").unwrap_or(asked.host()),
            Some(host) => host,
        };
        let address = Address::new(host, u16::try_from(*port).ok()?);
        Some(Self { address, announced_name: named("hostname").map(Into::into) })
    }
}

fn slot_number(value: &Value) -> Option<u16> {
    let Value::Int(number) = value else { return None };
    u16::try_from(*number).ok().filter(|&slot| slot < SLOTS)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn member(host: Value, port: i64, metadata: &[&str]) -> Value {
        let metadata = metadata.iter().map(|text| bulk(text)).collect();
        Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(metadata)])
    }

    fn range(first: i64, last: i64, members: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], members].concat())
    }

    fn info(state: &str, epoch: u64) -> Value {
        bulk(&format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n"))
    }

    fn parse(entries: Vec<Value>) -> Result<SlotMap, String> {
        SlotMap::parse(&Value::Array(entries), &info("ok", 1), &Address::new("asked", 7000))
    }

    /// A map in which one server owns everything.
    fn owned_by(port: u16, state: &str, epoch: u64) -> SlotMap {
        let entries = vec![range(0, 16_383, vec![member(bulk("h"), port.into(), &[])])];
        SlotMap::parse(&Value::Array(entries), &info(state, epoch), &Address::new("h", 1)).unwrap()
    }

    #[test]
    fn each_slot_has_the_owner_that_the_server_named() {
        let one = || member(bulk("10.0.0.1"), 1, &[]);
        let map = parse(vec![
            range(0, 99, vec![one(), member(bulk("10.0.0.3"), 3, &[])]),
            range(100, 16_383, vec![member(bulk("::1"), 2, &[])]),
        ])
        .unwrap();
        assert_eq!(map.owner(99), Some(&Address::new("10.0.0.1", 1)));
        assert_eq!(map.owner(100), Some(&Address::new("::1", 2)));
        assert_eq!(map.first_without_owner(), None);
        assert_eq!(map.masters().len(), 2);
        assert_eq!(map.masters()[0].replicas[0].address, Address::new("10.0.0.3", 3));
        assert_eq!(map.members().count(), 3);
        assert!(map.is_master(&Address::new("::1", 2)));
        assert!(!map.is_master(&Address::new("10.0.0.3", 3)));
    }

    #[test]
    fn a_slot_without_an_owner_is_found() {
        let one = || vec![member(bulk("10.0.0.1"), 1, &[])];
        let map = parse(vec![range(0, 99, one()), range(101, 16_383, one())]).unwrap();
        assert_eq!(map.masters().len(), 1);
        assert_eq!(map.first_without_owner(), Some(100));
        assert_eq!(map.owner(100), None);
    }

    #[test]
    fn a_host_that_is_not_named_is_the_one_that_was_asked() {
        for host in [Value::Nil, bulk(""), bulk("?")] {
            let map = parse(vec![range(0, 16_383, vec![member(host, 1, &[])])]).unwrap();
            assert_eq!(map.owner(0), Some(&Address::new("asked", 1)));
        }
        let unnamed = member(bulk("?"), 1, &["ip", "10.0.0.1"]);
        let map = parse(vec![range(0, 16_383, vec![unnamed])]).unwrap();
        assert_eq!(map.owner(0), Some(&Address::new("10.0.0.1", 1)));
    }

    #[test]
    fn an_announced_name_is_kept_beside_the_address() {
        let named = member(bulk("10.0.0.1"), 1, &["hostname", "node-1.example"]);
        let map = parse(vec![range(0, 16_383, vec![named])]).unwrap();
        assert_eq!(map.masters()[0].member.announced_name.as_deref(), Some("node-1.example"));
    }

    #[test]
    fn servers_before_redis_7_send_no_metadata() {
        let short = Value::Array(vec![bulk("10.0.0.1"), Value::Int(1), bulk("id")]);
        let map = parse(vec![range(0, 16_383, vec![short])]).unwrap();
        assert_eq!(map.owner(7), Some(&Address::new("10.0.0.1", 1)));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let one = || member(bulk("h"), 1, &[]);
        for entries in [
            vec![Value::Nil],
            vec![Value::Array(vec![])],
            vec![range(0, 16_384, vec![one()])],
            vec![range(-1, 3, vec![one()])],
            vec![range(5, 3, vec![one()])],
            vec![range(0, 3, vec![])],
            vec![range(0, 3, vec![Value::Nil])],
            vec![range(0, 3, vec![member(bulk("h"), 70_000, &[])])],
        ] {
            let shown = format!("{entries:?}");
            assert!(parse(entries).is_err(), "{shown}");
        }
    }

    #[test]
    fn a_redirect_changes_one_slot() {
        let map = owned_by(1, "ok", 1).moved(7, &Address::new("other", 9));
        assert_eq!(map.owner(7), Some(&Address::new("other", 9)));
        assert_eq!(map.owner(8), Some(&Address::new("h", 1)));
        let back = map.moved(7, &Address::new("h", 1));
        assert_eq!(back.owner(7), Some(&Address::new("h", 1)));
    }

    #[test]
    fn the_map_that_knows_of_the_most_changes_is_believed() {
        let port = |maps| SlotMap::choose(maps).unwrap().owner(0).unwrap().port();
        assert_eq!(port(vec![owned_by(1, "ok", 3), owned_by(2, "ok", 4), owned_by(1, "ok", 3)]), 2);
        // The epoch of a server that thinks that the cluster is down does not count.
        assert_eq!(port(vec![owned_by(1, "fail", 9), owned_by(2, "ok", 4)]), 2);
        // Of one epoch: the majority.
        assert_eq!(port(vec![owned_by(1, "ok", 4), owned_by(2, "ok", 4), owned_by(2, "ok", 4)]), 2);
        assert_eq!(port(vec![owned_by(1, "ok", 4), owned_by(2, "ok", 4)]), 1);
        assert!(SlotMap::choose(Vec::new()).is_none());
    }
}
