//! Claims by token, and the commands that claim for another one.

use cluster_harness::needs_server;

use crate::support::{run, wait_until};
use crate::{Site, told};

/// The token of a claim.
fn claimed(site: &Site, arguments: &[&str]) -> String {
    site.printed(&[&["claim"], arguments].concat()).trim_end().to_owned()
}

#[test]
fn a_claim_of_one_process_is_confirmed_by_another_and_by_no_other_token() {
    needs_server!();
    let site = Site::new("confirmed");
    let token = claimed(&site, &["a", "--version", "1"]);
    site.told(&["claim", "a"]).assert(1, &["a: another worker", "has it"]);
    let other = claimed(&site, &["b"]);
    site.told(&["confirm", "a", "--token", &other]).assert(1, &["no longer holds"]);
    site.told(&["check", "a"]).assert(1, &[]);
    site.printed(&["renew", "a", "--token", &token, "--lease", "10m"]);
    site.printed(&["confirm", "a", "--token", &token, "--receipt", "message 17"]);
    site.printed(&["confirm", "a", "--token", &token]);
    site.printed(&["check", "a"]);
    assert!(site.printed(&["show", "a"]).contains("message 17"));
    site.told(&["claim", "a"]).assert(1, &["a: seen before"]);
    // What was edited can be claimed again.
    claimed(&site, &["a", "--version", "2"]);
}

#[test]
fn a_claim_is_released_or_fails_and_is_given_up() {
    needs_server!();
    let site = Site::new("failed");
    let token = claimed(&site, &["a"]);
    site.printed(&["release", "a", "--token", &token]);
    let token = claimed(&site, &["a"]);
    site.printed(&["fail", "a", "--token", &token, "--error", "503", "--retry-after", "1h"]);
    site.told(&["claim", "a"]).assert(1, &["not tried again before"]);
    assert!(site.printed(&["show", "a"]).contains("last error  503"));
    let token = claimed(&site, &["b"]);
    site.printed(&["fail", "b", "--token", &token, "--final"]);
    site.told(&["claim", "b"]).assert(1, &["given up after 1 attempt"]);
    site.printed(&["resolve", "a", "b", "--retry"]);
    claimed(&site, &["a"]);
    site.told(&["resolve", "a", "--done"]).assert(1, &["nothing to decide"]);
}

#[test]
fn a_held_id_waits_for_a_decision() {
    needs_server!();
    let site = Site::new("held");
    claimed(&site, &["a", "--hold", "--lease", "300ms"]);
    wait_until("the lease to end", || !site.printed(&["list", "--state", "unresolved"]).is_empty());
    site.told(&["claim", "a"]).assert(1, &["vanished"]);
    site.printed(&["resolve", "a", "--done"]);
    site.printed(&["check", "a"]);
}

#[test]
fn a_command_is_run_once_again_after_a_failure_and_its_output_is_replayed() {
    needs_server!();
    let site = Site::new("run");
    let run = |arguments: &[&str]| site.told(&[&["run", "--id", "a"], arguments].concat());
    let failed = run(&["--", "sh", "-c", "exit 3"]);
    assert_eq!(failed.status, Some(3), "{failed:?}");
    let done = run(&["--replay", "--", "sh", "-c", "echo $SEEN_ATTEMPT $SEEN_PREVIOUS"]);
    assert_eq!((done.status, done.stdout.as_str()), (Some(0), "2 failed\n"), "{done:?}");
    let again = run(&["--replay", "--", "sh", "-c", "echo $SEEN_ATTEMPT $SEEN_PREVIOUS"]);
    assert_eq!((again.status, again.stdout.as_str()), (Some(0), "2 failed\n"), "{again:?}");
    run(&["--", "false"]).assert(0, &["a: seen before"]);
    claimed(&site, &["b"]);
    site.told(&["run", "--id", "b", "--", "true"]).assert(75, &["another worker"]);
}

#[test]
fn a_command_that_outlasts_its_lease_keeps_its_claim() {
    needs_server!();
    let site = Site::new("long");
    let mut child = site
        .seen(&["run", "--id", "a", "--lease", "500ms", "--", "sh", "-c", "echo; exec sleep 2"])
        .spawn()
        .unwrap();
    wait_until("the claim", || !site.printed(&["list"]).is_empty());
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    site.told(&["claim", "a"]).assert(1, &["has it"]);
    assert!(child.wait().unwrap().success());
    site.printed(&["check", "a"]);
}

#[test]
fn a_command_is_run_once_for_each_line() {
    needs_server!();
    let site = Site::new("each");
    let each = |input: &str| {
        let arguments = [
            "-q",
            "each",
            "--jobs",
            "2",
            "--",
            "sh",
            "-c",
            "read line; echo $line; test $line != c",
        ];
        told(run(&mut site.seen(&arguments), input.as_bytes()))
    };
    let first = each("a\nb\nc\na\n");
    let mut lines: Vec<_> = first.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!((first.status, lines), (Some(1), vec!["a", "b", "c"]), "{first:?}");
    let second = each("a\nb\nc\nd\n");
    let mut lines: Vec<_> = second.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!((second.status, lines), (Some(1), vec!["c", "d"]), "{second:?}");
}
