//! Counts that cannot be right, from an import or from another program, fail nothing.

use rusqlite::Connection;
use seen_store::{Claim, Config, Entry, Filter, Reader, SeenStore, State, Verdict, Window};

use crate::common::{Place, secs};

const MOST: u64 = i64::MAX.unsigned_abs();

/// A store with the marks `ids`, each with this count in the file.
fn with_count(place: &Place, ids: &[&str], count: i64) -> SeenStore {
    let store = place.open(Config::default().purge_interval(None));
    store.seed(ids).unwrap();
    place.sql().execute("UPDATE seen SET duplicates = ?1", [count]).unwrap();
    store
}

fn duplicates(store: &SeenStore, id: &str) -> u64 {
    store.get(id).unwrap().unwrap().duplicates
}

#[test]
fn a_count_is_brought_to_the_largest_that_the_file_can_hold() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let mut entry = Entry::new("", "a", std::time::SystemTime::UNIX_EPOCH);
    entry.duplicates = u64::MAX;
    assert_eq!(store.restore([entry.clone()]).unwrap().added, 1);
    assert_eq!(duplicates(&store, "a"), MOST);
    // Turned away once more, and brought once more.
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert_eq!(store.restore([entry]).unwrap().unchanged, 1);
    store.purge_expired().unwrap();
    store.close().unwrap();
    assert!(duplicates(&place.open(Config::default()), "a") >= MOST);
}

#[test]
fn a_count_that_is_full_fails_no_verb_of_its_id() {
    for count in [i64::MAX, i64::MAX - 1] {
        let place = Place::in_ram();
        let store = with_count(&place, &["flushed", "marked", "receipt", "sliding"], count);
        let Claim::Granted(lease) = store.claim("confirmed", secs(60)).unwrap() else { panic!() };
        let token = lease.into_token();
        store.mark_seen("confirmed").unwrap();
        let sql = "UPDATE seen SET duplicates = ?1 WHERE id = 'confirmed'";
        place.sql().execute(sql, [count]).unwrap();
        for id in ["flushed", "marked", "receipt", "sliding", "confirmed"] {
            for _ in 0..3 {
                assert_eq!(store.check_and_mark(id).unwrap(), Verdict::Duplicate, "{id}");
            }
        }
        store.mark_seen("marked").unwrap();
        store.confirm_with("confirmed", &token, "receipt").unwrap();
        let sliding = store.window(Window::SLIDING).ttl(secs(90 * 24 * 3_600));
        assert_eq!(sliding.check_and_mark("sliding").unwrap(), Verdict::Duplicate);
        store.purge_expired().unwrap();
        for id in ["flushed", "marked", "receipt", "sliding", "confirmed"] {
            assert!(duplicates(&store, id) >= MOST, "{id}");
        }
        store.close().unwrap();
    }
}

#[test]
fn a_count_below_zero_counts_as_none() {
    for count in [-1, i64::MIN] {
        let place = Place::in_ram();
        let store = with_count(&place, &["a", "b"], count);
        assert_eq!(duplicates(&store, "a"), 0);
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
        assert_eq!(store.check_and_mark("b").unwrap(), Verdict::Duplicate);
        store.mark_seen("b").unwrap();
        store.purge_expired().unwrap();
        assert_eq!((duplicates(&store, "a"), duplicates(&store, "b")), (1, 1));
        let reader = Reader::open(place.path()).unwrap();
        assert_eq!(reader.get("a").unwrap().unwrap().duplicates, 1);
        store.close().unwrap();
    }
}

fn set_attempts(file: &Connection, attempts: i64) {
    for table in ["seen", "claims"] {
        file.execute(&format!("UPDATE {table} SET attempts = ?1"), [attempts]).unwrap();
    }
}

#[test]
fn a_number_of_attempts_that_cannot_be_right_fails_no_verb() {
    for (attempts, read) in
        [(-1, 0), (i64::MIN, 0), (1 << 32, u32::MAX), (i64::MAX, u32::MAX), (7, 7)]
    {
        let place = Place::in_ram();
        let store = place.open(Config::default());
        store.mark_seen("seen").unwrap();
        for id in ["failed", "marked", "checked", "confirmed"] {
            let Claim::Granted(mut lease) = store.claim(id, secs(60)).unwrap() else { panic!() };
            lease.fail("why").unwrap();
        }
        set_attempts(&place.sql(), attempts);
        let reader = Reader::open(place.path()).unwrap();
        for id in ["seen", "failed"] {
            assert_eq!(store.get(id).unwrap().unwrap().attempts, read, "{attempts}");
            assert_eq!(reader.get(id).unwrap().unwrap().attempts, read, "{attempts}");
        }
        assert_eq!(store.entries(Filter::default()).filter_map(Result::ok).count(), 5);
        assert_eq!(reader.entries(Filter::default()).filter_map(Result::ok).count(), 5);
        assert_eq!(store.stats().unwrap().failed, 4);
        assert!(reader.verify().unwrap().is_ok());
        let Claim::Granted(mut lease) = store.claim("confirmed", secs(60)).unwrap() else {
            panic!("{attempts}: not granted")
        };
        assert_eq!(lease.attempt(), read.saturating_add(1));
        lease.confirm().unwrap();
        store.mark_seen("marked").unwrap();
        store.mark_seen("seen").unwrap();
        assert_eq!(store.check_and_mark("checked").unwrap(), Verdict::New);
        for id in ["marked", "checked", "seen"] {
            let entry = store.get(id).unwrap().unwrap();
            assert_eq!((entry.state, entry.attempts), (State::Seen, read), "{id}");
        }
        store.close().unwrap();
    }
}
