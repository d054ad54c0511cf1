//! What happens where there is no server program.

#![cfg(unix)]

use std::process::{Command, Output};

use cluster_harness::needs_server;

/// Not a test: what the others run without a server program.
#[test]
fn that_needs_a_server() {
    needs_server!();
}

fn without_a_server() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["that_needs_a_server", "--exact"]).env("PATH", "/nowhere");
    command.env_remove("SEEN_REDIS_SERVER").env_remove("SEEN_REQUIRE_CLUSTER");
    command
}

fn says(output: &Output, text: &str) -> bool {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).contains(text)
}

#[test]
fn a_test_is_skipped_visibly() {
    let output = without_a_server().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let line = "SKIPPED skipping::that_needs_a_server: redis-server is not on PATH\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), line);
}

#[test]
fn a_test_fails_where_a_cluster_is_required() {
    let output = without_a_server().env("SEEN_REQUIRE_CLUSTER", "1").output().unwrap();
    assert!(!output.status.success() && says(&output, "SEEN_REQUIRE_CLUSTER is set"), "{output:?}");
}

#[test]
fn a_wrong_path_of_the_server_program_fails() {
    let output = without_a_server().env("SEEN_REDIS_SERVER", "/nowhere/server").output().unwrap();
    assert!(
        !output.status.success() && says(&output, "/nowhere/server, which is no file"),
        "{output:?}"
    );
}
