//! One call on one id: what is sent next, and what an answer means.
//!
//! Owns the compare-and-set: a decision is written only if the key still has what it was decided on. Otherwise it is made
//! again on what the key has now. What always holds:
//!
//! - All writes of a call bear one token. So a write whose answer was lost is recognised when the call sends again, and is
//!   never taken for another caller's.
//! - An answer is given only once its write has reached the replicas that are asked for. What is found done already is
//!   written once more, because `WAIT` counts only what its own connection wrote: it may be this call's own write, or that
//!   of an earlier one whose caller was told that too few replicas have it.
//! - A new id costs one command: it is written as if nothing were known of it (`SET NX GET`, Redis 7).
//!
//! Knows neither sockets nor verbs: both are handed in.

use redis::{Cmd, Value, cmd};
use seen_store::backend::{Outcome, Record, TurnedAway};
use seen_store::{Result, Token};

use crate::nodes::{NodeError, NodeErrorKind, Replicated, Written};

/// Writes a record if the key has the expected bytes; no bytes are expected of a key that is not there. Returns 1, or what the
/// key has. A key that is to be deleted and is not there is made first: since Redis 7.2 `WAIT` waits only for what a connection
/// has changed.
pub(crate) const COMPARE_AND_SET: &str = "\
local known = redis.call('GET', KEYS[1])
if (known or '') ~= ARGV[1] then return known end
if ARGV[3] == '0' then
  if not known then redis.call('SET', KEYS[1], '') end
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == '-1' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1";

/// How much longer than it is of use a server keeps a record: its clock and the time that is reckoned from it differ a
/// little.
const KEPT_LONGER_MS: i64 = 1_000;

/// What the key is taken to have.
#[derive(Clone, Debug)]
pub(crate) enum Basis {
    /// Nothing, as a guess: most ids are new.
    Guessed,
    /// Nothing.
    Absent,
    /// These bytes.
    Bytes(Vec<u8>),
    /// It has to be read.
    Unread,
}

/// What a call does next.
pub(crate) enum Step<T> {
    Done(T),
    Read(Cmd),
    Write(Cmd),
}

/// Why a call is over without an answer.
pub(crate) enum Failed {
    /// Nothing was changed.
    Decision(seen_store::Error),
    /// Nothing was changed.
    Refused(NodeError),
    /// The write may have been done.
    Unknown(Unknown),
}

impl Failed {
    /// Returns the one of two failures of a batch that its caller must know: what may have been written.
    pub(crate) fn worse(self, other: Option<Self>) -> Self {
        match other {
            Some(other @ Self::Unknown(_)) => other,
            Some(other) if !matches!(self, Self::Unknown(_)) => other,
            _ => self,
        }
    }
}

pub(crate) enum Unknown {
    Lost(NodeError),
    TooFewReplicas { by: u32 },
}

/// How a verb goes about its decision.
pub(crate) struct Manner<T> {
    /// Whether an answer that changes nothing may say that this call, or the one that it repeats, has written before: then
    /// that is written again, so that it reaches the replicas.
    pub(crate) is_repeated: fn(&T) -> bool,
    /// Whether the record has what the write of this answer put there, although others may have written since.
    pub(crate) stands: fn(&T, &Record) -> bool,
    /// Whether what the answer says is over by now, so that it must be decided anew.
    pub(crate) is_over: fn(&T, &Record, i64) -> bool,
    /// What it means that a decision finds nothing to do after a write that may have been done.
    pub(crate) if_unchanged: IfUnchanged,
    /// Whether it ends claims, or writes what was counted: then it goes on while the store closes.
    pub(crate) goes_on_while_closing: bool,
}

/// See [`Manner::if_unchanged`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfUnchanged {
    /// The decision tells by itself.
    Decided,
    /// The write was done: the first answer stands.
    Done,
    /// It was done, or another caller has taken the id over meanwhile.
    Unknown,
}

impl<T> Manner<T> {
    /// That of a decision which tells by itself, by the token, whether this call has written.
    pub(crate) const fn plain() -> Self {
        Self {
            is_repeated: |_| false,
            stands: |_, _| false,
            is_over: |_, _, _| false,
            if_unchanged: IfUnchanged::Decided,
            goes_on_while_closing: false,
        }
    }
}

impl<T> Clone for Manner<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Manner<T> {}

/// See the module's header.
pub(crate) struct Attempt<T> {
    key: Vec<u8>,
    token: Token,
    basis: Basis,
    manner: Manner<T>,
    must_replicate: bool,
    /// What was turned away of the id and is not in its record yet.
    pending: TurnedAway,
    /// The write that is under way, or whose answer was lost.
    sent: Option<Sent<T>>,
    /// The answer of a write that may have been done, once what the key has now is known.
    lost: Option<T>,
    /// Why it is not known whether a write was done.
    lost_to: Option<NodeError>,
    sends_script: bool,
}

struct Sent<T> {
    command: Cmd,
    answer: T,
    turned_away: TurnedAway,
    /// What the key has afterwards; `None` is nothing.
    bytes: Option<Vec<u8>>,
    /// Whether it writes what is there already.
    is_again: bool,
}

