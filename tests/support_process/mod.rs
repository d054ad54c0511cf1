//! Children for tests that need several processes.
//!
//! The test binary runs itself again, and of its tests only the one called `child` in the file that starts
//! the child; the environment tells it what to be. They talk in lines through pipes; the child's begin with
//! `@`, which tells them from what the test harness prints. A child that is forgotten ends by an alarm.

#![allow(dead_code)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::panic::Location;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use seen_store::{Config, ErrorKind, Result, SeenStore, Verdict};

const ROLE: &str = "SEEN_TEST_ROLE";

/// How long a child may live.
const LIFE_SECONDS: u32 = 100;

/// The name by which the harness knows the test `name` of the file that calls: `names::child` for
/// `tests/refusal/names.rs`, a module of its binary; `child` for `tests/fork.rs`, which is one by itself.
#[track_caller]
pub(crate) fn test_of_this_file(name: &str) -> String {
    let binary = module_path!().split("::").next().unwrap();
    let file = Path::new(Location::caller().file()).file_stem().unwrap().to_str().unwrap();
    if file == "main" || file == binary { name.to_owned() } else { format!("{file}::{name}") }
}

pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts the test `child` of the file that calls, in the given role.
    #[track_caller]
    pub(crate) fn spawn<V: AsRef<OsStr>>(role: &str, variables: &[(&str, V)]) -> Self {
        Self::spawn_test(&test_of_this_file("child"), role, variables)
    }

    /// Starts a test of this binary in the given role.
    pub(crate) fn spawn_test<V: AsRef<OsStr>>(
        test: &str,
        role: &str,
        variables: &[(&str, V)],
    ) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .envs(variables.iter().map(|(name, value)| (*name, value.as_ref())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    /// A child that opens stores and does what it is asked: see [`puppet`].
    #[track_caller]
    pub(crate) fn puppet() -> Self {
        Self::spawn::<&str>("puppet", &[])
    }

    /// A puppet that has opened the store at `path`.
    #[track_caller]
    pub(crate) fn with_store(path: &Path) -> Self {
        let mut child = Self::puppet();
        assert_eq!(child.ask(&format!("open {}", path.display())), "ok");
        child
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The child's next line; `None` when it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.output.read_until(b'\n', &mut line).unwrap();
            // A line that a kill cut off was not said.
            if read == 0 || line.last() != Some(&b'\n') {
                return None;
            }
            if let Some(said) = line.strip_prefix(b"@") {
                return Some(String::from_utf8(said[..said.len() - 1].to_vec()).unwrap());
            }
        }
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear().unwrap_or_else(|| panic!("the child ended instead of answering {line:?}"))
    }

    pub(crate) fn id(&self) -> libc::pid_t {
        self.process.id().cast_signed()
    }

    pub(crate) fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: waits for our own child, which is not reaped by being stopped.
        let changed = unsafe { libc::waitpid(self.id(), &raw mut status, libc::WUNTRACED) };
        assert!(changed == self.id() && libc::WIFSTOPPED(status), "the child ended instead");
    }

    /// Waits for the child's end, which comes by itself and by a kill.
    pub(crate) fn wait_for_death(&mut self) {
        use std::os::unix::process::ExitStatusExt as _;
        let ended = self.process.wait().unwrap();
        assert_eq!(ended.signal(), Some(libc::SIGKILL), "the child ended otherwise: {ended}");
    }

    pub(crate) fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: the process is our child and was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.id(), signal) }, 0);
    }

    /// Kills the child and returns what it had said until then.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// Lets the child end by itself, at the end of its input, and checks that it did so in peace.
    pub(crate) fn finish(mut self) -> Vec<String> {
        drop(self.input.take());
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(self.process.wait().unwrap().success(), "the child failed; it said {said:?}");
        said
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How a forked child ends, once its body has run.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// By `_exit`: no destructor and no exit handler runs.
    AtOnce,
    /// By `exit`, as at the end of `main`.
    WithHandlers,
}

/// Runs `body` in a forked child, which must end within 5 s; whether it ended with status 0.
pub(crate) fn in_fork(body: impl FnOnce()) -> bool {
    fork(End::AtOnce, body).ends_well()
}

