//! What a sequence is made of: the operations, and how likely each is.

use proptest::collection::vec;
use proptest::prelude::*;
use seen_store::{Config, IndexMode};

use crate::common::ms;
use crate::state::{LAST_MS, Span, Tag, Windowing};
use crate::through::{DEFAULT_TTL_MS, Through, window_of};

pub(crate) const SCOPES: [&str; 3] = ["", "discord", "Discord"];
pub(crate) const RECEIPTS: [&[u8]; 3] = [b"", b"4711", b"\0\xff"];
pub(crate) const REASONS: [&str; 3] = ["", "503", "sp\u{e4}ter"];
const HOUR_MS: u64 = 3_600_000;

/// Ids that a careless store confuses or refuses.
pub(crate) fn ids() -> Vec<Vec<u8>> {
    vec![
        b"a".to_vec(),
        b"A".to_vec(),
        b"a ".to_vec(),
        b"a\0".to_vec(),
        b"a\0b".to_vec(),
        b"\xff\xfe".to_vec(),
        "\u{e9}".into(),
        b"1".to_vec(),
        b"1.0".to_vec(),
        vec![b'x'; 65_536],
        vec![],
        vec![b'x'; 65_537],
    ]
}

/// Where in [`ids`] the valid ones are.
pub(crate) const VALID_IDS: std::ops::Range<usize> = 0..10;

pub(crate) fn is_valid(id: &[u8]) -> bool {
    (1..=65_536).contains(&id.len())
}

/// The settings of the stores: the same of both, besides those of the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) window: Windowing,
    pub(crate) retry_delay_ms: u64,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) max_abandoned: Option<u32>,
    pub(crate) index: [IndexMode; 2],
    /// Whether tasks use the store.
    pub(crate) by_tasks: [bool; 2],
}

impl Setup {
    pub(crate) fn config(self, store: usize) -> Config {
        Config::default()
            .ttl(ms(DEFAULT_TTL_MS))
            .window(window_of(self.window))
            .retry_delay(ms(self.retry_delay_ms))
            .max_attempts(self.max_attempts)
            .max_abandoned(self.max_abandoned)
            .index(self.index[store])
    }
}

pub(crate) fn setup() -> impl Strategy<Value = Setup> {
    let window = prop_oneof![
        3 => Just(Windowing::Fixed),
        1 => Just(Windowing::Sliding { max_age_ms: None }),
        1 => Just(Windowing::Sliding { max_age_ms: Some(900_000) }),
    ];
    let retry_delay_ms = prop_oneof![2 => Just(0_u64), 1 => Just(1), 1 => Just(30_000)];
    let max_attempts = prop_oneof![3 => Just(None), 1 => (1..4_u32).prop_map(Some)];
    let max_abandoned = prop_oneof![3 => Just(None), 1 => (1..3_u32).prop_map(Some)];
    let index =
        || prop_oneof![Just(IndexMode::Wakes), Just(IndexMode::Asleep), Just(IndexMode::Awake)];
    let index = [index(), index()];
    let by_tasks = [any::<bool>(), any::<bool>()];
    (window, retry_delay_ms, max_attempts, max_abandoned, index, by_tasks).prop_map(
        |(window, retry_delay_ms, max_attempts, max_abandoned, index, by_tasks)| Setup {
            window,
            retry_delay_ms,
            max_attempts,
            max_abandoned,
            index,
            by_tasks,
        },
    )
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Which {
    pub(crate) store: usize,
    pub(crate) scope: usize,
    pub(crate) id: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    FromNow(i64),
    /// Unix milliseconds.
    Absolute(i64),
}

/// What is done with a claim. Numbers point into [`RECEIPTS`] and [`REASONS`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Confirm,
    ConfirmWith(usize),
    Release,
    Fail(usize),
    FailFinally(usize),
    Renew(Span),
}

/// Which claim: the last one granted, or so many before it. Leads to tokens of any standing.
pub(crate) type Back = usize;

