//! What a sequence is made of: the operations, and how likely each is.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use seen_store::{Abandoned, Config, Resolution, State, Window};

/// The settings of the stores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    max_attempts: Option<u32>,
    max_abandoned: Option<u32>,
    hold: bool,
    slides: bool,
}

impl Setup {
    pub(crate) fn apply(self, config: Config, unit: Duration) -> Config {
        let window = if self.slides { Window::SLIDING } else { Window::Fixed };
        let abandoned = if self.hold { Abandoned::Hold } else { Abandoned::Retry };
        let config = config.max_attempts(self.max_attempts).max_abandoned(self.max_abandoned);
        config.window(window).abandoned(abandoned).max_receipt(10).ttl(unit * 400)
    }
}

/// One step: an operation on a handle of a store.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) store: usize,
    pub(crate) scope: usize,
    pub(crate) handle: Handle,
    pub(crate) op: Op,
}

/// The settings of a handle besides its scope.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handle {
    Plain,
    Shorter,
    Never,
    Zero,
    Sliding,
    MaxAge,
    Retained,
    Hold,
    Retry,
}

/// An id, and whether it has a version and is a call that is made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Which {
    pub(crate) id: usize,
    pub(crate) version: Option<u8>,
    pub(crate) retry_of: Option<u8>,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    AtOnce,
    Later,
    Finally,
}

/// How claims are ended by their tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Confirm,
    ConfirmWith(usize),
    Release,
    Fail(Failed),
    Renew,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum EndAll {
    Confirm,
    Release,
    Renew,
}

/// What is listed, counted or removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen {
    pub(crate) state: Option<State>,
    pub(crate) scope: Option<usize>,
    pub(crate) prefix: Option<usize>,
    /// In units; whether older than that.
    pub(crate) age: Option<(u32, bool)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Passes(u32),
    IsSeen(Which),
    Check(Which),
    CheckAll(Vec<Which>),
    Mark(Which),
    /// At so many units from the start of the sequence.
    MarkAt(Which, i32),
    Observe(Which),
    Seed(Vec<Which>),
    Forget(Which),
    /// The length of the lease in units.
    Claim(Which, u32),
    ClaimAll(Vec<Which>, u32),
    /// Of the claims so far.
    End(usize, End),
    EndAll(Vec<usize>, EndAll),
    Resolve(Which, Resolution),
    Get(Which),
    Entries(Chosen),
    Count(Chosen),
    Remove(Chosen),
    Cleanup(u32),
    Purge,
    Stats,
}

