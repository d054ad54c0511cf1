//! Waits for a condition that only polling can see.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Calls `attempt` until it succeeds, and returns what it gave.
///
/// # Panics
///
/// With the last error of `attempt`, once `timeout` has passed.
#[track_caller]
pub(crate) fn until<T, E: Display>(
    timeout: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if begun.elapsed() >= timeout => {
                panic!("waited {timeout:?} until {what}: {error}")
            }
            Err(_) => sleep(PAUSE),
        }
    }
}
