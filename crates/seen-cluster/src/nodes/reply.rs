//! What a reply means for the command that it answers.
//!
//! Owns which errors of a server are redirects, which pass by themselves, and which are final. What always holds: each
//! of these errors says that the command was not executed. Knows nothing of connections.

use redis::{ServerError, Value};

use super::address::Address;

/// A reply, judged.
#[derive(Debug)]
pub(super) enum Reply {
    Value(Value),
    /// The slot is another master's for good.
    Moved {
        address: Address,
    },
    /// The slot is on its way, and this key is there already, or nowhere.
    Ask {
        address: Address,
    },
    /// The server cannot do it now.
    NotReady(ServerError),
    Refused(ServerError),
}

impl Reply {
    /// Judges what the server at `asked` replied.
    pub(super) fn of(value: Value, asked: &Address) -> Self {
        let Value::ServerError(error) = value else {
            return Self::Value(value);
        };
        match error.code() {
            "MOVED" => match redirect(&error, asked) {
                Some(address) => Self::Moved { address },
                None => Self::NotReady(error),
            },
            "ASK" => match redirect(&error, asked) {
                Some(address) => Self::Ask { address },
                None => Self::NotReady(error),
            },
            // `READONLY`: a master that has become a replica. `BUSY`: a script runs and runs.
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" | "NOREPLICAS"
            | "BUSY" => Self::NotReady(error),
            _ => Self::Refused(error),
        }
    }
}

/// Reads `MOVED 3999 127.0.0.1:6381`.
fn redirect(error: &ServerError, asked: &Address) -> Option<Address> {
    let (_slot, address) = error.details()?.split_once(' ')?;
    Address::parse(address, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(line: &str) -> Reply {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        Reply::of(value, &Address::new("10.0.0.9", 7000))
    }

    #[test]
    fn redirects_name_their_node() {
        let Reply::Moved { address } = judged("MOVED 3999 127.0.0.1:6381") else { panic!() };
        assert_eq!(address, Address::new("127.0.0.1", 6381));
        let Reply::Moved { address } = judged("MOVED 3999 :6381") else { panic!() };
        assert_eq!(address, Address::new("10.0.0.9", 6381));
        let Reply::Ask { address } = judged("ASK 1 ::1:6381") else { panic!() };
        assert_eq!(address, Address::new("::1", 6381));
    }

    #[test]
    fn a_redirect_that_cannot_be_read_is_tried_again() {
        assert!(matches!(judged("MOVED 3999"), Reply::NotReady(_)));
        assert!(matches!(judged("ASK 3999 nowhere"), Reply::NotReady(_)));
    }

    #[test]
    fn states_that_pass_are_not_final() {
        for line in [
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "CLUSTERDOWN Hash slot not served",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "READONLY You can't write against a read only replica.",
            "NOREPLICAS Not enough good replicas to write.",
            "BUSY Redis is busy running a script.",
        ] {
            assert!(matches!(judged(line), Reply::NotReady(_)), "{line}");
        }
    }

    #[test]
    fn refusals_are_final_and_keep_the_servers_text() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOAUTH Authentication required.",
            "NOPERM this user has no permissions to run the 'set' command",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOSCRIPT No matching script.",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "MISCONF Redis is configured to save RDB snapshots",
            "ERR syntax error",
        ] {
            let Reply::Refused(error) = judged(line) else { panic!("{line}") };
            assert_eq!(crate::nodes::error::server_text(&error), line.trim_end_matches('.'));
        }
    }
}
