//! Access to a store's file without an index, without catching up, and without a trace.
//!
//! Owns the connections that read, and the choice of a new way to read when the state of the file has
//! changed. What always holds: each call's answer describes one moment, or the call fails with
//! [`Busy`](ErrorKind::Busy). Ids are found by a scan of the table, since the file has no index of them.

use std::path::PathBuf;

use rusqlite::Connection;

use crate::backoff::retry_while_busy;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, shown};
use crate::format;
use crate::format::open_for_reading::{ReadConnection, ReadMode, open};
use crate::format::pragmas::FileInfo;
use crate::journal::ClaimRow;
use crate::journal::catch_up::{Counters, read_schema_version};
use crate::journal::claims::{self, ClaimPosition};
use crate::journal::load::{ReadError, check_version};
use crate::machine::step_size;

pub(crate) struct FileReader {
    pub(super) path: PathBuf,
    config: Config,
    opened: Option<Opened>,
    /// The time that stores had reached when the file was last read.
    file_ms: Option<i64>,
}

struct Opened {
    mode: ReadMode,
    readings: Vec<ReadConnection>,
}

pub(super) type Read<T> = Result<T, ReadError>;

impl FileReader {
    /// Opens the store at the resolved path.
    pub(crate) fn open(path: PathBuf, config: Config) -> Result<Self> {
        // Checked only when the reader opens: a file that gets a second name later can still be read.
        file::refuse_unsafe_names(&path)?;
        let mut file = Self { path, config, opened: None, file_ms: None };
        file.read(1, |_| Ok(()))?;
        Ok(file)
    }

    /// Reads with up to `wanted` connections, and again if the file changed during a read.
    pub(super) fn read<T>(
        &mut self,
        wanted: usize,
        mut read: impl FnMut(&mut [&mut Connection]) -> Read<T>,
    ) -> Result<T> {
        retry_while_busy(self.config.busy_timeout, || {
            let mode = ReadMode::at(&self.path)?;
            let name = shown(&self.path);
            let result = match self.connections(mode, wanted) {
                Ok(Some(mut connections)) => {
                    read(&mut connections).map_err(|e| e.at(&name)).map(Ok)
                }
                Ok(None) => Err(Error::new(
                    ErrorKind::Busy,
                    format!(
                        "{name} is being read by another process that keeps others out meanwhile; try again"
                    ),
                )),
                // Opening has already waited for other processes.
                Err(e) => Ok(Err(e)),
            };
            let has_changed = mode.has_changed(&self.path)?;
            if has_changed || mode.is_exclusive() {
                self.opened = None;
            }
            if !has_changed {
                return result;
            }
            Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{name} was changed each time it was read; try again when less is written to it"
                ),
            ))
        })?
    }

    /// Returns up to `wanted` connections; `None` in the cases in which [`open`] returns `None`.
    fn connections(
        &mut self,
        mode: ReadMode,
        wanted: usize,
    ) -> Result<Option<Vec<&mut Connection>>> {
        let is_current = |opened: &Opened| {
            opened.mode == mode && opened.readings.iter().all(ReadConnection::is_current)
        };
        if !self.opened.as_ref().is_some_and(is_current) {
            self.opened = None;
        }
        let opened = self.opened.get_or_insert_with(|| Opened { mode, readings: Vec::new() });
        while opened.readings.len() < wanted.min(mode.max_connections()) {
            match open(&self.path, &self.config, mode)? {
                Some(reading) => opened.readings.push(reading),
                None => return Ok(None),
            }
        }
        Ok(Some(opened.readings.iter_mut().map(|reading| &mut *reading.connection).collect()))
    }

    /// Returns the time that stores on the file have reached, if it has changed since the last call.
    pub(crate) fn take_file_time_ms(&mut self) -> Result<Option<i64>> {
        let file_ms = self.read(1, |connections| Counters::load(connections[0]))?.clock_ms;
        let is_new = self.file_ms.replace(file_ms) != Some(file_ms);
        Ok(is_new.then_some(file_ms))
    }

    /// Returns what SQLite reports about itself and the file.
    pub(crate) fn info(&mut self) -> Result<FileInfo> {
        let config = self.config.clone();
        self.read(1, |connections| {
            format::pragmas::apply_pragmas(connections[0], &config)?;
            Ok(format::pragmas::info(connections[0], &config)?)
        })
    }
}

