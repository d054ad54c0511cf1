//! A blocking connection to one server, which follows no redirection.

use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::resp::{self, Reply};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A blocking connection in RESP 2, without TLS. An answer may take 5 seconds.
pub struct Connection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

trait Stream: Read + Write + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl Connection {
    /// Connects to `127.0.0.1:port`.
    ///
    /// # Errors
    ///
    /// If nothing listens there.
    pub fn tcp(port: u16) -> Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream: Box::new(stream), received: Vec::new() })
    }

    pub(crate) fn unix(path: &Path) -> Result<Connection> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream: Box::new(stream), received: Vec::new() })
    }

    /// Sends one command and returns its answer, which may be [`Reply::Error`].
    ///
    /// # Errors
    ///
    /// If the connection ends before the answer, or the answer takes longer than 5 seconds.
    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Reply> {
        self.send(arguments)?;
        self.receive()
    }

    /// Sends one command without waiting for its answer: several make a pipeline.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<()> {
        self.stream.write_all(&resp::encode(arguments))
    }

    /// Returns the next answer.
    ///
    /// # Errors
    ///
    /// As [`command`](Self::command).
    pub fn receive(&mut self) -> Result<Reply> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some((reply, length)) = resp::answer(&self.received)? {
                self.received.drain(..length);
                return Ok(reply);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(Error::from(ErrorKind::UnexpectedEof)),
                read => self.received.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("received", &self.received.len()).finish_non_exhaustive()
    }
}
