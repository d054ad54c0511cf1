//! What happens to the stores and their file from outside: kills, faults, copies put back, locks of others,
//! forks, a log that is deleted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use seen_store::Machine;

use super::damage::Damage;
use super::{Came, World};
use crate::known::Known;
use crate::model::{Act, Asked, Number};
use crate::ops::Says;
use crate::scheduler::Scheduler;
use crate::setup::Kept;
use crate::state::{Life, Span};
use crate::{fork, vfs};

impl World {
    pub fn kill(&mut self, store: usize, after_calls: Option<u32>) {
        *self.counts.entry("kill").or_default() += 1;
        let process = self.stores[store].process;
        match after_calls {
            Some(calls) => vfs::plan(process, calls, vfs::Fault::Killed),
            None => {
                self.observer.leave();
                vfs::kill(process);
                self.bury_the_dead();
            }
        }
    }

    pub fn hurt(&mut self, store: usize, after_calls: u32, code: i32, lasting: bool) {
        *self.counts.entry("fault").or_default() += 1;
        let process = self.stores[store].process;
        self.say(|| {
            format!("a system call of store {store} is to fail with {code} after {after_calls}")
        });
        vfs::plan(process, after_calls, vfs::Fault::Fails { code, lasting });
    }

    pub fn spare_all(&mut self) {
        for store in &self.stores {
            vfs::spare(store.process);
        }
    }

    /// Copies the file while nothing is under way, to come back to.
    pub fn back_up(&mut self, number: Number, store: usize) {
        self.wait_for_all();
        self.settle();
        if !self.is_open(store) || self.setup.kept != Kept::SharedFile {
            return;
        }
        let to = self.folder.join("backup.db");
        let _ = std::fs::remove_file(&to);
        let names = self.model.names().into_iter();
        let known = names.map(|name| (name, self.model.known(name))).collect();
        let handle = self.stores[store].open.clone().expect("open");
        let caller = self.idle_caller(store).expect("idle");
        self.under_way(number, "backup", store);
        self.give(&caller, number, move || handle.backup(to).map(|()| Came::Says(Says::default())));
        self.backup = None;
        let failed = vfs::failed(self.stores[store].process);
        self.wait_for(store);
        // One that failed may be half a copy.
        if vfs::failed(self.stores[store].process) == failed && self.stores[store].open.is_some() {
            self.backup = Some(known);
        }
    }

    /// Puts the copy back in place through SQLite's backup, as `.restore` of its shell does, while the
    /// stores go on.
    pub fn put_back(&mut self, number: Number) {
        let Some(known) = self.backup.clone() else { return };
        let outsider = self.outsider();
        self.wait_for(outsider);
        self.settle();
        if self.stores[..outsider].iter().all(|store| store.open.is_none()) {
            return;
        }
        let setup = self.setup;
        let asked = Asked {
            store: outsider,
            life: Life { ttl: Span::Never, window: setup.window, retention: None },
            retry_delay: Span::Ms(0),
            max_attempts: None,
            max_abandoned: None,
            nows: [0].into(),
            is_late: false,
        };
        self.under_way(number, "restore in place", outsider);
        let then = |name| known.get(&name).cloned().unwrap_or_else(|| [Known::default()].into());
        self.model.called_on_all(number, &asked, None, |name| Act::Restore(then(name)));
        let way = self.under_way.get_mut(&number).expect("just told");
        (way.on_all, way.removes) = (true, true);
        self.be_late(number, outsider);
        let (from, to) = (self.folder.join("backup.db"), self.path.clone());
        let scheduler = self.scheduler;
        let caller = self.stores[outsider].callers[0].clone();
        self.give(&caller, number, move || {
            put_in_place(scheduler, &from, &to);
            Ok(Came::Says(Says::default()))
        });
    }

