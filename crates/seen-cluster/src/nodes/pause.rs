//! Pauses between two tries.
//!
//! Owns their length: growing, and jittered so that many callers do not come back in step. Knows nothing of why.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::clock::Deadline;

const SHORTEST_MS: usize = 10;
const LONGEST_MS: usize = 200;

/// Sleeps after the `tries`th failed try, but not beyond the deadline.
pub(super) async fn pause(tries: u32, deadline: Deadline) {
    let pause = length(tries).min(deadline.remaining());
    tokio::time::sleep(pause).await;
}

fn length(tries: u32) -> Duration {
    let longest = (SHORTEST_MS << tries.min(5)).min(LONGEST_MS);
    let ms = SHORTEST_MS + random_below(longest - SHORTEST_MS + 1);
    Duration::from_millis(ms as u64)
}

/// Returns a number below `end`. It is cheap to get, and not secret.
pub(super) fn random_below(end: usize) -> usize {
    // Each `RandomState` has keys of its own.
    let random = RandomState::new().build_hasher().finish();
    usize::try_from(random % end as u64).expect("it is below a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_10_to_200_ms() {
        for tries in 0..100 {
            let pause = length(tries).as_millis();
            assert!((10..=200).contains(&pause), "{pause}");
        }
        assert!(length(1).as_millis() <= 20);
        assert!((0..100).any(|_| length(9).as_millis() > 100));
    }
}
