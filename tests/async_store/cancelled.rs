//! Futures that are dropped before they are ready: each verb, at each of its awaits, by a generated schedule.
//!
//! The model knows of each id what the contract says of it: the verb was done, or it was not; a claim that no task got
//! is released. Which of the two the store tells; that it is one of them is what is checked.

use std::pin::pin;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use seen_store::{
    AsyncLease, AsyncSeenStore, Claim, Config, Failure, Filter, Item, Once, Resolution, SeenStore,
    State, Token,
};

use crate::common::Place;
use crate::polled::{drained, idle, poll};

const IDS: [&str; 4] = ["a", "b", "c", "d"];
const HOUR: Duration = Duration::from_secs(3_600);

/// What is known of an id. Time does not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    Seen,
    /// Claimed, so many times by now.
    InFlight(u32),
    Released(u32),
    Failed(u32),
    GivenUp(u32),
}

impl Known {
    fn attempts(self) -> u32 {
        match self {
            Self::Nothing | Self::Seen => 0,
            Self::InFlight(n) | Self::Released(n) | Self::Failed(n) | Self::GivenUp(n) => n,
        }
    }

    fn may_be_claimed(self) -> bool {
        !matches!(self, Self::Seen | Self::InFlight(_) | Self::GivenUp(_))
    }

    /// After a claim that no task has got.
    fn claimed_in_vain(self) -> Self {
        if self.may_be_claimed() { Self::Released(self.attempts() + 1) } else { self }
    }

    fn checked(self) -> Self {
        if matches!(self, Self::InFlight(_)) { self } else { Self::Seen }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    IsSeen,
    TryIsSeenInVersion,
    Get,
    Mark,
    Check,
    CheckVersion,
    Observe,
    Forget,
    Claim,
    WaitingClaim,
    Once,
    CheckAll,
    Seed,
    ClaimAll,
    Resolve,
    Confirm,
    ConfirmWith,
    Release,
    Fail,
    FailFinally,
    Renew,
    IsHeld,
    TokenConfirm,
    TokenRelease,
    TokenFail,
    TokenRenew,
    Stats,
    Purge,
    Newest,
    Announce,
}

const VERBS: [Verb; 30] = [
    Verb::IsSeen,
    Verb::TryIsSeenInVersion,
    Verb::Get,
    Verb::Mark,
    Verb::Check,
    Verb::CheckVersion,
    Verb::Observe,
    Verb::Forget,
    Verb::Claim,
    Verb::WaitingClaim,
    Verb::Once,
    Verb::CheckAll,
    Verb::Seed,
    Verb::ClaimAll,
    Verb::Resolve,
    Verb::Confirm,
    Verb::ConfirmWith,
    Verb::Release,
    Verb::Fail,
    Verb::FailFinally,
    Verb::Renew,
    Verb::IsHeld,
    Verb::TokenConfirm,
    Verb::TokenRelease,
    Verb::TokenFail,
    Verb::TokenRenew,
    Verb::Stats,
    Verb::Purge,
    Verb::Newest,
    Verb::Announce,
];

impl Verb {
    /// Whether it runs on a thread of the runtime.
    fn is_long(self) -> bool {
        matches!(
            self,
            Self::CheckAll
                | Self::Seed
                | Self::ClaimAll
                | Self::Stats
                | Self::Purge
                | Self::Newest
                | Self::Announce
        )
    }

