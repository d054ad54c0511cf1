//! The settings of a run, drawn from its seed.

use std::time::Duration;

use fastrand::Rng;
use seen_store::{Config, IndexMode, Synchronous};

use crate::state::Windowing;
use crate::through::{DEFAULT_TTL_MS, window_of};

/// Where the stores of a run keep what they know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    SharedFile,
    /// In a file that one store has for itself.
    OwnFile,
    Memory,
}

/// The settings of all stores of a run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub kept: Kept,
    pub stores: usize,
    /// How many threads call each store.
    pub callers: usize,
    pub window: Windowing,
    pub retry_delay_ms: u64,
    pub max_attempts: Option<u32>,
    pub max_abandoned: Option<u32>,
    pub wal_autocheckpoint: u32,
    pub purge_interval: Option<Duration>,
    pub purge_thread: bool,
    pub purge_on_open: bool,
    pub synchronous: Synchronous,
    pub index: IndexMode,
    /// Whether another program damages the index in the file.
    pub damages_index: bool,
}

impl Setup {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5345_5455);
        let kept = match rng.u32(..16) {
            0 => Kept::OwnFile,
            1 => Kept::Memory,
            _ => Kept::SharedFile,
        };
        Self {
            kept,
            stores: if kept == Kept::SharedFile { rng.usize(1..4) } else { 1 },
            callers: rng.usize(1..4),
            window: *choose(
                &mut rng,
                &[
                    Windowing::Fixed,
                    Windowing::Fixed,
                    Windowing::Sliding { max_age_ms: None },
                    Windowing::Sliding { max_age_ms: Some(20_000) },
                    Windowing::Sliding { max_age_ms: Some(900_000) },
                ],
            ),
            retry_delay_ms: *choose(&mut rng, &[0, 0, 1, 30_000]),
            max_attempts: *choose(&mut rng, &[None, None, Some(1), Some(3)]),
            max_abandoned: *choose(&mut rng, &[None, None, None, Some(1), Some(2)]),
            // Below 1,000 commits keep the log short themselves, from there on a thread does.
            wal_autocheckpoint: *choose(&mut rng, &[10, 60, 1_000, 1_000]),
            purge_interval: *choose(
                &mut rng,
                &[None, Some(Duration::from_secs(1)), Some(Duration::from_secs(300))],
            ),
            purge_thread: rng.bool(),
            purge_on_open: rng.bool(),
            synchronous: *choose(&mut rng, &[Synchronous::Normal, Synchronous::Full]),
            index: *choose(&mut rng, &[IndexMode::Asleep, IndexMode::Wakes, IndexMode::Awake]),
            damages_index: rng.bool(),
        }
    }

    pub fn config(&self) -> Config {
        Config::default()
            .ttl(Duration::from_millis(DEFAULT_TTL_MS))
            .window(window_of(self.window))
            .retry_delay(Duration::from_millis(self.retry_delay_ms))
            .max_attempts(self.max_attempts)
            .max_abandoned(self.max_abandoned)
            .wal_autocheckpoint(self.wal_autocheckpoint)
            .purge_interval(self.purge_interval)
            .purge_thread(self.purge_thread && self.purge_interval.is_some())
            .purge_on_open(self.purge_on_open)
            .synchronous(self.synchronous)
            .index(self.index)
            .exclusive(self.kept == Kept::OwnFile)
    }
}

pub fn choose<'v, T>(rng: &mut Rng, values: &'v [T]) -> &'v T {
    &values[rng.usize(..values.len())]
}
