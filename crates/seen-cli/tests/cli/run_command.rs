//! `seen run`: one run of a command for an id, whatever happens to either of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::{Place, Told, catches, signal, wait_until, with_signals};
use seen_store::{Claim, Config, Filter, SeenStore, State};

/// A command that leaves a trace in the place's folder.
const LEAVE_TRACE: [&str; 4] = ["--", "sh", "-c", "echo ran >>trace"];

/// What a shell does until a signal comes.
const FOR_EVER: &str = "while :; do sleep 0.05; done";

fn run<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["run"], options, &["--"], command].concat()
}

/// `seen run` at work, and what its command prints.
struct Running {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it and waits for the first line of its command: then the id is claimed.
    fn start(command: &mut Command) -> (Self, String) {
        let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let mut running = Self { process, lines };
        let first = running.line();
        (running, first)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for its end, the end of its input being told.
    fn end(mut self) -> Told {
        drop(self.process.stdin.take());
        self.end_by_itself()
    }

    /// Waits for its end while its input stays open.
    fn end_by_itself(mut self) -> Told {
        let mut stdout = String::new();
        self.lines.read_to_string(&mut stdout).unwrap();
        let output = self.process.wait_with_output().unwrap();
        Told { stdout, ..Told::from(output) }
    }
}

#[test]
fn a_command_that_succeeds_is_run_once() {
    let place = Place::new();
    assert_eq!(place.printed(&run(&["--id", "a"], &["echo", "done"])), "done\n");
    let again = place.told(&run(&["--id", "a"], &["echo", "done"]));
    again.assert(0, &["a: seen before"]);
    assert_eq!(again.stdout, "");
    place.told(&run(&["--id", "a", "--seen-status", "7"], &["echo"])).assert(7, &["seen"]);
    place.told(&[&["-q"], &run(&["--id", "a"], &["echo"])[..]].concat()).assert(0, &[]);
    assert_eq!(place.entry("a").unwrap().state, State::Seen);
}

#[test]
fn a_command_that_fails_gives_its_status_and_is_run_again() {
    let place = Place::new();
    place.told(&run(&["--id", "a"], &["sh", "-c", "exit 3"])).assert(3, &[]);
    let entry = place.entry("a").unwrap();
    assert_eq!(entry.state, State::Failed);
    assert_eq!(entry.last_error.as_deref(), Some("sh ended with status 3"));
    place.told(&run(&["--id", "a"], &["true"])).assert(0, &[]);
    let entry = place.entry("a").unwrap();
    assert_eq!((entry.state, entry.attempts), (State::Seen, 2));
}

#[test]
fn a_command_that_a_signal_kills_gives_128_and_its_number() {
    let place = Place::new();
    place.told(&run(&["--id", "a"], &["sh", "-c", "kill -KILL $$"])).assert(137, &[]);
    let entry = place.entry("a").unwrap();
    assert_eq!(entry.last_error.as_deref(), Some("sh was killed by SIGKILL"));
}

#[test]
fn a_command_that_cannot_be_started_leaves_the_id_free() {
    let place = Place::new();
    place.file("plain", "no program");
    place.told(&run(&["--id", "a"], &["./missing"])).assert(127, &["cannot run ./missing"]);
    place.told(&run(&["--id", "a"], &["./plain"])).assert(126, &["cannot run ./plain", "denied"]);
    let entry = place.entry("a").unwrap();
    assert_eq!((entry.state, entry.last_error), (State::Released, None));
    place.told(&run(&["--id", "a"], &["true"])).assert(0, &[]);
}

#[test]
fn while_another_worker_has_the_id_nothing_is_run() {
    let place = Place::new();
    let store = place.store();
    let Claim::Granted(lease) = store.claim("a", Duration::from_secs(60)).unwrap() else {
        panic!()
    };
    let told = place.told(&[&["run", "--id", "a"], &LEAVE_TRACE[..]].concat());
    told.assert(75, &["a: another worker ("]);
    let status = ["run", "--id", "a", "--in-flight-status", "0"];
    place.told(&[&status, &LEAVE_TRACE[..]].concat()).assert(0, &["another worker"]);
    assert_eq!(place.text("trace"), "");
    drop(lease);
    place.told(&[&["run", "--id", "a"], &LEAVE_TRACE[..]].concat()).assert(0, &[]);
    assert_eq!(place.text("trace"), "ran\n");
}

#[test]
fn of_many_at_once_one_runs_the_command() {
    let place = Place::new();
    for round in 0..5 {
        let id = format!("id {round}");
        let runs: Vec<Child> = (0..6)
            .map(|_| place.seen(&[&["run", "--id", &id], &LEAVE_TRACE[..]].concat()).spawn())
            .collect::<Result<_, _>>()
            .unwrap();
        let told = runs.into_iter().map(|run| Told::from(run.wait_with_output().unwrap()));
        let idle = told.filter(|told| !told.stderr.is_empty()).count();
        assert_eq!(idle, 5, "all but one say why they run nothing");
        assert_eq!(place.text("trace"), "ran\n".repeat(round + 1));
    }
}

#[test]
fn an_id_can_be_tried_only_so_often() {
    let place = Place::new();
    let failing = run(&["--id", "a", "--retries", "2"], &["sh", "-c", "echo tried; exit 9"]);
    place.told(&failing).assert(9, &[]);
    place.told(&failing).assert(9, &["a: given up after 2 attempts", "seen resolve"]);
    let third = place.told(&failing);
    third.assert(69, &["a: given up after 2 attempts"]);
    let status = [&["run", "--given-up-status", "3"], &failing[1..]].concat();
    place.told(&status).assert(3, &["given up"]);
    place.told(&[&["-q"], &failing[..]].concat()).assert(69, &[]);
    assert_eq!(third.stdout, "");
    // What the rules for alerts watch.
    assert!(place.printed(&["list", "--state", "given-up"]).ends_with(" a\n"));
    place.told(&["forget", "a"]).assert(0, &[]);
    place.told(&failing).assert(9, &[]);
}

/// A cron job with `-q` would otherwise end its attempts without a word.
#[test]
fn the_last_attempt_tells_that_the_id_is_given_up_also_when_quiet() {
    let place = Place::new();
    for (id, command, status) in [
        ("a", &["sh", "-c", "exit 9"][..], 9),
        ("b", &["./missing"], 127),
        ("c", &["sh", "-c", "kill -KILL $$"], 137),
    ] {
        let last = [&["-q"], &run(&["--id", id, "--retries", "1"], command)[..]].concat();
        let told = place.told(&last);
        assert_eq!(told.status, Some(status), "{told:?}");
        let told = told.stderr.lines().last().unwrap_or_default().to_owned();
        assert!(
            told.contains(&format!("{id}: given up after 1 attempt; `seen resolve`")),
            "{told}"
        );
    }
}

#[test]
fn statuses_that_are_declared_success_are_success_and_stay_the_commands_own() {
    let place = Place::new();
    let ends_with = |id: &'static str, status: &'static str| {
        let script = ["sh", "-c", "exit $0", status];
        place.told(&run(&["--id", id, "--success-status", "1,24"], &script))
    };
    ends_with("a", "24").assert(24, &[]);
    assert_eq!(place.entry("a").unwrap().state, State::Seen);
    ends_with("a", "24").assert(0, &["seen before"]);
    ends_with("b", "0").assert(0, &[]);
    assert_eq!(place.entry("b").unwrap().state, State::Seen);
    ends_with("c", "23").assert(23, &[]);
    assert_eq!(place.entry("c").unwrap().state, State::Failed);
    // A signal is no status.
    let killed = run(&["--id", "d", "--success-status", "137"], &["sh", "-c", "kill -KILL $$"]);
    place.told(&killed).assert(137, &[]);
    assert_eq!(place.entry("d").unwrap().state, State::Failed);
}

/// Returns a command with the local time of this offset from UTC, in hours to the west.
fn in_zone<'c>(command: &'c mut Command, hours: &str) -> &'c mut Command {
    command.env("TZ", format!("XXX{hours}"))
}

