//! A foreign program damages what is derived. No answer gets wrong, and the store makes it anew.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use seen_store::{Reader, SeenStore, Verdict};

use crate::common::{Place, clock_and_config};
use crate::{asleep, eventually, fill, id, missed, place};

const IDS: usize = 60;

const DAMAGES: [&str; 44] = [
    "DELETE FROM runs",
    "DELETE FROM runs; DELETE FROM blocks",
    "DELETE FROM runs; DELETE FROM counts",
    "DELETE FROM blocks",
    "DELETE FROM counts",
    "DELETE FROM runs; DELETE FROM blocks; DELETE FROM counts",
    "DELETE FROM meta WHERE key = 'hash_key'",
    "UPDATE meta SET value = randomblob(16) WHERE key = 'hash_key'",
    "UPDATE meta SET value = randomblob(15) WHERE key = 'hash_key'",
    "UPDATE meta SET value = 'abc' WHERE key = 'hash_key'",
    "UPDATE meta SET value = NULL WHERE key = 'hash_key'",
    "UPDATE counts SET marks = marks + 1",
    "UPDATE counts SET marks = 1",
    "UPDATE counts SET marks = 0",
    "UPDATE counts SET marks = -1000",
    "UPDATE counts SET marks = 9223372036854775807",
    "UPDATE counts SET marks = -9223372036854775808",
    "UPDATE counts SET marks = 9223372036854775807; INSERT INTO counts VALUES ('x', 9223372036854775807)",
    "INSERT INTO counts VALUES ('third', 1000000)",
    "UPDATE counts SET scope = 'x' || scope",
    "UPDATE runs SET last = 9223372036854775807",
    "UPDATE runs SET last = -9223372036854775808",
    "UPDATE runs SET last = last + 1",
    "UPDATE runs SET state = 2",
    "UPDATE runs SET state = 3",
    "UPDATE runs SET state = 77",
    "UPDATE runs SET run = -run",
    "UPDATE runs SET run = run + 1000000",
    "UPDATE runs SET entries = -entries",
    "DELETE FROM runs WHERE run = (SELECT max(run) FROM runs)",
    "DELETE FROM runs WHERE last = (SELECT max(last) FROM runs)",
    "DELETE FROM runs WHERE last = (SELECT min(last) FROM runs)",
    "UPDATE blocks SET entries = zeroblob(length(entries))",
    "UPDATE blocks SET entries = zeroblob(1000000)",
    "UPDATE blocks SET entries = x''",
    "UPDATE blocks SET place = -place",
    "UPDATE blocks SET place = place + 1",
    "INSERT INTO blocks SELECT place + 1, entries FROM blocks",
    "INSERT INTO blocks VALUES (-1, x''), (9223372036854775807, x''), (0, x'')",
    "INSERT OR REPLACE INTO blocks VALUES (1 << 48, x'')",
    "DROP TABLE runs",
    "DROP TABLE blocks",
    "DROP TABLE counts",
    "DROP TABLE runs; DROP TABLE blocks; DROP TABLE counts; DELETE FROM meta WHERE key = 'hash_key'",
];

fn prepared() -> Place {
    let place = place();
    let (_, config) = clock_and_config();
    fill(&place, &config, 0..IDS);
    let store = place.open(config);
    for n in (0..IDS).step_by(10) {
        assert!(store.forget(id(n)).unwrap());
    }
    store.scope("other").seed((0..9).map(id)).unwrap();
    store.close().unwrap();
    place
}

fn check_all(store: &SeenStore, what: &str) {
    for n in 0..IDS {
        let seen = store.try_is_seen(id(n)).unwrap_or_else(|e| panic!("{what}: {n}: {e}"));
        assert_eq!(seen, n % 10 != 0, "{what}: {n}");
    }
    for n in 0..9 {
        assert!(store.scope("other").try_is_seen(id(n)).unwrap(), "{what}");
    }
    let listed = store.entries(seen_store::Filter::default()).map(Result::unwrap).count();
    assert_eq!(listed, IDS - IDS / 10 + 9, "{what}: listed");
}

