//! Ids and scopes: any bytes, told apart byte by byte.

use std::time::Duration;

use seen_store::{Claim, ErrorKind, Filter, Item, Store, Verdict};

use crate::Place;
use crate::bench::{
    Bench, assert_kind, check, check_all, claimed, entry, get, ids, listed, state, word,
};

/// Texts that a store could mistake for one another, or for something else: white space, NUL bytes, cases and forms of
/// letters, percent signs, separators of keys, braces of a hash tag, patterns, quotes, numbers, words of protocols.
const TEXTS: &str = "a|A| a|a |a\t|a\n|a\r\n|\na|a\0|\0a|a\0b|\0|\0\0| |é|e\u{301}|é\0|ß|ss|İ|i̇|\u{feff}a|\u{200b}a|🚨|\
    %|%%|%41|%61|%6|%zz|%25|%2525|%3A|%7B|:|::|a:|:a|a:b|a::b|1:a|{|}|{}|{{}}|{a}|{a}b|a{b}|}{|{a|a}|{}a|\
    *|?|[a]|a*|^|\\|\\0|\\x00|\\\\|'|\"|';--|$1|NULL|null|0|00|-0|1|1.0|1e0|-1|true|/|a/b|//|..|#|a b|+|=|&|,|;|<a>|@|~|\
    \u{1b}[31m|\u{7f}|seen|claims|meta|SCAN|*3\r\n|$-1\r\n";

/// Not UTF-8: a lone byte, a character that is cut, a surrogate, one that is spelled too long.
const BYTES: [&[u8]; 11] = [
    b"\xff",
    b"\xff\xfe",
    b"a\xff",
    b"\xffa",
    b"\xc3",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\xe9",
];

fn odd_ids() -> Vec<Vec<u8>> {
    TEXTS.split('|').map(str::as_bytes).chain(BYTES).map(<[u8]>::to_vec).collect()
}

fn items(ids: &[Vec<u8>]) -> Vec<Item<'_>> {
    ids.iter().map(Item::from).collect()
}

/// Checks that the store takes these for different ids, with each kind of verb, and keeps their bytes.
fn are_told_apart(bench: &Bench<'_>, store: &dyn Store, ids: &[Vec<u8>]) {
    let (even, odd): (Vec<_>, Vec<_>) =
        ids.iter().cloned().enumerate().partition(|(n, _)| n % 2 == 0);
    let ids_of =
        |some: Vec<(usize, Vec<u8>)>| some.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    let (even, odd) = (ids_of(even), ids_of(odd));
    for id in &even {
        assert_eq!(check(store, id), Verdict::New, "{id:?}");
    }
    let verdicts = store.check_and_mark_all(&items(ids)).unwrap();
    for (n, (id, verdict)) in ids.iter().zip(verdicts).enumerate() {
        let expected = if n % 2 == 0 { Verdict::Duplicate } else { Verdict::New };
        assert_eq!(verdict, expected, "{id:?}");
    }
    for id in ids {
        assert!(store.is_seen(id.into()), "{id:?}");
        assert_eq!(entry(store, id).id, *id);
    }
    for id in &odd {
        assert!(store.forget(id.into()).unwrap(), "{id:?}");
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(get(store, id).is_some(), n % 2 == 0, "{id:?}");
    }
    // Claims are told apart likewise.
    let leases: Vec<_> = odd.iter().map(|id| claimed(store, id, bench.long())).collect();
    for (n, (id, mut lease)) in odd.iter().zip(leases).enumerate() {
        assert_eq!(lease.id(), id);
        if n % 2 == 0 {
            lease.confirm_with(id).unwrap();
            assert_eq!(entry(store, id).receipt.as_ref(), Some(id));
        } else {
            lease.release().unwrap();
        }
    }
    for (n, id) in odd.iter().enumerate() {
        assert_eq!(store.try_is_seen(id.into()).unwrap(), n % 2 == 0, "{id:?}");
    }
}

pub(crate) fn every_byte_is_part_of_an_id(place: &dyn Place) {
    let bench = Bench::new(place);
    let all: Vec<Vec<u8>> =
        (0..=255).flat_map(|byte| [vec![byte], vec![0, byte], vec![byte, 1, byte]]).collect();
    are_told_apart(&bench, bench.store(), &all);
    let seen = listed(bench.store(), Filter::default());
    assert_eq!(seen.len(), all.len(), "each is listed once, and nothing else");
    assert!(all.iter().all(|id| seen.contains(&(String::new(), id.clone()))));
}