/// Numbers of ids, and what each is shown with.
pub(crate) type Batch = Vec<(usize, Option<Tag>)>;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    IsSeen(Which, Option<Tag>),
    Get(Which),
    Mark(Which, Option<Tag>, Through),
    MarkAt(Which, Option<Tag>, Through, At),
    Check(Which, Option<Tag>, Through),
    /// A check with one of a few tokens.
    Retry(Which, Option<Tag>, Through, u8),
    Observe(Which, Option<Tag>, Through),
    CheckAll(Which, Through, Batch),
    Seed(Which, Through, Batch),
    Claim(Which, Option<Tag>, Through, Span),
    ClaimAll(Which, Through, Batch, Span),
    /// By the lease that was granted, if it is still held.
    ByLease(Back, How),
    /// By its token, through either store.
    ByToken(Back, usize, Through, How),
    /// With the token of another claim.
    Stray(Back, Which, Through, How),
    Drop(Back),
    IntoToken(Back),
    Forget(Which),
    Resolve(Which, Through, bool),
    Purge(usize),
    Cleanup {
        store: usize,
        scope: usize,
        older_than_ms: u64,
    },
    Stats(usize),
    /// Begins a listing, or goes on with the one that was begun to its end.
    List(usize),
    Step(Stores, i64),
    /// Sets one store's clock to a little before or after the other's.
    Align {
        store: usize,
        ahead_ms: i64,
    },
    /// The store reads no clock, and hears of nothing, until it is asked for something.
    Rest(usize),
    /// Copies the file, as it is now, to where a restore finds it.
    Backup(usize),
    /// Puts the last backup back, under the open stores.
    Restore,
    /// To the moment at which something known ends, or the millisecond before.
    ToBorder {
        which: usize,
        before: bool,
    },
    Reopen {
        store: usize,
        purge: bool,
        /// Whether the leases are dropped, or only their tokens kept, as by a crash.
        release: bool,
    },
}

/// The stores whose clocks are stepped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stores {
    Both,
    One(usize),
}

impl Stores {
    pub(crate) fn numbers(self) -> std::ops::Range<usize> {
        match self {
            Stores::Both => 0..2,
            Stores::One(store) => store..store + 1,
        }
    }
}

fn which() -> impl Strategy<Value = Which> {
    // Most of the time few ids in one scope, so that sequences come back to them.
    let scope = prop_oneof![4 => Just(0_usize), 1 => 0..SCOPES.len()];
    let id = prop_oneof![4 => 0..3_usize, 2 => 0..ids().len()];
    (0..2_usize, scope, id).prop_map(|(store, scope, id)| Which { store, scope, id })
}

fn through() -> impl Strategy<Value = Through> {
    let ttl = prop_oneof![
        8 => Just(None),
        8 => prop::sample::select(vec![0, 1, 5_000, 61_000, 2 * HOUR_MS])
            .prop_map(|length| Some(Span::Ms(length))),
        1 => Just(Some(Span::Longest)),
        1 => Just(Some(Span::Never)),
    ];
    let max_age_ms = prop::option::weighted(
        0.6,
        prop::sample::select(vec![0, 1, 5_000, 70_000, 700_000, 2 * HOUR_MS]),
    );
    let window = prop_oneof![
        5 => Just(None),
        1 => Just(Some(Windowing::Fixed)),
        3 => max_age_ms.prop_map(|max_age_ms| Some(Windowing::Sliding { max_age_ms })),
    ];
    // Some of them are shorter than the TTL, which is refused.
    let retention = prop_oneof![
        12 => Just(None),
        4 => prop::sample::select(vec![5_000, 600_000, 700_000, 2 * HOUR_MS, 3 * HOUR_MS])
            .prop_map(|length| Some(Span::Ms(length))),
        1 => Just(Some(Span::Longest)),
    ];
    (ttl, window, prop::bool::weighted(0.3), retention)
        .prop_map(|(ttl, window, hold, retention)| Through { ttl, window, hold, retention })
}

/// Mostly nothing, or one of few versions: they are to meet.
fn tag() -> impl Strategy<Value = Option<Tag>> {
    prop_oneof![
        6 => Just(None),
        6 => (0..3_u8).prop_map(|number| Some(Tag::Version(number))),
        1 => (0..2_u8).prop_map(|number| Some(Tag::Payload(number))),
    ]
}

