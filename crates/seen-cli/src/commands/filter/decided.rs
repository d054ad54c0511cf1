//! The decisions on the lines of a batch, and what became of the lines in numbers.
//!
//! Owns which lines are printed, and which of them stay claimed until then. What always holds: no claim is kept of a line
//! behind one that another filter has claimed. Must not know how lines are read or written.

use std::collections::HashMap;

use seen_store::Item;

use super::Filter;
use crate::Result;
use crate::naming::Name;
use crate::work::memory::{Decision, Held};

impl Filter<'_> {
    /// Decides on lines up to the first one that another filter has claimed.
    pub(super) fn decide(&mut self, names: &[Name<'_>]) -> Result<Decided> {
        let known: Vec<&Item<'_>> = names.iter().filter_map(Name::item).collect();
        let mut decisions = self.memory.decide(&known)?.into_iter();
        let mut decided = Decided::with_capacity(names.len());
        let mut left = self.left();
        for name in names {
            if left == Some(0) {
                break; // A line expired since `within_limit` looked.
            }
            let decision = match name.item() {
                None => Decision::New(None),
                Some(_) => decisions.next().expect("a decision for each id"),
            };
            let invert = self.arguments.invert;
            let (kind, held, print) = match decision {
                Decision::New(held) => (Kind::New, held, (!invert).then_some("new")),
                Decision::Changed(held) => (Kind::Changed, held, (!invert).then_some("changed")),
                Decision::Duplicate => (Kind::Duplicate, None, invert.then_some("duplicate")),
                Decision::Withheld => (Kind::Withheld, None, None),
                Decision::InFlight => {
                    decided.waits = true;
                    break;
                }
            };
            // It may be no object: it is printed as it is.
            let print = if matches!(name, Name::Item(_)) { print } else { print.map(|_| "") };
            left = left.map(|left| left - u64::from(print.is_some()));
            decided.claimed.extend(held.as_ref().map(|_| decided.kinds.len()));
            decided.held.extend(held);
            decided.kinds.push(kind);
            decided.prints.push(print);
        }
        // Claims of later lines must not be held during a wait: the other filter may be waiting for one of
        // them.
        let later = decisions.filter_map(|decision| match decision {
            Decision::New(held) | Decision::Changed(held) => held,
            _ => None,
        });
        self.memory.release(&later.collect::<Vec<_>>())?;
        Ok(decided)
    }
}

/// The decisions on some lines.
pub(super) struct Decided {
    /// For each line, what was decided.
    pub(super) kinds: Vec<Kind>,
    /// For each line, whether it is printed, and why.
    pub(super) prints: Vec<Option<&'static str>>,
    /// The claims of the lines that are new or changed.
    pub(super) held: Vec<Held>,
    /// For each claim, the number of its line.
    pub(super) claimed: Vec<usize>,
    /// Whether another filter has claimed the next line.
    pub(super) waits: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    New,
    Changed,
    Duplicate,
    Withheld,
}

impl Decided {
    fn with_capacity(lines: usize) -> Self {
        Self {
            kinds: Vec::with_capacity(lines),
            prints: Vec::with_capacity(lines),
            held: Vec::new(),
            claimed: Vec::new(),
            waits: false,
        }
    }
}

/// How many lines there were of each kind.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) read: u64,
    pub(super) printed: u64,
    pub(super) changed: u64,
    pub(super) duplicates: u64,
    pub(super) lost: u64,
    pub(super) skipped_inputs: u64,
    pub(super) withheld: u64,
    pub(super) store_failures: u64,
}

impl Counts {
    /// Counts lines that are done with.
    pub(super) fn add(&mut self, kinds: &[Kind], printed: u64) {
        let count = |kind| kinds.iter().filter(|it| **it == kind).count() as u64;
        self.read += kinds.len() as u64;
        self.printed += printed;
        self.changed += count(Kind::Changed);
        self.duplicates += count(Kind::Duplicate);
        self.withheld += count(Kind::Withheld);
    }
}

/// Returns how many of these lines come before the first one that brings a version of an id of an earlier one, which had
/// another or none: the earlier one must be printed and confirmed first.
pub(super) fn before_a_change(names: &[Name<'_>]) -> usize {
    let mut versions = HashMap::new();
    let changes = |name: &Name<'_>| {
        let Some(item) = name.item() else { return false };
        let known = *versions.entry(item.id().to_vec()).or_insert(item.digest());
        item.digest().is_some() && known != item.digest()
    };
    names.iter().position(changes).unwrap_or(names.len())
}
