//! Processes killed with `kill -9` at random moments.
//!
//! - Promise 2, acknowledged means durable.

#![cfg(unix)]
#![allow(clippy::needless_for_each, reason = "a line for a line")]
#![expect(clippy::disallowed_methods, reason = "a kill comes at a random moment of real time")]

mod support_process;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use seen_store::{Config, SeenStore, Synchronous, Ttl, Verdict};
use support_process::{Child, Random, lines, role, say, variable};

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("write") => write_and_acknowledge(),
        Some("open") => open_and_mark(),
        Some(role) => panic!("unknown role {role:?}"),
    }
}

/// Keeps the thread busy, for a sleep would not end at a random microsecond.
fn pass(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Says `+id` once a mark was acknowledged, `?id` before a forget and `-id` once that was.
fn write_and_acknowledge() {
    let seed: u64 = variable("SEEN_SEED").parse().unwrap();
    let mut random = Random(seed);
    // Small checkpoints, so that kills meet them too.
    let config = Config::default().wal_autocheckpoint(20).synchronous(if seed.is_multiple_of(4) {
        Synchronous::Full
    } else {
        Synchronous::Normal
    });
    let store = SeenStore::open_with(variable("SEEN_PATH"), config).unwrap();
    say("ready");
    let mut live: Vec<String> = Vec::new();
    for number in 0.. {
        let id = format!("{seed}/{number}");
        match random.below(8) {
            0..4 => assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New),
            4 => store.mark_seen(&id).unwrap(),
            5 if !live.is_empty() => {
                let index = usize::try_from(random.below(live.len() as u64)).unwrap();
                let forgotten = live.swap_remove(index);
                say(format!("?{forgotten}"));
                assert!(store.forget(&forgotten).unwrap());
                say(format!("-{forgotten}"));
                continue;
            }
            6 if !live.is_empty() => {
                // A refresh deletes the row that held the mark.
                let index = usize::try_from(random.below(live.len() as u64)).unwrap();
                store.mark_seen(&live[index]).unwrap();
                continue;
            }
            _ => {
                let batch: Vec<_> = (0..random.below(50)).map(|n| format!("{id}.{n}")).collect();
                let verdicts = store.check_and_mark_all(&batch).unwrap();
                assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New));
                for id in &batch {
                    say(format!("+{id}"));
                }
                live.extend(batch);
                continue;
            }
        }
        say(format!("+{id}"));
        live.push(id);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_a_process_is_killed() {
    let rounds = std::env::var("SEEN_KILL_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    let mut random = Random::new("kill -9");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    // What each id must be: true is seen, false is not; an id whose forget was cut off is left out.
    let mut expected = BTreeMap::new();
    for round in 0..rounds {
        let seed = random.below(1 << 40).to_string();
        let variables = [("SEEN_PATH", path.to_str().unwrap()), ("SEEN_SEED", &seed)];
        let mut writer = Child::spawn("write", &variables);
        assert_eq!(writer.hear().as_deref(), Some("ready"), "round {round}");
        let mut said: Vec<_> = (0..random.below(400)).map(|_| writer.hear().unwrap()).collect();
        pass(Duration::from_micros(random.below(300)));
        said.extend(writer.kill());
        for line in said {
            let (what, id) = line.split_at(1);
            match what {
                "+" => drop(expected.insert(id.to_owned(), true)),
                "-" => drop(expected.insert(id.to_owned(), false)),
                _ => drop(expected.remove(id)),
            }
        }
        let store = SeenStore::open(&path).unwrap();
        for (id, seen) in &expected {
            assert_eq!(store.try_is_seen(id).unwrap(), *seen, "round {round}: {id}");
        }
        let report = store.verify().unwrap();
        assert!(report.is_ok(), "round {round}: {report:?}");
    }
    println!("{} ids over {rounds} rounds", expected.len());
    assert!(expected.len() > rounds, "the writers were killed before they did anything");
}

/// Opens a store when it is told to, and marks; says so.
fn open_and_mark() {
    say("ready");
    lines().next().unwrap();
    let store = SeenStore::open_with(variable("SEEN_PATH"), forever()).unwrap();
    assert_eq!(store.check_and_mark("marked by the child").unwrap(), Verdict::New);
    say("marked");
    lines().count();
}

fn forever() -> Config {
    Config::default().ttl(Ttl::Never)
}

/// Kills a child up to `most` after it was told to open the file; whether it had marked by then.
fn kill_while_opening(path: &Path, random: &mut Random, most: Duration) -> bool {
    let mut child = Child::spawn("open", &[("SEEN_PATH", path)]);
    assert_eq!(child.hear().as_deref(), Some("ready"));
    child.tell("go");
    pass(Duration::from_micros(random.below(u64::try_from(most.as_micros()).unwrap())));
    child.kill() == ["marked"]
}

/// How long a child took from "go" to its mark, the longest of three.
fn time_of_an_open(make: impl Fn(usize) -> std::path::PathBuf) -> Duration {
    let timed = |number| {
        let mut child = Child::spawn("open", &[("SEEN_PATH", make(number))]);
        assert_eq!(child.hear().as_deref(), Some("ready"));
        let begun = Instant::now();
        assert_eq!(child.ask("go"), "marked");
        begun.elapsed()
    };
    (0..3).map(timed).max().unwrap()
}

#[test]
fn a_store_whose_creation_was_killed_opens_and_works() {
    let mut random = Random::new("killed creation");
    let folder = tempfile::tempdir().unwrap();
    let most = time_of_an_open(|number| folder.path().join(format!("timed-{number}.db")));
    let mut marked = 0;
    for round in 0..40 {
        let path = folder.path().join(format!("{round}.db"));
        let acknowledged = kill_while_opening(&path, &mut random, most);
        marked += usize::from(acknowledged);
        let store = SeenStore::open(&path).unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        if acknowledged {
            assert!(store.try_is_seen("marked by the child").unwrap());
        }
        assert_eq!(store.check_and_mark("marked afterwards").unwrap(), Verdict::New);
        assert!(store.verify().unwrap().is_ok());
        store.close().unwrap();
        assert!(!path.with_extension("db-wal").exists());
    }
    println!("{marked} of 40 children came to mark, an open takes {most:?}");
    assert!(marked < 40, "no child was killed in the midst of anything");
}

const SEED_ROWS: u32 = 3_000;

fn make_seed_file(path: &Path) {
    let mut seed = rusqlite::Connection::open(path).unwrap();
    seed.execute_batch("CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)").unwrap();
    let rows = seed.transaction().unwrap();
    for number in 0..SEED_ROWS {
        rows.execute(
            "INSERT INTO seen VALUES (?1, ?2)",
            (format!("incident-{number}"), 1_700_000_000 + number),
        )
        .unwrap();
    }
    rows.commit().unwrap();
}

#[test]
fn a_seed_file_whose_upgrade_was_killed_opens_with_all_rows() {
    let mut random = Random::new("killed upgrade");
    let folder = tempfile::tempdir().unwrap();
    let make = |name: String| {
        let path = folder.path().join(name);
        make_seed_file(&path);
        path
    };
    let most = time_of_an_open(|number| make(format!("timed-{number}.db")));
    let mut marked = 0;
    for round in 0..40 {
        let path = make(format!("{round}.db"));
        let acknowledged = kill_while_opening(&path, &mut random, most);
        marked += usize::from(acknowledged);
        let store = SeenStore::open_with(&path, forever())
            .unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        for number in 0..SEED_ROWS {
            assert!(store.try_is_seen(format!("incident-{number}")).unwrap(), "round {round}");
        }
        if acknowledged {
            assert!(store.try_is_seen("marked by the child").unwrap());
        }
        let report = store.verify().unwrap();
        assert!(report.is_ok() && report.rows >= SEED_ROWS.into(), "round {round}: {report:?}");

        // The copy under its final name is whole whenever it is there, and by now it is.
        let copy = rusqlite::Connection::open(folder.path().join(format!("{round}.db.v0.bak")));
        let rows: u32 =
            copy.unwrap().query_row("SELECT count(*) FROM seen", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, SEED_ROWS);
    }
    println!("{marked} of 40 children came to mark, an open takes {most:?}");
    assert!(marked < 40, "no child was killed in the midst of anything");
}