    /// Holds the write lock, or a snapshot, for a while.
    pub fn hold(&mut self, number: Number, writes: bool, time: Duration) {
        let outsider = self.outsider();
        self.wait_for(outsider);
        self.settle();
        if self.setup.kept != Kept::SharedFile
            || self.stores[..outsider].iter().all(|store| store.open.is_none())
        {
            return;
        }
        self.under_way(number, if writes { "hold lock" } else { "hold snapshot" }, outsider);
        let (path, scheduler) = (self.path.clone(), self.scheduler);
        let caller = self.stores[outsider].callers[0].clone();
        self.give(&caller, number, move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags).expect("a connection");
            connection.busy_timeout(Duration::from_secs(1)).expect("a timeout");
            let begin = if writes { "BEGIN IMMEDIATE" } else { "BEGIN; SELECT count(*) FROM meta" };
            if connection.execute_batch(begin).is_ok() {
                scheduler.wait(&|| false, Some(scheduler.elapsed() + time));
                let _ = connection.execute_batch("ROLLBACK");
            }
            Ok(Came::Says(Says::default()))
        });
    }

    /// Damages the index in the file, as another program might. Answers stay right: it is derived from the marks.
    pub fn damage_index(&mut self, number: Number, damage: Damage, at: i64) {
        let outsider = self.outsider();
        self.wait_for(outsider);
        self.settle();
        if !self.setup.damages_index
            || self.setup.kept != Kept::SharedFile
            || self.stores[..outsider].iter().all(|store| store.open.is_none())
        {
            return;
        }
        self.under_way(number, damage.name(), outsider);
        self.index_health = self.index_health.max(damage.leaves());
        let path = self.path.clone();
        let caller = self.stores[outsider].callers[0].clone();
        self.give(&caller, number, move || {
            damage.inflict(&path, at);
            Ok(Came::Says(Says::default()))
        });
        self.wait_for(outsider);
    }

    /// A child of the process uses what it inherited, and opens a store of its own: it is refused both.
    pub fn fork(&mut self, number: Number, store: usize) {
        if !self.is_open(store) {
            return;
        }
        *self.counts.entry("fork").or_default() += 1;
        self.say(|| format!("{number} a child of store {store}"));
        let handle = self.stores[store].open.clone().expect("open");
        let of_its_own = self.path.with_file_name("child.db");
        if let Err(why) = fork::child_is_refused(&handle, &[&self.path, &of_its_own]) {
            self.violation(&format!("a child of store {store}: {why}"));
        }
    }

    /// Whether the store, which nothing else asks, acknowledges a mark that the model does not know.
    fn marks(&mut self, number: Number, store: usize) -> bool {
        let handle = self.stores[store].open.clone().expect("open");
        let caller = self.idle_caller(store).expect("idle");
        self.under_way(number, "mark of no use", store);
        let acknowledged = Arc::new(AtomicBool::new(false));
        let marked = Arc::clone(&acknowledged);
        self.give(&caller, number, move || {
            let done = handle.scope("of no use").mark_seen("of no use");
            marked.store(done.is_ok(), SeqCst);
            done.map(|()| Came::Says(Says::default()))
        });
        self.wait_for(store);
        acknowledged.load(SeqCst)
    }

    /// Deletes the log under the stores. Once that can be known no mark is acknowledged, and closing keeps
    /// those that were.
    pub fn lose_the_log(&mut self, number: Number) {
        self.spare_all();
        self.wait_for_all();
        let open: Vec<_> = (0..self.setup.stores).filter(|store| self.is_open(*store)).collect();
        // One whose connection is lost would begin with a new log.
        for (place, store) in open.iter().enumerate() {
            if !self.marks(number + 1 + place as u64, *store) {
                return;
            }
        }
        let log = self.path.with_file_name("seen.db-wal");
        if open.is_empty() || std::fs::remove_file(log).is_err() {
            return;
        }
        *self.counts.entry("lose the log").or_default() += 1;
        self.say(|| format!("{number} the log is deleted"));
        self.observer.leave();
        self.log_is_gone = true;
        self.wait(Duration::from_millis(150));
        for (place, store) in open.iter().enumerate() {
            if self.marks(number + 11 + place as u64, *store) {
                self.violation("a mark is acknowledged although the log was deleted");
            }
        }
        for (place, store) in open.iter().enumerate() {
            self.close(number + 21 + place as u64, *store, false);
            self.wait_for(*store);
        }
        self.log_is_gone = false;
    }
}

fn put_in_place(scheduler: &Scheduler, from: &Path, to: &Path) {
    let source = Connection::open(from).expect("the copy");
    let mut target = Connection::open(to).expect("the store");
    target.busy_timeout(Duration::from_secs(60)).expect("a timeout");
    let backup = Backup::new(&source, &mut target).expect("a backup");
    loop {
        match backup.step(-1).expect("a step") {
            StepResult::Done => return,
            _ => scheduler.wait(&|| false, Some(scheduler.elapsed() + Duration::from_millis(1))),
        }
    }
}
