//! Rows and numbers in the file that no store writes.

use std::fs::{self};

use seen_store::{Claim, Config, Error, ErrorKind, Filter, Reader, Result, SeenStore};

use crate::attempts::{closed_store, refused, tamper};
use crate::common::{Place, secs};

/// SQLite takes text and the same bytes as a BLOB for two values, so a lookup by the one misses the other, and
/// a listing that goes on after the one comes to the other again. A store writes text where an id is UTF-8.
#[test]
fn an_id_in_the_storage_class_that_is_not_its_own_is_told_by_all_that_meet_it() {
    let is_told = |what: &str, error: Option<Error>| {
        let error = error.unwrap_or_else(|| panic!("{what}: nothing was told"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    };
    for (id, class) in [(&b"an id"[..], "BLOB"), (&b"\xff"[..], "TEXT")] {
        for table in ["claims", "seen"] {
            let place = Place::in_ram();
            let store = place.open(Config::default());
            if table == "seen" {
                store.mark_seen(id).unwrap();
            } else {
                let Claim::Granted(lease) = store.claim(id, secs(60)).unwrap() else { panic!() };
                let _ = lease.into_token();
            }
            store.mark_seen("newer").unwrap();
            let changed = format!("UPDATE {table} SET id = CAST(id AS {class}) WHERE id = ?1");
            let value = match str::from_utf8(id) {
                Ok(text) => rusqlite::types::Value::Text(text.into()),
                Err(_) => rusqlite::types::Value::Blob(id.into()),
            };
            assert_eq!(place.sql().execute(&changed, [value]).unwrap(), 1);
            let what = format!("{class} in {table}");
            let is_listed = |listing: &mut dyn Iterator<Item = Result<seen_store::Entry>>| {
                listing.take(1_000).find_map(Result::err)
            };
            is_told(&what, is_listed(&mut store.entries(Filter::default())));
            is_told(&what, store.get(id).err());
            let reader = Reader::open(place.path()).unwrap();
            is_told(&what, is_listed(&mut reader.entries(Filter::default())));
            is_told(&what, reader.try_is_seen(id).err());
            let many = (0..20).map(|n| format!("{n}").into_bytes()).chain([id.to_vec()]);
            is_told(&what, reader.get_all(many).err());
            is_told(&what, reader.verify().err());
            if table == "claims" {
                is_told(&what, reader.stats(secs(1), 1).err());
                is_told(&what, store.claim(id, secs(60)).err());
                is_told(&what, store.claim_all([id, b"b", b"c"], secs(60)).err());
            } else {
                is_told(&what, SeenStore::open(place.path()).err());
            }
        }
    }
}

/// Calls what counts, compares and adds. What it answers is another matter: the numbers are wrong.
fn use_all(store: &SeenStore, place: &Place) {
    let copy = place.folder().join("copy.db");
    let _ = store.check_and_mark("id 1");
    let _ = store.check_and_mark_all(["id 2", "new"]);
    let _ = store.get("id 3");
    let _ = store.get("claimed");
    let _ = store.claim("claimed", secs(1));
    let _ = store.claim_all(["failed", "x"], secs(1));
    let _ = store.forget("id 4");
    let _ = (store.stats(), store.count_expired(), store.count_old_entries(secs(1)));
    let _ = (store.entries(Filter::default()).count(), store.verify().map(drop));
    let _ = (store.purge_expired(), store.scope("other").cleanup_old_entries(secs(0)));
    let _ = (store.backup(&copy), store.compact(), store.cleanup_old_entries(secs(0)));
    let _ = (store.forget_scope(), store.mark_seen("after"), store.close());
}

fn read_all(place: &Place) {
    let Ok(reader) = Reader::open(place.path()) else { return };
    let _ = (reader.get("id 1"), reader.get("claimed"));
    let _ = reader.get_all((0..20).map(|n| format!("id {n}")));
    let _ = (reader.entries(Filter::default()).count(), reader.verify(), reader.info());
    let _ = reader.stats(secs(100), 3);
}

#[test]
fn no_number_in_the_file_makes_a_verb_panic() {
    let original = Place::in_ram();
    let store = original.open(Config::default().retry_delay(secs(3)));
    store.seed((0..20).map(|n| format!("id {n}"))).unwrap();
    store.scope("other").mark_seen("a").unwrap();
    for id in ["claimed", "failed"] {
        let Claim::Granted(mut lease) = store.claim(id, secs(60)).unwrap() else { panic!() };
        if id == "failed" {
            lease.fail("why").unwrap();
        } else {
            let _ = lease.into_token();
        }
    }
    store.close().unwrap();
    let mut changes = Vec::new();
    for value in [i64::MIN, -1, i64::MAX - 1, i64::MAX] {
        for key in ["generation", "floor", "last_purge_at", "clock", "buried"] {
            changes.push(format!("INSERT OR REPLACE INTO meta VALUES ('{key}', {value})"));
        }
        for column in ["first_seen", "last_seen", "duplicates", "attempts", "expires_at"] {
            changes.push(format!("UPDATE seen SET {column} = {value} WHERE seq % 2 = 0"));
        }
        changes.push(format!("UPDATE seen SET seq = {value} WHERE id = 'id 19'"));
        for column in ["claimed_at", "lease_until", "attempts", "expires_at"] {
            changes.push(format!("UPDATE claims SET {column} = {value}"));
        }
    }
    for change in changes {
        for open_before in [true, false] {
            println!("{change}, open before: {open_before}");
            let place = Place::in_ram();
            fs::copy(original.path(), place.path()).unwrap();
            let before = open_before.then(|| place.open(Config::default()));
            place.sql().execute_batch(&change).unwrap();
            read_all(&place);
            if let Some(store) = before.or_else(|| SeenStore::open(place.path()).ok()) {
                use_all(&store, &place);
            }
        }
    }
}

#[test]
fn a_counter_that_no_store_has_reached_is_refused() {
    for key in ["generation", "floor"] {
        for value in [-1, i64::MAX - 1, i64::MAX] {
            let place = Place::in_ram();
            closed_store(&place);
            tamper(&place, &format!("UPDATE meta SET value = {value} WHERE key = '{key}'"));
            refused(place.path(), ErrorKind::Corrupt, "restore a backup");
        }
    }
}
