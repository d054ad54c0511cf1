//! To forget an id takes all that is known of it.

use seen_store::{Abandoned, ErrorKind, Failure, Filter, Verdict};

use crate::Place;
use crate::bench::{Bench, SHORT, assert_kind, check, check_all, claimed, entry, get, ids};

pub(crate) fn a_forgotten_mark_is_new_again_everywhere(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    assert_eq!(check_all(store, &["a", "a", "b"])[0], Verdict::New);
    assert!(!store.forget("unknown".into()).unwrap());
    assert!(store.forget("a".into()).unwrap());
    assert!(!store.forget("a".into()).unwrap(), "there is nothing left");
    assert!(!store.is_seen("a".into()) && store.is_seen("b".into()));
    assert_eq!(get(store, "a"), None);
    bench.others_notice();
    assert!(!again.is_seen("a".into()) && get(&*again, "a").is_none());
    assert_eq!(ids(&*again, Filter::default()), ["b"]);
    assert_eq!(check(&*again, "a"), Verdict::New);
    let entry = entry(&*again, "a");
    assert_eq!((entry.duplicates, entry.history), (0, None));
    assert_eq!(check(store, "a"), Verdict::Duplicate);
    // A mark that another store has made.
    assert!(store.forget("a".into()).unwrap());
}

pub(crate) fn a_worker_whose_id_was_forgotten_has_lost_its_claim(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let mut lease = claimed(store, "a", bench.long());
    let token = lease.token();
    assert!(again.forget("a".into()).unwrap());
    assert!(!lease.is_held().unwrap() && get(store, "a").is_none());
    assert_kind(lease.renew(bench.long()), ErrorKind::LeaseLost);
    assert_kind(lease.confirm(), ErrorKind::LeaseLost);
    assert_kind(store.fail("a".into(), &token, "503".into()), ErrorKind::LeaseLost);
    let mut next = claimed(store, "a", bench.long());
    assert_eq!(next.attempt(), 1, "the attempts are forgotten too");
    drop(lease);
    assert!(next.is_held().unwrap(), "the lost lease released nothing");
    next.confirm().unwrap();
}

pub(crate) fn whatever_is_known_of_an_id_is_forgotten(place: &dyn Place) {
    let bench =
        Bench::with(place, |config| config.ttl(place.unit() * SHORT).retention(place.unit() * 400));
    let store = bench.store();
    let lasting = store.ttl(bench.long().into());
    let lease = |id: &str| claimed(&*lasting, id, bench.units(4));
    drop(lease("released"));
    lease("failed").fail("503").unwrap();
    lease("delayed").fail(Failure::new("503").retry_after(bench.long())).unwrap();
    lease("given up").fail(Failure::new("404").is_final()).unwrap();
    lease("abandoned").into_token();
    claimed(&*lasting.abandoned(Abandoned::Hold), "unresolved", bench.units(4)).into_token();
    assert_eq!(check(store, "kept"), Verdict::New);
    lease("receipt").confirm_with("4711").unwrap();
    bench.short_passes();
    for id in
        ["released", "failed", "delayed", "given up", "abandoned", "unresolved", "kept", "receipt"]
    {
        assert!(get(store, id).is_some(), "{id}");
        assert!(store.forget(id.into()).unwrap(), "{id}");
        assert_eq!(get(store, id), None, "{id}");
        assert!(!store.forget(id.into()).unwrap(), "{id}");
        let mut lease = claimed(store, id, bench.long());
        assert_eq!(lease.attempt(), 1, "{id}");
        assert_eq!(*lease.previous(), seen_store::Previous::None, "{id}");
        lease.confirm().unwrap();
        let entry = entry(store, id);
        assert_eq!((entry.history, entry.receipt, entry.last_error), (None, None, None), "{id}");
    }
}
