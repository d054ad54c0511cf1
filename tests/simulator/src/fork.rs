//! A real fork of the simulator: its child is a child of every store's process.

use std::path::Path;

use std::time::Duration;

use seen_store::{Claim, ErrorKind, Reader, Result, SeenStore};

/// What the child found, as its exit status.
const FINDINGS: [&str; 6] = [
    "it was refused everything",
    "it marked or claimed an id with a handle that it inherited",
    "it read with a handle that it inherited",
    "it closed what it inherited",
    "it opened a store or a reader",
    "it was refused with another error than that it was forked",
];

/// Forks a child that uses `inherited` and opens each of `paths`. An error says what it was
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
    let id = "by a child";
    let lease = Duration::from_secs(1);
    let used = [
        judged(inherited.mark_seen(id), 1),
        judged(inherited.claim(id, lease).map(std::mem::forget::<Claim>), 1),
        judged(inherited.try_is_seen(id).map(drop), 2),
        judged(inherited.get(id).map(drop), 2),
        judged(inherited.stats().map(drop), 2),
        judged(inherited.close(), 3),
    ];
    let opened = paths.iter().flat_map(|path| {
        [
            judged(SeenStore::open(path).map(std::mem::forget), 4),
            judged(Reader::open(path).map(std::mem::forget), 4),
        ]
    });
    used.into_iter().chain(opened).find(|found| *found != 0).unwrap_or(0)
}

fn judged(outcome: Result<()>, if_done: i32) -> i32 {
    match outcome {
        Ok(()) => if_done,
        Err(e) if e.kind() == ErrorKind::Forked => 0,
        Err(_) => 5,
    }
}
