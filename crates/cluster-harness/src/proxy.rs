//! A TCP proxy in front of one server, which loses, delays and holds back answers.
//!
//! Owns the connections of the clients, and reads the commands in them. What always holds: a server that speaks to
//! another (replication, through the port that the other announces) meets no fault. Such connections come from
//! [`SERVERS_SOURCE`]. TLS cannot be read.

mod fault;
mod link;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::{Condvar, Mutex};

use fault::Rule;
pub use fault::{Fault, Injected};
use link::Link;

/// Where the servers' own connections come from: their setting `bind-source-addr`.
pub(crate) const SERVERS_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A proxy in front of one server. It forwards each command and each answer, unless a [`Fault`] says otherwise.
///
/// A client may use RESP 2 or 3 and pipelines, but no inline commands, no `SUBSCRIBE` and no `CLIENT REPLY`. If the
/// server is down, a client's connection is taken and then closed.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

/// What a [`Proxy`] has seen, without the connections between servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Connections of clients, with those refused.
    pub connections: u64,
    /// Connections that were closed at once, as [`Proxy::refuse_connections`] demands.
    pub refused: u64,
    /// Commands, with those that were not forwarded.
    pub commands: u64,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    stopped: AtomicBool,
    refusing: AtomicBool,
    connections: AtomicU64,
    refused: AtomicU64,
    commands: AtomicU64,
    rules: Mutex<Vec<Arc<Rule>>>,
    links: Mutex<Vec<Weak<Link>>>,
    news: News,
}

/// Wakes those that wait for a fault to strike, to be removed, or for a connection to end.
#[derive(Debug, Default)]
struct News {
    lock: Mutex<()>,
    changed: Condvar,
}

impl News {
    /// Call it after the change, which is made outside.
    fn tell(&self) {
        // A waiter tests its condition under the lock, so it cannot miss this.
        drop(self.lock.lock());
        self.changed.notify_all();
    }
}

impl Proxy {
    /// Starts a proxy on a free port, in front of the server on `127.0.0.1:server_port`.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub fn start(server_port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("the address of a listener").port();
        let shared = Arc::new(Shared {
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, server_port)),
            stopped: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            rules: Mutex::default(),
            links: Mutex::default(),
            news: News::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Proxy { port, shared }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Adds a fault, also for the connections that are open. Of several that strike the same command, the oldest
    /// counts. The fault stays when the handle is dropped.
    pub fn inject(&self, fault: Fault) -> Injected {
        let rule = Arc::new(Rule::new(fault));
        self.shared.rules.lock().push(Arc::clone(&rule));
        Injected::new(rule, &self.shared)
    }

    /// Removes all faults, and passes on the answers that they hold back.
    pub fn clear_faults(&self) {
        for rule in self.shared.rules.lock().drain(..) {
            rule.remove();
        }
        self.shared.news.tell();
    }

    /// Whether new connections are closed at once. The open ones stay. Default: no.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::SeqCst);
    }

    /// Closes all connections of clients.
    pub fn cut_connections(&self) {
        for link in self.shared.open_links() {
            if !link.is_between_servers() {
                link.close();
            }
        }
        self.shared.news.tell();
    }

    /// Returns what it has seen so far.
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.shared.connections.load(Ordering::SeqCst),
            refused: self.shared.refused.load(Ordering::SeqCst),
            commands: self.shared.commands.load(Ordering::SeqCst),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts. It closes its listener.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        for link in self.shared.open_links() {
            link.close();
        }
        self.shared.news.tell();
    }
}

impl Shared {
    fn open_links(&self) -> Vec<Arc<Link>> {
        let links = self.links.lock();
        links.iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns whether the link may begin.
    fn register(&self, link: &Arc<Link>) -> bool {
        let mut links = self.links.lock();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
        // Only now: `Drop` closes those that it finds here.
        !self.stopped.load(Ordering::SeqCst)
    }

    /// The fault that strikes the next command `name`.
    fn strike(&self, name: &[u8]) -> Option<Arc<Rule>> {
        self.commands.fetch_add(1, Ordering::SeqCst);
        let rules = self.rules.lock();
        // All of them count the command, not only the first that strikes.
        let mut struck = None;
        for rule in rules.iter().filter(|rule| rule.strikes(name)) {
            struck.get_or_insert_with(|| Arc::clone(rule));
        }
        struck
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let between_servers = client.peer_addr().is_ok_and(|peer| peer.ip() == SERVERS_SOURCE);
        if !between_servers {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            if shared.refusing.load(Ordering::SeqCst) {
                shared.refused.fetch_add(1, Ordering::SeqCst);
                continue;
            }
        }
        let shared = Arc::clone(shared);
        // A server that stands still may not take the connection for long.
        thread::spawn(move || {
            let Ok(server) = TcpStream::connect(shared.server) else { return };
            let Ok(link) = Link::new(client, server, between_servers) else { return };
            if shared.register(&link) {
                link.run(&shared);
            }
        });
    }
}
