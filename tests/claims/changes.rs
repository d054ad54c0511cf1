//! Claims of a change: the id stays seen in its old version until the claim is confirmed.

use std::time::Duration;

use seen_store::{Claim, ErrorKind, Filter, Item, SeenStore, State, Ttl, Verdict};

const LEASE: Duration = Duration::from_secs(60);

fn version(number: u8) -> Item<'static> {
    Item::new("a").version([number])
}

#[test]
fn a_claim_of_a_change_that_is_ended_twice_in_one_batch_leaves_the_old_mark() {
    let store = SeenStore::in_memory().unwrap();
    let _ = store.ttl(Ttl::Never).check_and_mark(version(1)).unwrap();
    // Its attempts are forgotten at once: the second release finds an expired claim, which the batch itself wrote.
    let brief = store.ttl(Duration::ZERO);
    let Claim::Granted(lease) = brief.claim(version(2), LEASE).unwrap() else { panic!() };
    let token = lease.into_token();
    let owned = brief.release_all([("a", token), ("a", token)]).unwrap();
    assert_eq!(format!("{owned:?}"), "[Held, Lost]");
    assert!(store.is_seen(version(1)), "the mark is lost with the claim");
    assert_eq!(store.get("a").unwrap().unwrap().state, State::Seen);
}

#[test]
fn beside_a_claim_of_a_change_in_the_same_batch_the_old_version_is_seen() {
    let store = SeenStore::in_memory().unwrap();
    let _ = store.check_and_mark(version(1)).unwrap();
    let items = [version(2), "a".into(), version(1), version(2)];
    let claims = store.claim_all(items, LEASE).unwrap();
    assert!(
        matches!(
            claims[..],
            [Claim::Granted(_), Claim::Seen(_), Claim::Seen(_), Claim::InFlight { .. }]
        ),
        "{claims:?}"
    );
}

#[test]
fn a_batch_that_meets_another_payload_counts_no_duplicates() {
    let store = SeenStore::in_memory().unwrap();
    store.mark_seen("b").unwrap();
    store.mark_seen(Item::new("a").payload("1")).unwrap();
    let batch = [Item::new("b"), Item::new("a").payload("2")];
    let error = store.check_and_mark_all(batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(store.get("b").unwrap().unwrap().duplicates, 0);
}

#[test]
fn what_is_known_before_tells_of_refusals_that_are_not_written_down_yet() {
    let store = SeenStore::in_memory().unwrap();
    let Claim::Granted(mut lease) = store.claim("a", LEASE).unwrap() else { panic!() };
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::InFlight);
    lease.confirm().unwrap();
    assert_eq!(store.observe("a").unwrap().before.unwrap().duplicates, 1);
}

#[test]
fn the_newest_entries_show_a_claimed_change_and_the_mark_beside_it() {
    let store = SeenStore::in_memory().unwrap();
    let _ = store.check_and_mark(version(1)).unwrap();
    let _lease = store.claim(version(2), LEASE).unwrap();
    let newest = store.entries(Filter::default()).newest(10).unwrap();
    let mut states: Vec<_> = newest.iter().map(|entry| entry.state.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["in-flight", "seen"]);
}
