//! From a path to a connection that may be trusted.
//!
//! Owns the order of the steps: look at the path, open, secure the connection, recognise the
//! database, create or upgrade it, put the settings in force and read them back. Until a database is
//! recognised nothing is written to it; a connection that is refused closes without a checkpoint.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::create::create;
use super::pragmas::{check, pragma_number, pragma_text, tune};
use super::recognise::{Format, recognise};
use super::sqlite_errors::{failure, is_busy};
use super::upgrade;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::wal::{Committed, ReadingAlone};
use crate::file::{self, Identity, OpenedFiles, shown};
use crate::format::upgrade::Upgrade;
use crate::machine::sleep;
use crate::process::{Own, Registration};

/// The most bytes a value or a row may have: an id, a scope and a receipt of 64 KiB each, and more
/// to spare. A hostile file cannot make a read allocate beyond it.
const MAX_ROW_BYTES: i32 = 1 << 20;

/// How often a file that looks held in exclusive mode is tried again before the caller is told.
const EXCLUSIVE_TRIES: u32 = 10;

/// The first version that can tell how long the log is without copying it.
pub(crate) const KNOWS_NOOP: i32 = 3_051_000;

/// Whether this crate keeps the log short (`maintenance::checkpoints`). Otherwise SQLite does so by itself,
/// or nobody.
pub(crate) fn keeps_log_short(config: &Config) -> bool {
    !config.read_only && config.wal_autocheckpoint > 0 && rusqlite::version_number() >= KNOWS_NOOP
}

/// The length of log at which SQLite copies it by itself. That never ends beside another connection that
/// writes, a log that a snapshot keeps long would make each commit try, and SQLite does not look
/// whether the log is whole.
pub(super) fn own_checkpoint(config: &Config) -> u32 {
    if keeps_log_short(config) { 0 } else { config.wal_autocheckpoint }
}

/// An open store file.
pub(crate) struct Connected {
    pub(crate) connection: Own<Connection>,
    pub(crate) files: OpenedFiles,
    /// What was made of an older file, by this very call.
    pub(crate) upgrade: Option<Upgrade>,
}

/// Opens the store at the resolved `path`, creating or upgrading it unless the config is read-only.
pub(crate) fn open(path: &Path, config: &Config, now_ms: i64) -> Result<Connected> {
    open_anywhere(path, config, now_ms).map_err(|e| explain_read_only(path, e))
}

/// SQLite cannot tell a file system that is read-only from permissions.
fn explain_read_only(path: &Path, error: Error) -> Error {
    if error.kind() != ErrorKind::PermissionDenied || !file::is_on_read_only_file_system(path) {
        return error;
    }
    Error::with_source(
        ErrorKind::ReadOnly,
        format!(
            "{}: the file system is read-only; a store keeps a log beside its file, also to read it; \
             look into it with `seen check` or a Reader",
            shown(path)
        ),
        error,
    )
}

fn open_anywhere(path: &Path, config: &Config, now_ms: i64) -> Result<Connected> {
    refuse_old_sqlite()?;
    file::refuse_unsafe_names(path)?;
    let identity = file::prepare(path, !config.read_only)?;
    let mut connection = secured(path, config)?;
    let format = retry_while_locked(path, config, "open", || recognise(&connection))?;
    refuse_cut_off(&connection, path)?;
    let mut upgrade = None;
    match accept(path, config, format)? {
        Accepted::Ready => {}
        Accepted::Create => retry_while_locked(path, config, "create", || create(&mut connection))?,
        Accepted::Upgrade => upgrade = upgrade::from_seed(&connection, path, config, now_ms)?,
    }
    if file::identity(path)? != identity {
        return Err(Error::new(
            ErrorKind::FileReplaced,
            format!("{} was replaced while it was being opened; open it again", shown(path)),
        ));
    }
    put_in_force(&connection, path, config)?;
    let files = opened_files(&connection, path, config, identity)?;
    Ok(Connected { connection, files, upgrade })
}

/// Which files the connection has open from its first read on.
pub(super) fn opened_files(
    connection: &Connection,
    path: &Path,
    config: &Config,
    identity: Identity,
) -> Result<OpenedFiles> {
    let (mode, locking) = retry_while_locked(path, config, "open", || {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok((pragma_text(connection, "journal_mode")?, pragma_text(connection, "locking_mode")?))
    })?;
    let has_log = mode == "wal";
    OpenedFiles::record(path, identity, has_log, has_log && locking != "exclusive")
}

/// Closes a connection and tells whether that worked. It is gone in any case.
pub(crate) fn close(connection: Own<Connection>) -> rusqlite::Result<()> {
    connection.close(|open| open.close().map_err(|(_, error)| error)).unwrap_or(Ok(()))
}

/// Closes a store's connection. The last one on the file copies the log into it and deletes the log, but
/// only if that is still the file's own.
pub(crate) fn close_store(
    connection: Own<Connection>,
    files: OpenedFiles,
    may_copy_log: bool,
) -> rusqlite::Result<()> {
    if !may_copy_log {
        spare_log(&connection)?;
    }
    // Before the connection, as an index that another thread makes from then on is a new one.
    drop(files);
    close(connection)
}

