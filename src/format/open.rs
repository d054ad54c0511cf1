//! From a path to a connection that can be trusted.
//!
//! Owns the order of the steps: check the path, open, secure the connection, recognise the database, create
//! or upgrade it, apply the settings and read them back. Nothing is written to a database before it is
//! recognised. A connection that is refused closes without a checkpoint. A read-only connection leaves no empty
//! log behind, if the file is writable.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::close::remove_empty_log;
use super::create::{add_derived, create};
use super::newer_version_error;
use super::pragmas::{apply_pragmas, check, pragma_number, pragma_text};
use super::recognise::{Format, recognise, recognise_within};
use super::sqlite_errors::failure;
use super::upgrade;
use super::waiting::{Patience, Paused, held_exclusively, is_held_exclusively, retry_while_locked};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::wal::Committed;
use crate::file::{self, Identity, OpenedFiles, shown};
use crate::format::upgrade::UpgradeReport;
use crate::process::{Registered, Registration};

/// The most bytes a value or a row may have: more than a receipt of 1 MiB and an id, a scope and an error of 64 KiB
/// each need. A hostile file cannot make a read allocate more.
const MAX_ROW_BYTES: i32 = (1 << 20) + (1 << 18);

/// The first SQLite version that can report the length of the log without copying it.
pub(crate) const MIN_NOOP_VERSION: i32 = 3_051_000;

/// Returns whether this crate keeps the log short (`engine::checkpointer`). Otherwise SQLite does it if the
/// settings say so.
pub(crate) fn keeps_log_short(config: &Config) -> bool {
    !config.read_only
        && config.wal_autocheckpoint > 0
        && rusqlite::version_number() >= MIN_NOOP_VERSION
}

/// Returns the length of the log at which SQLite copies it by itself; 0 switches that off. SQLite's own
/// checkpoints never complete beside another connection that writes. If a snapshot keeps the log long, SQLite
/// tries again with each commit. And SQLite does not check that the log is intact.
pub(super) fn sqlite_autocheckpoint(config: &Config) -> u32 {
    if keeps_log_short(config) { 0 } else { config.wal_autocheckpoint }
}

/// An open store file.
pub(crate) struct Connected {
    pub(crate) connection: Registered<Connection>,
    pub(crate) files: OpenedFiles,
    /// Whether this call made an empty database a store.
    pub(crate) created: bool,
    /// What this call did to a file in the legacy format.
    pub(crate) upgrade: Option<UpgradeReport>,
}

/// Opens the store at the resolved `path`. Creates or upgrades it unless the config is read-only.
pub(crate) fn open(path: &Path, config: &Config, now_ms: i64) -> Result<Connected> {
    open_anywhere(path, config, now_ms).map_err(|e| explain_read_only(path, e))
}

/// Replaces a permission error on a read-only file system: SQLite cannot tell the two apart.
fn explain_read_only(path: &Path, error: Error) -> Error {
    let may_be = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnly);
    if !may_be || !file::is_on_read_only_file_system(path) {
        return error;
    }
    // Without the error as its cause, which would name owners and modes.
    Error::new(
        ErrorKind::ReadOnly,
        format!(
            "{}: the file system is read-only, and a store needs a log beside its file, even for reading; mount it for \
             writing, or read it with `seen check`, `seen list` or a Reader",
            shown(path)
        ),
    )
}

/// Opens the file, and begins anew with another connection where only that helps:
///
/// - The file was replaced meanwhile. What was found says nothing of the file that is there now.
/// - Others are in the way of an exclusive connection. It keeps each lock that it has got, so two of them would wait for
///   each other.
fn open_anywhere(path: &Path, config: &Config, now_ms: i64) -> Result<Connected> {
    refuse_old_sqlite()?;
    file::refuse_unsafe_names(path)?;
    let mut patience = Patience::new(config);
    let of_one_try = if config.exclusive { Duration::ZERO } else { config.busy_timeout };
    let for_one_try = config.clone().busy_timeout(of_one_try);
    loop {
        let (error, is_held) = match open_file(path, &for_one_try, now_ms) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => (replaced_while_opened(path), false),
            Err(e) if config.exclusive && e.kind() == ErrorKind::Busy => {
                (e, is_held_exclusively(path))
            }
            Err(e) => return Err(e),
        };
        match patience.pause(is_held) {
            Paused::Shortly => {}
            Paused::ForExclusive => return Err(held_exclusively(path, "open", error)),
            Paused::TooOften => return Err(error),
        }
    }
}