/// A read transaction. Its snapshot of the file is taken as soon as it begins.
pub(super) struct Snapshot<'c>(pub(super) &'c mut Connection);

impl<'c> Snapshot<'c> {
    pub(super) fn begin(connection: &'c mut Connection) -> Read<Self> {
        connection.execute_batch("BEGIN")?;
        let snapshot = Self(connection);
        // Also begins the read: a transaction without one has no snapshot yet.
        check_version(snapshot.0)?;
        Ok(snapshot)
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // A failure loses nothing: the connection is not used again.
        if let Err(e) = self.0.execute_batch("ROLLBACK") {
            log::debug!(error:% = e; "cannot end a read: {e}");
        }
    }
}

/// Fails when the snapshots are of different histories of the file, so that the read is repeated. A restore
/// in place that came between two snapshots would move an id to where neither of them is searched for it.
pub(super) fn check_same_history(snapshots: &[Snapshot<'_>]) -> Read<()> {
    let mut known = None;
    for snapshot in snapshots {
        let history = read_schema_version(snapshot.0)?;
        if *known.get_or_insert(history) != history {
            return Err(ReadError::Changed);
        }
    }
    Ok(())
}

/// How many claims are read at a time.
const CLAIMS_PAGE: i64 = step_size!(500, in_a_simulation: 3);

pub(super) fn for_each_claim(
    connection: &Connection,
    mut add: impl FnMut(&ClaimPosition, ClaimRow) -> Read<()>,
) -> Read<()> {
    let mut after = ClaimPosition::default();
    loop {
        let page = claims::page(connection, &after, CLAIMS_PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = last.clone();
        for (place, claim) in page {
            add(&place, claim)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::format::sqlite_errors::failure;
    use crate::format::{close, open};
    use crate::reader::lookup::SCANNERS;

    #[test]
    fn a_file_that_changes_during_a_read_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let config = Config::default();
        let opened = open::open(&path, &config, 1).unwrap();
        close::close(opened.connection).unwrap();
        let mut file = FileReader::open(path.clone(), config.clone()).unwrap();
        let mut reads = 0;
        let rows = file.read(1, |connections| {
            reads += 1;
            if reads == 1 {
                // The last connection to close copies the log into the file.
                let writer = Connection::open(&path)?;
                writer.execute(
                    "INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)",
                    [],
                )?;
                writer.close().map_err(|(_, e)| e)?;
            }
            let count = connections[0].query_row("SELECT count(*) FROM seen", [], |row| row.get(0));
            Ok(count?)
        });
        assert_eq!((rows.unwrap(), reads), (1_i64, 2));
    }

    /// Returns the path of a store whose log was left by a killed program in exclusive mode.
    fn left_in_exclusive_mode() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let opened = open::open(&path, &Config::default().exclusive(true), 1).unwrap();
        opened
            .connection
            .execute("INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)", [])
            .unwrap();
        close::skip_checkpoint_on_close(&opened.connection).unwrap();
        close::close(opened.connection).unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            2,
            "the database and its log"
        );
        (folder, path)
    }

    fn count(connection: &Connection) -> Read<i64> {
        Ok(connection.query_row("SELECT count(*) FROM seen", [], |row| row.get(0))?)
    }

    /// Runs `others` while a reader reads alone, for longer than it takes to find out that a store in
    /// exclusive mode has the file. None of them may have an answer by then.
    fn beside_a_long_read<T: Send + std::fmt::Debug + 'static>(
        others: Vec<Box<dyn FnOnce() -> Result<T> + Send>>,
        path: PathBuf,
    ) -> Vec<Result<T>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut others = Some(others);
        let mut file = FileReader { path, config: Config::default(), opened: None, file_ms: None };
        let rows = file.read(1, |connections| {
            for other in others.take().into_iter().flatten() {
                let sender = sender.clone();
                thread::spawn(move || sender.send(other()));
            }
            if let Ok(answer) = receiver.recv_timeout(std::time::Duration::from_millis(400)) {
                panic!("an answer while another reads alone: {answer:?}");
            }
            count(connections[0])
        });
        assert_eq!(rows.unwrap(), 1);
        drop(sender);
        receiver.iter().collect()
    }

    #[test]
    fn a_store_that_is_opened_while_a_reader_reads_alone_waits() {
        let (_folder, path) = left_in_exclusive_mode();
        let open = |config: Config| -> Box<dyn FnOnce() -> Result<()> + Send> {
            let path = path.clone();
            Box::new(move || {
                // Closed as stores close: another one opens at this moment.
                let opened = open::open(&path, &config, 1)?;
                let close = || close::close_store(opened.connection, opened.files, true);
                file::close_serialized(close).map_err(|e| failure("close", "the store", e))
            })
        };
        let others = vec![
            open(Config::default()),
            open(Config::default()),
            open(Config::default().read_only(true)),
        ];
        let answers = beside_a_long_read(others, path.clone());
        assert!(answers.len() == 3 && answers.iter().all(Result::is_ok), "{answers:?}");
    }

    #[test]
    fn a_second_reader_waits_for_the_one_that_reads_alone() {
        let (_folder, path) = left_in_exclusive_mode();
        let read = || -> Box<dyn FnOnce() -> Result<i64> + Send> {
            let path = path.clone();
            Box::new(move || {
                FileReader::open(path, Config::default())?.read(1, |all| count(all[0]))
            })
        };
        let answers = beside_a_long_read(vec![read(), read()], path.clone());
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_reader_that_would_read_alone_tries_again_when_a_store_was_opened() {
        let (_folder, path) = left_in_exclusive_mode();
        let config = Config::default();
        let mode = ReadMode::at(&path).unwrap();
        assert!(mode.is_exclusive());
        let store = open::open(&path, &config, 1).unwrap();
        assert!(open(&path, &config, mode).unwrap().is_none());
        let mut file = FileReader::open(path, config.clone()).unwrap();
        assert_eq!(file.read(1, |all| count(all[0])).unwrap(), 1);
        drop(store);
    }

    #[test]
    fn a_store_in_exclusive_mode_still_keeps_readers_and_stores_out_at_once() {
        let (_folder, path) = left_in_exclusive_mode();
        let store = open::open(&path, &Config::default().exclusive(true), 1).unwrap();
        let waited = crate::clock::Stopwatch::start();
        let config = Config::default();
        for error in [
            FileReader::open(path.clone(), config.clone()).err().unwrap(),
            open::open(&path, &config, 1).err().unwrap(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Busy);
            assert!(error.to_string().contains("exclusive mode"), "{error}");
        }
        assert!(waited.elapsed() < config.busy_timeout / 3);
        drop(store);
    }

    #[test]
    fn a_restore_between_two_snapshots_of_one_read_repeats_the_read() {
        let folder = tempfile::tempdir().unwrap();
        let [path, backup] =
            ["seen.db", "b.db"].map(|name| folder.path().canonicalize().unwrap().join(name));
        let config = Config::default();
        let store = open::open(&path, &config, 1).unwrap();
        store.connection.execute("VACUUM INTO ?1", [backup.to_str()]).unwrap();
        store
            .connection
            .execute("INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)", [])
            .unwrap();
        let mut file = FileReader::open(path.clone(), config.clone()).unwrap();
        let mut reads = 0;
        let read = file.read(SCANNERS, |connections| {
            reads += 1;
            let [one, two] = connections else { panic!("two connections") };
            let one = Snapshot::begin(one)?;
            if reads == 1 {
                let mut target = Connection::open(&path)?;
                target.restore("main", &backup, None::<fn(_)>)?;
            }
            check_same_history(&[one, Snapshot::begin(two)?])
        });
        assert_eq!((read.is_ok(), reads), (true, 2));
    }
}