pub(crate) fn ids_are_neither_trimmed_nor_folded_nor_decoded(place: &dyn Place) {
    let bench = Bench::new(place);
    let all = odd_ids();
    are_told_apart(&bench, bench.store(), &all);
    are_told_apart(&bench, &*bench.store().scope("{odd}:%"), &all);
    let again = bench.again();
    assert!(again.is_seen("a".into()) && again.scope("{odd}:%").is_seen("a".into()));
    // A prefix is of bytes too: no pattern, no case.
    for prefix in &all {
        let with_prefix = all.iter().filter(|id| id.starts_with(prefix)).count();
        let filter = Filter::default().scope("").prefix(prefix);
        assert_eq!(listed(bench.store(), filter).len(), with_prefix, "{prefix:?}");
    }
}

pub(crate) fn an_id_has_1_to_65536_bytes(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let token = claimed(store, "a", bench.long()).into_token();
    let (longest, too_long) = (vec![b'x'; 65_536], vec![b'x'; 65_537]);
    for id in [&b""[..], &too_long] {
        let (item, lease) = (|| Item::from(id), bench.short());
        let invalid = ErrorKind::InvalidId;
        assert!(!store.is_seen(item()));
        assert_kind(store.try_is_seen(item()), invalid);
        assert_kind(store.check_and_mark(item()), invalid);
        assert_kind(store.check_and_mark_all(&[item()]), invalid);
        assert_kind(store.observe(item()), invalid);
        assert_kind(store.mark_seen(item()), invalid);
        assert_kind(store.mark_seen_at(item(), bench.now()), invalid);
        assert_kind(store.seed(&[item()]), invalid);
        assert_kind(store.forget(item()), invalid);
        assert_kind(store.get(item()), invalid);
        assert_kind(store.claim(item(), lease), invalid);
        assert_kind(store.claim_all(&[item()], lease), invalid);
        assert_kind(store.confirm(item(), &token), invalid);
        assert_kind(store.confirm_with(item(), &token, b"4711"), invalid);
        assert_kind(store.confirm_all(&[(item(), token)]), invalid);
        assert_kind(store.release(item(), &token), invalid);
        assert_kind(store.release_all(&[(item(), token)]), invalid);
        assert_kind(store.fail(item(), &token, "503".into()), invalid);
        assert_kind(store.renew(item(), &token, lease), invalid);
        assert_kind(store.renew_all(&[(item(), token)], lease), invalid);
        assert_kind(store.resolve(item(), seen_store::Resolution::Done), invalid);
    }
    assert_eq!(check(store, &longest), Verdict::New);
    assert_eq!(check(store, &longest), Verdict::Duplicate);
    assert_eq!(check(store, &longest[1..]), Verdict::New, "an id is not cut");
    let differs_at_its_end = [&longest[1..], b"y"].concat();
    claimed(store, &differs_at_its_end, bench.short()).confirm().unwrap();
    assert_eq!(entry(store, &differs_at_its_end).id, differs_at_its_end);
    let long = listed(store, Filter::default().prefix("xxx"));
    assert_eq!(long.len(), 3);
    assert!(store.forget(Item::from(&longest)).unwrap());
    assert!(!store.is_seen(Item::from(&longest)) && store.is_seen(Item::from(&differs_at_its_end)));
}

