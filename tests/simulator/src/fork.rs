//! A real fork of the simulator: its child is a child of every store's process.

use std::path::Path;

use seen_store::{ErrorKind, Result, SeenStore};

/// What the child found, as its exit status.
const FINDINGS: [&str; 4] = [
    "it was refused everything",
    "it marked an id with a handle that it inherited",
    "it opened a store",
    "it was refused with another error than that it was forked",
];

/// Forks a child that marks an id through `inherited` and opens each of `paths`. An error says what it was
/// not refused, or that it hung.
pub fn child_is_refused(inherited: &SeenStore, paths: &[&Path]) -> std::result::Result<(), String> {
    // SAFETY: the child calls nothing that waits for another thread, unless the library is wrong: then the
    // alarm ends it.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "cannot fork");
    if child == 0 {
        // SAFETY: as above; it leaves without running what its parent registered.
        unsafe {
            libc::alarm(5);
            libc::_exit(try_all(inherited, paths));
        }
    }
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if !libc::WIFEXITED(status) {
        return Err("it hung".into());
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        found => Err(FINDINGS[usize::try_from(found).unwrap_or(0)].into()),
    }
}

fn try_all(inherited: &SeenStore, paths: &[&Path]) -> i32 {
    let marked = judged(inherited.mark_seen("by a child"), 1);
    let opened = paths.iter().map(|path| judged(SeenStore::open(path).map(std::mem::forget), 2));
    opened.fold(marked, |worst, found| if worst == 0 { found } else { worst })
}

fn judged(outcome: Result<()>, if_done: i32) -> i32 {
    match outcome {
        Ok(()) => if_done,
        Err(e) if e.kind() == ErrorKind::Forked => 0,
        Err(_) => 3,
    }
}
