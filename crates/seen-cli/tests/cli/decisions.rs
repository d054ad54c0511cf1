//! How an attempt ended, told by each command, and decisions on what is left.

use std::time::Duration;

use seen_store::{Abandoned, Claim, Config, SeenStore, State};

use crate::support::{Place, wait_until};

const LEASE: Duration = Duration::from_millis(1);

/// Claims the id for a worker that vanishes, and waits for the end of its lease.
fn vanish(store: &SeenStore, id: &str) {
    let Claim::Granted(lease) = store.claim(id, LEASE).unwrap() else { panic!("{id}") };
    lease.into_token();
    wait_until("the lease ends", || store.get(id).unwrap().unwrap().state != State::InFlight);
}

fn held(place: &Place) -> SeenStore {
    let config = Config::default().abandoned(Abandoned::Hold).holder("worker 1");
    SeenStore::open_with(place.db(), config).unwrap()
}

#[test]
fn a_held_id_is_refused_listed_and_decided_on() {
    let place = Place::new();
    for (id, decision) in [("a", "--done"), ("b", "--retry")] {
        vanish(&held(&place), id);
        let run = place.told(&["run", "--id", id, "--", "sh", "-c", "echo ran >>trace"]);
        run.assert(69, &[id, "(worker 1) vanished", "`seen resolve` decides"]);
        place.told(&["claim", id]).assert(1, &["`seen resolve` decides"]);
        assert_eq!(place.text("trace"), "", "it was run");
        assert!(place.printed(&["list", "--state", "unresolved"]).contains(id));
        let shown = place.printed(&["show", id]);
        assert!(shown.contains("state       unresolved\n"), "{shown}");
        assert!(shown.contains("lease ended 20"), "{shown}");
        assert!(shown.contains("holder      worker 1\n"), "{shown}");
        assert!(place.printed(&["stats"]).contains("unresolved"));
        place.printed(&["resolve", id, decision]);
        assert_eq!(place.printed(&["list", "--state", "unresolved"]), "");
        place.told(&["resolve", "seen", decision]).assert(1, &["nothing to decide"]);
    }
    place.told(&["run", "--id", "a", "--", "true"]).assert(0, &["seen before"]);
    place.printed(&["run", "--id", "b", "--", "sh", "-c", "echo ran >>trace"]);
    assert_eq!(place.text("trace"), "ran\n");
}

#[test]
fn a_run_that_holds_leaves_its_id_to_a_decision() {
    let place = Place::new();
    let killed = ["run", "--hold", "--lease", "100ms", "--id", "a", "--"];
    let command = ["sh", "-c", "kill -KILL $PPID; exit 0"];
    assert_eq!(place.told(&[&killed[..], &command].concat()).status, None);
    wait_until("the lease ends", || place.entry("a").unwrap().state == State::Unresolved);
    place.told(&["run", "--id", "a", "--", "true"]).assert(69, &["vanished"]);
}

#[test]
fn a_command_is_told_how_the_attempt_before_it_ended() {
    let place = Place::new();
    let tell = ["run", "--id", "a", "--", "sh", "-c", "echo $SEEN_ATTEMPT $SEEN_PREVIOUS; exit 7"];
    assert_eq!(place.told(&tell).stdout, "1 none\n");
    assert_eq!(place.told(&tell).stdout, "2 failed\n");
    place.told(&["run", "--id", "a", "--", "no-such-program"]);
    assert_eq!(place.told(&tell).stdout, "4 released\n");
    vanish(&place.store(), "a");
    assert_eq!(place.told(&tell).stdout, "6 abandoned\n");
    place.printed(&["mark", "--version", "1", "b"]);
    let changed = ["run", "--id", "b", "--version", "2", "--", "sh", "-c", "echo $SEEN_PREVIOUS"];
    assert_eq!(place.told(&changed).stdout, "superseded\n");
    vanish(&place.store(), "a");
    place.told(&["claim", "a"]).assert(0, &["vanished", "may have been done"]);
}

#[test]
fn a_final_failure_is_not_tried_again_until_it_is_decided_on() {
    let place = Place::new();
    let token = place.printed(&["claim", "a"]);
    place.printed(&["fail", "a", "--token", token.trim(), "--final", "--error", "404"]);
    place.told(&["run", "--id", "a", "--", "true"]).assert(69, &["given up after 1 attempt"]);
    assert!(place.printed(&["list", "--state", "given-up"]).contains('a'));
    let both = ["fail", "a", "--token", token.trim(), "--final", "--retry-after", "1s"];
    assert_eq!(place.told(&both).status, Some(2));
    place.printed(&["resolve", "--retry", "a"]);
    place.printed(&["run", "--id", "a", "--", "true"]);
}

