//! Random sequences of verbs on two stores of one file, against a model of each id.
//!
//! The model is written from the contract, not from the code. It knows one state for each id (a mark or none, which
//! may be kept after its expiry, and a claim or none) and what each verb answers and leaves; that is exact except
//! where the contract
//! leaves more than one answer open:
//!
//! - What has expired for one of the stores, under a clock that was then set back by more than a
//!   minute, is there again or not, depending on whether it was purged in between. The model keeps
//!   such marks and claims as *ghosts*. While one is not expired by a store's present time, a verb may
//!   start from the certain state or from the ghost; the answer and what the file then holds must
//!   be those of one of them. A ghost whose row the other store has purged is *hollow*.
//! - What the other store forgot or cleaned up less than 100 ms ago may still be answered "seen" from
//!   memory, and so may what was marked before a restore. The model allows that to the verbs that may
//!   answer from memory (`is_seen`, `check_and_mark` and `claim`), for exactly the ids that were removed,
//!   or were marked at the restore, since this store last had to look; they then change nothing.
//! - `duplicates` is best effort: at most what was turned away since the id was new, and at least what
//!   this store has turned away since the other one replaced the row, the file was restored, or the
//!   clocks were more than a minute apart. What is refused of a claim is known by its id: it outlives rows,
//!   also those of an earlier claim. `last_seen` is best effort likewise, and so is what `history` tells of both.
//! - A cleanup may leave what another store has turned away since.
//!
//! Each store has a clock of its own (see `clocks`), and may rest while the other one is used and the clocks
//! are set: then it reads its clock, and hears of what the other one did, only when it is used again. Mostly they
//! differ by at most a minute, as the contract
//! asks. Farther apart each store goes by its own clock, and what expires for one of them is a ghost. A
//! restore returns the file to the state that the model kept at the backup, claims and their tokens
//! included; each store keeps its time.
//!
//! What is left exact, among the rest: a sighting in a sliding window extends a mark exactly when less
//! than a TTL is left, to 17/16 of it, but not beyond its maximum age.
//!
//! Each store is used by threads or by tasks (`face`): for both it is the same model.
//!
//! `SEEN_MODEL_CASES` sets how many sequences are run, `SEEN_MODEL_SEED` repeats a run.

mod checks;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod face;
mod file;
mod histories;
mod ids;
#[allow(dead_code, reason = "shared with the simulator")]
mod known;
mod listings;
mod ops;
mod run;
mod state;
mod through;

use std::hash::BuildHasher;

use proptest::test_runner::{Config as Cases, RngAlgorithm, TestError, TestRng, TestRunner};

/// Whether stores write the index in the file all the time: then they commit, and those that wake look, by themselves.
fn has_small_index() -> bool {
    std::env::var_os("SEEN_SMALL_INDEX").is_some()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

#[test]
fn two_stores_on_one_file_answer_as_the_model_does() {
    let cases = number("SEEN_MODEL_CASES").unwrap_or(750);
    let seed = number("SEEN_MODEL_SEED")
        .unwrap_or_else(|| std::hash::RandomState::new().hash_one("model"));
    eprintln!("{cases} sequences, SEEN_MODEL_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Cases {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Cases::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let sequences = (ops::setup(), ops::sequence());
    let outcome = TestRunner::new_with_rng(config, rng).run(&sequences, |(setup, ops)| {
        let mut run = run::Run::new(setup);
        for op in &ops {
            run.apply(op);
        }
        run.check_everything();
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (setup, ops))) => {
            let ops = ops.iter().map(|op| format!("{op:?}")).collect::<Vec<_>>().join("\n");
            panic!(
                "SEEN_MODEL_SEED={seed}: {why}\nthe shortest sequence that fails:\n{setup:?}\n{ops}"
            )
        }
        Err(abort) => panic!("SEEN_MODEL_SEED={seed}: {abort}"),
    }
}