/// Opens the file that is at the path. `None` if another one is there by now.
fn open_file(path: &Path, config: &Config, now_ms: i64) -> Result<Option<Connected>> {
    let identity = file::prepare(path, config.may_create())?;
    let mut connection = open_secure(path, config)?;
    let accepted = accept_and_configure(&mut connection, path, config, identity, now_ms);
    // While the connection has the file open, no other file gets its inode.
    if accepted.is_err() && file::identity(path).is_ok_and(|found| found != identity) {
        return Ok(None);
    }
    match accepted {
        Ok((files, created, upgrade)) => {
            Ok(Some(Connected { connection, files, created, upgrade }))
        }
        Err(e) => {
            drop(connection);
            if config.read_only {
                file::close_serialized(|| remove_empty_log(path));
            }
            Err(e)
        }
    }
}

/// Returns the files that the connection has open, whether it made a store, and what it upgraded.
fn accept_and_configure(
    connection: &mut Connection,
    path: &Path,
    config: &Config,
    identity: Identity,
    now_ms: i64,
) -> Result<(OpenedFiles, bool, Option<UpgradeReport>)> {
    let found = retry_while_locked(path, config, "open", || Found::read(connection, path));
    // A wait may have ended because another file has the name now, and the side files at the path are that file's.
    check_not_replaced_since(path, identity)?;
    let (mut created, mut upgrade) = (false, None);
    match found?.accept(path, config)? {
        Accepted::Ready if config.read_only => {}
        Accepted::Ready => {
            retry_while_locked(path, config, "open", || add_derived(connection))?;
        }
        Accepted::Create => {
            created = retry_while_locked(path, config, "create", || create(connection))?;
        }
        Accepted::Upgrade => upgrade = upgrade::upgrade_legacy(connection, path, config, now_ms)?,
    }
    check_not_replaced_since(path, identity)?;
    Ok((settle(connection, path, config, identity)?, created, upgrade))
}

/// Applies the settings, and returns the files that the connection has open.
///
/// A connection without a write-ahead log has the file locked only while it reads or writes. With one, it keeps a lock
/// from its first read on, and no replacement gets in. Only what the path names then is certain to stay.
fn settle(
    connection: &Connection,
    path: &Path,
    config: &Config,
    identity: Identity,
) -> Result<OpenedFiles> {
    apply_settings(connection, path, config)?;
    let files = opened_files(connection, path, config, identity)?;
    check_not_replaced_since(path, identity)?;
    Ok(files)
}

/// Fails if the file at the path is not the one that is being opened.
fn check_not_replaced_since(path: &Path, identity: Identity) -> Result<()> {
    if file::identity(path)? == identity {
        return Ok(());
    }
    Err(replaced_while_opened(path))
}

fn replaced_while_opened(path: &Path) -> Error {
    Error::new(
        ErrorKind::FileReplaced,
        format!("{} was replaced while it was being opened; open it again", shown(path)),
    )
}

/// Returns the files that the connection has open. Reads first, because SQLite opens the log only then.
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

/// What was found at a path, before anything is written.
pub(super) struct Found {
    format: Format,
    is_truncated: io::Result<bool>,
}

impl Found {
    /// Reads in one transaction, so that all is of one moment: between two, another process may make an empty file a
    /// store, whose pages have another size.
    pub(super) fn read(connection: &Connection, path: &Path) -> rusqlite::Result<Self> {
        let transaction = connection.unchecked_transaction()?;
        let format = recognise_within(&transaction)?;
        let page_bytes = pragma_number(&transaction, "page_size")?;
        Ok(Self { format, is_truncated: is_truncated(path, page_bytes) })
    }

    pub(super) fn accept(self, path: &Path, config: &Config) -> Result<Accepted> {
        let truncated = self
            .is_truncated
            .map_err(|e| Error::io(format!("cannot read the log of {}", shown(path)), e))?;
        if truncated {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{}: the database is truncated, and was not changed; restore a backup of it",
                    shown(path)
                ),
            ));
        }
        accept(path, config, self.format)
    }
}