#[test]
fn a_decision_needs_an_id_and_one_of_two_ways() {
    let place = Place::new();
    place.store();
    for arguments in
        [&["resolve", "a"][..], &["resolve", "--done"], &["resolve", "a", "--done", "--retry"]]
    {
        assert_eq!(place.told(arguments).status, Some(2), "{arguments:?}");
    }
    place.told(&["list", "--state", "vanished"]).assert(2, &["abandoned", "unresolved"]);
}

#[test]
fn a_replayed_run_prints_and_ends_as_the_first_and_runs_nothing() {
    let place = Place::new();
    let script = "echo out; echo err >&2; echo ran >>trace; printf 'tail'";
    let run = ["run", "--replay", "--id", "a", "--", "sh", "-c", script];
    for _ in 0..3 {
        let told = place.told(&run);
        assert_eq!((told.status, &*told.stdout, &*told.stderr), (Some(0), "out\ntail", "err\n"));
    }
    assert_eq!(place.text("trace"), "ran\n");
    let shown = place.printed(&["show", "a"]);
    assert!(
        shown.contains("replays     status 0, 8 bytes of standard output, 4 bytes of"),
        "{shown}"
    );
    // An export carries it.
    let export = place.file("export.jsonl", place.printed(&["export"]));
    place.told(&["import", "--db", "other.db", export.to_str().unwrap()]).status.unwrap();
    let told = place.told(&[&["run", "--db", "other.db"], &run[1..]].concat());
    assert_eq!((told.status, &*told.stdout), (Some(0), "out\ntail"));
    // Another command line is a conflict.
    let other = ["run", "--replay", "--id", "a", "--", "sh", "-c", "echo other"];
    place.told(&other).assert(125, &["another command line", "--any-command"]);
    let told = place.told(&[&["run", "--any-command"], &other[1..]].concat());
    assert_eq!((told.status, &*told.stdout), (Some(0), "out\ntail"));
}

#[test]
fn what_failed_or_is_too_long_or_was_not_stored_is_not_replayed() {
    let place = Place::new();
    let fails = ["run", "--replay", "--id", "fails", "--", "sh", "-c", "echo ran; exit 3"];
    for _ in 0..2 {
        assert_eq!(
            (place.told(&fails).status, place.told(&fails).stdout),
            (Some(3), "ran\n".into())
        );
    }
    let long = ["run", "--replay", "--id", "long", "--", "sh", "-c", "head -c 1100000 /dev/zero"];
    let told = place.told(&long);
    told.assert(0, &["is not stored", "1 MiB"]);
    assert_eq!(told.stdout.len(), 1_100_000);
    let told = place.told(&long);
    told.assert(0, &["nothing is stored"]);
    assert_eq!(told.stdout, "");
    place.printed(&["mark", "marked"]);
    let marked = ["run", "--replay", "--seen-status", "9", "--id", "marked", "--", "true"];
    place.told(&marked).assert(9, &["nothing is stored"]);
    // As much as is stored.
    let most = ["run", "--replay", "--id", "most", "--", "sh", "-c", "head -c 1000000 /dev/zero"];
    for _ in 0..2 {
        let told = place.told(&most);
        told.assert(0, &[]);
        assert_eq!(told.stdout.len(), 1_000_000);
    }
}

#[test]
fn a_command_whose_output_no_one_reads_is_run_and_stored() {
    let place = Place::new();
    let mut run = place.seen(&[
        "run",
        "--replay",
        "--id",
        "a",
        "--",
        "sh",
        "-c",
        "seq 1 20000; echo ran >>trace",
    ]);
    let mut child = run.spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.text("trace"), "ran\n");
    let told = place.told(&["run", "--replay", "--any-command", "--id", "a", "--", "true"]);
    assert_eq!(told.stdout.lines().count(), 20_000);
}

#[test]
fn a_line_whose_id_waits_for_a_decision_is_not_dropped_without_a_word() {
    let place = Place::new();
    vanish(&held(&place), "held");
    let token = place.printed(&["claim", "final"]);
    place.printed(&["fail", "final", "--token", token.trim(), "--final"]);
    let told = place.told_with_input(&["filter"], "held\nfinal\nnew\n");
    told.assert(0, &["2 lines not printed", "`seen resolve`"]);
    assert_eq!(told.stdout, "new\n");
    place.printed(&["resolve", "--retry", "held", "final"]);
    assert_eq!(place.passed(&[], "held\nfinal\nnew\n"), b"held\nfinal\n");
}