fn covered(sql: &Connection) -> (i64, i64, i64) {
    sql.query_row(
        "SELECT (SELECT ifnull(max(last), 0) FROM runs WHERE state = 1), (SELECT max(seq) FROM seen), \
         (SELECT ifnull(sum(marks), 0) FROM counts)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
    .unwrap()
}

fn check_damage(damage: &str) {
    let place = prepared();
    let (_, config) = clock_and_config();
    place.sql().execute_batch(damage).unwrap();
    let reader = Reader::open(place.path()).unwrap();
    reader.verify().unwrap();
    for n in 0..IDS {
        let found = reader.get(id(n)).unwrap_or_else(|e| panic!("reader: {n}: {e}"));
        assert_eq!(found.is_some(), n % 10 != 0, "reader: {n}");
    }
    reader
        .stats(std::time::Duration::from_secs(60), 1)
        .map_err(|e| format!("reader.stats: {e}"))
        .unwrap();
    drop(reader);
    let reading = place.open(asleep(config.clone().read_only(true)));
    check_all(&reading, "read-only");
    reading.close().unwrap();
    let store = place.open(asleep(config.clone()));
    check_all(&store, "asleep");
    store.verify().unwrap();
    for n in 0..30 {
        store.mark_seen(format!("more-{n}")).unwrap();
        assert!(store.forget(format!("more-{n}")).unwrap());
    }
    for n in 1..5 {
        store.mark_seen(id(n)).unwrap();
    }
    check_all(&store, "asleep, written to");
    store.close().unwrap();
    for _ in 0..3 {
        let store = place.open(asleep(config.clone()));
        check_all(&store, "opened again");
        store.close().unwrap();
    }
    let mut problems = Reader::open(place.path()).unwrap().verify().unwrap().problems;
    if !problems.is_empty() {
        // What is not found by itself is told, with the remedy.
        assert!(problems.iter().all(|it| it.contains("compact the store")), "{problems:?}");
        place.open(config.clone()).compact().unwrap();
    }
    let (covered, newest, counted) = covered(&place.sql());
    problems = Reader::open(place.path()).unwrap().verify().unwrap().problems;
    let store = place.open(asleep(config));
    let stats = store.stats().unwrap();
    assert!(newest - covered < 30, "not made anew: {covered} of {newest}");
    assert_eq!(stats.seen, (IDS - IDS / 10 + 9) as u64, "stats, counted {counted}");
    assert!(problems.is_empty(), "not healed: {problems:?}");
    let report = store.verify().unwrap();
    assert!(report.is_ok(), "{report:?}");
}

const PAGE: usize = 1024;

fn overwrite_pages(place: &Place, pages: impl IntoIterator<Item = usize>) {
    let mut file = std::fs::read(place.path()).unwrap();
    for page in pages {
        file[page * PAGE..(page + 1) * PAGE].fill(0);
    }
    std::fs::write(place.path(), file).unwrap();
}

/// Returns the pages of a table with rows, but for its root.
fn leaves(place: &Place, table: &str) -> Vec<usize> {
    let sql = place.sql();
    let leaves = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' AND path != '/'";
    let mut statement = sql.prepare(leaves).unwrap();
    let pages = statement.query_map([table], |row| row.get::<_, u32>(0)).unwrap();
    pages.map(|page| page.unwrap() as usize - 1).collect()
}

#[test]
fn a_damaged_block_is_made_anew_by_a_store_asleep_that_only_looks_up() {
    let place = place();
    let (_, config) = clock_and_config();
    fill(&place, &config, 0..400);
    let store = place.open(asleep(config));
    let damage = "UPDATE blocks SET entries = zeroblob(length(entries))";
    place.sql().execute_batch(damage).unwrap();
    assert_eq!(missed(&store, 0..400), []);
    let is_sound = || Reader::open(place.path()).unwrap().verify().unwrap().is_ok();
    assert!(eventually(|| store.try_is_seen(id(7)).unwrap() && is_sound()));
    let rebuilds = store.stats().unwrap().since_opened.rebuilds;
    assert_eq!(missed(&store, 0..400), []);
    assert_eq!(store.stats().unwrap().since_opened.rebuilds, rebuilds);
}

/// SQLite can neither read nor delete what is on these pages. All marks are elsewhere.
#[test]
fn damaged_pages_of_the_index_change_no_answer_and_are_healed_by_compacting() {
    const MANY: usize = 900;
    for damage in ["a block", "half", "all", "root of blocks", "root of counts", "root of runs"] {
        let place = place();
        let (_, config) = clock_and_config();
        fill(&place, &config, 0..MANY);
        if let Some(table) = damage.strip_prefix("root of ") {
            let root = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            let root: u32 = place.sql().query_row(root, [table], |row| row.get(0)).unwrap();
            overwrite_pages(&place, [root as usize - 1]);
        } else {
            let pages = leaves(&place, "blocks");
            assert!(pages.len() > 3, "{pages:?}");
            let step = ["all", "half", "a block"].iter().position(|it| *it == damage).unwrap();
            overwrite_pages(&place, pages.into_iter().skip(1).step_by([1, 2, 1_000][step]));
        }
        let reader = Reader::open(place.path()).unwrap();
        assert!((0..MANY).all(|n| reader.get(id(n)).unwrap().is_some()), "{damage}");
        let report = reader.verify().unwrap();
        assert!(report.index_problems > 0, "{damage}: {report:?}");
        assert_eq!(report.index_problems, report.problems.len(), "{damage}: {report:?}");
        assert!(report.problems[0].contains("no mark is lost"), "{damage}: {report:?}");
        drop(reader);
        for round in 0..3 {
            let store = place.open(asleep(config.clone()));
            assert_eq!(missed(&store, 0..MANY), [], "{damage}");
            store.seed((0..40).map(|n| format!("{round}-{n}"))).unwrap();
            for n in [round, 300 + round] {
                let forgotten = store.forget(id(n)).unwrap_or_else(|e| panic!("{damage}: {e}"));
                assert!(forgotten, "{damage}");
                assert_eq!(store.check_and_mark(id(n)).unwrap(), Verdict::New, "{damage}");
            }
            assert!(store.verify().unwrap().index_problems > 0, "{damage}");
            assert!(store.stats().unwrap().wal_bytes < 4_000_000, "{damage}");
            store.close().unwrap();
        }
        let other = place.open(asleep(config.clone()));
        assert_eq!(missed(&other, 0..MANY), [], "{damage}");
        let store = place.open(asleep(config.clone()));
        store.compact().unwrap_or_else(|e| panic!("{damage}: {e}"));
        for store in [&store, &other] {
            assert_eq!(missed(store, 0..MANY), [], "{damage}");
            assert!(store.mark_seen("after").is_ok() && store.forget("after").unwrap());
            let report = store.verify().unwrap();
            assert!(report.is_ok(), "{damage}: {report:?}");
        }
        drop((store, other));
        let report = Reader::open(place.path()).unwrap().verify().unwrap();
        assert!(report.is_ok(), "{damage}: {report:?}");
        let (covered, newest, _) = covered(&place.sql());
        assert!(covered > 0 && newest - covered < 30, "{damage}: {covered} of {newest}");
    }
}

fn check_damages(damages: &[&str]) {
    let only = std::env::var("ONLY").ok();
    let mut failed = Vec::new();
    for damage in damages {
        if only.as_deref().is_some_and(|only| !damage.contains(only)) {
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| check_damage(damage)));
        if let Err(panic) = result {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            failed.push(format!("{damage}: {}", text.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn damage_to_headers_and_blocks_by_a_foreign_program_changes_no_answer_and_is_healed() {
    check_damages(&DAMAGES[20..]);
}

#[test]
fn damage_to_counts_and_the_key_by_a_foreign_program_changes_no_answer_and_is_healed() {
    check_damages(&DAMAGES[..20]);
}
