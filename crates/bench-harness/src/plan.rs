//! The protocol: what a contender is asked to do, and what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// As it is written on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("{text:?} is none of {}", [$($text),+].join(", ")).into()),
                }
            }
        }
    };
}

named! {
    /// What is measured.
    Workload {
        /// Only fills the folder with the ids below `ids`; measures the disk.
        Fill = "fill",
        /// Test-and-set of ids that are new.
        New = "new",
        /// Test-and-set of ids that the store holds.
        Duplicate = "duplicate",
        /// 19 of 20 are duplicates.
        Mixed = "mixed95",
        /// New ids, 1,000 a call.
        Batch = "batch",
        /// A steady, paced load well below saturation, four duplicates to a new id.
        Steady = "steady",
        /// A claim and its confirmation.
        Claim = "claim",
        /// Opening the store, asking one id that it holds, closing it.
        OpenOne = "open-1",
        /// The same with 400 ids.
        OpenMany = "open-400",
        /// What a bot does every few minutes: opening the store, marking 400 ids of which 10 are new, closing it.
        Cycle = "cycle",
        /// Readers while everything expired is purged.
        Purge = "purge",
        /// Marks new ids and tells how many, until killed from outside.
        Survive = "survive",
        /// Whether the ids below `ids` that `survive` marked are there.
        Survivors = "survivors",
    }
}

impl Workload {
    /// Whether a process opens the store once, asks little of it, and ends.
    #[must_use]
    pub fn is_start(self) -> bool {
        matches!(self, Self::OpenOne | Self::OpenMany | Self::Cycle)
    }
}

named! {
    /// What an acknowledged mark must survive.
    Durability {
        /// The process being killed. The operating system stays up.
        Kill = "kill",
        /// The machine losing power.
        Power = "power",
    }
}

named! {
    /// How long the ids are.
    IdLength {
        /// 25 bytes.
        Short = "short",
        /// 200 bytes.
        Url = "url",
    }
}

/// What a contender is asked to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which of the contenders of this program.
    pub contender: String,
    /// What is measured.
    pub workload: Workload,
    /// How many threads, or tasks, call at once.
    pub threads: usize,
    /// How many ids the store holds beforehand.
    pub ids: u64,
    /// What a mark must survive.
    pub durability: Durability,
    /// How long the ids are.
    pub id_length: IdLength,
    /// How long to measure.
    pub seconds: f64,
    /// Where the store's files are.
    pub dir: PathBuf,
}

impl Plan {
    /// The plan on the command line.
    ///
    /// # Errors
    ///
    /// What is missing or not understood.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let contender = args.next().ok_or("the contender's name is missing")?;
        let mut options = BTreeMap::new();
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} has no value"))?;
            options.insert(name, value);
        }
        let mut take = |name: &str| -> Result<String> {
            options.remove(name).ok_or_else(|| format!("{name} is missing").into())
        };
        let plan = Self {
            contender,
            workload: take("--workload")?.parse()?,
            threads: take("--threads")?.parse()?,
            ids: take("--ids")?.parse()?,
            durability: take("--durability")?.parse()?,
            id_length: take("--idlen")?.parse()?,
            seconds: take("--seconds")?.parse()?,
            dir: take("--dir")?.into(),
        };
        match options.pop_first() {
            Some((name, _)) => Err(format!("{name} is not known").into()),
            None => Ok(plan),
        }
    }

    /// The command line of this plan.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let mut args = vec![self.contender.clone()];
        for (name, value) in [
            ("--workload", self.workload.name().to_owned()),
            ("--threads", self.threads.to_string()),
            ("--ids", self.ids.to_string()),
            ("--durability", self.durability.name().to_owned()),
            ("--idlen", self.id_length.name().to_owned()),
            ("--seconds", self.seconds.to_string()),
            ("--dir", self.dir.to_string_lossy().into_owned()),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args
    }
}

/// What a contender answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Its version, and that of what it is built on.
    pub version: String,
    /// The settings that decide its speed and its durability.
    pub settings: String,
    /// Why this work is beyond it. The figures are then empty.
    pub unsupported: Option<String>,
    /// How many ids were answered for (or stores opened).
    pub ops: u64,
    /// Wall-clock time through that number: with several threads, less than a call takes.
    pub ns_per_op: f64,
    /// What single calls took.
    pub latency: Latency,
    /// The most private memory that it held, beyond what the process had before it opened the store.
    pub anon_bytes: u64,
    /// The same with mapped files.
    pub rss_bytes: u64,
    /// Disk blocks at the end.
    pub disk_bytes: u64,
    /// Figures that only some workloads have.
    pub extra: BTreeMap<String, f64>,
}

/// Quantiles, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// One in a hundred is slower.
    pub p99: f64,
    /// One in a thousand is slower.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_own_command_line() {
        let plan = Plan {
            contender: "store".into(),
            workload: Workload::Mixed,
            threads: 16,
            ids: 1_000_000,
            durability: Durability::Power,
            id_length: IdLength::Url,
            seconds: 0.25,
            dir: "/some where".into(),
        };
        let again = Plan::from_args(plan.to_args().into_iter()).unwrap();
        assert_eq!(format!("{plan:?}"), format!("{again:?}"));
        assert!(Plan::from_args(["store".to_owned()].into_iter()).is_err());
    }
}
