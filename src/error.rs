//! The only error type of the crate.
//!
//! Owns the kinds of failure that callers can tell apart. An error always says what was being done and to
//! which file, and carries its cause in `source()`. Knows nothing of SQL: the modules that use SQL translate
//! its errors into these.

use std::fmt;
use std::sync::Arc;

/// The kind of an error, by which a program decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ErrorKind {
    /// The lease of a claim is zero, or a receipt is longer than [`Config::max_receipt`](crate::Config::max_receipt).
    InvalidClaim,
    /// The id is empty or longer than 65,536 bytes, or the scope is longer than that, or an
    /// [item](crate::Item) has both a version and a payload.
    InvalidId,
    /// The id was used with another [payload](crate::Item::payload) before. Nothing was changed.
    Conflict,
    /// A setting or an environment variable has a value that makes no sense, or a long call of an async store was made
    /// outside a Tokio runtime.
    InvalidConfig,
    /// The path cannot be a store: a directory, a symbolic link, `:memory:`, a URL, a path that was not expanded
    /// (`~/seen.db`, `$HOME/seen.db`) or that has quotation marks or white space around it, a file with a
    /// second name (a hard link or a bind mount of the single file), or a file beside which the name of a
    /// side file is taken by something that is not a regular file.
    InvalidPath,
    /// There is no file at the path, and this open does not make one: it only reads, or
    /// [`Config::create`](crate::Config::create) is off.
    NotFound,
    /// Something already exists at the path of a new file.
    AlreadyExists,
    /// The file is not a SQLite database.
    NotADatabase,
    /// The file is damaged: truncated, malformed, separated from its write-ahead log, or replaced by a copy beside the
    /// log of the file before it.
    Corrupt,
    /// The file is a SQLite database of another application.
    WrongApplication,
    /// The file was written by a newer version of this crate.
    NewerVersion,
    /// The file has an older format, which a read-only store does not upgrade.
    NeedsUpgrade,
    /// The SQLite library is too old to be safe with a write-ahead log.
    UnsupportedSqlite,
    /// Another process held the file for longer than the busy timeout.
    Busy,
    /// No space is left on the file system, or no inodes, or a quota is used up. Nothing was marked; calls succeed
    /// again once there is space.
    StorageFull,
    /// The operating system failed a read, a write or a sync.
    Io,
    /// The operating system denies access to the file or its folder.
    PermissionDenied,
    /// The store was opened read-only and cannot write, or its file system is read-only.
    ReadOnly,
    /// The file at the path is no longer the one that was opened, or its `-wal` or `-shm` was deleted,
    /// replaced or cut while it was open.
    FileReplaced,
    /// The process was forked while its parent had a store or a reader open. It can use none, neither those
    /// of its parent nor one of its own. Close all stores and readers before forking, or fork and exec.
    Forked,
    /// This holder has lost the claim: its lease ran out and another worker took the id over, or the claim
    /// was ended before. Nothing was changed.
    LeaseLost,
    /// The store was closed.
    Closed,
    /// The servers of a cluster cannot be reached, or not all of them work. Nothing was changed.
    Unavailable,
    /// A store on a cluster sent a write and lost the answer, or too few replicas have it: whether it was done is not
    /// known. [`Error::token`] is the token of the call.
    OutcomeUnknown,
}

impl ErrorKind {
    /// All kinds, in their order.
    pub(crate) const ALL: [Self; Self::OutcomeUnknown as usize + 1] = [
        Self::InvalidClaim,
        Self::InvalidId,
        Self::Conflict,
        Self::InvalidConfig,
        Self::InvalidPath,
        Self::NotFound,
        Self::AlreadyExists,
        Self::NotADatabase,
        Self::Corrupt,
        Self::WrongApplication,
        Self::NewerVersion,
        Self::NeedsUpgrade,
        Self::UnsupportedSqlite,
        Self::Busy,
        Self::StorageFull,
        Self::Io,
        Self::PermissionDenied,
        Self::ReadOnly,
        Self::FileReplaced,
        Self::Forked,
        Self::LeaseLost,
        Self::Closed,
        Self::Unavailable,
        Self::OutcomeUnknown,
    ];

