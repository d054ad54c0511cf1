//! Handles: another scope, TTL or way to decide, on the same store.

use std::thread;
use std::time::Duration;

use seen_store::{Abandoned, State, Store, Ttl, Verdict, Window};

use crate::Place;
use crate::bench::{Bench, check, claimed, entry, state, word};

pub(crate) fn a_handle_has_its_settings_and_leaves_those_of_others_alone(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let lasts = |store: &dyn Store, id: &str| {
        assert_eq!(check(store, id), Verdict::New);
        let entry = entry(store, id);
        entry.expires_at.map(|at| at.duration_since(entry.first_seen).unwrap())
    };
    let hours = store.ttl(bench.units(50).into());
    let days = hours.ttl(bench.units(70).into());
    assert_eq!(lasts(store, "of the store"), Some(bench.long()));
    assert_eq!(lasts(&*hours, "of a handle"), Some(bench.units(50)));
    assert_eq!(lasts(&*days, "of a handle of a handle"), Some(bench.units(70)));
    assert_eq!(lasts(&*hours, "of the handle still"), Some(bench.units(50)));
    assert_eq!(lasts(&*store.ttl(Ttl::Never), "never"), None);
    assert_eq!(lasts(&*hours.boxed(), "of another like it"), Some(bench.units(50)));
    // Settings are combined, and all handles have the same ids.
    let all = store.scope("x").ttl(bench.units(20).into()).window(Window::SLIDING);
    let all = all.retention(Some(bench.long())).abandoned(Abandoned::Hold);
    let all = all
        .waiting(Duration::ZERO)
        .renewing(Duration::from_secs(1))
        .busy_timeout(Duration::from_secs(5));
    assert!(lasts(&*all, "all").unwrap() >= bench.units(20));
    let marked = entry(&*all, "all");
    assert_eq!(
        (&*marked.scope, marked.retain_until),
        ("x", Some(marked.first_seen + bench.long()))
    );
    assert!(store.scope("x").is_seen("all".into()) && !store.is_seen("all".into()));
    claimed(&*all, "claimed", bench.long()).into_token();
    assert!(entry(&*all, "claimed").held);
    assert_eq!(entry(&*all.retention(None), "all").retain_until, marked.retain_until);
    assert_eq!(lasts(&*all.retention(None).scope(""), "plain"), lasts(&*all, "plain"));
    assert_eq!(entry(store, "plain").retain_until, None);
}

pub(crate) fn a_claim_follows_the_handle_that_it_was_granted_by(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let hold = store.abandoned(Abandoned::Hold);
    let retry = hold.abandoned(Abandoned::Retry);
    claimed(&*hold, "held", bench.short()).into_token();
    claimed(&*retry, "not held", bench.short()).into_token();
    claimed(store, "by default", bench.short()).into_token();
    bench.short_passes();
    let states = ["held", "not held", "by default"].map(|id| state(store, id));
    assert_eq!(states, [State::Unresolved, State::Abandoned, State::Abandoned]);
    assert_eq!(word(&*retry, "held", bench.long()), "unresolved");
    assert_eq!(word(&*hold, "not held", bench.long()), "granted");
}

pub(crate) fn a_handle_tells_for_how_long_its_leases_are_renewed(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    assert_eq!(store.renewed_for(), None);
    let hour = Duration::from_secs(3_600);
    let renewing = store.renewing(hour);
    assert_eq!(renewing.renewed_for(), Some(hour));
    assert_eq!(renewing.scope("x").boxed().renewed_for(), Some(hour));
    assert_eq!(renewing.renewing(2 * hour).renewed_for(), Some(2 * hour));
    assert_eq!(store.renewed_for(), None);
}

pub(crate) fn handles_are_used_by_threads_and_outlive_one_another(place: &dyn Place) {
    let bench = Bench::new(place);
    let handle = bench.store().scope("x");
    let thread = thread::spawn(move || {
        let verdict = check(&*handle, "a");
        let other = handle.ttl(Ttl::Never);
        drop(handle);
        (verdict, check(&*other, "a"))
    });
    assert_eq!(thread.join().unwrap(), (Verdict::New, Verdict::Duplicate));
    assert_eq!(check(&*bench.store().scope("x"), "a"), Verdict::Duplicate);
    let waits_long = bench.store().busy_timeout(Duration::from_secs(30));
    assert_eq!(check(&*waits_long, "b"), Verdict::New);
}