/// Returns whether a database lost a part of its last page: SQLite would fill that page up. SQLite itself notices
/// only lost whole pages. The caller has a read transaction open: no connection restarts the log meanwhile.
///
/// The loss does no harm if the log holds that page and all later ones: SQLite then reads them from the log,
/// and the next checkpoint writes them whole. A checkpoint that was interrupted leaves such a database.
fn is_truncated(path: &Path, page_bytes: i64) -> io::Result<bool> {
    let page_bytes = u32::try_from(page_bytes).unwrap_or(0).max(1);
    let is_whole = |bytes: u64| bytes.is_multiple_of(page_bytes.into());
    let bytes = file::bytes(path);
    if is_whole(bytes) {
        return Ok(false);
    }
    // The log can hold only pages that have a number.
    let Ok(first) = u32::try_from(bytes / u64::from(page_bytes) + 1) else { return Ok(true) };
    // Again after the log: another process may have copied it before it was read.
    Ok(!Committed::read(path, page_bytes)?.has_all_from(first) && !is_whole(file::bytes(path)))
}

/// Opens again a store that was open before. Never creates, upgrades or accepts a replaced file.
pub(crate) fn reopen(
    path: &Path,
    config: &Config,
    identity: Identity,
) -> Result<(Registered<Connection>, OpenedFiles)> {
    file::check_not_replaced(path, identity)?;
    let connection = open_secure(path, config)?;
    let format = retry_while_locked(path, config, "reopen", || recognise(&connection))?;
    if format != Format::Current {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} is no longer a store: its format was altered while it was open; restore a backup of it",
                shown(path)
            ),
        ));
    }
    let files = settle(&connection, path, config, identity)?;
    Ok((connection, files))
}

/// Returns a short-lived second connection for long reads. It never runs a checkpoint.
pub(crate) fn reader(path: &Path, config: &Config) -> Result<Registered<Connection>> {
    let config = config.clone().read_only(true).exclusive(false);
    let connection = open_secure(path, &config)?;
    retry_while_locked(path, &config, "read", || {
        connection.pragma_update(None, "query_only", true)
    })?;
    Ok(connection)
}

/// Opens a connection that is secured against hostile files. Reads nothing of the file yet.
pub(super) fn open_secure(path: &Path, config: &Config) -> Result<Registered<Connection>> {
    let registration = Registration::new(&shown(path))?;
    // No CREATE: `file::prepare` has made a missing file. No URI: a path is taken as it is.
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
        // Closing the last connection copies the log into the file, and a file that will be refused must
        // stay unchanged. `apply_settings` allows the copying again.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, had_log)?;
        if config.exclusive {
            // Before anything is read, so that no shared-memory file is ever used.
            connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
        }
        Ok(connection)
    };
    let connection = file::open_database(path, open)?;
    let connection = connection.map_err(|e| failure("open", &shown(path), e))?;
    let fell_back = connection.is_readonly("main").map_err(|e| failure("open", &shown(path), e))?;
    if fell_back && !config.read_only {
        let whose = file::whose(path).map_or(String::new(), |whose| format!(" ({whose})"));
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "{}: the file is not writable{whose}; change its permissions or open it read-only",
                shown(path)
            ),
        ));
    }
    Ok(Registered::new(registration, connection))
}

/// Switches off everything in a file that could run code. Also for connections in memory.
pub(super) fn secure(connection: &Connection) -> rusqlite::Result<()> {
    // `Backoff` does the waiting, without any lock of this crate held.
    connection.busy_timeout(Duration::ZERO)?;
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // Without it, SQLite compiles a statement with a bound LIMIT anew each time it is bound.
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
        Format::Empty if !config.may_create() => refuse(
            ErrorKind::NotADatabase,
            "the file is empty, and this open is not to make it a store; give the path of a store, or open it once \
             so that it may be made"
                .into(),
        ),
        Format::Empty => Ok(Accepted::Create),
        Format::Legacy if config.read_only => refuse(
            ErrorKind::NeedsUpgrade,
            "the file has the older format seen(id, ts), which reading does not upgrade; run `seen \
             upgrade`, or open it once for writing"
                .into(),
        ),
        Format::Legacy => Ok(Accepted::Upgrade),
        Format::Newer(version) => Err(newer_version_error(&shown(path), version)),
        Format::Altered(why) => refuse(
            ErrorKind::WrongApplication,
            format!(
                "the store was made by a build from before the first release, or altered by another program \
                 ({why}); export it with the program that made it (`seen export`), and import that into a new store"
            ),
        ),
        Format::Foreign(why) => refuse(
            ErrorKind::WrongApplication,
            format!("the database belongs to another application ({why}); give another path"),
        ),
    }
}

