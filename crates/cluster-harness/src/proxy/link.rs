//! One connection of a client, with the server's half of it.
//!
//! Two threads: one reads the client's commands, one the server's answers. The first notes an [`Expected`] for each
//! command before it forwards it; the second takes the notes off after it has passed on the answers.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use super::Shared;
use super::fault::{Effect, Rule};
use crate::resp;

const BUFFER: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Link {
    client: TcpStream,
    server: TcpStream,
    between_servers: bool,
    closed: AtomicBool,
    expected: Mutex<VecDeque<Expected>>,
}

/// What becomes of the next answer.
#[derive(Clone, Debug)]
enum Expected {
    Pass,
    Struck(Arc<Rule>),
    /// No answer: the connection ends where a command was not forwarded.
    End,
}

impl Link {
    pub(super) fn new(
        client: TcpStream,
        server: TcpStream,
        between_servers: bool,
    ) -> io::Result<Arc<Link>> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (closed, expected) = (AtomicBool::new(false), Mutex::default());
        Ok(Arc::new(Link { client, server, between_servers, closed, expected }))
    }

    pub(super) fn is_between_servers(&self) -> bool {
        self.between_servers
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Fails where the other side was faster.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// Forwards until one side closes. The link is closed then.
    pub(super) fn run(self: &Arc<Self>, shared: &Arc<Shared>) {
        let (link, of_answers) = (Arc::clone(self), Arc::clone(shared));
        thread::spawn(move || {
            let _ = if link.between_servers {
                copy(&link.server, &link.client)
            } else {
                link.forward_answers(&of_answers)
            };
            link.end(&of_answers);
        });
        let forwarded = if self.between_servers {
            copy(&self.client, &self.server).map(|()| Ended::Closed)
        } else {
            self.forward_commands(shared)
        };
        // The thread of the answers ends the connection if it still has some to pass on.
        if !matches!(forwarded, Ok(Ended::AfterTheAnswers)) {
            self.end(shared);
        }
    }

    fn end(&self, shared: &Shared) {
        self.close();
        shared.news.tell();
    }

    fn forward_commands(&self, shared: &Shared) -> io::Result<Ended> {
        let mut received = Vec::new();
        while read(&self.client, &mut received)? {
            let mut whole = 0;
            while let Some(request) = resp::request(&received[whole..])? {
                let struck = shared.strike(request.name);
                if let Some(rule) = &struck
                    && matches!(rule.effect(), Effect::CutBefore)
                {
                    (&self.server).write_all(&received[..whole])?;
                    return Ok(self.cut_before(rule, shared));
                }
                self.expect(struck.map_or(Expected::Pass, Expected::Struck));
                whole += request.length;
            }
            (&self.server).write_all(&received[..whole])?;
            received.drain(..whole);
        }
        Ok(Ended::Closed)
    }

    fn cut_before(&self, rule: &Rule, shared: &Shared) -> Ended {
        rule.hit(&shared.news);
        let mut expected = self.expected.lock();
        if expected.is_empty() {
            return Ended::Closed;
        }
        expected.push_back(Expected::End);
        Ended::AfterTheAnswers
    }

    fn expect(&self, answer: Expected) {
        self.expected.lock().push_back(answer);
    }

    fn forward_answers(&self, shared: &Shared) -> io::Result<()> {
        let mut received = Vec::new();
        while read(&self.server, &mut received)? {
            let arrived = Instant::now();
            let mut batch = Batch { link: self, begin: 0, end: 0, answers: 0 };
            while let Some(length) = resp::answer_end(&received[batch.end..])? {
                // Nobody has asked for a push message.
                let is_push = received[batch.end] == b'>';
                let expected = if is_push { None } else { self.expected_after(batch.answers) };
                if let Some(Expected::Struck(rule)) = &expected {
                    batch.pass_on(&received)?;
                    rule.hit(&shared.news);
                    match rule.effect() {
                        Effect::CutBefore | Effect::LoseAnswer => return Ok(()),
                        Effect::Delay(delay) => {
                            thread::sleep(delay.saturating_sub(arrived.elapsed()));
                        }
                        Effect::Hold => self.hold(rule, shared),
                    }
                }
                batch.end += length;
                batch.answers += usize::from(expected.is_some());
            }
            batch.pass_on(&received)?;
            if matches!(self.expected_after(0), Some(Expected::End)) {
                return Ok(());
            }
            let passed_on = batch.end;
            received.drain(..passed_on);
        }
        Ok(())
    }

    fn expected_after(&self, answers: usize) -> Option<Expected> {
        self.expected.lock().get(answers).cloned()
    }

    /// Waits until the fault is removed, or the client is gone.
    fn hold(&self, rule: &Rule, shared: &Shared) {
        let mut guard = shared.news.lock.lock();
        let holds = |(): &mut ()| !rule.is_removed() && !self.closed.load(Ordering::SeqCst);
        shared.news.changed.wait_while(&mut guard, holds);
    }
}

/// How the reading of commands ended.
enum Ended {
    Closed,
    AfterTheAnswers,
}

/// Answers that are passed on together.
struct Batch<'a> {
    link: &'a Link,
    begin: usize,
    end: usize,
    answers: usize,
}

impl Batch<'_> {
    fn pass_on(&mut self, received: &[u8]) -> io::Result<()> {
        (&self.link.client).write_all(&received[self.begin..self.end])?;
        // Only now: where none is expected, the thread of the commands may close the connection.
        let mut expected = self.link.expected.lock();
        expected.drain(..self.answers);
        self.begin = self.end;
        self.answers = 0;
        Ok(())
    }
}

/// Returns whether there was something to read.
fn read(mut from: &TcpStream, into: &mut Vec<u8>) -> io::Result<bool> {
    let begin = into.len();
    into.resize(begin + BUFFER, 0);
    let read = from.read(&mut into[begin..]);
    into.truncate(begin + read.as_ref().copied().unwrap_or(0));
    read.map(|read| read > 0)
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to).map(|_| ())
}