impl Op {
    /// Returns whether another store may notice its effect late.
    pub(crate) fn removes(&self) -> bool {
        matches!(self, Self::Forget(_) | Self::Remove(_) | Self::Cleanup(_))
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    let most = || prop_oneof![3 => Just(None), 1 => (1..4_u32).prop_map(Some)];
    (most(), most(), prop::bool::weighted(0.25), prop::bool::weighted(0.25)).prop_map(
        |(max_attempts, max_abandoned, hold, slides)| Setup {
            max_attempts,
            max_abandoned,
            hold,
            slides,
        },
    )
}

fn handle() -> impl Strategy<Value = Handle> {
    prop_oneof![
        6 => Just(Handle::Plain),
        2 => Just(Handle::Shorter),
        1 => Just(Handle::Never),
        1 => Just(Handle::Zero),
        2 => Just(Handle::Sliding),
        2 => Just(Handle::MaxAge),
        3 => Just(Handle::Retained),
        2 => Just(Handle::Hold),
        1 => Just(Handle::Retry),
    ]
}

/// A call is made again without a version: that a changed version has changed again is checked in `retries`.
fn which(ids: usize) -> impl Strategy<Value = Which> {
    let version = prop_oneof![2 => Just(None), 3 => (1..4_u8).prop_map(Some)];
    let first = (0..ids, version).prop_map(|(id, version)| Which { id, version, retry_of: None });
    let retried =
        (0..ids, 0..2_u8).prop_map(|(id, call)| Which { id, version: None, retry_of: Some(call) });
    prop_oneof![5 => first, 1 => retried]
}

fn chosen(has_ages: bool) -> impl Strategy<Value = Chosen> {
    let state = prop_oneof![
        2 => Just(None),
        3 => prop::sample::select(State::ALL.to_vec()).prop_map(Some),
    ];
    let scope = prop_oneof![2 => Just(None), 1 => (0..2_usize).prop_map(Some)];
    let prefix = prop_oneof![2 => Just(None), 1 => (0..4_usize).prop_map(Some)];
    let ages = (prop::sample::select(vec![50_u32, 150, 350]), any::<bool>()).prop_map(Some);
    let ages = prop_oneof![2 => Just(None), 1 => ages];
    let ages = ages.prop_map(move |age| age.filter(|_| has_ages));
    (state, scope, prefix, ages).prop_map(|(state, scope, prefix, age)| Chosen {
        state,
        scope,
        prefix,
        age,
    })
}

fn end() -> impl Strategy<Value = End> {
    let failed = prop::sample::select(vec![Failed::AtOnce, Failed::Later, Failed::Finally]);
    prop_oneof![
        3 => Just(End::Confirm),
        3 => (0..4_usize).prop_map(End::ConfirmWith),
        2 => Just(End::Release),
        3 => failed.prop_map(End::Fail),
        2 => Just(End::Renew),
    ]
}

/// A single id may be one of four; the last has payloads, which a batch has not: whether it marks some before a conflict is
/// open.
fn op(stores: usize) -> impl Strategy<Value = Op> {
    let one = || which(4);
    let some = || vec(which(3), 0..6);
    let lease = || prop::sample::select(vec![5_u32, 50, 500]);
    let has_ages = stores == 1;
    let end_all = prop::sample::select(vec![EndAll::Confirm, EndAll::Release, EndAll::Renew]);
    let resolution = prop::sample::select(vec![Resolution::Done, Resolution::Retry]);
    let claims = || 0..usize::MAX;
    prop_oneof![
        10 => prop::sample::select(vec![1_u32, 7, 60, 130, 450]).prop_map(Op::Passes),
        4 => one().prop_map(Op::IsSeen),
        12 => one().prop_map(Op::Check),
        4 => some().prop_map(Op::CheckAll),
        4 => one().prop_map(Op::Mark),
        3 => (one(), prop::sample::select(vec![-500, -300, -100, 0, 100])).prop_map(|(which, at)| Op::MarkAt(which, at)),
        5 => one().prop_map(Op::Observe),
        2 => some().prop_map(Op::Seed),
        2 => one().prop_map(Op::Forget),
        12 => (one(), lease()).prop_map(|(which, lease)| Op::Claim(which, lease)),
        3 => (some(), lease()).prop_map(|(some, lease)| Op::ClaimAll(some, lease)),
        14 => (claims(), end()).prop_map(|(claim, end)| Op::End(claim, end)),
        3 => (vec(claims(), 0..5), end_all).prop_map(|(claims, end)| Op::EndAll(claims, end)),
        3 => (one(), resolution).prop_map(|(which, resolution)| Op::Resolve(which, resolution)),
        5 => one().prop_map(Op::Get),
        3 => chosen(has_ages).prop_map(Op::Entries),
        2 => chosen(has_ages).prop_map(Op::Count),
        1 => chosen(has_ages).prop_map(Op::Remove),
        1 => prop::sample::select(vec![50_u32, 150, 350]).prop_map(move |age| if has_ages { Op::Cleanup(age) } else { Op::Purge }),
        1 => Just(Op::Purge),
        1 => Just(Op::Stats),
    ]
}

pub(crate) fn sequence(stores: usize) -> impl Strategy<Value = (Setup, Vec<Step>)> {
    let step = (0..stores, 0..2_usize, handle(), op(stores))
        .prop_map(|(store, scope, handle, op)| Step { store, scope, handle, op });
    (setup(), vec(step, 40))
}
