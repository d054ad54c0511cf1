//! Processes that are killed at each of their calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use seen_store::SeenStore;

use crate::every_call::{Believer, settings};
use crate::new_file;
use crate::shim::{Action, Faults};
use crate::support_process::{Child, role, say, variable};

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("die") => die(),
        Some(role) => panic!("unknown role {role:?}"),
    }
}

/// Runs the script, saying what was believed, until the shim kills this process.
fn die() {
    let path = PathBuf::from(variable("SEEN_PATH"));
    let nth = variable("SEEN_NTH").parse().unwrap();
    let [config, _] = settings();
    let mut believer = Believer::new(false);
    if !path.exists() {
        believer.beliefs.clear();
    }
    believer.tell = |line| say(line);
    let _faults = Faults::on(path.parent().unwrap(), None, "", Action::Kill, nth);
    believer.live(&path, config).unwrap();
    say("survived");
}

/// Kills a child at its nth call, for every n; how many children there were.
fn kill_at_each_call(prepare: impl Fn(&Path), check: impl Fn(&Path, &SeenStore)) -> u32 {
    let [config, _] = settings();
    for nth in 1.. {
        assert!(nth < 3_000, "the script never survives");
        let (_folder, path) = new_file();
        prepare(&path);
        let variables = [("SEEN_PATH", path.to_str().unwrap()), ("SEEN_NTH", &nth.to_string())];
        let mut child = Child::spawn("die", &variables);
        let said: Vec<_> = std::iter::from_fn(|| child.hear()).collect();
        let store = SeenStore::open_with(&path, config.clone())
            .unwrap_or_else(|e| panic!("killed at call {nth}: {e:?}"));
        let beliefs: BTreeMap<_, _> = said
            .iter()
            .filter_map(|line| line.split_once(' '))
            .map(|(belief, id)| (id, belief == "Seen"))
            .collect();
        for (at, (id, believed)) in beliefs.iter().enumerate() {
            // The call under way when the kill came may have been done: only forgets matter here.
            let pending_forget = matches!(*id, "new" | "batch-7") && *believed;
            let seen = store.try_is_seen(id).unwrap();
            assert!(
                seen == *believed || pending_forget,
                "killed at call {nth}: {id} ({at}) is {seen}, believed {believed}"
            );
        }
        let report = store.verify().unwrap();
        assert!(report.is_ok(), "killed at call {nth}: {report:?}");
        check(&path, &store);
        if said.last().is_some_and(|line| line == "survived") {
            return nth;
        }
    }
    unreachable!()
}

#[test]
fn whichever_call_of_a_first_run_a_kill_comes_at_the_file_opens_with_all_that_was_acknowledged() {
    let children = kill_at_each_call(|_| {}, |_, _| {});
    println!("{children} children");
}

#[test]
fn whichever_call_of_an_upgrade_a_kill_comes_at_the_file_opens_with_all_rows() {
    let prepare = |path: &Path| {
        let seed = Connection::open(path).unwrap();
        let rows = "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
             INSERT INTO seen VALUES ('old', 1577836800), ('refreshed', 1577836801)";
        seed.execute_batch(rows).unwrap();
    };
    let children = kill_at_each_call(prepare, |path, store| {
        assert!(store.try_is_seen("old").unwrap() && store.try_is_seen("refreshed").unwrap());
        let path_of_copy = path.with_extension("db.v0.bak");
        let copy = Connection::open(&path_of_copy).unwrap();
        let rows = copy.query_row("SELECT count(*) FROM seen", [], |row| row.get(0));
        assert_eq!(rows, Ok(2_i64), "the copy that was made first");
        let names = std::os::unix::fs::MetadataExt::nlink(&path_of_copy.metadata().unwrap());
        assert_eq!(names, 1, "a file with two names would be refused");
    });
    println!("{children} children");
}