    /// Returns the kind as it stands in a label and in a field of a log line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::InvalidClaim => "invalid_claim",
            Self::InvalidId => "invalid_id",
            Self::Conflict => "conflict",
            Self::InvalidConfig => "invalid_config",
            Self::InvalidPath => "invalid_path",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::NotADatabase => "not_a_database",
            Self::Corrupt => "corrupt",
            Self::WrongApplication => "wrong_application",
            Self::NewerVersion => "newer_version",
            Self::NeedsUpgrade => "needs_upgrade",
            Self::UnsupportedSqlite => "unsupported_sqlite",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::Io => "io",
            Self::PermissionDenied => "permission_denied",
            Self::ReadOnly => "read_only",
            Self::FileReplaced => "file_replaced",
            Self::Forked => "forked",
            Self::LeaseLost => "lease_lost",
            Self::Closed => "closed",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }
}

/// The error of every fallible call.
///
/// Programs use [`kind`](Error::kind). The display text is for people: it names the file, the cause and,
/// where there is one, the remedy. Cloning is cheap.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    /// The bits of the token.
    token: Option<u128>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Another process blocks this step for the moment, or has changed what was being read. The caller
    /// releases the mutex, pauses and tries again. When it gives up, it reports an error with a message of
    /// its own.
    pub(crate) fn try_again() -> Self {
        Self::new(ErrorKind::Busy, "another process blocks this step; try again")
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), token: None, source: None }))
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let (message, source) = (message.into(), Some(source.into()));
        Self(Arc::new(Inner { kind, message, token: None, source }))
    }

    /// The outcome of the call with this token is unknown.
    #[cfg(feature = "backend")]
    pub(crate) fn of_unknown_outcome(
        token: u128,
        message: impl Into<String>,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let (kind, message) = (ErrorKind::OutcomeUnknown, message.into());
        Self(Arc::new(Inner { kind, message, token: Some(token), source }))
    }

    /// Returns the error with the token of a call that has written something, or may have.
    #[cfg(feature = "backend")]
    pub(crate) fn with_token(self, token: u128) -> Self {
        let (kind, message) = (self.kind(), self.to_string());
        Self(Arc::new(Inner { kind, message, token: Some(token), source: Some(self.into()) }))
    }

    /// Returns the bits of the token: see `token`.
    pub(crate) fn token_bits(&self) -> Option<u128> {
        self.0.token
    }

    /// Wraps an operating-system error; `doing` says what was being done to which file.
    pub(crate) fn io(doing: impl fmt::Display, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Os;
        let kind = match source.kind() {
            Os::PermissionDenied => ErrorKind::PermissionDenied,
            Os::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            Os::StorageFull | Os::QuotaExceeded => ErrorKind::StorageFull,
            Os::NotFound => ErrorKind::NotFound,
            Os::AlreadyExists => ErrorKind::AlreadyExists,
            _ => ErrorKind::Io,
        };
        let remedy = match source.kind() {
            Os::PermissionDenied => ": check the permissions of it and of its folder",
            Os::QuotaExceeded => {
                ": the quota of its owner is used up; make room, or raise the quota"
            }
            Os::StorageFull => ": no space or no inodes are left on the file system; make room",
            Os::ReadOnlyFilesystem => {
                ": the file system is read-only; mount it writable, or give another path"
            }
            Os::FileTooLarge => {
                ": this process may not write files of that size; raise `ulimit -f`"
            }
            _ => "",
        };
        Self::with_source(kind, format!("{doing}{remedy}"), source)
    }

    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns true when the same call may succeed later although nothing is changed: another process has
    /// released the file, the disk has room again, or the cluster works again. Of a call whose outcome is
    /// [unknown](ErrorKind::OutcomeUnknown) it is false: to check and mark again needs its token.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Busy | ErrorKind::StorageFull | ErrorKind::Unavailable)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn an_error_keeps_its_cause_and_says_what_was_done_to_which_file() {
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::io("cannot create /x/seen.db", cause);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().starts_with("cannot create /x/seen.db: check the permissions"));
        assert_eq!(error.source().unwrap().to_string(), "permission denied");
        assert!(!error.is_retryable());
    }

    #[test]
    fn only_busy_and_full_are_worth_a_retry() {
        assert!(Error::new(ErrorKind::Busy, "").is_retryable());
        assert!(Error::new(ErrorKind::StorageFull, "").is_retryable());
        assert!(!Error::new(ErrorKind::Corrupt, "").is_retryable());
    }
}
