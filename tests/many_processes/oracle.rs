//! What the ledger and the file must agree on.
//!
//! Owns the judgement of a phase. What always holds, whatever was killed or stopped: an id that never expires
//! and is never forgotten is New once at most; what was acknowledged is in the file; an id is confirmed by one
//! holder only, and by none whose claim was taken over before its call began. Knows nothing of processes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::ledger::{Answer, Event, Line};

/// What the ledger alone tells.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// How many single marks were answered.
    pub(crate) marks: u64,
    pub(crate) longest_wait: Duration,
    /// The longest wait of each kind of call.
    pub(crate) waits: BTreeMap<String, Duration>,
    /// For each single mark, how many long transactions of other processes were acknowledged while it
    /// waited, in ascending order.
    pub(crate) overtaken: Vec<usize>,
    pub(crate) rebuilds: u64,
    pub(crate) busy: u64,
    pub(crate) confirmed: u64,
    /// How many claims were found lost at their end.
    pub(crate) lost_claims: u64,
    /// Failures other than Busy.
    pub(crate) failures: Vec<String>,
    pub(crate) wrong: Vec<String>,
    pub(crate) new_twice: Vec<String>,
    /// Ids that are Duplicates of a mark that was not acknowledged to any child: where no process was killed, an
    /// alert is lost.
    pub(crate) won_by_none: Vec<String>,
    pub(crate) confirmed_twice: Vec<String>,
}

pub(crate) fn judge(lines: &[Line]) -> Judged {
    let mut judged = Judged::default();
    let (mut won, mut duplicates) = (HashMap::new(), BTreeSet::new());
    let long: Vec<(u64, &str)> =
        lines.iter().filter(|line| is_long(line)).map(|line| (line.at, &*line.child)).collect();
    for line in lines {
        match &line.event {
            Event::Mark { id, answer } => {
                judged.marks += 1;
                judged.longest_wait = judged.longest_wait.max(line.waited);
                judged.overtaken.push(overtook(&long, line));
                match answer {
                    Answer::New => *won.entry(id.clone()).or_insert(0) += 1,
                    Answer::Duplicate => duplicates.extend([id.clone()]),
                    Answer::Busy => judged.busy += 1,
                }
            }
            Event::Batch { won: shared, .. } => {
                shared.iter().for_each(|id| *won.entry(id.clone()).or_insert(0) += 1);
            }
            Event::Rebuilds { count } => judged.rebuilds += count,
            Event::Failed { kind, .. } if kind == "Busy" => judged.busy += 1,
            Event::Failed { call, kind } => {
                judged.failures.push(format!("{}: {call}: {kind}", line.child));
            }
            Event::Wrong { text } => judged.wrong.push(format!("{}: {text}", line.child)),
            Event::Confirmed { .. } => judged.confirmed += 1,
            Event::Done { what } if what == "lost" => judged.lost_claims += 1,
            _ => {}
        }
        let longest = judged.waits.entry(kind(&line.event)).or_default();
        *longest = (*longest).max(line.waited);
    }
    judged.overtaken.sort_unstable();
    judged.new_twice = won.iter().filter(|(_, times)| **times > 1).map(told).collect();
    judged.won_by_none = duplicates.into_iter().filter(|id| !won.contains_key(id)).collect();
    judged.confirmed_twice = confirmed_twice(lines);
    judged
}

fn told((id, times): (&String, &u32)) -> String {
    format!("{id} was New {times} times")
}

/// Whether the call was one transaction, or a few, of many rows each.
fn is_long(line: &Line) -> bool {
    match &line.event {
        Event::Batch { .. } | Event::Import { .. } => true,
        Event::Done { what } => what == "seed",
        _ => false,
    }
}

fn kind(event: &Event) -> String {
    match event {
        Event::Done { what } => what.clone(),
        Event::Failed { call, .. } => format!("failed {call}"),
        event => {
            let shown = format!("{event:?}").to_lowercase();
            shown.split(' ').next().unwrap_or_default().to_owned()
        }
    }
}

/// How many of the lines of long transactions were written by others while the call of this one waited.
fn overtook(long: &[(u64, &str)], line: &Line) -> usize {
    let from = long.partition_point(|(at, _)| *at < line.begun);
    let meanwhile = long[from..].iter().take_while(|(at, _)| *at < line.at);
    meanwhile.filter(|(_, child)| *child != line.child).count()
}

