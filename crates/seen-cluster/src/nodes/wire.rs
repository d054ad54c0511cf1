//! One connection to one server.
//!
//! Owns the socket: opening it with its handshakes, sending, and reading replies. What always holds: a wire that failed
//! or was left with replies unread is not used again, so a reply is never taken for another command's. Knows nothing of
//! slots and groups.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redis::{Cmd, RedisError, ServerError, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::address::Address;
use super::clock::{ASKED_AGAIN, ServerClock, steady_us};
use super::error::{NodeError, NodeErrorKind, server_text};
use super::home::Home;
use super::settings::Settings;

/// What every connection of a cluster is opened with.
pub(super) struct Opening {
    pub(super) home: Arc<Home>,
    pub(super) settings: Settings,
    #[cfg(feature = "tls")]
    encryption: Option<super::tls::Encryption>,
}

impl Opening {
    pub(super) fn new(settings: Settings) -> Result<Self, NodeError> {
        #[cfg(feature = "tls")]
        let encryption =
            settings.tls.as_ref().map(super::tls::Encryption::new).transpose().map_err(
                |error| {
                    let message = format!("cannot prepare encryption: {error}");
                    NodeError::because(NodeErrorKind::Tls, message, error)
                },
            )?;
        #[cfg(not(feature = "tls"))]
        if settings.tls.is_some() {
            return Err(NodeError::new(
                NodeErrorKind::Tls,
                "encrypted connections need the feature `tls` of seen-cluster",
            ));
        }
        Ok(Self {
            home: Home::current(),
            settings,
            #[cfg(feature = "tls")]
            encryption,
        })
    }
}

pub(super) struct Wire {
    stream: Stream,
}

enum Stream {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// The replies to a pipeline.
#[derive(Default)]
pub(super) struct Replies {
    pub(super) values: Vec<Value>,
    /// When the first one was there, on the steady clock.
    pub(super) first_us: i64,
}

/// How far sending came before it failed.
pub(super) enum SendError {
    /// The operating system took no byte.
    Nothing(io::Error),
    /// It took at least one.
    Part(io::Error),
}

impl Wire {
    /// Opens a connection within the connect timeout, signs on, and asks the server for its time: that also shows that
    /// the server lives, and that it lets this user in.
    pub(super) async fn open(
        opening: &Opening,
        address: &Address,
        certificate_name: Option<&str>,
        clock: &ServerClock,
    ) -> Result<Self, NodeError> {
        let all = async {
            let mut wire = Self::connect(opening, address, certificate_name).await?;
            wire.sign_on(&opening.settings, address, clock).await?;
            Ok(wire)
        };
        match tokio::time::timeout(opening.settings.connect_timeout, all).await {
            Ok(result) => result,
            Err(_) => Err(NodeError::new(
                NodeErrorKind::Unreachable,
                format!(
                    "{address} did not answer within {:?} of connecting{}",
                    opening.settings.connect_timeout,
                    match opening.settings.tls {
                        Some(_) =>
                            " (if its connections are not encrypted, the URL begins with redis://)",
                        None =>
                            " (if its connections are encrypted, the URL begins with rediss://)",
                    }
                ),
            )),
        }
    }

    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "no certificates"))]
    async fn connect(
        opening: &Opening,
        address: &Address,
        certificate_name: Option<&str>,
    ) -> Result<Self, NodeError> {
        let unreachable = |error: io::Error| {
            let message = format!("cannot connect to {address}: {error}");
            NodeError::because(NodeErrorKind::Unreachable, message, error)
        };
        let tcp =
            TcpStream::connect((address.host(), address.port())).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        #[cfg(feature = "tls")]
        if let Some(encryption) = &opening.encryption {
            let name = certificate_name.unwrap_or(address.host());
            let tls = encryption.start(tcp, name).await.map_err(|error| {
                // Otherwise the connection broke, which may pass.
                if error.kind() == io::ErrorKind::InvalidData {
                    let message = format!("no encrypted connection to {address}: {error}");
                    NodeError::because(NodeErrorKind::Tls, message, error)
                } else {
                    unreachable(error)
                }
            })?;
            return Ok(Self { stream: Stream::Tls(Box::new(tls)) });
        }
        Ok(Self { stream: Stream::Tcp(tcp) })
    }

    async fn sign_on(
        &mut self,
        settings: &Settings,
        address: &Address,
        clock: &ServerClock,
    ) -> Result<(), NodeError> {
        let mut questions = Vec::new();
        let mut count = 0;
        if let Some(password) = &settings.password {
            let mut auth = redis::cmd("AUTH");
            auth.arg(settings.username.as_deref()).arg(password);
            auth.write_packed_command(&mut questions);
            count += 1;
        }
        self.ask_time(questions, count, address, clock).await?;
        for _ in 0..ASKED_AGAIN {
            if !clock.is_rough() {
                break;
            }
            self.ask_time(Vec::new(), 0, address, clock).await?;
        }
        Ok(())
    }

    /// Asks the server for its time, after `before` other questions.
    async fn ask_time(
        &mut self,
        mut questions: Vec<u8>,
        before: usize,
        address: &Address,
        clock: &ServerClock,
    ) -> Result<(), NodeError> {
        time_command().write_packed_command(&mut questions);
        let sent_us = steady_us();
        let mut replies = Replies::default();
        let answered = match self.send(&questions).await {
            Ok(()) => self.receive(before + 1, &mut replies).await,
            Err(SendError::Nothing(error) | SendError::Part(error)) => Err(error.into()),
        };
        match answered {
            Ok(()) => signed_on(replies, address, clock, sent_us),
            Err(error) => Err(not_signed_on(address, error)),
        }
    }

    /// Returns whether the server has not closed the connection, as far as this process was told. Nothing must be under
    /// way.
    pub(super) fn is_usable(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        // A byte that nobody asked for, an end and an error all mean that the connection is of no use.
        Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Hands all bytes to the operating system. No reply is read meanwhile: a server keeps replies in memory and reads
    /// on, so neither side waits for the other.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        use tokio::io::AsyncWriteExt;
        let first = match self.stream.write(bytes).await {
            Ok(0) => return Err(SendError::Nothing(io::ErrorKind::WriteZero.into())),
            Ok(first) => first,
            // What the encryption has taken in may be sent in part.
            Err(error) if self.is_encrypted() => return Err(SendError::Part(error)),
            Err(error) => return Err(SendError::Nothing(error)),
        };
        self.stream.write_all(&bytes[first..]).await.map_err(SendError::Part)?;
        self.stream.flush().await.map_err(SendError::Part)
    }

    /// Reads `count` replies. After an error, those that came before it are there.
    pub(super) async fn receive(
        &mut self,
        count: usize,
        replies: &mut Replies,
    ) -> Result<(), RedisError> {
        // Holds what was read beyond a reply. After the last reply nothing is: no more was asked for.
        #[expect(clippy::default_trait_access, reason = "the type is of a crate below `redis`")]
        let mut decoder = Default::default();
        for place in 0..count {
            let value = redis::parse_redis_value_async(&mut decoder, &mut self.stream).await?;
            if place == 0 {
                replies.first_us = steady_us();
                replies.values.reserve(count);
            }
            replies.values.push(value);
        }
        Ok(())
    }

    fn is_encrypted(&self) -> bool {
        !matches!(self.stream, Stream::Tcp(_))
    }
}