fn at() -> impl Strategy<Value = At> {
    prop_oneof![
        6 => prop::sample::select(vec![-7_200_000, -300_000, -5_000, -1, 0, 1, 5_000, 7_200_000])
            .prop_map(At::FromNow),
        1 => prop::sample::select(vec![-86_400_000, -1, 0, 1, LAST_MS]).prop_map(At::Absolute),
    ]
}

fn lease() -> impl Strategy<Value = Span> {
    prop_oneof![
        12 => prop::sample::select(vec![1, 1_000, 30_000, 600_000]).prop_map(Span::Ms),
        1 => Just(Span::Ms(0)),
        1 => Just(Span::Longest),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        3 => Just(How::Confirm),
        3 => (0..RECEIPTS.len()).prop_map(How::ConfirmWith),
        3 => Just(How::Release),
        4 => (0..REASONS.len()).prop_map(How::Fail),
        1 => (0..REASONS.len()).prop_map(How::FailFinally),
        3 => lease().prop_map(How::Renew),
    ]
}

fn step() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => prop::sample::select(vec![1, 999, 5_000, 30_000, 61_000, 600_000, 3_600_000]),
        3 => prop::sample::select(vec![-1, -5_000, -59_999, -60_000]),
        1 => prop::sample::select(vec![-60_001, -300_000, -7_200_000]),
    ]
}

