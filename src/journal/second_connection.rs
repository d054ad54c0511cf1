//! A second connection to a store's file, for a background thread, while the store's own serves callers.
//!
//! Owns where it comes from, and how it closes. What always holds: it is on the file that the store has open, not on
//! another one that has its name by now; and it has closed before the store's own connection does.

use std::path::PathBuf;

use rusqlite::Connection;

use super::checkpoint::{ALL_FRAMES, LogHandle, log_is_damaged};
use super::{Journal, Location};
use crate::config::Config;
use crate::error::Result;
use crate::file::{self, Identity, OpenedFiles, shown};
use crate::format::sqlite_errors::failure;
use crate::format::{close, open};
use crate::process::Registered;

/// What a second connection needs to open the file of a store.
#[derive(Clone)]
pub(crate) struct ConnectionSource {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) config: Config,
}

impl ConnectionSource {
    /// Returns the name of the file in messages.
    pub(crate) fn name(&self) -> String {
        shown(&self.path)
    }
}

/// See the module's header.
pub(crate) struct SecondConnection {
    connection: Registered<Connection>,
    files: OpenedFiles,
    path: PathBuf,
}

impl SecondConnection {
    pub(crate) fn open(source: &ConnectionSource) -> Result<Self> {
        file::check_side_files_exist(&source.path)?;
        let (connection, files) = open::reopen(&source.path, &source.config, source.identity)?;
        Ok(Self { connection, files, path: source.path.clone() })
    }

    /// Returns the name of the file in messages.
    pub(super) fn name(&self) -> String {
        shown(&self.path)
    }

    /// Returns access to the log.
    pub(crate) fn log_handle(&mut self) -> LogHandle<'_> {
        LogHandle { connection: &mut self.connection, files: &mut self.files, path: &self.path }
    }

    /// Returns the connection, for reading, if the file still has its name.
    pub(super) fn reader(&mut self) -> Result<&Connection> {
        self.files.check()?;
        Ok(&self.connection)
    }

    pub(crate) fn close(self) -> Result<()> {
        let Self { connection, mut files, path } = self;
        let may_copy_log =
            files.may_copy_log() && !log_is_damaged(&connection, &mut files, ALL_FRAMES);
        file::close_serialized(|| close::close_store(connection, files, may_copy_log))
            .map_err(|e| failure("close", &shown(&path), e))
    }
}

impl Journal {
    /// Returns what a second connection needs. `None` if no second connection can be, and if the store only reads.
    pub(crate) fn connection_source(&self) -> Option<ConnectionSource> {
        let Location::File { path, files, .. } = &self.location else { return None };
        if self.config.exclusive || self.config.read_only {
            return None;
        }
        Some(ConnectionSource {
            path: path.clone(),
            identity: files.database(),
            config: self.config.clone(),
        })
    }
}
