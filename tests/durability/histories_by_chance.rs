//! Restores in place beside compactions, here and of the copy elsewhere; and histories by chance.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;
use seen_store::{Config, SeenStore, Ttl, Verdict};

use crate::common::Place;
use crate::support_process::Random;

fn config() -> Config {
    Config::default().ttl(Ttl::Never).purge_interval(None)
}

fn backup(place: &Place, name: &str, store: &SeenStore) -> PathBuf {
    let path = place.folder().join(name);
    store.backup(&path).unwrap();
    path
}

fn put_back(place: &Place, backup: &Path) {
    let source = Connection::open(backup).unwrap();
    let mut target = place.sql();
    let backup = Backup::new(&source, &mut target).unwrap();
    backup.run_to_completion(1000, Duration::ZERO, None).unwrap();
}

/// What a store says once the file was put back and another store wrote as many rows.
fn assert_follows(place: &Place, store: &SeenStore, copy: &Path) {
    assert_eq!(store.seed(["x", "z"]).unwrap(), 2);
    put_back(place, copy);
    let other = place.open(config());
    // The same number of rows, and the newest of the same id.
    assert_eq!(other.check_and_mark("y").unwrap(), Verdict::New);
    assert_eq!(other.check_and_mark("z").unwrap(), Verdict::New);
    let y = store.check_and_mark("y").unwrap();
    let x = store.try_is_seen("x").unwrap();
    let problems = store.verify().unwrap().problems;
    println!(
        "y {y:?}, x seen {x}, verify {problems:?}, rebuilds {}",
        store.stats().unwrap().since_opened.rebuilds
    );
    assert_eq!(y, Verdict::Duplicate, "new twice");
    assert!(!x, "seen, and the file does not have it");
}

/// The copy was opened elsewhere, compacted there some times, and brought back.
#[test]
fn a_restore_is_noticed_though_the_copy_was_compacted_elsewhere() {
    for compactions in 1..6 {
        let place = Place::in_ram();
        let store = place.open(config());
        store.mark_seen("1").unwrap();
        let copy = backup(&place, "copy.db", &store);
        let elsewhere = SeenStore::open_with(&copy, config()).unwrap();
        for _ in 0..compactions {
            elsewhere.compact().unwrap();
        }
        elsewhere.close().unwrap();
        assert_follows(&place, &store, &copy);
    }
}

#[test]
fn random_backups_compactions_and_restores_are_all_noticed() {
    let mut random = Random::new("histories");
    for _ in 0..12 {
        let place = Place::in_ram();
        let seed = random.0;
        let mut stores: Vec<SeenStore> = (0..3).map(|_| place.open(config())).collect();
        let mut copies: Vec<(PathBuf, Vec<String>)> = Vec::new();
        let mut known: Vec<String> = Vec::new();
        for step in 0..80 {
            let n = usize::try_from(random.below(3)).unwrap();
            let id = format!("{}", random.below(12));
            let act = random.below(12);
            match act {
                0 => stores[n].compact().unwrap(),
                1 => {
                    let copy = backup(&place, &format!("copy-{step}.db"), &stores[n]);
                    copies.push((copy, known.clone()));
                }
                2 if !copies.is_empty() => {
                    let at = usize::try_from(random.below(copies.len() as u64)).unwrap();
                    let (path, ids) = &copies[at];
                    if random.below(3) == 0 {
                        let elsewhere = SeenStore::open_with(path, config()).unwrap();
                        for _ in 0..random.below(6) {
                            elsewhere.compact().unwrap();
                        }
                    }
                    put_back(&place, path);
                    known.clone_from(ids);
                }
                3 => stores[n] = place.open(config()),
                4 => {
                    stores[n].forget(&id).unwrap();
                    known.retain(|known| *known != id);
                    for store in &stores {
                        store.stats().unwrap();
                    }
                }
                5 => {
                    // A look of all stores, or else a forgotten id may be answered "seen" for a while.
                    for store in &stores {
                        store.stats().unwrap();
                    }
                }
                6 => place.sql().execute_batch("VACUUM").unwrap(),
                _ => {
                    let expected =
                        if known.contains(&id) { Verdict::Duplicate } else { Verdict::New };
                    // A hit may be answered from memory for 100 ms after a restore.
                    stores[n].stats().unwrap();
                    let verdict = stores[n].check_and_mark(&id).unwrap();
                    assert_eq!(verdict, expected, "seed {seed}, step {step}, id {id}");
                    if verdict == Verdict::New {
                        known.push(id);
                    }
                }
            }
        }
    }
}