    /// Whether a verb that was polled once is done, whatever becomes of its future.
    fn is_carried_on(self) -> bool {
        matches!(
            self,
            Self::Confirm
                | Self::ConfirmWith
                | Self::Release
                | Self::Fail
                | Self::FailFinally
                | Self::Renew
                | Self::TokenConfirm
                | Self::TokenRelease
                | Self::TokenFail
                | Self::TokenRenew
        )
    }
}

/// One call: polled so many times, and then dropped.
#[derive(Clone, Copy, Debug)]
struct Call {
    verb: Verb,
    id: usize,
    polls: usize,
    also_woken: bool,
    /// Drops the lease of the id after the call, if a task holds one.
    drops_lease: bool,
}

fn call() -> impl Strategy<Value = Call> {
    let polls = prop_oneof![3 => 0..4_usize, 1 => Just(1_000)];
    let verb = prop_oneof![1 => prop::sample::select(VERBS.to_vec()), 1 => Just(Verb::Claim)];
    let rest = (any::<bool>(), prop::bool::weighted(0.2));
    (verb, 0..IDS.len(), polls, rest).prop_map(|(verb, id, polls, (also_woken, drops_lease))| {
        Call { verb, id, polls, also_woken, drops_lease }
    })
}

struct Run {
    store: AsyncSeenStore,
    known: [Known; IDS.len()],
    leases: [Option<AsyncLease>; IDS.len()],
}

/// What a call may leave. The first is "nothing happened".
type Outcomes = [Known; 2];

impl Run {
    /// Calls the verb, and returns its outcomes: what is known if it was not done, and if it was. Also whether it was
    /// polled to its end.
    #[expect(clippy::too_many_lines, reason = "one verb after the other")]
    async fn call(&mut self, call: Call) -> (Outcomes, bool) {
        let Call { verb, polls, also_woken, .. } = call;
        let (store, id, was) = (&self.store, IDS[call.id], self.known[call.id]);
        let lease = &mut self.leases[call.id];
        let claimed = Known::InFlight(was.attempts() + 1);
        macro_rules! dropped {
            ($future:expr, $done:expr) => {{
                let is_over = poll(pin!($future), polls, also_woken).is_some();
                ([was, $done], is_over)
            }};
        }
        /// A verb of the lease, or by its token.
        macro_rules! by_lease {
            ($lease:ident => $future:expr, $done:expr) => {{
                let (Some($lease), Known::InFlight(n)) = (lease.as_mut(), was) else {
                    return ([was, was], true);
                };
                let future = async { $future.await.map(drop) };
                let done: fn(u32) -> Known = $done;
                match poll(pin!(future), polls, also_woken) {
                    Some(ended) => {
                        ended.unwrap();
                        ([was, done(n)], true)
                    }
                    None => ([was, done(n)], false),
                }
            }};
        }
        let by_token =
            |token: Option<Token>| token.unwrap_or_else(|| "00".repeat(16).parse().unwrap());
        let token = lease.as_ref().map(AsyncLease::token);
        match verb {
            Verb::IsSeen => dropped!(store.is_seen(id), was),
            Verb::TryIsSeenInVersion => {
                dropped!(store.try_is_seen(Item::new(id).version("1")), was)
            }
            Verb::Get => dropped!(store.get(id), was),
            Verb::Mark => dropped!(store.mark_seen(id), Known::Seen),
            Verb::Check => dropped!(store.check_and_mark(id), was.checked()),
            Verb::CheckVersion => {
                dropped!(store.check_and_mark(Item::new(id).version("1")), was.checked())
            }
            Verb::Observe => dropped!(store.observe(id), was.checked()),
            Verb::Forget => dropped!(store.forget(id), Known::Nothing),
            Verb::Claim | Verb::WaitingClaim => {
                let handle = match verb {
                    Verb::WaitingClaim => store.waiting(Duration::from_millis(5)),
                    _ => store.clone(),
                };
                match poll(pin!(handle.claim(id, HOUR)), polls, also_woken) {
                    Some(Ok(Claim::Granted(granted))) => {
                        assert!(was.may_be_claimed(), "{was:?} was granted");
                        *lease = Some(granted);
                        ([claimed, claimed], true)
                    }
                    Some(other) => {
                        assert!(!was.may_be_claimed(), "{was:?}: {other:?}");
                        ([was, was], true)
                    }
                    None => ([was, was.claimed_in_vain()], false),
                }
            }
            Verb::Once => {
                let work = || async {
                    tokio::task::yield_now().await;
                    Ok::<_, String>("done")
                };
                match poll(pin!(store.once(id, HOUR, work)), polls, also_woken) {
                    Some(Ok(Once::Ran(_))) => ([Known::Seen, Known::Seen], true),
                    Some(_) => ([was, was], true),
                    // The confirm may have begun: then it is carried on.
                    None if was.may_be_claimed() && polls > 0 => {
                        drained(store).await;
                        let seen = store.is_seen(id).await;
                        let left = if seen { Known::Seen } else { was.claimed_in_vain() };
                        ([was, left], false)
                    }
                    None => ([was, was], false),
                }
            }
            Verb::CheckAll => dropped!(store.check_and_mark_all([id, id]), was.checked()),
            Verb::Seed => dropped!(store.seed([id]), Known::Seen),
            Verb::ClaimAll => match poll(pin!(store.claim_all([id], HOUR)), polls, also_woken) {
                Some(claims) => match claims.unwrap().pop().unwrap() {
                    Claim::Granted(granted) => {
                        *lease = Some(granted);
                        ([claimed, claimed], true)
                    }
                    _ => ([was, was], true),
                },
                None => ([was, was.claimed_in_vain()], false),
            },
            Verb::Resolve => {
                let done = match was {
                    Known::Nothing | Known::Seen | Known::InFlight(_) => was,
                    _ => Known::Seen,
                };
                dropped!(store.resolve(id, Resolution::Done), done)
            }
            Verb::Confirm => by_lease!(lease => lease.confirm(), |_| Known::Seen),
            Verb::ConfirmWith => by_lease!(lease => lease.confirm_with("4711"), |_| Known::Seen),
            Verb::Release => by_lease!(lease => lease.release(), Known::Released),
            Verb::Fail => by_lease!(lease => lease.fail("503"), Known::Failed),
            Verb::FailFinally => {
                by_lease!(lease => lease.fail(Failure::new("404").is_final()), Known::GivenUp)
            }
            Verb::Renew => by_lease!(lease => lease.renew(2 * HOUR), Known::InFlight),
            Verb::IsHeld => by_lease!(lease => lease.is_held(), Known::InFlight),
            Verb::TokenConfirm => {
                by_lease!(_lease => store.confirm(id, &by_token(token)), |_| Known::Seen)
            }
            Verb::TokenRelease => {
                by_lease!(_lease => store.release(id, &by_token(token)), Known::Released)
            }
            Verb::TokenFail => {
                by_lease!(_lease => store.fail(id, &by_token(token), "503"), Known::Failed)
            }
            Verb::TokenRenew => {
                by_lease!(_lease => store.renew(id, &by_token(token), HOUR), Known::InFlight)
            }
            Verb::Stats => dropped!(store.stats(), was),
            Verb::Purge => dropped!(store.purge_expired(), was),
            Verb::Newest => dropped!(store.entries(Filter::default()).newest(3), was),
            Verb::Announce => dropped!(store.announce("a program"), was),
        }
    }