/// Mostly of both clocks, and small where it is of one, so that they rarely differ by more than a minute.
fn clock_step() -> impl Strategy<Value = Op> {
    let small = prop::sample::select(vec![1, 999, 5_000, 30_000, -1, -5_000, -30_000, -60_000]);
    let difference = prop::sample::select(vec![0, 1, -1, 1_000, -20_000, 45_000, 60_000, 60_001]);
    let store = || 0..2_usize;
    prop_oneof![
        12 => step().prop_map(|by| Op::Step(Stores::Both, by)),
        4 => (store(), small).prop_map(|(store, by)| Op::Step(Stores::One(store), by)),
        1 => (store(), step()).prop_map(|(store, by)| Op::Step(Stores::One(store), by)),
        4 => (store(), difference).prop_map(|(store, ahead_ms)| Op::Align { store, ahead_ms }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    // A batch holds the odd ids too, but mostly valid ones, or it would mark nothing.
    let one = || prop_oneof![8 => 0..3_usize, 8 => VALID_IDS, 1 => 10..12_usize];
    let batch = move || vec((one(), tag()), 0..6);
    // Mostly the newest ones: those are the ones that are still held.
    let back = || prop_oneof![3 => 0..2_usize, 2 => 0..8_usize];
    let first = prop_oneof![
        7 => (which(), tag()).prop_map(|(which, tag)| Op::IsSeen(which, tag)),
        5 => which().prop_map(Op::Get),
        4 => (which(), tag(), through()).prop_map(|(which, tag, by)| Op::Mark(which, tag, by)),
        4 => (which(), tag(), through(), at())
            .prop_map(|(which, tag, by, at)| Op::MarkAt(which, tag, by, at)),
        10 => (which(), tag(), through()).prop_map(|(which, tag, by)| Op::Check(which, tag, by)),
        4 => (which(), tag(), through(), 0..3_u8).prop_map(|(w, tag, by, token)| Op::Retry(w, tag, by, token)),
        3 => (which(), tag(), through())
            .prop_map(|(which, tag, by)| Op::Observe(which, tag, by)),
        2 => (which(), through(), batch()).prop_map(|(w, by, ids)| Op::CheckAll(w, by, ids)),
        1 => (which(), through(), batch()).prop_map(|(w, by, ids)| Op::Seed(w, by, ids)),
        4 => which().prop_map(Op::Forget),
    ];
    let claims = prop_oneof![
        15 => (which(), tag(), through(), lease())
            .prop_map(|(w, tag, by, lease)| Op::Claim(w, tag, by, lease)),
        2 => (which(), through(), batch(), lease())
            .prop_map(|(w, by, ids, lease)| Op::ClaimAll(w, by, ids, lease)),
        9 => (back(), how()).prop_map(|(back, how)| Op::ByLease(back, how)),
        7 => (back(), 0..2_usize, through(), how())
            .prop_map(|(back, store, by, how)| Op::ByToken(back, store, by, how)),
        1 => (back(), which(), through(), how())
            .prop_map(|(back, which, by, how)| Op::Stray(back, which, by, how)),
        2 => back().prop_map(Op::Drop),
        1 => back().prop_map(Op::IntoToken),
        4 => (which(), through(), any::<bool>()).prop_map(|(w, by, done)| Op::Resolve(w, by, done)),
    ];
    let ages = vec![0, 1, 5_000, 600_000, u64::MAX];
    let rest = prop_oneof![
        2 => (0..2_usize).prop_map(Op::Purge),
        2 => (0..2_usize, 0..SCOPES.len(), prop::sample::select(ages))
            .prop_map(|(store, scope, older_than_ms)| Op::Cleanup { store, scope, older_than_ms }),
        1 => (0..2_usize).prop_map(Op::Stats),
        3 => (0..2_usize).prop_map(Op::List),
        8 => clock_step(),
        2 => (0..2_usize).prop_map(Op::Rest),
        2 => (0..2_usize).prop_map(Op::Backup),
        2 => Just(Op::Restore),
        7 => (0..8_usize, any::<bool>()).prop_map(|(which, before)| Op::ToBorder { which, before }),
        1 => (0..2_usize, any::<bool>(), any::<bool>())
            .prop_map(|(store, purge, release)| Op::Reopen { store, purge, release }),
    ];
    prop_oneof![40 => first, 41 => claims, 22 => rest]
}

/// A history that is lost, and one that is as long and much like it. That a store mistakes one for the other
/// would hardly ever come about by chance.
fn fork() -> impl Strategy<Value = Vec<Op>> {
    let name = || (0..2_usize, 0..3_usize).prop_map(|(store, id)| Which { store, scope: 0, id });
    let op = move || {
        prop_oneof![
            3 => (name(), tag()).prop_map(|(which, tag)| Op::Check(which, tag, Through::PLAIN)),
            1 => (name(), tag()).prop_map(|(which, tag)| Op::Mark(which, tag, Through::PLAIN)),
            1 => name().prop_map(Op::Forget),
        ]
    };
    (0..2_usize, vec(op(), 1..4), vec(op(), 0..4)).prop_map(|(store, lost, kept)| {
        [vec![Op::Backup(store)], lost, vec![Op::Restore], kept].concat()
    })
}

/// Steps of the clocks that one store reads and the other does not, and then both are used.
fn rest() -> impl Strategy<Value = Vec<Op>> {
    let steps = vec![1_000, 5_000, 50_000, -1_000, -21_000, -40_000, -57_000, -60_000, -62_000];
    let small = || prop::sample::select(vec![0, 1_000, 5_000]).prop_map(Span::Ms);
    let used = move |store| {
        let name = (0..2_usize).prop_map(move |id| Which { store, scope: 0, id });
        (name, lease(), small()).prop_flat_map(|(which, lease, ttl)| {
            let by = Through { ttl: Some(ttl), ..Through::PLAIN };
            let ops = vec![
                Op::IsSeen(which, None),
                Op::Mark(which, None, Through::PLAIN),
                Op::Check(which, None, by),
                Op::Claim(which, None, Through::PLAIN, lease),
                Op::Claim(which, None, Through::PLAIN, lease),
            ];
            prop::sample::select(ops)
        })
    };
    let step = prop::sample::select(steps).prop_map(|by| Op::Step(Stores::Both, by));
    (0..2_usize).prop_flat_map(move |store| {
        let reopen = Op::Reopen { store: 1 - store, purge: false, release: false };
        let meanwhile = prop_oneof![4 => step.clone(), 4 => used(1 - store), 1 => Just(reopen)];
        (Just(store), vec(meanwhile, 1..6), used(1 - store), used(store)).prop_map(
            |(store, meanwhile, first, then)| {
                [vec![Op::Rest(store)], meanwhile, vec![first, then]].concat()
            },
        )
    })
}

/// A sequence of operations.
pub(crate) fn sequence() -> impl Strategy<Value = Vec<Op>> {
    let part = prop_oneof![20 => op().prop_map(|op| vec![op]), 1 => fork(), 1 => rest()];
    vec(part, 1..=50).prop_map(|parts| parts.concat())
}
