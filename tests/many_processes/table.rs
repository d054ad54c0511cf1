//! The report: one table of what was measured, with the bound of each figure.
//!
//! Owns which bounds are asserted. A bound that a busy machine can break, by taking the processor from a
//! process for long, is asserted only if asked for: each wait in milliseconds, and the length of the log
//! while a snapshot is held.

use std::fmt::Display;
use std::time::Duration;

/// When a bound is asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asserted {
    Always,
    IfAsked,
    Never,
}

impl Asserted {
    fn counts(self, asks_for_bounds: bool) -> bool {
        self == Self::Always || self == Self::IfAsked && asks_for_bounds
    }
}

struct Figure {
    phase: &'static str,
    name: String,
    value: String,
    bound: String,
    holds: bool,
    asserted: Asserted,
}

/// See the module's header.
#[derive(Default)]
pub(crate) struct Table {
    figures: Vec<Figure>,
}

impl Table {
    fn add(
        &mut self,
        phase: &'static str,
        name: &str,
        value: impl Display,
        bound: impl Display,
        holds: bool,
        asserted: Asserted,
    ) {
        let (name, value, bound) = (name.to_owned(), value.to_string(), bound.to_string());
        self.figures.push(Figure { phase, name, value, bound, holds, asserted });
    }

    /// A figure without a bound.
    pub(crate) fn told(&mut self, phase: &'static str, name: &str, value: impl Display) {
        self.add(phase, name, value, "", true, Asserted::Never);
    }

    /// A number that must not be greater than the bound.
    pub(crate) fn at_most(&mut self, phase: &'static str, name: &str, value: u64, bound: u64) {
        self.add(phase, name, value, bound, value <= bound, Asserted::Always);
    }

    /// Things that must not have happened. The first ones are told.
    pub(crate) fn none(&mut self, phase: &'static str, name: &str, found: &[String]) {
        for one in found.iter().take(5) {
            println!("{phase}: {name}: {one}");
        }
        self.at_most(phase, name, found.len() as u64, 0);
    }

    pub(crate) fn wait(&mut self, phase: &'static str, name: &str, value: Duration, bound_ms: u64) {
        let ms = value.as_millis();
        let holds = ms <= bound_ms.into();
        self.add(
            phase,
            name,
            format!("{ms} ms"),
            format!("{bound_ms} ms"),
            holds,
            Asserted::IfAsked,
        );
    }

    /// A length in bytes, with its bound in MiB. Where `asked` is true it is asserted only if asked for, but
    /// twice the bound is asserted always: what grows without end passes that too.
    pub(crate) fn length(
        &mut self,
        phase: &'static str,
        name: &str,
        bytes: u64,
        bound_mib: u64,
        asked: bool,
    ) {
        let (mib, value) = (1 << 20, format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
        let asserted = if asked && bytes <= 2 * bound_mib * mib {
            Asserted::IfAsked
        } else {
            Asserted::Always
        };
        let holds = bytes <= bound_mib * mib;
        self.add(phase, name, value, format!("{bound_mib} MiB"), holds, asserted);
    }

    pub(crate) fn is_broken(&self, asks_for_bounds: bool) -> bool {
        let mut figures = self.figures.iter();
        figures.any(|figure| !figure.holds && figure.asserted.counts(asks_for_bounds))
    }

    /// Prints all figures; the names of those that break an asserted bound.
    pub(crate) fn print(&self, asks_for_bounds: bool) -> Vec<String> {
        let mut broken = Vec::new();
        println!("{:<9} {:<52} {:>10} {:>8}", "phase", "figure", "value", "bound");
        for figure in &self.figures {
            let Figure { phase, name, value, bound, holds, asserted } = figure;
            let counts = asserted.counts(asks_for_bounds);
            let remark = match (holds, counts) {
                (true, _) => "",
                (false, true) => " BROKEN",
                (false, false) => " above, not asserted",
            };
            println!("{phase:<9} {name:<52} {value:>10} {bound:>8}{remark}");
            if !holds && counts {
                broken.push(format!("{phase}: {name}: {value}, the bound is {bound}"));
            }
        }
        broken
    }
}
