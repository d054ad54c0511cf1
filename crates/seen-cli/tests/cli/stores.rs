//! Which store a command uses, and what it says of that: a store that is made anew, a path that was not meant, a scope
//! that unrelated jobs share.

use std::fs;

use crate::support::{Place, Told, seen};

/// Commands that make a store where there is none.
const CREATORS: [&[&str]; 6] = [
    &["filter", "lines"],
    &["run", "--id", "a", "--", "true"],
    &["mark", "a"],
    &["claim", "a"],
    &["import", "lines"],
    &["import", "lines", "--stats"],
];

/// Commands that need a store.
const OTHERS: [&[&str]; 8] = [
    &["check", "a"],
    &["list"],
    &["export"],
    &["forget", "a"],
    &["purge"],
    &["compact"],
    &["verify"],
    &["backup", "copy.db"],
];

/// What standard error says, with what the other tests do not look at.
fn told(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let output = place.seen(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_store_that_is_made_anew_is_told_of_once_and_not_to_the_quiet() {
    for arguments in CREATORS {
        let place = Place::new();
        place.file("lines", "x\ny\n");
        let (status, text) = told(&place, arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {text}");
        assert!(text.starts_with("seen: "), "{text}");
        assert!(text.contains("seen.db: there was no store here"), "{arguments:?}: {text}");
        assert!(!told(&place, arguments).1.contains("no store"), "{arguments:?}");
        fs::remove_file(place.db()).unwrap();
        let quiet = told(&place, &[&["-q"], arguments].concat()).1;
        assert!(!quiet.contains("no store"), "{arguments:?}: {quiet}");
    }
}

#[test]
fn a_store_that_must_exist_is_not_made() {
    for arguments in CREATORS {
        let place = Place::new();
        place.file("lines", "x\ny\n");
        let must: Vec<&str> = [&arguments[..1], &["--must-exist"], &arguments[1..]].concat();
        let (status, text) = told(&place, &must);
        assert!(status == Some(2) || status == Some(125), "{must:?}: {status:?} {text}");
        assert!(text.contains("seen.db") && text.contains("no store here"), "{must:?}: {text}");
        assert_eq!(place.names(), ["lines"], "{must:?}");
    }
    let place = Place::new();
    place.file("lines", "x\n");
    let (status, text) = told(&place, &["filter", "--must-exist", "--dry-run", "lines"]);
    assert_eq!(status, Some(2), "{text}");
}

#[test]
fn an_error_about_the_path_names_who_gave_it() {
    for arguments in OTHERS {
        let place = Place::new();
        place.told(arguments).assert(2, &["seen.db", "no store here", "SEEN_DB_PATH"]);
        let by_option = [arguments, &["--db", "other.db"]].concat();
        place.told(&by_option).assert(2, &["other.db", "no store here", "from --db"]);
        assert!(place.names().is_empty(), "{arguments:?}");
    }
    let place = Place::new();
    let mut command = seen(&["list"]);
    command.env("HOME", place.folder());
    Told::from(command.output().unwrap()).assert(2, &[".local/share/seen/seen.db", "HOME"]);
}

#[test]
fn a_path_that_a_shell_should_have_expanded_is_refused_by_name() {
    for path in ["~/s.db", "$HOME/s.db", "${HOME}/s.db", "mysql://host/0", "sqlite:///s.db"] {
        let place = Place::new();
        place.file("lines", "x\n");
        for arguments in [&["mark", "a"][..], &["list"], &["filter", "lines"], &["verify"]] {
            let mut command = place.seen(arguments);
            command.env("SEEN_DB_PATH", path);
            Told::from(command.output().unwrap()).assert(2, &[path, "SEEN_DB_PATH"]);
            let by_option = [arguments, &["--db", path]].concat();
            place.told(&by_option).assert(2, &[path, "from --db"]);
        }
        assert_eq!(place.names(), ["lines"], "{path}");
    }
}

/// What it says with the feature: see the tests `cluster`.
#[cfg(not(feature = "cluster"))]
#[test]
fn without_the_feature_the_url_of_a_cluster_is_an_error_that_says_how_to_get_it() {
    let place = Place::new();
    place.file("lines", "x\n");
    let url = "redis://bot:hunter2@host1,host2:7000/alerts?min_replicas=2";
    let installs = "cargo install --path crates/seen-cli --features cluster";
    let named = ["redis://host1,host2:7000/alerts: ", "without the feature `cluster`", installs];
    for arguments in [&["mark", "a"][..], &["list"], &["check", "a"], &["filter", "lines"]] {
        let mut command = place.seen(arguments);
        command.env("SEEN_DB_PATH", url);
        let by_variable = Told::from(command.output().unwrap());
        by_variable.assert(2, &[&named[..], &["SEEN_DB_PATH"]].concat());
        let by_option = place.told(&[arguments, &["--db", url]].concat());
        by_option.assert(2, &[&named[..], &["from --db"]].concat());
        for told in [by_variable, by_option] {
            assert!(!told.stderr.contains("hunter2"), "{told:?}");
        }
    }
    place.told(&["run", "--db", url, "--id", "a", "--", "true"]).assert(125, &named);
    // That it is on a cluster is reason enough.
    place
        .told(&["backup", "copy.db", "--db", url])
        .assert(2, &["`seen backup`", "a store in a file"]);
    assert_eq!(place.names(), ["lines"]);
}

#[test]
fn a_command_in_the_default_scope_says_so_where_another_kind_left_ids() {
    let kinds: [&[&str]; 4] = [
        &["filter", "lines"],
        &["run", "--id", "a", "--", "true"],
        &["claim", "c"],
        &["mark", "m"],
    ];
    for first in kinds {
        for second in kinds {
            let place = Place::new();
            place.file("lines", "x\n");
            told(&place, first);
            let (_, text) = told(&place, second);
            let says_so = text.lines().filter(|line| line.contains("--scope")).count();
            let kinds_differ = (first[0] == "filter") != (second[0] == "filter");
            assert_eq!(says_so, usize::from(kinds_differ), "{first:?} {second:?}: {text}");
            if says_so > 0 {
                assert!(text.contains(&format!("`seen {}`", first[0])), "{text}");
            }
            for scope in ["--scope=own", "--scope="] {
                let named = [&second[..1], &[scope], &second[1..]].concat();
                let (_, text) = told(&place, &named);
                assert!(
                    !text.contains("--scope NAME") && !text.contains("default scope"),
                    "{text}"
                );
            }
            assert!(!told(&place, &[&["-q"], second].concat()).1.contains("default scope"));
        }
    }
}

#[test]
fn a_mark_by_hand_does_not_make_every_later_filter_speak() {
    let place = Place::new();
    place.file("lines", "x\n");
    told(&place, &["filter", "lines"]);
    told(&place, &["mark", "y"]);
    assert_eq!(told(&place, &["filter", "lines"]), (Some(0), String::new()));
}

#[test]
fn what_commands_note_of_each_other_is_no_entry() {
    let place = Place::new();
    place.file("lines", "x\n");
    told(&place, &["filter", "lines"]);
    told(&place, &["run", "--id", "a", "--", "true"]);
    assert_eq!(place.printed(&["list"]).lines().count(), 2);
    assert_eq!(place.printed(&["export"]).lines().count(), 2);
    assert!(place.printed(&["verify"]).starts_with("2 rows"));
    let stats: serde_json::Value =
        serde_json::from_str(&place.printed(&["stats", "--json"])).unwrap();
    assert_eq!(stats["total"]["seen"], 2);
}

#[test]
fn an_id_of_another_scope_is_not_unknown() {
    let place = Place::new();
    for scope in ["feed", "a b", "it's"] {
        place.store().scope(scope).mark_seen("x").unwrap();
    }
    let shown = place.told(&["show", "x", "y"]);
    assert_eq!((shown.status, &*shown.stderr), (Some(1), ""));
    for part in [
        "not seen in the scope without a name",
        "--scope feed ",
        "--scope 'a b' ",
        "seen, last seen 20",
    ] {
        assert!(shown.stdout.contains(part), "{part:?} is not in {}", shown.stdout);
    }
    assert!(shown.stdout.ends_with("y\n  not seen: the store knows nothing of it\n"), "{shown:?}");
    let shown = place.told(&["show", "x", "--scope", "other", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(object["state"], "unknown");
    let scopes: Vec<_> =
        object["other_scopes"].as_array().unwrap().iter().map(|it| &it["scope"]).collect();
    assert_eq!(scopes, ["a b", "feed", "it's"]);
    place.told(&["show", "x", "--scope", "feed"]).assert(0, &[]);
}
