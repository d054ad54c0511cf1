//! What a run is asked for: the environment variables of the harness.
//!
//! `SEEN_PROCESSES_SEED` is the number that all choices follow from; without it, one is taken by chance. It
//! is printed. `SEEN_PROCESSES_SECONDS` scales the amount of work, which is what ends a run and not a time:
//! 15, the default, takes about so many seconds on two processors. `SEEN_PROCESSES_BOUNDS=1` asserts the
//! milliseconds, and the length of the log beside stores that are being opened, which are otherwise only
//! reported.
//!
//! `SEEN_SMALL_INDEX` lets the stores write the index in the file in tiny runs, and merge and drop these all the
//! time. Each row then takes so long that a 15th of the work is done, on smaller files.

use std::env;

use crate::support_process::Random;

/// The seconds that the amounts of work are written for.
const USUAL_SECONDS: u64 = 15;

/// The default where the index in the file is written in tiny runs.
const SECONDS_OF_SMALL_INDEX: u64 = 1;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) asserts_bounds: bool,
    pub(crate) has_small_index: bool,
}

impl Settings {
    pub(crate) fn from_env() -> Self {
        let number = |name| env::var(name).ok().map(|value| value.parse().unwrap());
        let by_chance =
            || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 1_000_000_000;
        let has_small_index = env::var_os("SEEN_SMALL_INDEX").is_some();
        let seconds = if has_small_index { SECONDS_OF_SMALL_INDEX } else { USUAL_SECONDS };
        Self {
            seed: number("SEEN_PROCESSES_SEED").unwrap_or_else(by_chance),
            seconds: number("SEEN_PROCESSES_SECONDS").unwrap_or(seconds),
            asserts_bounds: env::var("SEEN_PROCESSES_BOUNDS").is_ok_and(|value| value == "1"),
            has_small_index,
        }
    }

    /// An amount of work that is `usual` in the default dose.
    pub(crate) fn scaled(&self, usual: u64) -> u64 {
        (usual * self.seconds / USUAL_SECONDS).max(1)
    }

    /// How long a child may live, in seconds: it ends much sooner, unless it hangs.
    pub(crate) fn life(&self) -> u64 {
        100 + 10 * self.seconds
    }

    pub(crate) fn random(&self, phase: &str) -> Random {
        let salt = phase.bytes().fold(0, |salt, byte| salt * 31 + u64::from(byte));
        Random(self.seed.wrapping_add(salt))
    }
}
