//! Random sequences of verbs, against a store in memory that is given the same.
//!
//! What is compared is each answer, and in the end all that is known of each id. Left out is what the contract leaves open
//! (see the crate), and so, where two stores are used: how many duplicates were turned away, when the last one was, and what
//! follows from that: cleanups and filters by age. On a place with a clock of its own no time passes in a sequence, all that
//! lasts lasts long, and no times are compared.
//!
//! `CONTRACT_CASES` sets how many sequences are run, `CONTRACT_SEED` repeats a run.

mod ops;
mod side;

use std::hash::BuildHasher;
use std::sync::Arc;

use proptest::test_runner::{
    Config as Cases, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner,
};
use seen_store::{ManualClock, SeenStore};

use self::ops::{Op, Setup, Step};
use self::side::{Side, View};
use crate::Place;
use crate::bench::Bench;

pub(crate) fn a_store_answers_as_one_in_memory_does(place: &dyn Place) {
    run(place, 1);
}

pub(crate) fn two_stores_on_the_same_ids_answer_as_one_in_memory_does(place: &dyn Place) {
    run(place, 2);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

fn run(place: &dyn Place, stores: usize) {
    let cases = number("CONTRACT_CASES").unwrap_or(60);
    let seed =
        number("CONTRACT_SEED").unwrap_or_else(|| std::hash::RandomState::new().hash_one("model"));
    eprintln!("{cases} sequences, CONTRACT_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Cases {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Cases::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let outcome = TestRunner::new_with_rng(config, rng)
        .run(&ops::sequence(stores), |(setup, steps)| sequence(place, stores, setup, &steps));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (setup, steps))) => {
            let steps = steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>().join("\n");
            panic!(
                "CONTRACT_SEED={seed}: {why}\nthe shortest sequence that fails:\n{setup:?}\n{steps}"
            )
        }
        Err(abort) => panic!("CONTRACT_SEED={seed}: {abort}"),
    }
}

/// Runs one sequence on a new store and on a new model.
fn sequence(
    place: &dyn Place,
    stores: usize,
    setup: Setup,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let bench = Bench::with(place, |config| setup.apply(config, place.unit()));
    let (start, own_clock) = (bench.now(), place.keeps_its_own_clock());
    let clock = Arc::new(ManualClock::new(start));
    let model = SeenStore::in_memory_with(bench.config.clone().clock(Arc::clone(&clock))).unwrap();
    let view = View {
        unit: place.unit(),
        start,
        has_times: !own_clock,
        // Counts are best effort, and a store with a clock of its own also writes them beside its calls.
        has_counts: !place.keeps_its_own_clock() && (stores == 1 || !place.is_shared()),
    };
    let mut real = Side::new(view, vec![bench.store().boxed(), bench.again()]);
    let mut model = Side::new(view, vec![Box::new(model.clone()), Box::new(model)]);
    let differ = |what: String, real: String, expected: String| {
        if real == expected {
            return Ok(());
        }
        Err(TestCaseError::fail(format!("{what}\nanswered {real}\nexpected {expected}")))
    };
    for (n, step) in steps.iter().enumerate() {
        if let Op::Passes(units) = step.op {
            if !own_clock {
                place.time_passes(place.unit() * units);
                clock.advance(place.unit() * units);
            }
            continue;
        }
        let (answer, expected) = (real.apply(step), model.apply(step));
        differ(format!("step {n}: {step:?}"), answer, expected)?;
        if step.op.removes() && stores == 2 {
            bench.others_notice();
        }
    }
    for store in 0..stores {
        differ(format!("the end, store {store}"), real.everything(store), model.everything(store))?;
    }
    Ok(())
}