    async fn apply(&mut self, call: Call) {
        let (outcomes, is_over) = self.call(call).await;
        if call.verb.is_long() {
            idle(&self.store).await;
        }
        drained(&self.store).await;
        let settled = self.known_now(call.id).await;
        let must_be_done = is_over || call.verb.is_carried_on() && call.polls > 0;
        let allowed = if must_be_done {
            &outcomes[1..]
        } else if call.polls == 0 {
            &outcomes[..1]
        } else {
            &outcomes[..]
        };
        assert!(allowed.contains(&settled), "{call:?} left {settled:?}, allowed: {allowed:?}");
        self.known[call.id] = settled;
        if call.drops_lease && self.leases[call.id].take().is_some() {
            drained(&self.store).await;
            if let Known::InFlight(n) = self.known[call.id] {
                let left = self.known_now(call.id).await;
                let ends = [Known::Released(n), Known::InFlight(n)];
                assert!(ends.contains(&left), "a dropped lease left {left:?}");
                self.known[call.id] = left;
            }
        }
    }

    async fn known_now(&self, id: usize) -> Known {
        let Some(entry) = self.store.get(IDS[id]).await.unwrap() else { return Known::Nothing };
        match entry.state {
            State::Seen => Known::Seen,
            State::InFlight => Known::InFlight(entry.attempts),
            State::Released => Known::Released(entry.attempts),
            State::Failed => Known::Failed(entry.attempts),
            State::GivenUp => Known::GivenUp(entry.attempts),
            other => panic!("{other:?}"),
        }
    }
}

fn run(calls: &[Call]) {
    let place = Place::in_ram();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let opened = place.open(Config::default());
        let store = AsyncSeenStore::from(opened);
        let mut run =
            Run { store, known: [Known::Nothing; IDS.len()], leases: [const { None }; IDS.len()] };
        for call in calls {
            run.apply(*call).await;
        }
        let Run { store, known, leases } = run;
        drop(leases);
        store.close().await.unwrap();
        // What was acknowledged is in the file, and no lease is left behind.
        let again = SeenStore::open(place.path()).unwrap();
        for (id, known) in IDS.iter().zip(known) {
            assert_eq!(again.is_seen(*id), known == Known::Seen, "{id}");
        }
        assert!(again.verify().unwrap().is_ok());
    });
}

#[test]
fn a_future_that_is_dropped_leaves_its_call_done_or_not_and_no_claim_behind() {
    let config = Cases { cases: 300, failure_persistence: None, ..Cases::default() };
    let calls = prop::collection::vec(call(), 1..25);
    TestRunner::new(config)
        .run(&calls, |calls| {
            run(&calls);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn each_verb_may_be_dropped_after_each_poll() {
    for verb in VERBS {
        for polls in 0..4 {
            for also_woken in [false, true] {
                let plain = Call { verb, id: 0, polls, also_woken, drops_lease: false };
                let claimed = Call { verb: Verb::Claim, polls: 1_000, ..plain };
                let seen = Call { verb: Verb::Mark, polls: 1_000, ..plain };
                run(&[plain, plain]);
                run(&[claimed, plain, Call { drops_lease: true, ..plain }]);
                run(&[seen, plain]);
            }
        }
    }
}