#[test]
fn a_daily_job_runs_once_a_day_of_the_local_time() {
    let place = Place::new();
    let told = |every: &str, hours: &str| {
        let traced = [&["run", "--id", "report", "--every", every], &LEAVE_TRACE[..]].concat();
        let told = Told::from(in_zone(&mut place.seen(&traced), hours).output().unwrap());
        assert_eq!(told.status, Some(0), "{told:?}");
        place.text("trace").len() / "ran\n".len()
    };
    // Of two places that are 26 hours apart, neither has the day of the other.
    assert_eq!(told("day", "12"), 1);
    assert_eq!(told("day", "-14"), 2);
    assert_eq!(told("day", "-14"), 2);
    assert_eq!(told("day", "12"), 2);
    // UTC is UTC everywhere.
    assert_eq!(told("month-utc", "12"), 3);
    assert_eq!(told("month-utc", "-14"), 3);
    let entries: Vec<_> = place.store().entries(Filter::default()).map(Result::unwrap).collect();
    assert!(entries.iter().all(|entry| entry.id.starts_with(b"f1:6:report")), "{entries:?}");
    // Remembered for twice the period. A duplicate has moved the time when an entry was last seen.
    let hours = entries.iter().map(|entry| {
        let lasts = entry.expires_at.unwrap().duration_since(entry.last_seen).unwrap();
        lasts.as_secs().div_ceil(3_600)
    });
    let mut hours: Vec<_> = hours.collect();
    hours.sort_unstable();
    assert_eq!(hours, [48, 48, 2 * 31 * 24]);
}

