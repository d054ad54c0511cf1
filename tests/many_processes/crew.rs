//! The children of a phase, the place where they meet, and how the parent deals with them.
//!
//! Owns the folder with the store's file and the ledger, the start of children in their roles, and the
//! watching of the log. What always holds: the parent opens neither the store nor its file while children
//! work.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use seen_store::{Config, SeenStore, Ttl};
use tempfile::TempDir;

use crate::child::WITHOUT_END;
use crate::ledger::Ledger;
use crate::settings::Settings;
use crate::support_process::{Child, Random};

/// The store's default, which is longer than anything here holds the lock.
const USUAL_BUSY_MS: u64 = 30_000;

/// What a child is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    pub(crate) role: &'static str,
    /// The works of a worker, by name.
    pub(crate) works: &'static str,
    pub(crate) rounds: u64,
    pub(crate) stores: u64,
    pub(crate) threads: u64,
    pub(crate) is_mortal: bool,
    /// Whether a marker waits for a batch of another process before each mark.
    pub(crate) is_rare: bool,
    pub(crate) busy_ms: u64,
}

impl Post {
    const fn new(role: &'static str) -> Self {
        Self {
            role,
            works: "",
            rounds: WITHOUT_END,
            stores: 1,
            threads: 1,
            is_mortal: false,
            is_rare: false,
            busy_ms: USUAL_BUSY_MS,
        }
    }

    pub(crate) const fn marker(stores: u64, threads: u64) -> Self {
        Self { stores, threads, ..Self::new("marker") }
    }

    /// A marker whose process dies now and then as soon as a mark was acknowledged. It syncs each commit,
    /// which keeps the thread that commits for the others busy for long enough to be met in it.
    pub(crate) const fn mortal(threads: u64) -> Self {
        Self { is_mortal: true, ..Self::marker(1, threads) }
    }

    /// A marker that never has the lock at hand: before each mark it waits until another process has written
    /// a batch.
    pub(crate) const fn rare_marker() -> Self {
        Self { is_rare: true, ..Self::marker(1, 1) }
    }

    pub(crate) const fn worker(works: &'static str, rounds: u64) -> Self {
        Self { works, rounds, ..Self::new("worker") }
    }

    pub(crate) const CLAIMER: Self = Self::new("claimer");
    pub(crate) const FOREIGN: Self = Self::new("foreign");

    pub(crate) const fn impatient(self) -> Self {
        Self { busy_ms: 50, ..self }
    }
}

/// Where the children of a phase meet.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) ledger: Ledger,
    pub(crate) known: u64,
    settings: Settings,
    random: Random,
    started: u64,
}

impl Place {
    /// A place with a file that holds so many ids at the beginning.
    pub(crate) fn new(phase: &str, settings: Settings, known: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let ledger = Ledger::open(&folder.path().join("ledger"), "parent");
        let store = SeenStore::open_with(&path, Config::default().ttl(Ttl::Never)).unwrap();
        store.seed((0..known).map(|number| format!("known/{number}"))).unwrap();
        store.close().unwrap();
        Self { folder, path, ledger, known, random: settings.random(phase), settings, started: 0 }
    }

    pub(crate) fn start(&mut self, post: Post) -> Child {
        self.started += 1;
        let variables = [
            ("SEEN_PATH", self.path.display().to_string()),
            ("SEEN_LEDGER", self.folder.path().join("ledger").display().to_string()),
            ("SEEN_NAME", format!("{}-{}", post.role, self.started)),
            ("SEEN_CHILD_SEED", self.random.below(1 << 60).to_string()),
            ("SEEN_LIFE", self.settings.life().to_string()),
            ("SEEN_ROUNDS", post.rounds.to_string()),
            ("SEEN_WORKS", post.works.to_owned()),
            ("SEEN_STORES", post.stores.to_string()),
            ("SEEN_THREADS", post.threads.to_string()),
            ("SEEN_MORTAL", u64::from(post.is_mortal).to_string()),
            ("SEEN_RARE", u64::from(post.is_rare).to_string()),
            ("SEEN_BUSY_MS", post.busy_ms.to_string()),
        ];
        Child::spawn_test("child", post.role, &variables)
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Returns once the ledger has grown by so many bytes, or the time is up: the process that holds the
    /// write lock may be stopped.
    pub(crate) fn wait_for_growth(&self, bytes: u64, most: Duration) {
        let (until, begun) = (self.ledger.bytes() + bytes, Instant::now());
        while self.ledger.bytes() < until && begun.elapsed() < most {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The side files of the store that are there.
    pub(crate) fn side_files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("seen.db-")).collect()
    }

    pub(crate) fn watch_log(&self) -> LogWatch {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        LogWatch::start(log.into())
    }
}

/// Measures the log until it is asked for the greatest length.
pub(crate) struct LogWatch {
    ended: Arc<AtomicBool>,
    longest: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl LogWatch {
    fn start(log: PathBuf) -> Self {
        let (ended, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, most) = (Arc::clone(&ended), Arc::clone(&longest));
        let thread = thread::spawn(move || {
            while !end.load(SeqCst) {
                most.fetch_max(bytes(&log), SeqCst);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { ended, longest, thread }
    }

    /// The greatest length in bytes.
    pub(crate) fn end(self) -> u64 {
        self.ended.store(true, SeqCst);
        self.thread.join().unwrap();
        self.longest.load(SeqCst)
    }
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