/// A child that was forked from this process.
pub(crate) struct Forked(libc::pid_t);

/// Runs `body` in a forked child. A child that hangs is ended after 5 s by an alarm.
pub(crate) fn fork(end: End, body: impl FnOnce()) -> Forked {
    // SAFETY: the child calls the code under test, which promises to be callable there, and leaves
    // without running anything of the harness.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: sets a timer.
            unsafe { libc::alarm(5) };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            let status = i32::from(done.is_err());
            match end {
                // SAFETY: ends the process.
                End::AtOnce => unsafe { libc::_exit(status) },
                // Not by the standard library's `exit`: that takes a lock of its own, which a thread
                // that began or ended at the fork may have held.
                // SAFETY: ends the process, after its exit handlers.
                End::WithHandlers => unsafe { libc::exit(status) },
            }
        }
        child => {
            assert!(child > 0, "cannot fork");
            Forked(child)
        }
    }
}

impl Forked {
    /// Waits for the end; whether it came with status 0.
    pub(crate) fn ends_well(self) -> bool {
        let mut status = 0;
        // SAFETY: waits for our own child, once.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

pub(crate) fn assert_forked<T>(call: &str, answer: Result<T>) {
    match answer {
        Err(e) if e.kind() == ErrorKind::Forked => {}
        Err(e) => panic!("{call} failed: {e:?}"),
        Ok(_) => panic!("{call} succeeded in a forked child"),
    }
}

/// The role that this process was started in; `None` in the process that runs the tests.
pub(crate) fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    // SAFETY: sets a timer and touches no memory.
    unsafe { libc::alarm(LIFE_SECONDS) };
    // The harness leaves its own line open.
    println!();
    Some(role)
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

pub(crate) fn say(line: impl std::fmt::Display) {
    println!("@{line}");
}

pub(crate) fn lines() -> impl Iterator<Item = String> {
    std::io::stdin().lines().map(Result::unwrap)
}

/// Obeys until its input ends. Commands: `open`, `open-exclusive` with a path, `close`, and the verbs.
pub(crate) fn puppet() {
    let mut store = None;
    for line in lines() {
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match verb {
            "open" | "open-exclusive" => {
                let config = Config::default().exclusive(verb == "open-exclusive");
                SeenStore::open_with(argument, config).map(|opened| {
                    store = Some(opened);
                    "ok".to_owned()
                })
            }
            _ => match &store {
                Some(store) => obey(store, verb, argument),
                None => Ok("no store is open".to_owned()),
            },
        };
        say(answer.unwrap_or_else(|e| format!("error {:?}: {e}", e.kind())));
    }
}

fn obey(store: &SeenStore, verb: &str, argument: &str) -> Result<String> {
    Ok(match verb {
        "mark" => store.mark_seen(argument).map(|()| "ok".to_owned())?,
        "check" => match store.check_and_mark(argument)? {
            Verdict::New => "new".to_owned(),
            verdict => format!("{verdict:?}").to_lowercase(),
        },
        "seen" => store.try_is_seen(argument)?.to_string(),
        "forget" => store.forget(argument)?.to_string(),
        "purge" => store.purge_expired()?.to_string(),
        "cleanup" => {
            let age = Duration::from_millis(argument.parse().unwrap());
            store.cleanup_old_entries(age)?.to_string()
        }
        "compact" => store.compact().map(|()| "ok".to_owned())?,
        "rebuilds" => store.stats()?.since_opened.rebuilds.to_string(),
        "verify" => format!("{:?}", store.verify()?.problems),
        "close" => store.close().map(|()| "ok".to_owned())?,
        _ => panic!("a puppet does not know {verb:?}"),
    })
}

/// Random numbers from a seed that can be printed (`SplitMix64`, by Steele, Lea and Flood).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Seeded by `SEEN_TEST_SEED`, or by chance; prints the seed.
    pub(crate) fn new(test: &str) -> Self {
        let seed = match std::env::var("SEEN_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        };
        println!("{test}: SEEN_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}