#[test]
fn a_day_of_utc_is_that_of_utc_in_each_zone() {
    let place = Place::new();
    let today = || jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let run = ["run", "--id", "report", "--every", "day-utc", "true"];
    loop {
        let day = today();
        for hours in ["12", "-14"] {
            let told = Told::from(in_zone(&mut place.seen(&run), hours).output().unwrap());
            assert_eq!(told.status, Some(0), "{told:?}");
        }
        // Otherwise it was midnight.
        if day == today() {
            let entries = place.store().entries(Filter::default()).map(Result::unwrap);
            let ids: Vec<_> = entries.map(|entry| entry.id).collect();
            assert_eq!(ids, [format!("f1:6:report18:day-utc {day}").into_bytes()]);
            return;
        }
        place.printed(&["forget", "--every", "day-utc", "report"]);
    }
}

/// The period is that of the beginning: with a time to live, the next day's run would not start, or be lost.
#[test]
fn a_run_of_the_day_before_does_not_keep_todays_from_running() {
    let place = Place::new();
    let options = ["--id", "report", "--every", "day"];
    let wait = run(&options, &["sh", "-c", "echo began; cat"]);
    let (running, _) = Running::start(in_zone(&mut place.seen(&wait), "12"));
    let next = [&["run"], &options[..], &LEAVE_TRACE].concat();
    Told::from(in_zone(&mut place.seen(&next), "-14").output().unwrap()).assert(0, &[]);
    assert_eq!(place.text("trace"), "ran\n");
    let told = Told::from(in_zone(&mut place.seen(&next), "12").output().unwrap());
    told.assert(75, &["report (day 20", "another worker"]);
    running.end().assert(0, &[]);
    let told = Told::from(in_zone(&mut place.seen(&next), "-14").output().unwrap());
    told.assert(0, &["report (day 20", "seen before"]);
}

#[test]
fn a_period_needs_a_time_zone_that_is_known_and_no_time_to_live() {
    let place = Place::new();
    let options = ["--id", "a", "--every", "day"];
    let mut command = place.seen(&run(&options, &["true"]));
    let told = Told::from(command.env("TZ", "Europe/Berln").output().unwrap());
    told.assert(125, &["TZ=Europe/Berln", "--every day-utc"]);
    let both = [&options[..], &["--ttl", "1d"]].concat();
    place.told(&run(&both, &["true"])).assert(125, &["--every", "--ttl", "cannot be used"]);
    let odd = ["--id", "a", "--every", "fortnight"];
    place.told(&run(&odd, &["true"])).assert(125, &["hour, day, week, month"]);
    assert!(!place.db().exists());
}

