//! How a cluster is set up, and the configuration file that follows from it.

use std::fmt::Write;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::ports::BUS;
use crate::proxy::SERVERS_SOURCE;

/// The harness's own user. No test's ACL rules can lock the harness out, nor the replicas.
pub(crate) const ADMIN: &str = "cluster-harness";
pub(crate) const ADMIN_PASSWORD: &str = "cluster-harness-password";

/// How a [`Cluster`](crate::Cluster) is set up. Each setter states its default.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) masters: usize,
    pub(crate) replicas_per_master: usize,
    pub(crate) tls: bool,
    pub(crate) announce_through_proxies: bool,
    node_timeout: Duration,
    appendonly: bool,
    users: Vec<String>,
    default_password: Option<String>,
    settings: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// Three masters with a replica each.
    #[must_use]
    pub fn new() -> Options {
        Options {
            masters: 3,
            replicas_per_master: 1,
            tls: false,
            announce_through_proxies: false,
            node_timeout: Duration::from_secs(5),
            appendonly: false,
            users: Vec::new(),
            default_password: None,
            settings: Vec::new(),
        }
    }

    /// How many masters share the slots. Default: 3. A failed master is replaced only if most masters live, so it
    /// takes 3 for that.
    #[must_use]
    pub fn masters(mut self, masters: usize) -> Options {
        self.masters = masters;
        self
    }

    /// How many replicas each master has. Default: 1.
    #[must_use]
    pub fn replicas_per_master(mut self, replicas: usize) -> Options {
        self.replicas_per_master = replicas;
        self
    }

    /// After which silence a node counts as failed (`cluster-node-timeout`). Default: 5 seconds.
    #[must_use]
    pub fn node_timeout(mut self, timeout: Duration) -> Options {
        self.node_timeout = timeout;
        self
    }

    /// Whether the servers write each change to a file, so that a restarted one has its keys again. Default: no.
    #[must_use]
    pub fn appendonly(mut self, appendonly: bool) -> Options {
        self.appendonly = appendonly;
        self
    }

    /// Whether the servers speak TLS, and nothing else. Default: no. Not together with proxies, which cannot read
    /// it.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Options {
        self.tls = tls;
        self
    }

    /// Adds a user: the name and its ACL rules, such as `alice on >secret ~seen:* +get`.
    #[must_use]
    pub fn user(mut self, name_and_rules: &str) -> Options {
        self.users.push(name_and_rules.to_owned());
        self
    }

    /// The password of the user `default`. Default: none is required.
    #[must_use]
    pub fn require_default_password(mut self, password: &str) -> Options {
        self.default_password = Some(password.to_owned());
        self
    }

    /// Whether each node has a [`Proxy`](crate::Proxy), and announces it to clients instead of itself. Default: no.
    /// Other systems than Linux need the alias 127.0.0.2 on the loopback interface for that.
    #[must_use]
    pub fn announce_through_proxies(mut self, proxies: bool) -> Options {
        self.announce_through_proxies = proxies;
        self
    }

    /// Adds a line to the configuration of all servers, such as `appendfsync always`. It wins over the harness's
    /// own lines.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Options {
        self.settings.push(line.to_owned());
        self
    }

    pub(crate) fn check(&self) {
        assert!(self.masters > 0, "a cluster has at least one master");
        assert!(
            !(self.tls && self.announce_through_proxies),
            "a proxy cannot read TLS: choose `tls` or `announce_through_proxies`"
        );
    }

    /// The configuration file of the server on `port`, which is reached at `client_port`.
    pub(crate) fn configuration(
        &self,
        port: u16,
        client_port: u16,
        certificates: Option<&Certificates>,
    ) -> String {
        let timeout_ms = self.node_timeout.as_millis();
        let appendonly = if self.appendonly { "yes" } else { "no" };
        let mut text = format!(
            "bind 127.0.0.1\n\
             daemonize no\n\
             logfile log\n\
             unixsocket socket\n\
             enable-debug-command yes\n\
             save \"\"\n\
             appendonly {appendonly}\n\
             repl-diskless-sync yes\n\
             repl-diskless-sync-delay 0\n\
             cluster-enabled yes\n\
             cluster-config-file nodes.conf\n\
             cluster-node-timeout {timeout_ms}\n\
             cluster-announce-ip 127.0.0.1\n\
             user {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all\n\
             masteruser {ADMIN}\n\
             masterauth {ADMIN_PASSWORD}\n"
        );
        match certificates {
            None => {
                let _ = writeln!(text, "port {port}");
            }
            Some(files) => {
                let _ = write!(
                    text,
                    "port 0\n\
                     tls-port {port}\n\
                     tls-cluster yes\n\
                     tls-replication yes\n\
                     tls-auth-clients no\n\
                     tls-ca-cert-file \"{}\"\n\
                     tls-cert-file \"{}\"\n\
                     tls-key-file \"{}\"\n",
                    files.authority.display(),
                    files.server.display(),
                    files.server_key.display()
                );
            }
        }
        if client_port != port {
            let bus = port + BUS;
            let _ = write!(
                text,
                "cluster-announce-port {client_port}\n\
                 cluster-announce-bus-port {bus}\n\
                 bind-source-addr {SERVERS_SOURCE}\n"
            );
        }
        if let Some(password) = &self.default_password {
            let _ = writeln!(text, "user default on >{password} ~* &* +@all");
        }
        for user in &self.users {
            let _ = writeln!(text, "user {user}");
        }
        for line in &self.settings {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}
