//! Entries that one store has listed, restored in another.

use seen_store::{
    Abandoned, Claim, Entry, ErrorKind, Failure, Filter, Item, RestoreSummary, Store, Ttl, Verdict,
};

use crate::Place;
use crate::bench::{Bench, check, claimed, entry, ids};

fn listed(store: &dyn Store) -> Vec<Entry> {
    let mut entries: Vec<Entry> = store.entries(Filter::default()).map(Result::unwrap).collect();
    entries.sort_by(|a, b| (&a.scope, &a.id).cmp(&(&b.scope, &b.id)));
    entries
}

fn restored(store: &dyn Store, entries: &[Entry]) -> RestoreSummary {
    store.restore(&mut entries.iter().cloned()).unwrap()
}

fn counts(summary: &RestoreSummary) -> [u64; 4] {
    [summary.added, summary.changed, summary.unchanged, summary.expired]
}

pub(crate) fn what_one_store_has_listed_is_restored_in_another(place: &dyn Place) {
    let (from, to) = (Bench::new(place), Bench::new(place));
    let store = from.store();
    store.mark_seen("marked".into()).unwrap();
    store.ttl(Ttl::Never).mark_seen("for ever".into()).unwrap();
    store.mark_seen(Item::new("version").version("2")).unwrap();
    store.scope("x").mark_seen("marked".into()).unwrap();
    store.scope("x}:y").mark_seen(Item::new(b"\xFF\x00")).unwrap();
    assert_eq!(check(store, "repeated"), Verdict::New);
    assert_eq!(check(store, "repeated"), Verdict::Duplicate);
    claimed(store, "confirmed", from.long()).confirm_with("4711").unwrap();
    claimed(store, "failed", from.long()).fail("503").unwrap();
    claimed(store, "given up", from.long()).fail(Failure::new("404").is_final()).unwrap();
    claimed(store, "released", from.long()).release().unwrap();
    let in_flight = claimed(store, "in flight", from.long());
    let held = claimed(&*store.abandoned(Abandoned::Hold), "held", from.long());
    let entries = listed(store);
    assert_eq!(entries.len(), 12);

    let summary = restored(to.store(), &entries);
    assert_eq!((counts(&summary), summary.refused.len()), ([12, 0, 0, 0], 0));
    assert_eq!(listed(to.store()), entries);
    let summary = restored(to.store(), &entries);
    assert_eq!(counts(&summary), [0, 0, 12, 0], "the same again changes nothing");
    assert_eq!(listed(&*to.again()), entries);
    // The verbs know what was restored.
    assert_eq!(check(to.store(), "marked"), Verdict::Duplicate);
    assert_eq!(
        to.store().check_and_mark(Item::new("version").version("3")).unwrap(),
        Verdict::Changed
    );
    assert_eq!(claimed(to.store(), "failed", to.long()).attempt(), 2);
    in_flight.into_token();
    held.into_token();
}

pub(crate) fn a_restored_entry_shortens_and_overwrites_nothing(place: &dyn Place) {
    let (from, to) = (Bench::new(place), Bench::new(place));
    let earlier = from.now() - from.units(5);
    from.store().ttl(from.long().into()).mark_seen_at("a".into(), earlier).unwrap();
    claimed(from.store(), "b", from.long()).confirm_with("theirs").unwrap();
    let store = to.store();
    store.ttl(Ttl::Never).mark_seen("a".into()).unwrap();
    claimed(store, "b", to.long()).confirm_with("ours").unwrap();
    let (a, b) = (entry(store, "a"), entry(store, "b"));
    let summary = restored(store, &listed(from.store()));
    assert_eq!(summary.added + summary.expired, 0);
    let merged = entry(store, "a");
    assert_eq!((merged.expires_at, merged.last_seen), (None, a.last_seen));
    assert!(merged.first_seen < a.first_seen, "the earlier time counts");
    assert_eq!(entry(store, "b").receipt, b.receipt);
    assert!(entry(store, "b").expires_at >= b.expires_at);
    // One that is over tells nothing.
    let mut over = Entry::new("", "c", earlier);
    over.expires_at = Some(earlier + from.units(1));
    assert_eq!(counts(&restored(store, &[over])), [0, 0, 0, 1]);
    assert!(!store.is_seen("c".into()));
}

pub(crate) fn an_entry_that_no_store_takes_is_left_out_alone(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let entry = |id: Vec<u8>| {
        let mut entry = Entry::new("x", id, bench.now());
        entry.expires_at = Some(bench.now() + bench.long());
        entry
    };
    let mut heavy = entry(b"heavy".to_vec());
    heavy.receipt = Some(vec![0; 1 + (1 << 20)]);
    let entries = [
        entry(b"first".to_vec()),
        entry(Vec::new()),
        entry(vec![b'l'; 65_537]),
        heavy,
        entry(b"last".to_vec()),
    ];
    let summary = restored(store, &entries);
    assert_eq!(summary.added, 2);
    let kinds: Vec<_> = summary.refused.iter().map(|refused| refused.error.kind()).collect();
    assert_eq!(kinds, [ErrorKind::InvalidId, ErrorKind::InvalidId, ErrorKind::InvalidClaim]);
    assert_eq!((&*summary.refused[2].scope, &*summary.refused[2].id), ("x", &b"heavy"[..]));
    assert_eq!(ids(store, Filter::default().scope("x")), ["first", "last"]);
}

pub(crate) fn a_restored_claim_is_confirmed_by_no_worker(place: &dyn Place) {
    let (from, to) = (Bench::new(place), Bench::new(place));
    let token = claimed(from.store(), "a", from.long()).into_token();
    assert_eq!(restored(to.store(), &listed(from.store())).added, 1);
    let claim = to.store().claim("a".into(), to.long()).unwrap();
    assert!(matches!(claim, Claim::InFlight { .. }), "{claim:?}");
    let refused = to.store().confirm("a".into(), &token).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LeaseLost);
    // A mark ends it.
    from.store().mark_seen("a".into()).unwrap();
    assert_eq!(restored(to.store(), &listed(from.store())).changed, 1);
    assert!(to.store().is_seen("a".into()));
}
