//! A client process: this test program again, under load until its input ends.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use seen_cluster::ClusterStore;
use seen_store::{Claim, ErrorKind, Item};

/// What one call was told.
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) answer: String,
    /// The longest of the calls that it took.
    pub(crate) took_ms: u64,
}

impl Told {
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let (id, answer) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Self { id, answer, took_ms: parts.next()?.parse().ok()? })
    }
}

#[expect(clippy::disallowed_methods, reason = "how long calls take")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Some client processes.
pub(crate) struct Clients<'f> {
    folder: &'f Path,
    running: Vec<Child>,
}

impl<'f> Clients<'f> {
    pub(crate) fn start(count: usize, work: &str, url: &str, folder: &'f Path) -> Self {
        let clients = (0..count).map(|client| command(client, work, url, folder).spawn().unwrap());
        Self { folder, running: clients.collect() }
    }

    pub(crate) fn of(folder: &'f Path, commands: Vec<Command>) -> Self {
        let running = commands.into_iter().map(|mut command| command.spawn().unwrap()).collect();
        Self { folder, running }
    }

    /// Lets each end its present call, and returns what all were told.
    pub(crate) fn end(self) -> Vec<Told> {
        let mut told = Vec::new();
        for (client, mut child) in self.running.into_iter().enumerate() {
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success(), "client {client} failed");
            told.extend(super::read_told(self.folder, client));
        }
        told
    }
}

pub(crate) fn command(client: usize, work: &str, url: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "client::runs_as_a_client", "--ignored", "--nocapture"])
        .env("SEEN_CLIENT", client.to_string())
        .env("SEEN_CLIENT_WORK", work)
        .env("SEEN_CLIENT_URL", url)
        .env("SEEN_CLIENT_FILE", folder.join(client.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    command
}

#[test]
#[ignore = "is a client of the others"]
fn runs_as_a_client() {
    let Ok(client) = std::env::var("SEEN_CLIENT") else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let told = ends.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Relaxed);
    });
    let mut file = File::create(variable("SEEN_CLIENT_FILE")).unwrap();
    let store = ClusterStore::open(&variable("SEEN_CLIENT_URL")).unwrap();
    let mut n = 0_u64;
    while !ends.load(Relaxed) {
        n += 1;
        let mut longest = Duration::ZERO;
        let (id, answer) = match &*variable("SEEN_CLIENT_WORK") {
            "check" => check(&store, format!("{client}-{n}"), &mut longest),
            _ => claim(&store, format!("shared-{}", n % 200), n),
        };
        writeln!(file, "{id} {answer} {}", longest.as_millis()).unwrap();
    }
    store.close().unwrap();
}

/// Checks a new id, as the documentation says: after an unknown outcome again with the token.
fn check(store: &ClusterStore, id: String, longest: &mut Duration) -> (String, String) {
    let mut item = Item::new(&id);
    for _ in 0..20 {
        let begun = now();
        let checked = store.check_and_mark(item.clone());
        *longest = begun.elapsed().max(*longest);
        match checked {
            Ok(verdict) => return (id, verdict.to_string()),
            Err(e) if e.kind() == ErrorKind::OutcomeUnknown => {
                item = Item::new(&id).retry_of(e.token());
            }
            Err(e) if e.is_retryable() => {}
            Err(e) => panic!("{id}: {e}"),
        }
    }
    (id, "error".to_owned())
}

/// Claims an id that others claim too, for less time than the work takes now and then, and confirms it.
fn claim(store: &ClusterStore, id: String, n: u64) -> (String, String) {
    let answer = match store.claim(&id, Duration::from_millis(40)) {
        Ok(Claim::Granted(mut lease)) => {
            std::thread::sleep(Duration::from_millis(if n.is_multiple_of(3) { 60 } else { 5 }));
            match lease.confirm() {
                Ok(()) => "confirmed".to_owned(),
                Err(e) if e.kind() == ErrorKind::LeaseLost => "lost".to_owned(),
                Err(e) => panic!("{id}: {e}"),
            }
        }
        Ok(Claim::InFlight { .. }) => "in-flight".to_owned(),
        Ok(Claim::Seen(_)) => "seen".to_owned(),
        Ok(other) => panic!("{id}: {other:?}"),
        Err(e) => panic!("{id}: {e}"),
    };
    (id, answer)
}
