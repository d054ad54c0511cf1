//! Starts a cluster and ends it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::node::Node;
use crate::options::Options;
use crate::ports::{BUS, Port};
use crate::program;
use crate::proxy::Proxy;
use crate::topology::SLOTS;
use crate::waiting::until;
use crate::watcher::Watcher;

const START: Duration = Duration::from_secs(20);

/// A running cluster of real servers. Dropping it kills them and removes their folders.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they are dropped. The watcher removes the folder, and has to find the servers gone.
    proxies: Vec<Proxy>,
    nodes: Vec<Node>,
    certificates: Option<Certificates>,
    masters: usize,
    _watcher: Arc<Watcher>,
    _folder: TempDir,
}

impl Cluster {
    /// Starts three masters with a replica each; see [`start_with`](Self::start_with).
    ///
    /// # Panics
    ///
    /// As there.
    pub fn start() -> Cluster {
        Cluster::start_with(&Options::new())
    }

    /// Starts a cluster, and returns when it takes commands and its replicas follow: after about 2 seconds. A master
    /// takes none before, since the server's source says so.
    ///
    /// # Panics
    ///
    /// If there is no server program, if the options contradict each other, or if the servers are not ready after
    /// 20 seconds.
    pub fn start_with(options: &Options) -> Cluster {
        options.check();
        let program = program::find().expect("redis-server is not on PATH");
        let folder = TempDir::with_prefix("cluster-").expect("a temporary folder");
        let watcher = Arc::new(Watcher::start(folder.path()));
        let certificates = options.tls.then(|| Certificates::write(folder.path()));
        let mut proxies = Vec::new();
        let mut nodes = Vec::new();
        for index in 0..options.masters * (1 + options.replicas_per_master) {
            let port = Port::reserve();
            let mut client_port = port.number();
            if options.announce_through_proxies {
                let proxy = Proxy::start(port.number());
                client_port = proxy.port();
                proxies.push(proxy);
            }
            let home = folder.path().join(index.to_string());
            let configuration =
                options.configuration(port.number(), client_port, certificates.as_ref());
            write_configuration(&home, &configuration);
            let node = Node::new(index, port, client_port, &home, &program, &watcher);
            node.spawn();
            nodes.push(node);
        }
        let masters = options.masters;
        let cluster =
            Cluster { proxies, nodes, certificates, masters, _watcher: watcher, _folder: folder };
        cluster.join();
        cluster.wait_until_ok(START);
        cluster
    }

    /// Makes one cluster of the servers, which know nothing of each other yet.
    fn join(&self) {
        for node in &self.nodes {
            node.wait_until_it_answers();
            // Has to come before the servers meet. Equal epochs would be told apart only later.
            say(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(node.index() + 1).to_string()]);
        }
        let (masters, replicas) = self.nodes.split_at(self.masters);
        let slot = |index: usize| usize::from(SLOTS) * index / self.masters;
        for master in masters {
            let (first, next) = (slot(master.index()), slot(master.index() + 1));
            say(master, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(next - 1).to_string()]);
        }
        // All pairs: to hear of each other by gossip takes longer.
        for node in &self.nodes {
            for other in &self.nodes[node.index() + 1..] {
                greet(node, other);
            }
        }
        until(START, "all nodes know each other", || {
            self.nodes.iter().try_for_each(|node| knows(node, self.nodes.len()))
        });
        for replica in replicas {
            let master = &masters[replica.index() % self.masters];
            say(replica, &["CLUSTER", "REPLICATE", master.id()]);
        }
        // A node believes what another says of its slots and its master only once it knows the other. Without a second
        // greeting it hears of them at a later ping, which may be half a node timeout away.
        for node in &self.nodes {
            for other in self.nodes.iter().filter(|other| other.index() != node.index()) {
                greet(node, other);
            }
        }
    }

    /// All nodes: first those that were masters at the start, then the replicas. Node `masters + i` was a replica of
    /// node `i % masters`.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the node at `index` of [`nodes`](Self::nodes).
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[track_caller]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The proxies, in the order of [`nodes`](Self::nodes). None without
    /// [`announce_through_proxies`](Options::announce_through_proxies).
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Returns the proxy of the node at `index`.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[track_caller]
    pub fn proxy(&self, index: usize) -> &Proxy {
        &self.proxies[index]
    }

    /// Returns the proxy of `node`.
    ///
    /// # Panics
    ///
    /// If there are no proxies.
    #[track_caller]
    pub fn proxy_of(&self, node: &Node) -> &Proxy {
        self.proxy(node.index())
    }

    /// The addresses that clients reach the nodes at, in the order of [`nodes`](Self::nodes).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| SocketAddr::from(([127, 0, 0, 1], node.port()))).collect()
    }

    /// The URL of those that were masters at the start: `redis://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/`, or
    /// `rediss://` with TLS.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// [`url`](Self::url) with a user and a password in front of the first address. Leave `user` empty for the user
    /// `default`.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    fn url_with(&self, user: &str) -> String {
        let scheme = if self.certificates.is_some() { "rediss" } else { "redis" };
        let addresses: Vec<String> =
            self.addresses()[..self.masters].iter().map(SocketAddr::to_string).collect();
        format!("{scheme}://{user}{}/", addresses.join(","))
    }

    /// The certificate, in PEM, of the authority that clients have to trust.
    ///
    /// # Panics
    ///
    /// Without [`tls`](Options::tls).
    #[track_caller]
    pub fn ca_path(&self) -> &Path {
        &self.certificates.as_ref().expect("a cluster with TLS").authority
    }
}

fn say(node: &Node, command: &[&str]) {
    let answer = node.command(command);
    assert!(!answer.is_error(), "{command:?}: {}", answer.text());
}

fn greet(node: &Node, other: &Node) {
    let port = other.port().to_string();
    let bus = (other.server_port() + BUS).to_string();
    say(node, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
}

/// Whether `node` knows so many nodes, with itself.
fn knows(node: &Node, count: usize) -> Result<(), String> {
    let nodes = node.command(&["CLUSTER", "NODES"]).text();
    let known = nodes.lines().filter(|line| !line.contains("handshake")).count();
    if known == count { Ok(()) } else { Err(format!("node {} knows {known}", node.index())) }
}

fn write_configuration(home: &Path, configuration: &str) {
    let write = || {
        fs::create_dir(home)?;
        fs::write(home.join("redis.conf"), configuration)
    };
    write().unwrap_or_else(|error| panic!("cannot write into {}: {error}", home.display()));
}
