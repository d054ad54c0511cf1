//! How a verb talks to the servers: one id, or many at once.
//!
//! Owns the loops around an [`Attempt`], and what the errors of servers mean to callers. What always holds: a call ends
//! within the timeout of its handle; what was turned away is counted once, when the answer stands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use redis::Value;
use seen_store::backend::{
    Outcome, Policy, Record, TurnedAway, error, unknown_outcome, with_token,
};
use seen_store::{Error, ErrorKind, Item, Result, Token};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::AsyncClusterStore;
use crate::attempt::{Attempt, Basis, Failed, Manner, Step, Unknown, add};
use crate::nodes::{Deadline, NodeError, NodeErrorKind};

/// How often a call decides anew at once because others have changed the id. Then it pauses, a little longer each time.
const AT_ONCE: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// A round of a batch takes this part of the time that is left, at most, and at least so long.
const PARTS: u32 = 4;
const SHORTEST_ROUND: Duration = Duration::from_millis(100);

impl AsyncClusterStore {
    pub(super) fn key(&self, item: &Item<'_>) -> Vec<u8> {
        self.shared.keys.key(self.policy.scope_name(), item.id())
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.policy.timeout())
    }

    pub(super) fn check_open(&self) -> Result<()> {
        self.check(&self.shared.is_closing)
    }

    /// As [`check_open`](Self::check_open), for what goes on while the store closes.
    pub(super) fn check_not_closed(&self) -> Result<()> {
        self.check(&self.shared.is_closed)
    }

    /// Checks that a call may begin. Closing waits for those that end claims.
    fn begin<T>(&self, manner: &Manner<T>) -> Result<Option<TaskTrackerToken>> {
        if !manner.goes_on_while_closing {
            return self.check_open().map(|()| None);
        }
        let under_way = self.shared.tasks.token();
        self.check_not_closed().map(|()| Some(under_way))
    }

    fn check(&self, is_over: &AtomicBool) -> Result<()> {
        if is_over.load(SeqCst) {
            let message = format!("{}: the store was closed", self.policy.store_name());
            return Err(error(ErrorKind::Closed, message, None));
        }
        if self.is_forked() {
            // Neither the sockets nor the threads of the parent are this process's.
            let message = format!(
                "{}: this process was forked while the store was open; open it after the fork",
                self.policy.store_name()
            );
            return Err(error(ErrorKind::Forked, message, None));
        }
        Ok(())
    }

    /// Returns whether this process is a child of the one that opened the store.
    pub(super) fn is_forked(&self) -> bool {
        std::process::id() != self.shared.process
    }

    /// Counts an error that a call returns.
    pub(super) fn counted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|e| self.shared.activities.add_error(e))
    }

    /// Reads what is known of an id, with what was counted of it here.
    pub(super) async fn record(&self, item: &Item<'_>) -> Result<(Record, i64)> {
        self.policy.check_item(item)?;
        self.check_open()?;
        let key = self.key(item);
        let read = self.shared.nodes.read(&key, crate::attempt::read(&key), self.deadline()).await;
        let read = read.map_err(|e| error_of(self.policy.store_name(), e));
        let record = self.counted(read).and_then(|value| self.record_of(&key, &value));
        Ok((record?, self.shared.nodes.now_ms(&key)))
    }

    /// Returns the record of a key that has this value.
    pub(super) fn record_of(&self, key: &[u8], value: &Value) -> Result<Record> {
        let mut record = match value {
            Value::BulkString(bytes) => Record::decode(bytes, || {
                let key = String::from_utf8_lossy(key);
                format!("{}: the key {key:?}", self.policy.store_name())
            })?,
            _ => Record::default(),
        };
        record.add(self.shared.counts.of(key));
        Ok(record)
    }

    /// Decides on one id, and writes what was decided.
    pub(super) async fn decide<T>(
        &self,
        item: &Item<'_>,
        token: Token,
        basis: Basis,
        manner: Manner<T>,
        mut verb: impl FnMut(&Policy, &mut Record, &Item<'_>, i64) -> Result<Outcome<T>>,
    ) -> Result<T> {
        self.policy.check_item(item)?;
        let _under_way = self.begin(&manner)?;
        let key = self.key(item);
        let pending = self.shared.counts.take(&key);
        let must = self.shared.must_replicate;
        let mut attempt = Attempt::new(key, token, basis, manner, must, pending);
        let (deadline, nodes) = (self.deadline(), &self.shared.nodes);
        let mut rounds = 0;
        let answer = loop {
            let now_ms = nodes.now_ms(attempt.key());
            let step = attempt.step(now_ms, |record| verb(&self.policy, record, item, now_ms));
            let command = match step {
                Ok(Step::Done(answer)) => break Ok(answer),
                Err(failed) => break Err(failed),
                Ok(Step::Read(command)) => {
                    let read = nodes.read(attempt.key(), command, deadline).await;
                    if let Err(failed) = attempt.was_read(read) {
                        break Err(failed);
                    }
                    continue;
                }
                Ok(Step::Write(command)) => command,
            };
            let written = nodes.write(attempt.key(), command, deadline).await;
            match attempt.was_written(written) {
                Ok(Some(answer)) => break Ok(answer),
                Ok(None) => {}
                Err(failed) => break Err(failed),
            }
            rounds += 1;
            if deadline.has_passed() {
                break Err(attempt.give_up(busy()));
            }
            self.pause(rounds).await;
        };
        self.shared.counts.add(attempt.key(), attempt.turned_away());
        self.counted(answer.map_err(|failed| self.failed(failed, token)))
    }

    /// Decides on many ids. Items with the same id are decided one after the other, and written together. Returns an answer
    /// for each item, in their order.
    ///
    /// # Errors
    ///
    /// One that an id met. What was written of others stays: if anything was, or may have been, it is
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown).
    pub(super) async fn decide_all<T>(
        &self,
        items: &[Item<'_>],
        token: Token,
        basis: &Basis,
        manner: Manner<Vec<T>>,
        mut verb: impl FnMut(&Policy, &mut Record, usize, i64) -> Result<Outcome<T>>,
    ) -> Result<Vec<T>> {
        items.iter().try_for_each(|item| self.policy.check_item(item))?;
        let _under_way = self.begin(&manner)?;
        let mut groups = self.groups(items, token, basis, manner);
        let (deadline, nodes) = (self.deadline(), &self.shared.nodes);
        let mut answers: Vec<Option<T>> = items.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..groups.len()).collect();
        let (mut failed, mut has_written, mut rounds) = (None::<Failed>, false, 0);
        // Why ids are put off.
        let mut late = None;
        while !open.is_empty() {
            let (mut reads, mut writes) = (Vec::new(), Vec::new());
            for &group in &open {
                let (attempt, places) = &mut groups[group];
                let now_ms = nodes.now_ms(attempt.key());
                let step = attempt.step(now_ms, |record| {
                    in_turn(record, places, |record, place| {
                        verb(&self.policy, record, place, now_ms)
                    })
                });
                match step {
                    Ok(Step::Done(of_group)) => keep(&mut answers, places, of_group),
                    Ok(Step::Read(command)) => reads.push((group, command)),
                    Ok(Step::Write(command)) => writes.push((group, command)),
                    // The others go on to their end.
                    Err(e) => failed = Some(e.worse(failed)),
                }
            }
            // A server that does not answer holds up the ids of the others for a part of the time only.
            let round = || deadline.within((deadline.remaining() / PARTS).max(SHORTEST_ROUND));
            let is_late =
                |e: &NodeError| e.kind() == NodeErrorKind::Timeout && !deadline.has_passed();
            let commands =
                |of: Vec<(usize, redis::Cmd)>| -> (Vec<usize>, Vec<(Vec<u8>, redis::Cmd)>) {
                    of.into_iter()
                        .map(|(group, command)| (group, (groups[group].0.key().to_vec(), command)))
                        .unzip()
                };
            let ((read_groups, reads), (write_groups, writes)) =
                (commands(reads), commands(writes));
            let written = nodes.write_all(writes, round()).await;
            let was_read = nodes.read_all(reads, round()).await;
            open.clear();
            for (group, read) in read_groups.into_iter().zip(was_read) {
                let attempt = &mut groups[group].0;
                match read {
                    Err(e) if is_late(&e) => {
                        late = Some(e);
                        open.push(group);
                    }
                    read => match attempt.was_read(read) {
                        Ok(()) => open.push(group),
                        Err(e) => failed = Some(e.worse(failed)),
                    },
                }
            }
            for (group, written) in write_groups.into_iter().zip(written) {
                let (attempt, places) = &mut groups[group];
                match written {
                    Err(e) if is_late(&e) && !e.may_be_executed() => {
                        attempt.was_put_off();
                        late = Some(e);
                        open.push(group);
                    }
                    written => match attempt.was_written(written) {
                        Ok(Some(of_group)) => {
                            has_written = true;
                            keep(&mut answers, places, of_group);
                        }
                        Ok(None) => open.push(group),
                        Err(e) => failed = Some(e.worse(failed)),
                    },
                }
            }
            rounds += 1;
            if deadline.has_passed() {
                for group in open.drain(..) {
                    let e = late.clone().unwrap_or_else(busy);
                    failed = Some(groups[group].0.give_up(e).worse(failed));
                }
            } else if !open.is_empty() {
                self.pause(rounds).await;
            }
        }
        for (attempt, _) in &groups {
            self.shared.counts.add(attempt.key(), attempt.turned_away());
        }
        let failed = failed.map(|failed| self.failed_batch(failed, token, has_written));
        let answers = match failed {
            None => Ok(answers
                .into_iter()
                .map(|answer| answer.expect("each item is answered"))
                .collect()),
            Some(e) => Err(e),
        };
        self.counted(answers)
    }

    /// Returns a call for each id, with the places of its items.
    fn groups<T>(
        &self,
        items: &[Item<'_>],
        token: Token,
        basis: &Basis,
        manner: Manner<Vec<T>>,
    ) -> Vec<(Attempt<Vec<T>>, Vec<usize>)> {
        let (mut groups, mut of_key) =
            (Vec::<(Attempt<Vec<T>>, Vec<usize>)>::new(), HashMap::new());
        let must = self.shared.must_replicate;
        for (place, item) in items.iter().enumerate() {
            let group = *of_key.entry(self.key(item)).or_insert_with_key(|key| {
                let pending = self.shared.counts.take(key);
                let attempt =
                    Attempt::new(key.clone(), token, basis.clone(), manner, must, pending);
                groups.push((attempt, Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(place);
        }
        groups
    }

    async fn pause(&self, rounds: u32) {
        if rounds > AT_ONCE {
            let pause = Duration::from_millis(1 << (rounds - AT_ONCE).min(6)).min(LONGEST_PAUSE);
            self.shared.nodes.sleep(pause).await;
        }
    }

    fn failed(&self, failed: Failed, token: Token) -> Error {
        let store = self.policy.store_name();
        match failed {
            Failed::Decision(e) => e,
            Failed::Refused(e) => error_of(store, e),
            Failed::Unknown(Unknown::Lost(e)) => unknown_outcome(
                token,
                format!(
                    "{store}: whether it was done is not known: {e}; ask again with the token of this error"
                ),
                Some(Box::new(e)),
            ),
            Failed::Unknown(Unknown::TooFewReplicas { by }) => unknown_outcome(
                token,
                format!(
                    "{store}: it was written, but {by} fewer replicas than min_replicas have confirmed that, so a failover may lose it; \
                     ask again with the token of this error, or lower min_replicas in the URL"
                ),
                None,
            ),
        }
    }

    /// Part of a batch may have been written, and nobody was told.
    fn failed_batch(&self, failed: Failed, token: Token, has_written: bool) -> Error {
        let is_decision = match &failed {
            Failed::Decision(_) => true,
            // The key is another program's, and stays so.
            Failed::Refused(e) => e.code() == Some("WRONGTYPE"),
            Failed::Unknown(_) => false,
        };
        let e = self.failed(failed, token);
        if is_decision {
            // To ask again would bring the same. With the token, the others tell their verdicts without this one.
            return with_token(e, token);
        }
        if !has_written || e.kind() == ErrorKind::OutcomeUnknown {
            return e;
        }
        let message = format!(
            "{e}; other ids of the batch were written: ask again with the token of this error"
        );
        unknown_outcome(token, message, Some(Box::new(e)))
    }
}

/// Decides on the items of one id, one after the other.
fn in_turn<T>(
    record: &mut Record,
    places: &[usize],
    mut decide: impl FnMut(&mut Record, usize) -> Result<Outcome<T>>,
) -> Result<Outcome<Vec<T>>> {
    let none = TurnedAway::default();
    let mut all = Outcome { answer: Vec::new(), is_changed: false, turned_away: none };
    for &place in places {
        let Outcome { answer, is_changed, turned_away } = decide(record, place)?;
        all.answer.push(answer);
        all.is_changed |= is_changed;
        // The next decision may carry it on to another mark.
        record.add(turned_away);
        all.turned_away = add(all.turned_away, turned_away);
    }
    if all.is_changed {
        // It is written with the record.
        all.turned_away = none;
    }
    Ok(all)
}

fn keep<T>(answers: &mut [Option<T>], places: &[usize], of_group: Vec<T>) {
    for (place, answer) in places.iter().zip(of_group) {
        answers[*place] = Some(answer);
    }
}

fn busy() -> NodeError {
    NodeError::new(NodeErrorKind::Timeout, "others kept changing the id until the timeout")
}

/// Returns the error of a call to which a server gave none but this answer.
pub(super) fn error_of(store: &str, e: NodeError) -> Error {
    let kind = match e.kind() {
        NodeErrorKind::NotACluster | NodeErrorKind::Tls | NodeErrorKind::TooFewReplicas => {
            ErrorKind::InvalidConfig
        }
        NodeErrorKind::Denied => ErrorKind::PermissionDenied,
        NodeErrorKind::Unreachable
        | NodeErrorKind::NotReady
        | NodeErrorKind::Lost
        | NodeErrorKind::Timeout => ErrorKind::Unavailable,
        NodeErrorKind::Forked => ErrorKind::Forked,
        NodeErrorKind::Closed => ErrorKind::Closed,
        NodeErrorKind::Refused => match e.code() {
            Some("OOM") => ErrorKind::StorageFull,
            Some("NOPERM" | "NOAUTH" | "WRONGPASS") => ErrorKind::PermissionDenied,
            Some("WRONGTYPE") => ErrorKind::Corrupt,
            // Redis tells so of a command within a script, with the code `ERR`.
            _ if e.to_string().contains("user executing the script can't run") => {
                ErrorKind::PermissionDenied
            }
            _ => ErrorKind::Io,
        },
    };
    let remedy = match (kind, e.code()) {
        (ErrorKind::StorageFull, _) => {
            "; the server is out of memory: raise its maxmemory, or use shorter TTLs"
        }
        (ErrorKind::Corrupt, _) => {
            "; another program uses these keys: choose another namespace in the URL"
        }
        (ErrorKind::PermissionDenied, Some("NOAUTH" | "WRONGPASS")) => {
            "; check the user and the password in the URL"
        }
        (ErrorKind::PermissionDenied, _) => {
            "; give the user of the URL the rights that the documentation of seen-cluster lists"
        }
        _ if e.kind() == NodeErrorKind::Unreachable => {
            "; check that the servers run, and that the hosts and ports of the URL are theirs"
        }
        _ => "",
    };
    error(kind, format!("{store}: {e}{remedy}"), Some(Box::new(e)))
}