/// Ids that two holders confirmed, that one confirmed after its claim was taken over, or that were granted
/// after a confirm.
fn confirmed_twice(lines: &[Line]) -> Vec<String> {
    let (mut granted, mut confirmed) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
    for line in lines {
        match &line.event {
            Event::Granted { id, token } => granted.entry(id).or_default().push((line, token)),
            Event::Confirmed { id, token } => confirmed.entry(id).or_default().push((line, token)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (id, confirms) in &confirmed {
        let tokens: HashSet<_> = confirms.iter().map(|(_, token)| token).collect();
        if tokens.len() > 1 {
            found.push(format!("{id} was confirmed by {} holders", tokens.len()));
        }
        let grants = granted.get(id).map_or(&[][..], Vec::as_slice);
        for (confirm, token) in confirms {
            let own_at = grants.iter().find(|(_, own)| own == token).map(|(grant, _)| grant.at);
            let after = |grant: &Line| own_at.is_some_and(|own_at| grant.begun > own_at);
            let mut others = grants.iter().filter(|(_, other)| other != token);
            if others.clone().any(|(grant, _)| after(grant) && grant.at < confirm.begun) {
                found.push(format!("{id} was confirmed after it was taken over"));
            }
            if others.any(|(grant, _)| grant.begun > confirm.at) {
                found.push(format!("{id} was granted after it was confirmed"));
            }
        }
    }
    found
}

/// Ids that were acknowledged as seen, by scope: as they must be in the file afterwards.
pub(crate) fn acknowledged(lines: &[Line]) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut seen = BTreeMap::<_, BTreeSet<String>>::new();
    for line in lines {
        match &line.event {
            Event::Mark { answer: Answer::Busy, .. } => {}
            Event::Mark { id, .. } => seen.entry("").or_default().extend([id.clone()]),
            Event::Batch { prefix, count, won } => {
                let ids = (0..*count).map(|number| format!("{prefix}/{number}"));
                seen.entry("").or_default().extend(ids.chain(won.iter().cloned()));
            }
            Event::Import { prefix, count } => {
                let ids = (0..*count).map(|number| format!("{prefix}/{number}"));
                seen.entry("imported").or_default().extend(ids);
            }
            Event::Confirmed { id, .. } => seen.entry("claims").or_default().extend([id.clone()]),
            _ => {}
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines at 10, 20 and so on, with the places where their calls began.
    fn ledger(events: &[(&str, u64, Event)]) -> Vec<Line> {
        let line = |(number, (child, begun, event)): (usize, &(&str, u64, Event))| Line {
            child: (*child).to_owned(),
            begun: *begun,
            at: 10 * (number as u64 + 1),
            waited: Duration::ZERO,
            event: event.clone(),
        };
        events.iter().enumerate().map(line).collect()
    }

    fn mark(id: &str, answer: Answer) -> Event {
        Event::Mark { id: id.into(), answer }
    }

    fn granted(token: &str) -> Event {
        Event::Granted { id: "a".into(), token: token.into() }
    }

    fn confirmed(token: &str) -> Event {
        Event::Confirmed { id: "a".into(), token: token.into() }
    }

    #[test]
    fn an_id_that_is_new_twice_is_found_whether_alone_or_in_a_batch() {
        let batch = Event::Batch { prefix: "p".into(), count: 1, won: vec!["a".into()] };
        let twice = [("1", 0, mark("a", Answer::New)), ("2", 0, batch)];
        assert_eq!(judge(&ledger(&twice)).new_twice, ["a was New 2 times"]);
        let once = [("1", 0, mark("a", Answer::New)), ("2", 0, mark("a", Answer::Duplicate))];
        let judged = judge(&ledger(&once));
        assert!(judged.new_twice.is_empty() && judged.won_by_none.is_empty(), "{judged:?}");
        assert_eq!(judge(&ledger(&once[1..])).won_by_none, ["a"]);
    }

    #[test]
    fn a_claim_that_two_holders_confirm_is_found_and_a_confirm_that_is_repeated_is_none() {
        let of_two = [
            ("1", 0, granted("x")),
            ("2", 11, granted("y")),
            ("1", 0, confirmed("x")),
            ("2", 0, confirmed("y")),
        ];
        assert!(judge(&ledger(&of_two)).confirmed_twice[0].contains("by 2 holders"));
        let of_one = [("1", 0, granted("x")), ("1", 11, confirmed("x")), ("2", 11, confirmed("x"))];
        assert!(judge(&ledger(&of_one)).confirmed_twice.is_empty());
    }

    #[test]
    fn a_confirm_after_the_claim_was_taken_over_is_found() {
        let late = [("1", 0, granted("x")), ("2", 11, granted("y")), ("1", 21, confirmed("x"))];
        let found = judge(&ledger(&late)).confirmed_twice;
        assert_eq!(found, ["a was confirmed after it was taken over"]);
        // It may have been confirmed first: the call began before the other's grant was acknowledged.
        let in_time = [("1", 0, granted("x")), ("2", 11, granted("y")), ("1", 15, confirmed("x"))];
        assert!(judge(&ledger(&in_time)).confirmed_twice.is_empty());
        let again = [("1", 0, granted("x")), ("1", 11, confirmed("x")), ("2", 21, granted("y"))];
        assert_eq!(
            judge(&ledger(&again)).confirmed_twice,
            ["a was granted after it was confirmed"]
        );
    }

    #[test]
    fn the_long_transactions_that_overtake_a_mark_are_those_of_others_while_it_waits() {
        let batch = || Event::Batch { prefix: "p".into(), count: 1, won: Vec::new() };
        let lines = [
            ("b", 0, batch()),
            ("b", 10, batch()),
            ("m", 0, Event::Done { what: "seed".into() }),
            ("c", 10, batch()),
            ("m", 15, mark("a", Answer::New)),
            ("b", 50, batch()),
        ];
        assert_eq!(judge(&ledger(&lines)).overtaken, [2]);
    }
}