#[test]
fn what_follows_the_command_belongs_to_the_command() {
    let place = Place::new();
    let words = ["run", "--id", "a", "echo", "-q", "--scope", "x", "--", "--id", "b"];
    assert_eq!(place.printed(&words), "-q --scope x -- --id b\n");
    let with_dashes = ["run", "--id", "b", "--", "echo", "--", "-v"];
    assert_eq!(place.printed(&with_dashes), "-- -v\n");
}

/// Shells, `env` and `xargs` run such a file by `sh`.
#[test]
fn a_script_without_its_first_line_is_run_by_the_shell() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new();
    let executable = |name: &str, text: &[u8]| {
        let path = place.file(name, text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    executable("script", b"echo \"$1 $SEEN_ATTEMPT\"; cat; exit 5\n");
    let by_path = run(&["--id", "a"], &["./script", "an argument"]);
    let told = place.told_with_input(&by_path, "its input\n");
    told.assert(5, &[]);
    assert_eq!(told.stdout, "an argument 1\nits input\n");
    // Found by PATH, with the input that --key took.
    let mut command = place.seen(&run(&["--key", "id"], &["script"]));
    command.env("PATH", format!("{}:/usr/bin:/bin", place.folder().display()));
    let told = Told::from(crate::support::run(&mut command, b"{\"id\":1}"));
    assert_eq!((told.status, &*told.stdout), (Some(5), " 1\n{\"id\":1}"));
    executable("empty", b"");
    place.told(&run(&["--id", "b"], &["./empty"])).assert(0, &[]);
    executable("foreign", b"\x7fELF\x00\x00 another machine's");
    let told = place.told(&run(&["--id", "c"], &["./foreign"]));
    told.assert(126, &["cannot run ./foreign", "neither a script nor a program for this machine"]);
}

#[test]
fn a_failure_can_be_given_time() {
    let place = Place::new();
    let failing = run(&["--id", "a", "--retry-after", "1h"], &["false"]);
    place.told(&failing).assert(1, &[]);
    place.told(&failing).assert(75, &["a: it failed, and is not tried again before 20"]);
}

#[test]
fn the_id_comes_from_standard_input_and_then_the_command_reads_nothing() {
    let place = Place::new();
    let from_input = run(&["--id", "-"], &["cat"]);
    let told = place.told_with_input(&from_input, " an id \n");
    told.assert(0, &[]);
    assert_eq!(told.stdout, "");
    assert_eq!(place.entry(" an id ").unwrap().state, State::Seen);
    place.told_with_input(&from_input, "one\ntwo\n").assert(125, &["more than one line"]);
    place.told_with_input(&from_input, "\n").assert(125, &["standard input is empty"]);
    assert_eq!(place.entry("one"), None);
}

#[test]
fn with_an_id_of_its_own_the_command_reads_standard_input() {
    let place = Place::new();
    let told = place.told_with_input(&run(&["--id", "a"], &["cat"]), "for the command");
    told.assert(0, &[]);
    assert_eq!(told.stdout, "for the command");
}

#[test]
fn the_id_comes_out_of_json_that_the_command_receives_unchanged() {
    let place = Place::new();
    // More than a pipe holds, and not as a JSON library would write it.
    let item = format!("{{\"user\" : {{\"id\":17}},\n \"text\": \"{}\"}}\n\n", "x".repeat(200_000));
    let by_key = run(&["--key", "user.id"], &["cat"]);
    let told = place.told_with_input(&by_key, &item);
    told.assert(0, &[]);
    assert!(told.stdout == item);
    assert_eq!(place.entry("17").unwrap().state, State::Seen);
    place.told_with_input(&by_key, &item).assert(0, &["17: seen before"]);
    let other = item.replace("17", "18");
    place.told_with_input(&run(&["--key", "user.id"], &["true"]), other).assert(0, &[]);
}

#[test]
fn a_document_without_its_key_is_known_by_its_bytes_or_refused() {
    let place = Place::new();
    let by_key = run(&["--key", "user.id"], &["cat"]);
    for (input, why) in [("{}", "\"user.id\" is missing"), ("no json", "not JSON")] {
        let told = place.told_with_input(&by_key, input);
        told.assert(0, &["standard input", why, "known by its bytes"]);
        assert_eq!(told.stdout, input);
        assert_eq!(place.told_with_input(&by_key, input).stdout, "");
        let strict = run(&["--key", "user.id", "--strict"], &["cat"]);
        place.told_with_input(&strict, input).assert(125, &["standard input", why]);
    }
    place.told_with_input(&by_key, "").assert(125, &["standard input is empty"]);
}

#[test]
fn scope_and_time_to_live_are_those_asked_for() {
    let place = Place::new();
    let options = ["--id", "a", "--scope", "mail", "--ttl", "30d"];
    place.told(&run(&options, &["true"])).assert(0, &[]);
    assert_eq!(place.entry("a"), None);
    let entry = place.store().scope("mail").get("a").unwrap().unwrap();
    let left = entry.expires_at.unwrap().duration_since(entry.last_seen).unwrap();
    assert_eq!(left, Duration::from_secs(30 * 24 * 3_600));
}

#[test]
fn a_hostile_id_is_told_in_one_line_without_control_characters() {
    let place = Place::new();
    let again = run(&["--id", "a\n\u{1b}[31mé"], &["true"]);
    place.told(&again).assert(0, &[]);
    place.told(&again).assert(0, &["a\\n\\u{1b}[31m\u{e9}: seen before"]);
}

fn lease_end(store: &SeenStore, id: &str) -> Option<SystemTime> {
    let entry = store.get(id).unwrap().filter(|entry| entry.state == State::InFlight)?;
    entry.lease_until
}

#[test]
fn the_claim_lasts_as_long_as_the_command() {
    const LEASE: Duration = Duration::from_secs(1);
    let place = Place::new();
    let wait = run(&["--id", "a", "--lease", "1s"], &["sh", "-c", "echo began; cat"]);
    let (running, _) = Running::start(&mut place.seen(&wait));
    let store = place.store();
    let first = lease_end(&store, "a").unwrap();
    wait_until("two leases more", || {
        lease_end(&store, "a").expect("the lease ended while the command ran") > first + 2 * LEASE
    });
    place.told(&[&["run", "--id", "a"], &LEAVE_TRACE[..]].concat()).assert(75, &["another worker"]);
    running.end().assert(0, &[]);
    assert_eq!(place.entry("a").unwrap().state, State::Seen);
    assert_eq!(place.text("trace"), "");
}

#[test]
fn a_killed_run_frees_the_id_when_its_lease_ends() {
    let place = Place::new();
    let wait = run(&["--id", "a", "--lease", "2s"], &["sh", "-c", "echo began; cat"]);
    let (mut running, _) = Running::start(&mut place.seen(&wait));
    running.process.kill().unwrap();
    running.process.wait().unwrap();
    let until = lease_end(&place.store(), "a").expect("the lease runs on");
    let next = [&["run", "--id", "a"], &LEAVE_TRACE[..]].concat();
    wait_until("the next run", || {
        place.told(&next);
        place.text("trace") == "ran\n"
    });
    assert!(place.entry("a").unwrap().first_seen >= until, "taken over before the lease ended");
}

#[test]
fn a_run_that_was_stopped_for_too_long_says_that_it_lost_the_id() {
    let place = Place::new();
    let wait = run(&["--id", "a", "--lease", "500ms"], &["sh", "-c", "echo began; cat"]);
    let (running, _) = Running::start(&mut place.seen(&wait));
    signal(&running.process, libc::SIGSTOP);
    let next = [&["run", "--id", "a"], &LEAVE_TRACE[..]].concat();
    wait_until("another run", || {
        place.told(&next);
        place.text("trace") == "ran\n"
    });
    signal(&running.process, libc::SIGCONT);
    running.end().assert(0, &["a: the claim was lost", "another worker took it over"]);
}

#[test]
fn signals_reach_the_command() {
    let place = Place::new();
    let told_by_sh = [
        (libc::SIGHUP, "HUP"),
        (libc::SIGINT, "INT"),
        (libc::SIGQUIT, "QUIT"),
        (libc::SIGTERM, "TERM"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGUSR2, "USR2"),
    ];
    for (number, name) in told_by_sh {
        let script = format!("trap 'echo {name}; exit 40' {name}; echo began; {FOR_EVER}");
        let waiting = run(&["--id", name], &["sh", "-c", &script]);
        let (mut running, _) = Running::start(with_signals(
            &mut place.seen(&waiting),
            &[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT],
            libc::SIG_DFL,
        ));
        signal(&running.process, number);
        assert_eq!(running.line(), name);
        running.end().assert(40, &[]);
        assert_eq!(place.entry(name).unwrap().state, State::Failed);
    }
}

#[test]
fn a_command_that_a_passed_signal_kills_has_failed() {
    let place = Place::new();
    let waiting = run(&["--id", "a"], &["sh", "-c", "echo began; exec cat"]);
    let (running, _) = Running::start(&mut place.seen(&waiting));
    signal(&running.process, libc::SIGTERM);
    running.end_by_itself().assert(143, &[]);
    let error = place.entry("a").unwrap().last_error;
    assert_eq!(error.as_deref(), Some("sh was killed by SIGTERM"));
}

/// A run that waits for another process has claimed nothing, and has no command to pass a signal on to.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_before_the_command_was_started_keeps_it_from_being_started() {
    let place = Place::new();
    drop(place.store());
    let writer = rusqlite::Connection::open(place.db()).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = [&["run", "--id", "a"], &LEAVE_TRACE[..]].concat();
    let run = place.seen(&waiting).spawn().unwrap();
    catches(&run, libc::SIGTERM);
    signal(&run, libc::SIGTERM);
    writer.execute_batch("ROLLBACK").unwrap();
    Told::from(run.wait_with_output().unwrap()).assert(143, &[]);
    assert_eq!(place.text("trace"), "");
    place.told(&waiting).assert(0, &[]);
}

