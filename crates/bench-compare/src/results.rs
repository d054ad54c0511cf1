//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use harness::{Latency, Outcome, Result};
use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::schedule::{Cell, Scale};

/// What one contender achieved in one cell, once a round.
#[derive(Serialize, Deserialize)]
struct Figure {
    contender: String,
    cell: Cell,
    outcomes: Vec<Outcome>,
}

/// How a contender's marks fared when its process was killed.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Survival {
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) scale: Scale,
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) missing: BTreeMap<String, String>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) survival: BTreeMap<String, Survival>,
    pub(crate) failures: Vec<String>,
    figures: Vec<Figure>,
}

impl Results {
    pub(crate) fn new(
        scale: &Scale,
        machine: Vec<(String, String)>,
        missing: BTreeMap<String, String>,
    ) -> Self {
        Self {
            scale: scale.clone(),
            machine,
            missing,
            rounds: 0,
            seconds: 0.0,
            survival: BTreeMap::new(),
            failures: Vec::new(),
            figures: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        Ok(std::fs::write(path, serde_json::to_vec(self)?)?)
    }

    pub(crate) fn add(&mut self, contender: &str, cell: Cell, outcome: Outcome) {
        let found = self.figures.iter_mut().find(|f| f.contender == contender && f.cell == cell);
        match found {
            Some(figure) => figure.outcomes.push(outcome),
            None => self.figures.push(Figure {
                contender: contender.to_owned(),
                cell,
                outcomes: vec![outcome],
            }),
        }
    }

    /// Records that a run failed. The rest is worth measuring without it.
    pub(crate) fn failed(&mut self, contender: &Contender, cell: Cell, error: &dyn Display) {
        let failure = format!("{}, {cell:?}: {error}", contender.label);
        eprintln!("\n{failure}");
        self.failures.push(failure);
    }

    pub(crate) fn outcomes(&self, contender: &str, cell: Cell) -> impl Iterator<Item = &Outcome> {
        let figure = self.figures.iter().find(|f| f.contender == contender && f.cell == cell);
        let outcomes = figure.map_or(&[][..], |figure| &figure.outcomes);
        outcomes.iter().filter(|outcome| outcome.unsupported.is_none() && outcome.ops > 0)
    }

    /// Why there is no such figure, if the contender said so.
    pub(crate) fn unsupported(&self, contender: &str, cell: Cell) -> Option<&str> {
        let figure = self.figures.iter().find(|f| f.contender == contender && f.cell == cell)?;
        figure.outcomes.iter().find_map(|outcome| outcome.unsupported.as_deref())
    }

    /// The median over the rounds of something measured.
    pub(crate) fn median_of(
        &self,
        contender: &str,
        cell: Cell,
        value: impl Fn(&Outcome) -> f64,
    ) -> Option<f64> {
        let mut values: Vec<f64> = self.outcomes(contender, cell).map(value).collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        (n > 0).then(|| f64::midpoint(values[(n - 1) / 2], values[n / 2]))
    }

    /// The median time through an id, in nanoseconds.
    pub(crate) fn ns(&self, contender: &str, cell: Cell) -> Option<f64> {
        self.median_of(contender, cell, |outcome| outcome.ns_per_op)
    }

    /// How far apart the rounds are: the range, as a share of the median.
    pub(crate) fn spread(&self, contender: &str, cell: Cell) -> Option<f64> {
        let median = self.ns(contender, cell)?;
        let all = || self.outcomes(contender, cell).map(|outcome| outcome.ns_per_op);
        let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
        (all().count() > 1).then_some((most - least) / median)
    }

    /// Medians of the quantiles; of the slowest call the slowest of all rounds.
    pub(crate) fn latency(&self, contender: &str, cell: Cell) -> Option<Latency> {
        Some(Latency {
            p50: self.median_of(contender, cell, |outcome| outcome.latency.p50)?,
            p99: self.median_of(contender, cell, |outcome| outcome.latency.p99)?,
            p999: self.median_of(contender, cell, |outcome| outcome.latency.p999)?,
            max: self.outcomes(contender, cell).map(|o| o.latency.max).fold(0.0, f64::max),
        })
    }

    /// A version and the settings of a contender at a level of durability.
    pub(crate) fn about(&self, contender: &str, cell: Cell) -> Option<(&str, &str)> {
        let outcome = self.outcomes(contender, cell).next()?;
        Some((&outcome.version, &outcome.settings))
    }
}
