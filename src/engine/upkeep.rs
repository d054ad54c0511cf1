//! Upkeep: what a thread does for the index beside callers.
//!
//! Owns the thread that lets the index in memory wake, and writes what was appended to the index in the file. What always
//! holds: it holds the mutex for one small step at a time, and reads what it writes on a connection of its own, where
//! there can be one; a failure is logged and never a caller's, because the index in the file only makes lookups faster.

use std::time::Duration;

use super::background::Background;
use super::{Engine, WeakEngine, Writer};
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{
    Callers, ConnectionSource, Deletions, Prepared, PreparedPiece, SecondConnection,
};
use crate::machine::{Receiver, RecvTimeoutError, step_size};

/// How many rows one step of waking reads: about a third of a millisecond. And beside callers that hold the mutex for long.
const ROWS_PER_STEP: i64 = step_size!(1_000, in_a_simulation: 3);
const ROWS_PER_LONG_STEP: i64 = step_size!(8_000, in_a_simulation: 5);

/// The longest pause after a step.
const MAX_REST: Duration = Duration::from_millis(5);

/// The pause after a step that another store was in the way of. Each further one doubles it, up to
/// [`LONGEST_REST_WHEN_BUSY`]: of several stores on a file, one at a time shall do the work.
const REST_WHEN_BUSY: Duration = Duration::from_millis(20);
const LONGEST_REST_WHEN_BUSY: Duration = Duration::from_secs(1);

/// How long the thread waits for the mutex behind callers that hold it for long.
const LONG_WAIT: Duration = Duration::from_millis(2);
/// For how long after such a wait, or after a tail was written, callers are taken to go on so.
const RECENTLY: Duration = Duration::from_secs(1);

/// The pause after a failure, so that not each commit fails once more.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long a store is open before runs that others have left are merged beside callers. One that closes earlier does
/// it then.
const OPEN_LONG: Duration = Duration::from_secs(1);

/// How long closing may work on the index in the file. To copy what it writes from the log takes as long again.
const LONGEST_AT_CLOSE: Duration = Duration::from_millis(10);

/// What share of the time that the store was open closing may take for it, if that is more.
const SHARE_AT_CLOSE: u32 = 20;

/// And the most that this may be: the caller of a program waits for it to end.
const MOST_AT_CLOSE: Duration = Duration::from_secs(2);

pub(crate) struct Upkeep {
    thread: Background,
    /// `None` where no second connection is possible, and in a store that only reads.
    source: Option<ConnectionSource>,
}

impl Upkeep {
    pub(crate) fn new(source: Option<ConnectionSource>) -> Self {
        Self { thread: Background::new("seen-index"), source }
    }

    /// Stops the thread for good. The caller must not hold the mutex: the thread may be waiting for it.
    pub(crate) fn stop(&self) {
        self.thread.stop();
    }
}

impl Engine {
    /// Wakes the thread if there is anything to do for the index. Called after a commit, and after a lookup that may have
    /// read the file.
    pub(crate) fn wake_upkeep(&self, writer: &mut Writer) {
        writer.journal.forget_remembered(&self.index);
        if writer.journal.upkeep_is_due(&self.index, || self.opened.elapsed() >= OPEN_LONG) {
            self.upkeep.thread.wake(|| {
                let engine = self.downgrade();
                move |wake_ups: &Receiver<()>| Worker::new(engine).run(wake_ups)
            });
        }
    }

    /// Writes to the file, before the store closes, what would make the next opening slower.
    pub(super) fn upkeep_before_closing(&self) {
        let share = (self.opened.elapsed() / SHARE_AT_CLOSE).min(MOST_AT_CLOSE);
        let limit = LONGEST_AT_CLOSE.max(share);
        let written = self.with_journal_within(Duration::ZERO, |writer| {
            let at_once = if writer.shares_file() { LONGEST_AT_CLOSE } else { limit };
            writer.journal.upkeep_before_closing(at_once, limit)
        });
        if let Err(e) = written {
            self.put_off(&e);
        }
    }

    /// Lets an index that is waking read some more rows. Returns false if it is not waking, or awake now.
    fn wake_step(&self, writer: &mut Writer, rows: i64) -> Result<bool> {
        if !writer.journal.is_waking(&self.index) {
            return Ok(false);
        }
        self.catch_up(writer)?;
        writer.journal.wake_step(&self.index, self.clock.now_ms(), rows)
    }

    fn put_off(&self, e: &Error) {
        let level = match e.kind() {
            // The next one does it, or the calls themselves tell of it.
            ErrorKind::Busy | ErrorKind::FileReplaced => log::Level::Debug,
            _ => log::Level::Warn,
        };
        log::log!(
            level, file = self.name.as_str(), error:% = e, error_kind = e.kind().word();
            "{}: work on the index in the file is put off: {e}", self.name
        );
    }
}

/// What the thread is to do next, as far as it can be read without the mutex.
enum Next {
    /// It has to be asked for.
    Unknown,
    /// There is no second connection to read it on.
    Here,
    Prepared(Prepared),
}

/// What a step came to.
enum Stepped {
    /// There may be more to do.
    Done,
    /// Likewise, but another store was in the way.
    Busy,
    /// Likewise, but it is left until callers do less.
    Later,
    Nothing,
}