#[test]
fn what_cannot_be_written_down_is_an_error_whatever_the_command_said() {
    let place = Place::new();
    let vanish = "rm -f seen.db*; sleep 0.2";
    let told = place.told(&run(&["--id", "a"], &["sh", "-c", vanish]));
    told.assert(125, &["a: could not be written down as confirmed", "seen.db"]);
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_ignored_from_the_start_stays_ignored_in_the_command() {
    let place = Place::new();
    let masks = run(&["--id", "a"], &["grep", "SigIgn", "/proc/self/status"]);
    let mut command = place.seen(&masks);
    with_signals(&mut command, &[libc::SIGHUP, libc::SIGINT], libc::SIG_IGN);
    let told = Told::from(command.output().unwrap());
    let mask = u64::from_str_radix(told.stdout.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(mask & 0b11, 0b11, "{told:?}");
}

/// Daemons start programs with odd settings: the end of the command must be noticed all the same.
#[test]
fn a_command_ends_whatever_its_parents_made_of_sigchld() {
    let place = Place::new();
    let failing = run(&["--id", "a"], &["sh", "-c", "sleep 0.2; exit 3"]);
    let mut command = place.seen(&failing);
    with_signals(&mut command, &[libc::SIGCHLD], libc::SIG_IGN);
    Told::from(command.output().unwrap()).assert(3, &[]);

    let mut command = place.seen(&failing);
    // SAFETY: between fork and exec only async-signal-safe functions are called, on a set of its own.
    unsafe {
        command.pre_exec(|| {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Ok(())
        });
    }
    let mut blocked = command.spawn().unwrap();
    let mut status = None;
    wait_until("its end", || {
        status = blocked.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(3));
}

/// The process's state as the kernel tells it, such as `T` for stopped.
#[cfg(target_os = "linux")]
fn state(process: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(target_os = "linux")]
#[test]
fn stop_and_continue_go_for_both() {
    let place = Place::new();
    let script = "echo $$; read line; echo went on";
    let waiting = run(&["--id", "a"], &["sh", "-c", script]);
    // In a process group of its own, as a shell's job: an orphaned group cannot be stopped.
    let (mut running, child) = Running::start(place.seen(&waiting).process_group(0));
    let own = running.process.id().to_string();
    signal(&running.process, libc::SIGTSTP);
    wait_until("the stop of both", || state(&own) == Some('T') && state(&child) == Some('T'));
    signal(&running.process, libc::SIGCONT);
    wait_until("their going on", || state(&own) != Some('T') && state(&child) != Some('T'));
    running.tell("on");
    assert_eq!(running.line(), "went on");
    running.end().assert(0, &[]);
}

/// A terminal sends to the whole foreground group, the command included: it must not come twice. This
/// command has left the group, and so must hear nothing of a Ctrl-C.
#[cfg(target_os = "linux")]
#[test]
fn what_a_terminal_sends_is_not_sent_again() {
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd};

    let place = Place::new();
    let (mut terminal, mut line) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: opens two descriptors into the integers; the other pointers may be null.
    let opened =
        unsafe { libc::openpty(&raw mut terminal, &raw mut line, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0);
    // SAFETY: both were just opened, and nothing else owns them.
    let (mut terminal, line) = unsafe { (File::from_raw_fd(terminal), File::from_raw_fd(line)) };

    let script = format!("trap 'echo INT' INT; trap 'echo END; exit 0' USR1; echo $$; {FOR_EVER}");
    let waiting = run(&["--id", "a"], &["setsid", "sh", "-c", &script]);
    let mut command = place.seen(&waiting);
    with_signals(&mut command, &[libc::SIGINT], libc::SIG_DFL);
    let number = line.as_raw_fd();
    // SAFETY: setsid and ioctl are plain system calls; the descriptor is open in the parent.
    unsafe {
        command.pre_exec(move || {
            let done = libc::setsid() >= 0 && libc::ioctl(number, libc::TIOCSCTTY, 0) == 0;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let (mut running, _) = Running::start(&mut command);
    terminal.write_all(b"\x03").unwrap();
    // The echo comes after the signal.
    let mut echo = [0; 2];
    terminal.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"^C");
    signal(&running.process, libc::SIGUSR1);
    assert_eq!(running.line(), "END");
    running.end().assert(0, &[]);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let place = Place::new();
    let id = ["--id", "a"];
    for (options, named) in [
        (&[][..], "--id"),
        (&["--id", "a", "--field", "b=c"], "cannot be used"),
        (&["--id", ""], "empty"),
        (&["--key", "a,,b"], "field's name is empty"),
        (&["--id", "a", "--lease", "0s"], "lease of zero"),
        (&["--id", "a", "--lease", "soon"], "not a duration"),
        (&["--id", "a", "--ttl", "1y"], "no fixed length"),
        (&["--id", "a", "--retries", "0"], "--retries"),
        (&["--id", "a", "--seen-status", "256"], "256"),
        (&["--id", "a", "--success-status", "1,x"], "--success-status"),
        (&["--id", "a", "--retires", "3"], "--retires"),
    ] {
        place.told(&[&["run"], options, &LEAVE_TRACE].concat()).assert(125, &[named]);
        place.told(&[&["-q", "run"], options, &LEAVE_TRACE].concat()).assert(125, &[named]);
    }
    place.told(&[&["run"], &id[..]].concat()).assert(125, &["<CMD>"]);
    assert_eq!(place.text("trace"), "");
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_nothing_is_run() {
    let place = Place::new();
    let told =
        |db: &str| place.told(&[&["run", "--id", "a", "--db", db], &LEAVE_TRACE[..]].concat());
    place.file("text", "not a database".repeat(100));
    told("text").assert(125, &["text", "not a SQLite database"]);
    rusqlite::Connection::open(place.path("foreign"))
        .unwrap()
        .execute_batch("CREATE TABLE t (c)")
        .unwrap();
    told("foreign").assert(125, &["foreign", "another application"]);
    told(".").assert(125, &["folder"]);
    told("text/seen.db").assert(125, &["text"]);
    let holder =
        SeenStore::open_with(place.path("held"), Config::default().exclusive(true)).unwrap();
    told("held").assert(125, &["held", "exclusive mode"]);
    drop(holder);
    assert_eq!(place.text("trace"), "");
}
