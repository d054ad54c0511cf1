//! What the layer is told before it connects.
//!
//! Owns the settings and their defaults. What always holds: a password appears in no text made of them. Knows nothing
//! of URLs: they are read elsewhere.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How to reach a cluster, and how much each write must survive.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Servers of the cluster, of which any that answers names the others.
    pub(crate) seeds: Vec<(String, u16)>,
    /// The user of the server's access list. Without one, the password is that of the default user.
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// Whether and how connections are encrypted.
    pub(crate) tls: Option<Tls>,
    /// How long opening a connection may take, with its handshakes.
    pub(crate) connect_timeout: Duration,
    /// How long the answers to one pipeline may take. What `WAIT` may take is added.
    pub(crate) response_timeout: Duration,
    /// How many replicas must have received a write before it is answered. 0: none.
    pub(crate) min_replicas: u32,
    /// Within how long each call ends, if the URL says so.
    pub(crate) timeout: Option<Duration>,
    /// How long the server waits for these replicas. At least 1 ms: 0 would mean for ever.
    pub(crate) wait_timeout: Duration,
    /// Is told of each pipeline of writes that was answered, with the number of its commands.
    pub(crate) on_group: Option<Arc<dyn Fn(usize) + Send + Sync>>,
}

/// How connections are encrypted. Needs the feature `tls`.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    /// The certificates in PEM that servers are checked with. Without them: those that the operating system trusts.
    pub(crate) ca: Option<Vec<u8>>,
    /// Takes every certificate. Only for tests.
    pub(crate) insecure: bool,
}

impl Settings {
    pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
    pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

    /// Settings with the defaults: no user, no encryption, no replicas.
    pub(crate) fn new(seeds: Vec<(String, u16)>) -> Self {
        Self {
            seeds,
            username: None,
            password: None,
            tls: None,
            connect_timeout: Self::CONNECT_TIMEOUT,
            response_timeout: Self::RESPONSE_TIMEOUT,
            min_replicas: 0,
            timeout: None,
            wait_timeout: Self::WAIT_TIMEOUT,
            on_group: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("seeds", &self.seeds)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "<hidden>"))
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("min_replicas", &self.min_replicas)
            .field("timeout", &self.timeout)
            .field("wait_timeout", &self.wait_timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca", &self.ca.as_ref().map(Vec::len))
            .field("insecure", &self.insecure)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        let mut settings = Settings::new(vec![("host".into(), 1)]);
        settings.password = Some("s3cret".into());
        let shown = format!("{settings:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
