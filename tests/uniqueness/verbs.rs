//! Which ids are one and the same, and what each verb makes of new, known and forgotten ones.

use std::time::{Duration, SystemTime};

use seen_store::{Config, ErrorKind, Item, SeenStore, Verdict};

use crate::common::{Place, clock_and_config, marks, minute_store, ms, rows, secs};

#[test]
fn odd_ids_are_told_apart_and_survive_a_restart() {
    let long = vec![b'x'; 65_536];
    let mut almost_long = long.clone();
    almost_long[65_535] = b'y';
    let ids: Vec<Vec<u8>> = vec![
        b"a".to_vec(),
        b"A".to_vec(),
        b"a ".to_vec(),
        b" a".to_vec(),
        b"a\0".to_vec(),
        b"a\0b".to_vec(),
        b"\0".to_vec(),
        b"\xff".to_vec(),
        b"\xff\0".to_vec(),
        // One letter, composed and not.
        "\u{e9}".into(),
        "e\u{301}".into(),
        // What a column with number affinity would take for one.
        b"1".to_vec(),
        b"1.0".to_vec(),
        b"01".to_vec(),
        b"1e0".to_vec(),
        b"NULL".to_vec(),
        b"x'61'".to_vec(),
        long,
        almost_long,
        vec![b'x'; 65_535],
    ];
    let place = Place::new();
    let store = place.open(Config::default());
    for (done, id) in ids.iter().enumerate() {
        assert_eq!(store.check_and_mark(id).unwrap(), Verdict::New);
        assert!(ids[done + 1..].iter().all(|other| !store.is_seen(other)));
    }
    drop(store);
    let store = place.open(Config::default());
    for id in &ids {
        assert_eq!(&store.get(id).unwrap().unwrap().id, id);
    }
    assert!(store.verify().unwrap().is_ok());
    for (done, id) in ids.iter().enumerate() {
        assert!(store.forget(id).unwrap());
        assert!(ids[done + 1..].iter().all(|other| store.is_seen(other)));
    }
}

#[test]
fn an_id_is_kept_as_text_where_it_is_utf_8_and_as_bytes_elsewhere() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("text").unwrap();
    store.mark_seen(b"\xff").unwrap();
    let connection = place.sql();
    let kinds: Vec<String> = connection
        .prepare("SELECT typeof(id) FROM seen ORDER BY seq")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(kinds, ["text", "blob"]);
}

#[test]
fn an_empty_id_and_one_of_more_than_64_kib_are_refused_by_every_verb() {
    let (_, store) = minute_store();
    for id in [vec![], vec![b'x'; 65_537]] {
        let kinds = [
            store.try_is_seen(&id).map(drop),
            store.mark_seen(&id),
            store.mark_seen_at(&id, SystemTime::UNIX_EPOCH),
            store.check_and_mark(&id).map(drop),
            store.check_and_mark_all([&id]).map(drop),
            store.seed([&id]).map(drop),
            store.forget(&id).map(drop),
            store.get(&id).map(drop),
        ]
        .map(|outcome| outcome.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::InvalidId; 8]);
        assert!(!store.is_seen(&id));
    }
    assert_eq!(store.stats().unwrap().seen, 0);
}

