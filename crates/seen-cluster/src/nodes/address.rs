//! Where a server listens.
//!
//! Owns the one form of an address that the layer compares, hashes and shows. What always holds: the host is not
//! empty, and an IPv6 host has no brackets. Knows nothing of connections.

use std::fmt;
use std::sync::Arc;

/// A host name or IP address, and a port. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    host: Arc<str>,
    port: u16,
}

impl Address {
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Self { host: host.into(), port }
    }

    /// Reads `host:port` as servers write it in a redirect: an IPv6 host stands there without brackets, and an empty
    /// host means the host that was asked. `?` is a host that the server does not know.
    pub(crate) fn parse(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port != 0)?;
        Some(match host {
            "" | "?" => Self { host: asked.host.clone(), port },
            host => Self::new(host, port),
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        Address::parse(text, &Address::new("asked", 1)).map(|address| address.to_string())
    }

    #[test]
    fn a_redirect_names_a_host_an_ipv6_address_or_the_host_that_was_asked() {
        assert_eq!(parsed("10.0.0.1:6379").as_deref(), Some("10.0.0.1:6379"));
        assert_eq!(parsed("node-1.example:6379").as_deref(), Some("node-1.example:6379"));
        assert_eq!(parsed("::1:6379").as_deref(), Some("[::1]:6379"));
        assert_eq!(parsed("[::1]:6379").as_deref(), Some("[::1]:6379"));
        assert_eq!(parsed(":6379").as_deref(), Some("asked:6379"));
        assert_eq!(parsed("?:6379").as_deref(), Some("asked:6379"));
        assert_eq!(parsed("host"), None);
        assert_eq!(parsed("host:0"), None);
        assert_eq!(parsed("host:70000"), None);
    }
}