pub(crate) fn the_border_between_scope_and_id_is_never_confused(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let pairs = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("", "a:b:c"),
        ("a:b:c", ":"),
        ("a:", "b:c"),
        (":a", "b:c"),
        ("a", ":b:c"),
        ("ab", "c"),
        ("a", "bc"),
        ("", "abc"),
        ("abc", "abc"),
        ("{a}", "b"),
        ("", "{a}b"),
        ("a", "{b}"),
        ("{a", "}b"),
        ("a{", "}b"),
        ("{", "a}b"),
        ("a%3Ab", "c"),
        ("a%", "3Ab:c"),
        ("a%3", "Ab:c"),
        ("1:a", "b"),
        ("", "1:ab"),
        ("1", "a:b"),
        ("a\0", "b"),
        ("a", "\0b"),
        ("a\0b", "c"),
        ("A", "B:C"),
        ("a ", "b:c"),
        (" a", "b:c"),
        ("é", "b"),
        ("e\u{301}", "b"),
        ("*", "b"),
        ("?", "b"),
        ("[a]", "b"),
        ("a*", "b"),
        ("0", "0"),
        ("", "0"),
        ("00", "0"),
    ];
    let scope = |name: &str| store.scope(name);
    for (name, id) in pairs {
        assert_eq!(check(&*scope(name), id), Verdict::New, "{name:?} {id:?}");
    }
    for (name, id) in pairs {
        assert_eq!(check(&*scope(name), id), Verdict::Duplicate, "{name:?} {id:?}");
        let entry = entry(&*scope(name), id);
        assert_eq!((&*entry.scope, &*entry.id), (name, id.as_bytes()));
    }
    let mut expected: Vec<_> =
        pairs.iter().map(|(name, id)| ((*name).to_owned(), id.as_bytes().to_vec())).collect();
    expected.sort();
    assert_eq!(listed(store, Filter::default()), expected);
    for (name, _) in pairs {
        let of_scope: Vec<_> =
            expected.iter().filter(|(scope, _)| scope == name).cloned().collect();
        assert_eq!(listed(store, Filter::default().scope(name)), of_scope, "{name:?}");
        assert_eq!(
            scope(name).count(Filter::default()).unwrap(),
            of_scope.len() as u64,
            "{name:?}"
        );
    }
    let again = bench.again();
    let (forgotten, kept): (Vec<_>, Vec<_>) = (0..).zip(pairs).partition(|(n, _)| n % 3 == 0);
    for (_, (name, id)) in &forgotten {
        assert!(scope(name).forget((*id).into()).unwrap(), "{name:?} {id:?}");
    }
    bench.others_notice();
    for (is_kept, some) in [(false, forgotten), (true, kept)] {
        for (_, (name, id)) in some {
            assert_eq!(again.scope(name).is_seen(id.into()), is_kept, "{name:?} {id:?}");
            assert_eq!(get(&*scope(name), id).is_some(), is_kept, "{name:?} {id:?}");
        }
    }
}

pub(crate) fn an_id_is_known_in_its_scope_alone(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let longest = "s".repeat(65_536);
    let names = ["", "x", "y", "X", "x/y", "é", "\0", longest.as_str()];
    for (n, name) in names.iter().enumerate() {
        let scope = store.scope(name);
        assert!(!scope.is_seen("a".into()));
        assert_eq!(check(&*scope, "a"), Verdict::New);
        assert_eq!(check_all(&*scope, &["a", "b"]), [Verdict::Duplicate, Verdict::New]);
        assert_eq!(scope.count(Filter::default()).unwrap(), 2);
        assert_eq!(listed(&*scope, Filter::default()).len(), 2 * n + 2, "a listing has all scopes");
    }
    // The scope replaces that of the handle.
    let other = store.scope("x").scope("y");
    assert!(other.is_seen("a".into()) && other.forget("a".into()).unwrap());
    assert!(store.scope("x").is_seen("a".into()) && !store.scope("y").is_seen("a".into()));
    assert_eq!(check(&*store.scope("x").scope(""), "a"), Verdict::Duplicate);
    // A claim is of its scope.
    let (x, y) = (store.scope("x"), store.scope("y"));
    let token = claimed(&*x, "claimed", bench.long()).into_token();
    assert_kind(y.confirm("claimed".into(), &token), ErrorKind::LeaseLost);
    assert_kind(store.release("claimed".into(), &token), ErrorKind::LeaseLost);
    assert_eq!(
        (word(&*y, "claimed", bench.long()), word(&*x, "claimed", bench.long())),
        ("granted", "in flight")
    );
    x.confirm("claimed".into(), &token).unwrap();
    assert!(x.is_seen("claimed".into()) && !y.is_seen("claimed".into()));
    // A scope that is too long is refused by each verb.
    let too_long = store.scope(&"s".repeat(65_537));
    assert!(!too_long.is_seen("a".into()));
    assert_kind(too_long.check_and_mark("a".into()), ErrorKind::InvalidId);
    assert_kind(too_long.get("a".into()), ErrorKind::InvalidId);
    assert_kind(too_long.claim("a".into(), Duration::from_secs(1)), ErrorKind::InvalidId);
}

pub(crate) fn what_is_asked_for_with_one_token_is_of_one_id(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let token = claimed(store, "a", bench.long()).into_token();
    let other = claimed(store, "b", bench.long()).into_token();
    assert_ne!(token, other);
    for id in ["b", "A", "a ", "unknown"] {
        assert_kind(store.confirm(id.into(), &token), ErrorKind::LeaseLost);
        assert_kind(store.release(id.into(), &token), ErrorKind::LeaseLost);
    }
    assert!(matches!(store.claim("a".into(), bench.long()).unwrap(), Claim::InFlight { .. }));
    assert_eq!(state(store, "b"), seen_store::State::InFlight);
    assert_eq!(ids(store, Filter::default()), ["a", "b"]);
    store.confirm("a".into(), &token).unwrap();
    assert!(store.is_seen("a".into()) && !store.is_seen("b".into()));
}