pub(super) fn time_command() -> Cmd {
    redis::cmd("TIME")
}

/// Reads the reply to `TIME`: seconds and microseconds.
pub(super) fn time_us(value: &Value) -> Option<i64> {
    let Value::Array(fields) = value else { return None };
    let number = |value: &Value| match value {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<i64>().ok(),
        _ => None,
    };
    let [seconds, micros] = &fields[..] else { return None };
    number(seconds)?.checked_mul(1_000_000)?.checked_add(number(micros)?)
}

/// Judges the replies to the questions of signing on.
fn signed_on(
    replies: Replies,
    address: &Address,
    clock: &ServerClock,
    sent_us: i64,
) -> Result<(), NodeError> {
    let last = replies.values.len() - 1;
    for (place, value) in replies.values.into_iter().enumerate() {
        if let Value::ServerError(error) = value {
            let question = if place == last { "TIME" } else { "AUTH" };
            return Err(denied(address, question, error));
        }
        if let (true, Some(server_us)) = (place == last, time_us(&value)) {
            clock.record(sent_us, replies.first_us, server_us);
        }
    }
    Ok(())
}

fn denied(address: &Address, question: &str, error: ServerError) -> NodeError {
    let text = server_text(&error);
    let message = match error.code() {
        "NOAUTH" => format!("{address} wants a password: {text}"),
        "WRONGPASS" => format!("{address} does not take this user and password: {text}"),
        "NOPERM" => format!("{address} does not let this user say {question}: {text}"),
        _ if question == "AUTH" => format!("{address} does not take the password: {text}"),
        _ => return NodeError::not_ready(address, error),
    };
    NodeError::because(NodeErrorKind::Denied, message, error)
}

fn not_signed_on(address: &Address, error: RedisError) -> NodeError {
    if error.kind() == redis::ErrorKind::Parse && !error.is_io_error() {
        let message =
            format!("{address} does not speak the protocol of Redis (is it a port for TLS?)");
        return NodeError::because(NodeErrorKind::Tls, message, error);
    }
    let message = format!("{address} broke the new connection off: {error}");
    NodeError::because(NodeErrorKind::Unreachable, message, error)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Shared by all nodes of a cluster.
pub(super) type SharedOpening = Arc<Opening>;
