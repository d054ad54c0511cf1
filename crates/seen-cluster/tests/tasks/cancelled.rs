//! Calls that are dropped.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use cluster_harness::needs_server;
use seen_cluster::{AsyncClusterLease, AsyncClusterStore};
use seen_store::{Claim, Entry, Previous, State, Token, Verdict};

use super::{MINUTE, entry, granted, store};

/// Polls the call up to `times` times, and drops it. `also_woken`: waits to be woken after the last poll too, so that an
/// answer is on its way that is never taken.
pub(super) async fn poll_and_drop<T>(
    call: impl Future<Output = T>,
    times: usize,
    also_woken: bool,
) -> Option<T> {
    let (mut call, mut polls) = (Box::pin(call), 0);
    poll_fn(|context| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        match call.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == times && !also_woken => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What a call of an id that is not known does, as far as it is done.
#[derive(Clone, Copy, Debug)]
enum Verb {
    IsSeen,
    Get,
    Mark,
    Check,
    CheckAll,
    Observe,
    Seed,
    Claim,
    ClaimAll,
    WaitingClaim,
    Once,
}

const VERBS: [Verb; 11] = [
    Verb::IsSeen,
    Verb::Get,
    Verb::Mark,
    Verb::Check,
    Verb::CheckAll,
    Verb::Observe,
    Verb::Seed,
    Verb::Claim,
    Verb::ClaimAll,
    Verb::WaitingClaim,
    Verb::Once,
];

async fn call(store: &AsyncClusterStore, verb: Verb, id: &str) {
    match verb {
        Verb::IsSeen => drop(store.is_seen(id).await),
        Verb::Get => drop(store.get(id).await.unwrap()),
        Verb::Mark => store.mark_seen(id).await.unwrap(),
        Verb::Check => drop(store.check_and_mark(id).await.unwrap()),
        Verb::CheckAll => drop(store.check_and_mark_all([id]).await.unwrap()),
        Verb::Observe => drop(store.observe(id).await.unwrap()),
        Verb::Seed => drop(store.seed([id]).await.unwrap()),
        Verb::Claim => drop(store.claim(id, MINUTE).await.unwrap()),
        Verb::ClaimAll => drop(store.claim_all([id], MINUTE).await.unwrap()),
        Verb::WaitingClaim => drop(store.waiting(MINUTE).claim(id, MINUTE).await.unwrap()),
        Verb::Once => {
            let work = || async { Ok::<_, String>("done") };
            drop(store.once(id, MINUTE, work).await.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_was_done_or_was_not_and_leaves_no_claim_behind() {
    needs_server!();
    let store = store().await;
    let mut dropped = 0;
    for verb in VERBS {
        for polls in 0..6 {
            for also_woken in [false, true] {
                let id = format!("{verb:?} {polls} {also_woken}");
                dropped += usize::from(
                    poll_and_drop(call(&store, verb, &id), polls, also_woken).await.is_none(),
                );
                // What was claimed is given back within moments, not when the lease ends.
                let waiting = store.waiting(Duration::from_secs(20));
                match waiting.claim(&id, MINUTE).await.unwrap() {
                    Claim::Granted(mut lease) => {
                        let is_abandoned = matches!(lease.previous(), Previous::Abandoned { .. });
                        assert!(!is_abandoned, "{id}");
                        assert!(polls > 0 || lease.attempt() == 1, "{id}: it was not begun");
                        lease.confirm().await.unwrap();
                    }
                    Claim::Seen(_) => {
                        let marks = !matches!(verb, Verb::IsSeen | Verb::Get | Verb::Claim);
                        assert!(marks && polls > 0, "{id}");
                    }
                    other => panic!("{id}: {other:?}"),
                }
                assert_eq!(store.check_and_mark(&id).await.unwrap(), Verdict::Duplicate, "{id}");
            }
        }
    }
    assert!(dropped > 30, "only {dropped} were dropped before they were ready");
    store.close().await.unwrap();
}

/// What ends or prolongs a claim, of a lease or by a token.
#[derive(Clone, Copy, Debug)]
enum End {
    Confirm,
    Fail,
    Release,
    Renew,
}

async fn end(store: &AsyncClusterStore, end: End, id: &str, token: &Token) {
    match end {
        End::Confirm => store.confirm(id, token).await.unwrap(),
        End::Fail => store.fail(id, token, "503").await.unwrap(),
        End::Release => store.release(id, token).await.unwrap(),
        End::Renew => store.renew(id, token, 10 * MINUTE).await.unwrap(),
    }
}

async fn end_lease(mut lease: AsyncClusterLease, end: End) {
    match end {
        End::Confirm => lease.confirm().await.unwrap(),
        End::Fail => lease.fail("503").await.unwrap(),
        End::Release => lease.release().await.unwrap(),
        End::Renew => lease.renew(10 * MINUTE).await.unwrap(),
    }
}

fn is_done(end: End, entry: &Entry, before: &Entry) -> bool {
    match end {
        End::Confirm => entry.state == State::Seen,
        End::Fail => entry.state == State::Failed,
        End::Release => matches!(entry.state, State::Released | State::Expired),
        End::Renew => entry.lease_until > before.lease_until,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_was_polled_once_is_carried_on() {
    needs_server!();
    let store = store().await;
    for which in [End::Confirm, End::Fail, End::Release, End::Renew] {
        for polls in 0..4 {
            let id = format!("{which:?} {polls}");
            let token = granted(&store, &id).await.into_token();
            let before = entry(&store, &id).await;
            poll_and_drop(end(&store, which, &id, &token), polls, false).await;
            if polls == 0 {
                assert_eq!(entry(&store, &id).await, before, "{id}");
                continue;
            }
            let done = async {
                // An entry of a claim that was released may be gone.
                while let Some(entry) = store.get(&*id).await.unwrap() {
                    if is_done(which, &entry, &before) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), done).await.expect(&id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_dropped_while_it_ends_is_not_released_as_well() {
    needs_server!();
    let store = store().await;
    for which in [End::Confirm, End::Fail, End::Release, End::Renew] {
        for polls in 0..6 {
            let id = format!("{which:?} {polls}");
            let lease = granted(&store, &id).await;
            poll_and_drop(end_lease(lease, which), polls, true).await;
            let end = async {
                loop {
                    let entry = entry(&store, &id).await;
                    if entry.state != State::InFlight {
                        return entry.state;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let end = tokio::time::timeout(Duration::from_secs(10), end).await.expect(&id);
            let expected = match which {
                End::Confirm if polls > 0 => State::Seen,
                End::Fail if polls > 0 => State::Failed,
                _ => State::Released,
            };
            assert_eq!(end, expected, "{id}");
        }
    }
}