impl<T> Attempt<T> {
    pub(crate) fn new(
        key: Vec<u8>,
        token: Token,
        basis: Basis,
        manner: Manner<T>,
        must_replicate: bool,
        pending: TurnedAway,
    ) -> Self {
        Self {
            key,
            token,
            basis,
            manner,
            must_replicate,
            pending,
            sent: None,
            lost: None,
            lost_to: None,
            sends_script: false,
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Returns what was turned away and is in no record yet.
    pub(crate) fn turned_away(&self) -> TurnedAway {
        self.pending
    }

    /// Decides, if what the key has is known, and returns what to do.
    pub(crate) fn step(
        &mut self,
        now_ms: i64,
        decide: impl FnOnce(&mut Record) -> Result<Outcome<T>>,
    ) -> Result<Step<T>, Failed> {
        if let Some(sent) = &self.sent {
            // Its answer was lost. Only the same bytes can be told from what it may have written.
            return Ok(Step::Write(sent.command.clone()));
        }
        let known = match &self.basis {
            Basis::Unread => return Ok(Step::Read(read(&self.key))),
            Basis::Guessed | Basis::Absent => None,
            Basis::Bytes(bytes) => Some(bytes.clone()),
        };
        let mut record = match &known {
            Some(bytes) => self.decode(bytes)?,
            None => Record::default(),
        };
        if let Some(bytes) = &known {
            let is_own = Record::write_of(bytes) == Some(self.token);
            let stands = |answer: &mut T| is_own || (self.manner.stands)(answer, &record);
            if let Some(answer) = self.lost.take_if(stands)
                && !(self.manner.is_over)(&answer, &record, now_ms)
            {
                let none = TurnedAway::default();
                return Ok(self.write_again(answer, none, bytes.clone(), &record, now_ms));
            }
        }
        record.add(self.pending);
        let decided = match decide(&mut record) {
            Ok(decided) => decided,
            Err(_) if matches!(self.basis, Basis::Guessed) => {
                return Ok(Step::Read(read(&self.key)));
            }
            Err(e) => {
                return Err(match self.lost_to.take() {
                    Some(lost) => Failed::Unknown(Unknown::Lost(lost)),
                    None => Failed::Decision(e),
                });
            }
        };
        let Outcome { mut answer, is_changed, turned_away } = decided;
        let lasts_ms = lasts(&record, now_ms);
        if matches!(self.basis, Basis::Guessed) && (!is_changed || lasts_ms == Some(0)) {
            // What is not written, or is over at once, does not find out what is there.
            return Ok(Step::Read(read(&self.key)));
        }
        if !is_changed {
            match (self.manner.if_unchanged, self.lost.take()) {
                (IfUnchanged::Done, Some(done)) => answer = done,
                (IfUnchanged::Unknown, Some(_)) if self.lost_to.is_some() => {
                    let lost = self.lost_to.take().expect("checked above");
                    return Err(Failed::Unknown(Unknown::Lost(lost)));
                }
                _ => {}
            }
            if known.is_none() {
                // Of an id of which nothing is known there is nothing to count.
                self.pending = TurnedAway::default();
            }
            if self.must_replicate && (self.manner.is_repeated)(&answer) {
                let bytes = known.unwrap_or_default();
                return Ok(self.write_again(answer, turned_away, bytes, &record, now_ms));
            }
            self.pending = add(self.pending, turned_away);
            return Ok(Step::Done(answer));
        }
        let bytes = record.encode(self.token);
        let command = match known {
            None if lasts_ms == Some(0) => {
                // Over at once, and nothing is there.
                self.pending = TurnedAway::default();
                return Ok(Step::Done(answer));
            }
            None => set_new(&self.key, &bytes, lasts_ms),
            Some(known) => self.compare_and_set(&known, &bytes, lasts_ms),
        };
        let bytes = (lasts_ms != Some(0)).then_some(bytes);
        let sent = Sent { command: command.clone(), answer, turned_away, bytes, is_again: false };
        self.sent = Some(sent);
        Ok(Step::Write(command))
    }

    /// Writes again what is there, so that `WAIT` counts it; no bytes are nothing.
    fn write_again(
        &mut self,
        answer: T,
        turned_away: TurnedAway,
        bytes: Vec<u8>,
        record: &Record,
        now_ms: i64,
    ) -> Step<T> {
        let lasts_ms = if bytes.is_empty() { Some(0) } else { lasts(record, now_ms) };
        let command = self.compare_and_set(&bytes, &bytes, lasts_ms);
        let (sent, bytes) = (command.clone(), (lasts_ms != Some(0)).then_some(bytes));
        self.sent = Some(Sent { command: sent, answer, turned_away, bytes, is_again: true });
        Step::Write(command)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Record, Failed> {
        let name = || format!("the key {:?}", String::from_utf8_lossy(&self.key));
        Record::decode(bytes, name).map_err(Failed::Decision)
    }

    fn compare_and_set(&self, known: &[u8], bytes: &[u8], lasts_ms: Option<i64>) -> Cmd {
        let mut command = if self.sends_script {
            let mut command = cmd("EVAL");
            command.arg(COMPARE_AND_SET);
            command
        } else {
            let mut command = cmd("EVALSHA");
            command.arg(script_hash());
            command
        };
        command.arg(1).arg(&self.key).arg(known).arg(bytes).arg(lasts_ms.unwrap_or(-1));
        command
    }

    /// Takes the answer to a read.
    pub(crate) fn was_read(&mut self, read: Result<Value, NodeError>) -> Result<(), Failed> {
        let value = read.map_err(|e| self.refused(e))?;
        self.basis = basis_of(value);
        Ok(())
    }

    /// Takes the answer to a write. `Some` is the answer of the call.
    pub(crate) fn was_written(
        &mut self,
        written: Result<Written, NodeError>,
    ) -> Result<Option<T>, Failed> {
        let sent = self.sent.take().expect("a write is under way");
        let Written { value, replicated } = match written {
            Ok(written) => written,
            Err(e) if e.may_be_executed() && e.kind() == NodeErrorKind::Closed => {
                // It cannot be sent again.
                return Err(Failed::Unknown(Unknown::Lost(e)));
            }
            Err(e) if e.may_be_executed() => {
                (self.sent, self.lost_to) = (Some(sent), Some(e));
                return Ok(None);
            }
            Err(e) if e.code() == Some("NOSCRIPT") => {
                self.sends_script = true;
                self.was_not_sent(sent);
                return Ok(None);
            }
            Err(e) => return Err(self.refused(e)),
        };
        let is_done = matches!(
            (&value, &self.basis),
            (Value::Nil, Basis::Guessed | Basis::Absent) | (Value::Int(1), _)
        );
        if !is_done {
            self.basis = basis_of(value);
            if let (Basis::Bytes(known), Some(written)) = (&self.basis, &sent.bytes)
                && known == written
                && !sent.is_again
            {
                // It was done, and what was counted is in it.
                self.pending = TurnedAway::default();
            }
            if sent.is_again || self.lost_to.is_some() {
                // What the key has now tells whether it was done.
                self.lost = Some(sent.answer);
            }
            return Ok(None);
        }
        self.basis = sent.bytes.map_or(Basis::Absent, Basis::Bytes);
        if !sent.is_again {
            // What was counted is in the record, also if too few replicas have it.
            self.pending = TurnedAway::default();
        }
        if let Replicated::TooFew { by } = replicated {
            return Err(Failed::Unknown(Unknown::TooFewReplicas { by }));
        }
        self.pending = add(self.pending, sent.turned_away);
        Ok(Some(sent.answer))
    }

    /// Takes in that what was to be written was not sent. It is decided anew.
    pub(crate) fn was_put_off(&mut self) {
        let sent = self.sent.take().expect("a write is under way");
        self.was_not_sent(sent);
    }

    fn was_not_sent(&mut self, sent: Sent<T>) {
        if sent.is_again || self.lost_to.is_some() {
            self.lost = Some(sent.answer);
        }
    }

    /// Returns the failure of a call that ends here, because its time is over.
    pub(crate) fn give_up(&mut self, error: NodeError) -> Failed {
        self.refused(error)
    }

    fn refused(&mut self, error: NodeError) -> Failed {
        if self.lost.is_some() || self.lost_to.is_some() {
            return Failed::Unknown(Unknown::Lost(self.lost_to.take().unwrap_or(error)));
        }
        Failed::Refused(error)
    }
}

pub(crate) fn read(key: &[u8]) -> Cmd {
    let mut command = cmd("GET");
    command.arg(key);
    command
}

/// Writes a key that is not there. Returns nil, or what it has. (`GET` beside `NX`: since Redis 7.0.)
fn set_new(key: &[u8], bytes: &[u8], lasts_ms: Option<i64>) -> Cmd {
    let mut command = cmd("SET");
    command.arg(key).arg(bytes).arg("NX").arg("GET");
    if let Some(ms) = lasts_ms {
        command.arg("PX").arg(ms);
    }
    command
}

/// Returns for how long a server keeps the record, in milliseconds; 0 if it is over; `None` is for ever.
fn lasts(record: &Record, now_ms: i64) -> Option<i64> {
    let left = record.ends_at()?.saturating_sub(now_ms);
    // The most that Redis takes, less the present time.
    Some(if left <= 0 { 0 } else { left.saturating_add(KEPT_LONGER_MS).min(i64::MAX / 4) })
}

fn basis_of(value: Value) -> Basis {
    match value {
        Value::BulkString(bytes) => Basis::Bytes(bytes),
        _ => Basis::Absent,
    }
}

pub(crate) fn add(one: TurnedAway, other: TurnedAway) -> TurnedAway {
    TurnedAway {
        duplicates: one.duplicates.saturating_add(other.duplicates),
        refusals: one.refusals.saturating_add(other.refusals),
        last_ms: one.last_ms.max(other.last_ms),
    }
}

/// Returns the name by which servers know the script.
fn script_hash() -> &'static str {
    static HASH: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| redis::Script::new(COMPARE_AND_SET).get_hash().to_owned());
    &HASH
}
