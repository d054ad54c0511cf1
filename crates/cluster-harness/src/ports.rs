//! Reserves ports for servers that may be restarted on the same port.
//!
//! What always holds: a reserved port belongs to one reservation on this machine, also between processes, for a
//! locked file stands for it. The ports lie below those that systems give to outgoing connections, so no
//! connection takes the port of a server that is down.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};

/// Distance of the port of the cluster bus, as the servers have it by default.
pub(crate) const BUS: u16 = 10_000;

const FIRST: u16 = 11_000;
const COUNT: u16 = 9_000;

/// A port whose bus port is free too. Dropping it gives the port back.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    // The lock on the file ends with it. The file stays: a removed file could be locked twice.
    _lock: File,
}

impl Port {
    /// # Panics
    ///
    /// If all ports are taken, or the folder of the lock files cannot be made.
    pub(crate) fn reserve() -> Port {
        let folder = std::env::temp_dir().join("cluster-harness-ports");
        fs::create_dir_all(&folder)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
        // Processes that start together begin their searches at different ports.
        let begin = RandomState::new().hash_one(std::process::id()) % u64::from(COUNT);
        let begin = u16::try_from(begin).expect("less than COUNT");
        for step in 0..COUNT {
            let number = FIRST + (begin + step) % COUNT;
            let path = folder.join(number.to_string());
            // A file of another user cannot be opened: the port counts as taken.
            let Ok(lock) = OpenOptions::new().create(true).append(true).open(path) else {
                continue;
            };
            if lock.try_lock().is_ok() && is_free(number) && is_free(number + BUS) {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port from {FIRST} to {}", FIRST + COUNT - 1);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reserved_ports_differ() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }
}