/// Lets the connection close without copying the log or deleting it.
pub(crate) fn spare_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// SQLite notices a database that lost whole pages; it fills up one that lost a part of its last page.
///
/// That does no harm where the log holds the page, and whatever should come after it: SQLite then reads
/// them there, and the next checkpoint writes them whole. A checkpoint that was cut off leaves that.
pub(super) fn refuse_cut_off(connection: &Connection, path: &Path) -> Result<()> {
    let page_size = pragma_number(connection, "page_size");
    let page_size = page_size.map_err(|e| failure("open", &shown(path), e))?.cast_unsigned().max(1);
    let bytes = file::bytes(path);
    if bytes.is_multiple_of(page_size) || log_completes(connection, path, page_size, bytes)? {
        return Ok(());
    }
    // Another process may have checkpointed the log before it was read.
    if file::bytes(path).is_multiple_of(page_size) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "{}: the database is truncated, and was left as it is; restore a backup of it",
            shown(path)
        ),
    ))
}

/// Whether the log holds all that the database, cut to `bytes`, lacks.
fn log_completes(connection: &Connection, path: &Path, page_size: u64, bytes: u64) -> Result<bool> {
    let (Ok(first), Ok(page_bytes)) =
        (u32::try_from(bytes / page_size + 1), u32::try_from(page_size))
    else {
        return Ok(false);
    };
    let fail = |e| failure("open", &shown(path), e);
    // Nobody begins the log anew while this transaction reads from it.
    let moment = connection.unchecked_transaction().map_err(fail)?;
    moment.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(fail)?;
    let committed = Committed::read(path, page_bytes)
        .map_err(|e| Error::io(format!("cannot read the log of {}", shown(path)), e))?;
    Ok(committed.has_all_from(first))
}

/// Opens a store again that was open before: never creates, upgrades or follows a replaced file.
pub(crate) fn reopen(
    path: &Path,
    config: &Config,
    identity: Identity,
) -> Result<(Own<Connection>, OpenedFiles)> {
    file::check_still_there(path, identity)?;
    let connection = secured(path, config)?;
    let format = retry_while_locked(path, config, "reopen", || recognise(&connection))?;
    if format != Format::Current {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} is no longer a store: {format:?}", shown(path)),
        ));
    }
    put_in_force(&connection, path, config)?;
    let files = opened_files(&connection, path, config, identity)?;
    Ok((connection, files))
}

/// A short-lived connection beside the store's own, for long reads. It never checkpoints.
pub(crate) fn reader(path: &Path, config: &Config) -> Result<Own<Connection>> {
    let config = config.clone().read_only(true).exclusive(false);
    let connection = secured(path, &config)?;
    retry_while_locked(path, &config, "read", || {
        connection.pragma_update(None, "query_only", true)
    })?;
    Ok(connection)
}

/// Opens and protects against what a hostile file could do; reads nothing of it yet.
pub(super) fn secured(path: &Path, config: &Config) -> Result<Own<Connection>> {
    let registration = Registration::new(&shown(path))?;
    // No CREATE: a missing file was made by `file::prepare`. No URI: a path is a path.
    let access = if config.read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let had_log = file::wal_bytes(path) > 0;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        secure(&connection)?;
        // Closing the last connection copies the log into the file, which a file that will be
        // refused must be spared. `put_in_force` lifts this.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, had_log)?;
        if config.exclusive {
            // Before anything is read, so that no shared-memory file is ever used.
            connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
        }
        Ok(connection)
    };
    let connection = open().map_err(|e| failure("open", &shown(path), e))?;
    let fell_back = connection.is_readonly("main").map_err(|e| failure("open", &shown(path), e))?;
    if fell_back && !config.read_only {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "{}: the file is not writable; change its permissions or open it read-only",
                shown(path)
            ),
        ));
    }
    Ok(Own::new(registration, connection))
}

/// Switches off whatever could run code out of the file. Also for connections in memory.
pub(super) fn secure(connection: &Connection) -> rusqlite::Result<()> {
    // The waiting is done by `Backoff`, without any lock of ours held.
    connection.busy_timeout(Duration::ZERO)?;
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // Without it a statement with a bound LIMIT is compiled anew each time it is bound.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
    ] {
        connection.set_db_config(setting, on)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "cell_size_check", true)
}

pub(super) enum Accepted {
    Ready,
    Create,
    Upgrade,
}

pub(super) fn accept(path: &Path, config: &Config, format: Format) -> Result<Accepted> {
    let refuse = |kind, why: String| Err(Error::new(kind, format!("{}: {why}", shown(path))));
    match format {
        Format::Current => Ok(Accepted::Ready),
        Format::Empty if config.read_only => refuse(
            ErrorKind::NotADatabase,
            "the file is empty, and reading does not fill it".into(),
        ),
        Format::Empty => Ok(Accepted::Create),
        Format::Seed if config.read_only => refuse(
            ErrorKind::NeedsUpgrade,
            "the file has the older format seen(id, ts), which reading does not upgrade; run `seen \
             upgrade`, or open it once for writing"
                .into(),
        ),
        Format::Seed => Ok(Accepted::Upgrade),
        Format::Newer(version) => refuse(
            ErrorKind::NewerVersion,
            format!(
                "the file has format version {version}, this program knows up to {}; update the program",
                super::FORMAT_VERSION
            ),
        ),
        Format::Foreign(why) => refuse(
            ErrorKind::WrongApplication,
            format!("the database belongs to another application ({why}); give another path"),
        ),
    }
}

