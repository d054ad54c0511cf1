//! Finds the server program, and skips a test visibly where there is none.

use std::env;
use std::io::Write;
use std::path::PathBuf;

/// Returns whether there is a server program to start.
///
/// # Panics
///
/// If `SEEN_REDIS_SERVER` is set, but names no file: a wrong setting must not skip tests.
pub fn available() -> bool {
    find().is_some()
}

/// Returns whether there is a server program, and says on stderr that `test` is skipped if there is none.
/// [`needs_server!`](crate::needs_server) calls it with the name of the test.
///
/// # Panics
///
/// If there is none, but `SEEN_REQUIRE_CLUSTER` is set.
pub fn available_or_skipped(test: &str) -> bool {
    if available() {
        return true;
    }
    let required = env::var_os("SEEN_REQUIRE_CLUSTER").is_some();
    assert!(!required, "{test} needs redis-server on PATH: SEEN_REQUIRE_CLUSTER is set");
    // Not `eprintln!`: the test runner captures what the print macros write, and shows it only for tests that fail.
    let line = format!("SKIPPED {test}: redis-server is not on PATH\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}

/// Returns from the calling test if there is no server program, after a line `SKIPPED name: ...` on stderr.
/// Fails the test instead if `SEEN_REQUIRE_CLUSTER` is set.
#[macro_export]
macro_rules! needs_server {
    () => {{
        fn here() {}
        let name = ::std::any::type_name_of_val(&here);
        if !$crate::available_or_skipped(name.trim_end_matches("::here")) {
            return;
        }
    }};
}

/// The server program: `SEEN_REDIS_SERVER`, or the first of `redis-server` and `valkey-server` on `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os("SEEN_REDIS_SERVER").map(PathBuf::from) {
        assert!(path.is_file(), "SEEN_REDIS_SERVER names {}, which is no file", path.display());
        return Some(path);
    }
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    ["redis-server", "valkey-server"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|candidate| candidate.is_file())
}