/// Switches to the write-ahead log, applies the settings and checks that SQLite accepted each.
fn apply_settings(connection: &Connection, path: &Path, config: &Config) -> Result<()> {
    if !config.read_only {
        // Skipped if it is on already: the switch takes a lock that another process may hold.
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
                        "{}: SQLite cannot use a write-ahead log here (it stays in mode {mode}); \
                         use a local, writable file system",
                        shown(path)
                    ),
                ));
            }
        }
    }
    retry_while_locked(path, config, "configure", || apply_pragmas(connection, config))?;
    check(connection, path, config)?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, config.read_only)
        .map_err(|e| failure("configure", &shown(path), e))?;
    Ok(())
}

/// Switches to the write-ahead log and returns the mode that SQLite reports. The step that finds no second row
/// commits the switch. If that step fails, the file is unchanged, but SQLite believes that it has switched.
fn switch_to_log(connection: &Connection) -> rusqlite::Result<String> {
    let mut switch = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = switch.query([])?;
    let mode = rows.next()?.map_or(Ok(String::new()), |row| row.get(0))?;
    rows.next()?;
    Ok(mode)
}

/// Refuses a SQLite that can lose committed transactions when a checkpoint runs while the log is restarted
/// ("WAL-reset"). That bug is fixed in 3.51.3, 3.50.7 and 3.44.6.
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
    use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

    use super::super::close::close;
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

    /// The pages of a store are smaller than those that a connection assumes for an empty file.
    #[test]
    fn a_file_that_another_process_makes_a_store_meanwhile_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let config = Config::default();
        let identity = file::prepare(&path, true).unwrap();
        let mut connection = open_secure(&path, &config).unwrap();
        let other = Connection::open(&path).unwrap();
        let hook = move |context: AuthContext<'_>| {
            if matches!(context.action, AuthAction::Pragma { pragma_name: "page_size", .. }) {
                // Fails while the file is locked.
                let _ = other
                    .execute_batch("PRAGMA page_size = 1024; CREATE TABLE a (b); DROP TABLE a");
            }
            Authorization::Allow
        };
        connection.authorizer(Some(hook)).unwrap();
        drop(accept_and_configure(&mut connection, &path, &config, identity, 1).unwrap());
        close(connection).unwrap();
    }

    /// The connection has no lock in between. Its marks would go to a file without a name, and to the log of another one.
    #[cfg(unix)]
    #[test]
    fn a_file_that_gets_its_log_from_another_process_and_is_replaced_then_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let (config, new) = (Config::default(), path.with_file_name("new.db"));
        close(open(&new, &config, 1).unwrap().connection).unwrap();
        let identity = file::prepare(&path, true).unwrap();
        let mut connection = open_secure(&path, &config).unwrap();
        let target = path.clone();
        let hook = move |context: AuthContext<'_>| {
            let is_asked =
                matches!(context.action, AuthAction::Pragma { pragma_name: "journal_mode", .. });
            if is_asked && new.exists() {
                let other = Connection::open(&target).unwrap();
                assert_eq!(switch_to_log(&other).unwrap(), "wal");
                drop(other);
                std::fs::rename(&new, &target).unwrap();
            }
            Authorization::Allow
        };
        connection.authorizer(Some(hook)).unwrap();
        let opened = accept_and_configure(&mut connection, &path, &config, identity, 1);
        assert_eq!(opened.err().unwrap().kind(), ErrorKind::FileReplaced);
    }

    /// As after a wait for `format::replace`, which has the old file locked.
    #[cfg(unix)]
    #[test]
    fn a_file_that_was_replaced_before_it_was_read_is_neither_upgraded_nor_made_a_store() {
        let legacy = "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL)";
        for contents in [legacy, ""] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().canonicalize().unwrap().join("seen.db");
            let (aside, new) = (path.with_file_name("old.db"), path.with_file_name("new.db"));
            let config = Config::default();
            close(open(&new, &config, 1).unwrap().connection).unwrap();
            let identity = file::prepare(&path, true).unwrap();
            Connection::open(&path).unwrap().execute_batch(contents).unwrap();
            let before = std::fs::read(&path).unwrap();
            let mut connection = open_secure(&path, &config).unwrap();
            std::fs::rename(&path, &aside).unwrap();
            std::fs::rename(&new, &path).unwrap();
            let opened = accept_and_configure(&mut connection, &path, &config, identity, 1);
            assert_eq!(opened.err().unwrap().kind(), ErrorKind::FileReplaced);
            assert!(std::fs::read(aside).unwrap() == before);
            let names =
                std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(names, ["old.db", "seen.db"]);
        }
    }
}