#[test]
fn ids_of_different_scopes_have_nothing_to_do_with_each_other() {
    let place = Place::new();
    let store = place.open(Config::default());
    let (discord, mail) = (store.scope("discord"), store.scope("mail"));
    assert_eq!(discord.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(mail.check_and_mark("a").unwrap(), Verdict::New);
    assert!(!store.is_seen("a"));
    assert!(!store.scope("Discord").is_seen("a"));
    // The border between scope and id counts.
    assert!(!store.scope("discorda").is_seen("a"));
    assert!(!store.is_seen("discorda"));
    assert!(discord.forget("a").unwrap());
    assert!(mail.is_seen("a"));
    assert_eq!(mail.get("a").unwrap().unwrap().scope, "mail");
    // A scope replaces the one before it.
    assert!(discord.scope("mail").is_seen("a"));
    drop((store, discord, mail));
    let store = place.open(Config::default());
    assert!(store.scope("mail").is_seen("a"));
    assert!(!store.scope("discord").is_seen("a"));
}

#[test]
fn of_equal_ids_in_a_batch_the_first_is_the_new_one() {
    use Verdict::{Duplicate, New};
    let (_, store) = minute_store();
    store.mark_seen("old").unwrap();
    assert_eq!(
        store.check_and_mark_all(["a", "b", "a", "old", "a", "c", "b"]).unwrap(),
        [New, New, Duplicate, Duplicate, Duplicate, New, Duplicate]
    );
    assert!(store.check_and_mark_all(Vec::<String>::new()).unwrap().is_empty());
}

#[test]
fn a_batch_of_more_ids_than_one_commit_takes_has_a_verdict_for_each() {
    let place = Place::new();
    let store = place.open(Config::default());
    // Equal ids lie 20,000 apart, so in different commits.
    let ids: Vec<_> = (0..25_000).map(|number| format!("id-{}", number % 20_000)).collect();
    let verdicts = store.check_and_mark_all(&ids).unwrap();
    assert_eq!(verdicts.len(), 25_000);
    assert!(verdicts[..20_000].iter().all(|verdict| *verdict == Verdict::New));
    assert!(verdicts[20_000..].iter().all(|verdict| *verdict == Verdict::Duplicate));
    assert_eq!(marks(&place.sql()).len(), 20_000);
}

#[test]
fn an_invalid_id_anywhere_in_a_batch_marks_none() {
    let place = Place::new();
    let store = place.open(Config::default());
    let mut ids: Vec<_> = (0..15_000).map(|number| format!("id-{number}")).collect();
    ids.push(String::new());
    assert_eq!(store.check_and_mark_all(&ids).unwrap_err().kind(), ErrorKind::InvalidId);
    assert_eq!(store.seed(&ids).unwrap_err().kind(), ErrorKind::InvalidId);
    assert!(!store.is_seen("id-0"));
    assert_eq!(rows(&place.sql()), []);
}

#[test]
fn seeding_marks_all_alerts_none_and_counts_the_new_ones() {
    let (_, store) = minute_store();
    store.mark_seen("a").unwrap();
    assert_eq!(store.seed(["a", "b", "c", "b"]).unwrap(), 2);
    assert_eq!(store.check_and_mark_all(["a", "b", "c"]).unwrap(), [Verdict::Duplicate; 3]);
    assert_eq!(store.seed(["a", "b", "c"]).unwrap(), 0);
}

#[test]
fn a_forgotten_id_is_unseen_also_after_a_restart_and_may_be_new_again() {
    let place = Place::new();
    let store = place.open(Config::default());
    assert!(!store.forget("a").unwrap());
    store.mark_seen("a").unwrap();
    store.mark_seen("b").unwrap();
    assert!(store.forget("a").unwrap());
    assert!(!store.is_seen("a"));
    assert!(!store.forget("a").unwrap());
    drop(store);
    let store = place.open(Config::default());
    assert!(!store.is_seen("a"));
    assert!(store.is_seen("b"));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn a_forget_is_noticed_by_another_store_at_its_next_look() {
    let place = Place::new();
    let [one, other] = [0, 1].map(|_| place.open(Config::default()));
    one.seed(["a", "b", "c"]).unwrap();
    assert!(other.is_seen("a"));
    assert!(one.forget("a").unwrap());
    // A verb that writes or fetches always looks; a plain check may answer from memory for 100 ms.
    assert_eq!(other.get("a").unwrap(), None);
    assert!(!other.is_seen("a"));
    assert!(other.is_seen("b"));
}

#[test]
fn a_store_in_memory_has_every_verb_and_shares_nothing_with_another() {
    let (clock, store) = minute_store();
    let other = SeenStore::in_memory().unwrap();
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(store.clone().check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert!(!other.is_seen("a"));
    assert_eq!(store.pragmas().unwrap().journal_mode, "memory");
    assert!(store.verify().unwrap().is_ok());
    store.checkpoint().unwrap();
    clock.advance(secs(60));
    store.mark_seen("b").unwrap();
    assert_eq!(store.purge_expired().unwrap(), 1);
    assert_eq!(store.stats().unwrap().file_bytes, 0);
    clock.advance(ms(1));
    assert_eq!(store.cleanup_old_entries(Duration::ZERO).unwrap(), 1);
    store.close().unwrap();
    assert_eq!(store.mark_seen("a").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn an_exclusive_store_answers_and_keeps_like_any_other() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(60)).exclusive(true);
    let store = place.open(config.clone());
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert!(!place.beside("-shm").exists());
    store.mark_seen("b").unwrap();
    assert!(store.forget("b").unwrap());
    drop(store);
    assert_eq!(place.files(), ["seen.db"]);
    let store = place.open(config);
    assert!(store.is_seen("a"));
    assert!(!store.is_seen("b"));
    clock.advance(secs(60));
    assert!(!store.is_seen("a"));
}

#[test]
fn a_version_that_another_store_gave_to_an_id_is_noticed_at_once() {
    let place = Place::new();
    let (_clock, config) = clock_and_config();
    let (one, other) = (place.open(config.clone()), place.open(config));
    let version = |number: u8| Item::new("a").version([number]);
    one.mark_seen("a").unwrap();
    assert!(other.is_seen("a"));
    let _ = one.check_and_mark(version(1)).unwrap();
    assert!(!other.is_seen(version(2)));
    assert!(other.is_seen(version(1)) && other.is_seen("a"));
}
