//! Why a command has no answer.
//!
//! Owns the layer's error. What always holds: [`NodeError::may_be_executed`] is false only if the server certainly did
//! not execute the command, or said that it refuses it; and no text holds a password. Knows nothing of verbs.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use redis::ServerError;

use super::address::Address;

/// Why a command has no answer, and whether it may have been executed all the same. Cheap to clone: all commands of a
/// pipeline can fail for one reason.
#[derive(Clone, Debug)]
pub(crate) struct NodeError {
    kind: NodeErrorKind,
    may_be_executed: bool,
    message: Arc<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeErrorKind {
    /// The server is no member of a cluster.
    NotACluster,
    /// The server wants another user, password or right.
    Denied,
    /// The server cannot be spoken to: its certificate, or the protocol.
    Tls,
    /// A master has fewer replicas than each write must reach.
    TooFewReplicas,
    /// No server answered, the connection could not be opened, or it was lost before a byte was sent.
    Unreachable,
    /// The slots have no master, or the servers said to come back later: failing over, loading, moving slots.
    NotReady,
    /// The server refused the command: see [`NodeError::code`].
    Refused,
    /// The command was sent, and its answer did not come.
    Lost,
    /// The deadline passed; the source says what stood in the way.
    Timeout,
    /// This process is a fork of the one that connected.
    Forked,
    /// The connections were closed.
    Closed,
}

impl NodeError {
    pub(crate) fn new(kind: NodeErrorKind, message: impl Into<Arc<str>>) -> Self {
        let may_be_executed = kind == NodeErrorKind::Lost;
        Self { kind, may_be_executed, message: message.into(), source: None }
    }

    pub(crate) fn because(
        kind: NodeErrorKind,
        message: impl Into<Arc<str>>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(Arc::new(source)), ..Self::new(kind, message) }
    }

    pub(super) fn refused(address: &Address, error: ServerError) -> Self {
        let text = server_text(&error);
        Self::because(NodeErrorKind::Refused, format!("{address} refuses: {text}"), error)
    }

    pub(super) fn not_ready(address: &Address, error: ServerError) -> Self {
        let text = server_text(&error);
        Self::because(NodeErrorKind::NotReady, format!("{address} is not ready: {text}"), error)
    }

    /// The deadline passed and the command was not sent, or was not executed.
    pub(super) fn timed_out(last: Option<NodeError>) -> Self {
        let message = match &last {
            Some(last) => format!("the deadline passed; last: {last}"),
            None => "the deadline passed before the command could be sent".to_owned(),
        };
        let mut error = Self::new(NodeErrorKind::Timeout, message);
        error.source = last.map(|last| Arc::new(last) as Arc<dyn Error + Send + Sync>);
        error
    }

    /// The deadline passed while the answer was on its way.
    pub(super) fn timed_out_after_sending(address: &Address) -> Self {
        let message = format!("the deadline passed before {address} answered");
        Self { may_be_executed: true, ..Self::new(NodeErrorKind::Timeout, message) }
    }

    /// The runtime that the connections belong to has ended.
    pub(super) fn ended() -> Self {
        Self::new(NodeErrorKind::Closed, "the runtime that the store was opened in has ended")
    }

    /// It ended while a command was under way.
    pub(super) fn ended_after_sending() -> Self {
        Self { may_be_executed: true, ..Self::ended() }
    }

    pub(super) fn closed() -> Self {
        Self::new(NodeErrorKind::Closed, "the connections were closed")
    }

    pub(crate) fn kind(&self) -> NodeErrorKind {
        self.kind
    }

    /// Returns whether the server may have executed the command. A script that failed in its middle is
    /// [`Refused`](NodeErrorKind::Refused): what it did before that is not said here.
    pub(crate) fn may_be_executed(&self) -> bool {
        self.may_be_executed
    }

    /// Returns the first word of the server's own error: `OOM`, `NOSCRIPT`, `WRONGTYPE`.
    pub(crate) fn code(&self) -> Option<&str> {
        let source: &(dyn Error + 'static) = self.source.as_deref()?;
        source.downcast_ref::<ServerError>().map(ServerError::code)
    }

    /// Returns whether to try again is of no use: somebody must change a setting first.
    pub(super) fn is_final(&self) -> bool {
        use NodeErrorKind::{Closed, Denied, Forked, NotACluster, Refused, Tls, TooFewReplicas};
        matches!(self.kind, Closed | Denied | Forked | NotACluster | Refused | Tls | TooFewReplicas)
    }
}

/// Returns the error as the server wrote it, without the full stop at its end: a sentence goes on after it.
pub(super) fn server_text(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {}", error.code(), details.trim_end_matches('.')),
        None => error.code().to_owned(),
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for NodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // What a server said is in the message.
        let source = self.source.as_deref().filter(|source| !source.is::<ServerError>())?;
        Some(source)
    }
}