struct Worker {
    engine: WeakEngine,
    second: Option<SecondConnection>,
    /// What was so before the next piece is read; `None` if that is unknown.
    begun: Option<Deletions>,
    /// Since when callers last held the mutex for long when a piece was to be written.
    has_waited: Option<Stopwatch>,
    /// Since when a tail was last written.
    tail_written: Option<Stopwatch>,
    /// The pause after the next step that another store is in the way of.
    rest_when_busy: Duration,
}

impl Worker {
    fn new(engine: WeakEngine) -> Self {
        let rest_when_busy = REST_WHEN_BUSY;
        Self {
            engine,
            second: None,
            begun: None,
            has_waited: None,
            tail_written: None,
            rest_when_busy,
        }
    }

    fn run(mut self, wake_ups: &Receiver<()>) {
        while wake_ups.recv().is_ok() && self.work(wake_ups) {}
        self.disconnect();
    }

    fn disconnect(&mut self) {
        if let Some(Err(e)) = self.second.take().map(SecondConnection::close) {
            log::warn!(error:% = e, error_kind = e.kind().word(); "{e}");
        }
    }

    /// Does steps until there is nothing to do. Returns false when the thread is to end.
    fn work(&mut self, wake_ups: &Receiver<()>) -> bool {
        loop {
            let Some(engine) = self.engine.upgrade() else { return false };
            let step = Stopwatch::start();
            let stepped = self.step(&engine);
            let rest = match &stepped {
                Ok(Stepped::Done) => {
                    self.rest_when_busy = REST_WHEN_BUSY;
                    // To leave the processors to callers.
                    step.elapsed().min(MAX_REST)
                }
                Ok(Stepped::Nothing) => return true,
                Ok(Stepped::Busy) => self.rest_behind_others(),
                Ok(Stepped::Later) => REST_WHEN_BUSY,
                Err(e) if e.kind() == ErrorKind::Busy => self.rest_behind_others(),
                Err(e) if e.kind() == ErrorKind::Closed => return false,
                Err(e) => {
                    engine.put_off(e);
                    // This connection may be unusable: the next attempt opens a new one.
                    self.disconnect();
                    REST_AFTER_FAILURE
                }
            };
            // The log must not grow faster than it is copied.
            engine.checkpointer.wait_while_log_is_long();
            drop(engine);
            if wake_ups.recv_timeout(rest) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
        }
    }

    fn rest_behind_others(&mut self) -> Duration {
        let longer = (self.rest_when_busy * 2).min(LONGEST_REST_WHEN_BUSY);
        std::mem::replace(&mut self.rest_when_busy, longer)
    }

    /// Reads a piece and writes it. Takes the mutex once for that: behind callers that hold it for long, each time counts.
    fn step(&mut self, engine: &Engine) -> Result<Stepped> {
        let mut next = self.next(engine)?;
        let waiting = Stopwatch::start();
        engine.with_journal_within(Duration::ZERO, |writer| {
            if waiting.elapsed() >= LONG_WAIT {
                self.has_waited = Some(Stopwatch::start());
            }
            let rows = match self.callers() {
                Callers::HoldTheMutex => ROWS_PER_LONG_STEP,
                _ => ROWS_PER_STEP,
            };
            let is_waking = engine.wake_step(writer, rows)?;
            let journal = &mut writer.journal;
            let stepped = match &mut next {
                Next::Here if !journal.do_piece()? => Stepped::Nothing,
                Next::Here | Next::Unknown => Stepped::Done,
                Next::Prepared(Prepared::Piece(piece)) => {
                    let is_tail = piece.as_ref().is_some_and(PreparedPiece::is_tail);
                    let is_written = journal.write_piece(piece)?;
                    if is_tail && is_written {
                        self.tail_written = Some(Stopwatch::start());
                    }
                    if is_written { Stepped::Done } else { Stepped::Busy }
                }
                Next::Prepared(Prepared::Damage(damage)) => {
                    journal.throw_away(damage)?;
                    Stepped::Done
                }
                Next::Prepared(Prepared::Nothing { complete_to, later }) => {
                    match (journal.found_nothing(*complete_to, *later)?, *later) {
                        (true, _) => Stepped::Done,
                        (false, true) => Stepped::Later,
                        (false, false) => Stepped::Nothing,
                    }
                }
            };
            engine.checkpointer.after_commit(journal);
            self.begun = match stepped {
                Stepped::Nothing => None,
                _ => journal.begin_piece()?,
            };
            match stepped {
                Stepped::Nothing | Stepped::Later if is_waking => Ok(Stepped::Done),
                _ if self.begun.is_none() && !is_waking => {
                    journal.upkeep_ended();
                    Ok(Stepped::Nothing)
                }
                stepped => Ok(stepped),
            }
        })
    }

    /// Reads what is to be done next, beside callers.
    fn next(&mut self, engine: &Engine) -> Result<Next> {
        let Some(begun) = self.begun.take() else { return Ok(Next::Unknown) };
        let callers = self.callers();
        let Some(source) = &engine.upkeep.source else { return Ok(Next::Here) };
        let second = match &mut self.second {
            Some(second) => second,
            None => self.second.insert(SecondConnection::open(source)?),
        };
        let prepared = second.prepare(&engine.hasher, begun, callers);
        prepared.map(Next::Prepared)
    }

    fn callers(&self) -> Callers {
        let is_recent = |then: Option<Stopwatch>| then.is_some_and(|it| it.elapsed() < RECENTLY);
        if is_recent(self.has_waited) {
            Callers::HoldTheMutex
        } else if is_recent(self.tail_written) {
            Callers::WriteMuch
        } else {
            Callers::WriteLittle
        }
    }
}