/// Switches to the write-ahead log, applies the settings and checks that each took.
fn put_in_force(connection: &Connection, path: &Path, config: &Config) -> Result<()> {
    if !config.read_only {
        // Skipped where it is on already: asking again takes a lock that another process may hold.
        let mode =
            retry_while_locked(path, config, "open", || pragma_text(connection, "journal_mode"))?;
        if mode != "wal" {
            let mode =
                retry_while_locked(path, config, "switch on the write-ahead log of", || {
                    switch_to_log(connection)
                })?;
            if mode != "wal" {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "{}: a write-ahead log is impossible here (SQLite stays in mode {mode}); \
                         use a local, writable file system",
                        shown(path)
                    ),
                ));
            }
        }
    }
    retry_while_locked(path, config, "configure", || tune(connection, config))?;
    check(connection, path, config)?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, config.read_only)
        .map_err(|e| failure("configure", &shown(path), e))?;
    Ok(())
}

/// The mode that SQLite says it is in. The switch is committed by the step that finds no second row; one that
/// fails there leaves the file as it was, and SQLite in the belief that it was switched.
fn switch_to_log(connection: &Connection) -> rusqlite::Result<String> {
    let mut switch = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = switch.query([])?;
    let mode = rows.next()?.map_or(Ok(String::new()), |row| row.get(0))?;
    rows.next()?;
    Ok(mode)
}

/// Runs a step again while other processes are in the way, up to the busy timeout.
///
/// A holder in exclusive mode will not let go, and is told by its log without a `-shm` beside it:
/// then the error comes at once. A [reader](super::onlooker) that reads alone looks the same, but is
/// told by its lock on the log, and waited for.
pub(super) fn retry_while_locked<T>(
    path: &Path,
    config: &Config,
    doing: &str,
    step: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T> {
    retry_while_locked_unless(|| is_held_exclusively(path), path, config, doing, step)
}

/// Whether the file looks held in exclusive mode, and by no reader that reads alone.
fn is_held_exclusively(path: &Path) -> bool {
    has_log_alone(path) && !ReadingAlone::is_held(path)
}

/// Whether there is a log without a `-shm`.
pub(super) fn has_log_alone(path: &Path) -> bool {
    file::exists(&file::beside(path, "-wal")) && !file::exists(&file::beside(path, "-shm"))
}

/// The same, where `is_held` tells whether the file looks held in exclusive mode.
pub(super) fn retry_while_locked_unless<T>(
    is_held: impl Fn() -> bool,
    path: &Path,
    config: &Config,
    doing: &str,
    mut step: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T> {
    let mut backoff = Backoff::new(config.busy_timeout);
    let mut looked_exclusive = 0;
    loop {
        let error = match step() {
            Ok(done) => return Ok(done),
            Err(error) if is_busy(&error) => error,
            Err(error) => return Err(failure(doing, &shown(path), error)),
        };
        let exclusive = is_held();
        looked_exclusive = if exclusive { looked_exclusive + 1 } else { 0 };
        if looked_exclusive == EXCLUSIVE_TRIES {
            return Err(Error::with_source(
                ErrorKind::Busy,
                format!(
                    "cannot {doing} {}: another store holds it in exclusive mode; close that one first",
                    shown(path)
                ),
                error,
            ));
        }
        // The tries against an exclusive holder are spread a little, for a process that is just
        // closing leaves the same picture for a moment.
        let paused = if exclusive {
            sleep(Duration::from_millis(5));
            true
        } else {
            backoff.pause()
        };
        if !paused {
            return Err(failure(doing, &shown(path), error));
        }
    }
}

/// SQLite lost committed transactions when a checkpoint raced with a log's restart ("WAL-reset"),
/// mended in 3.51.3, 3.50.7 and 3.44.6.
pub(super) fn refuse_old_sqlite() -> Result<()> {
    let version = rusqlite::version_number();
    if is_trusted(version) || cfg!(feature = "accept-any-sqlite") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::UnsupportedSqlite,
        format!(
            "SQLite {} can lose commits from a write-ahead log; build with the feature `bundled`, link \
             SQLite 3.51.3 or later, or accept the risk with the feature `accept-any-sqlite`",
            rusqlite::version()
        ),
    ))
}

fn is_trusted(version: i32) -> bool {
    version >= 3_051_003 || version == 3_050_007 || version == 3_044_006
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_the_wal_reset_bug_are_told_from_the_mended_ones() {
        for mended in [3_044_006, 3_050_007, 3_051_003, 3_054_001] {
            assert!(is_trusted(mended));
        }
        for broken in [3_040_001, 3_044_005, 3_045_000, 3_050_006, 3_051_002] {
            assert!(!is_trusted(broken));
        }
    }
}
