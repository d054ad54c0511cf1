//! Runs seeds: one in this process, or many in processes of their own, and makes a failing one small.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use seen_store::run_on;

use crate::events;
use crate::model::Told;
use crate::ops;
use crate::scheduler::{Scheduler, fail};
use crate::setup::{self, Kept, Setup};
use crate::vfs;
use crate::world::World;

/// What one run is to do.
#[derive(Clone)]
struct Plan {
    seed: u64,
    /// Which of its operations.
    keep: Vec<u64>,
    verbose: bool,
}

/// How many operations of a run are events.
const EVENTS_IN_100: u32 = 22;

fn of_operation(seed: u64, number: u64) -> Rng {
    let mut mixed =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03);
    mixed ^= mixed >> 29;
    Rng::with_seed(mixed)
}

/// Where the run in a process keeps its files: in memory.
fn folder_of(process: u32) -> PathBuf {
    Path::new("/dev/shm").join(format!("seen-simulate-{process}"))
}

/// Runs one seed in this process, which then ends. If it fails, its files stay where they are.
fn run(plan: &Plan) {
    let setup = Setup::of(plan.seed);
    let folder = folder_of(std::process::id());
    // Of a process that had this number before, and failed.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("a folder in memory");
    let place = folder.canonicalize().expect("a path");
    let scheduler = Scheduler::new(plan.seed, setup.stores + 1);
    run_on(scheduler);
    vfs::mount(scheduler, setup.stores + 1, &place.join("seen.db"));
    if plan.verbose {
        println!("in {}: {setup:?}", place.display());
    }
    let mut world = World::new(scheduler, setup, &place, plan.verbose);
    let mut rng = of_operation(plan.seed, u64::MAX);
    for store in 0..setup.stores {
        // Amid the making of the file, or of its connection.
        if rng.u32(..4) == 0 {
            world.kill(store, Some(rng.u32(..80)));
        }
        world.open(store as u64, store);
    }
    for operation in &plan.keep {
        operate(&mut world, plan.seed, *operation);
    }
    let last = plan.keep.last().map_or(0, |last| last + 1);
    finish(&mut world, plan.seed, last);
    println!(
        "ok: {} operations, {} judged, {} turns, {} system calls, {} lost track, at most {} worlds, trace {:016x}",
        plan.keep.len(),
        world.model.judged,
        scheduler.turns(),
        vfs::calls(),
        world.model.lost_track,
        world.model.most_worlds,
        scheduler.trace(),
    );
    let counts: Vec<_> =
        world.counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
    println!("counts: {}", counts.join(" "));
    let _ = std::io::stdout().flush();
    let _ = std::fs::remove_dir_all(&folder);
    // Threads of stores wait for ever.
    // SAFETY: nothing is left to do.
    unsafe { libc::_exit(0) }
}

/// Numbers of an operation and what belongs to it.
const NUMBERS: u64 = 100;

fn operate(world: &mut World, seed: u64, operation: u64) {
    let mut rng = of_operation(seed, operation);
    let number = (operation + 1) * NUMBERS;
    let pause = *setup::choose(&mut rng, &[0, 0, 30, 100, 300, 300, 1_000, 5_000]);
    world.wait(Duration::from_micros(pause));
    if rng.u32(..100) < EVENTS_IN_100 {
        return events::happen(world, number, &mut rng);
    }
    let store = rng.usize(..world.setup.stores);
    if !world.is_open(store) {
        return;
    }
    let call = {
        let tokens = |name| world.model.tokens(name);
        ops::draw_from(&mut world.draw(rng, number, store, &tokens))
    };
    world.ask(number, store, call);
}

/// What the stores say of each id once nothing is under way, and what a new one finds.
fn finish(world: &mut World, seed: u64, operation: u64) {
    let mut number = (operation + 1) * NUMBERS;
    for round in 0..2 {
        let stores = world.come_to_rest(number);
        number += NUMBERS;
        // What was removed has been noticed.
        world.wait(Duration::from_secs(3));
        for store in stores {
            for name in world.model.names() {
                let call = {
                    let tokens = |_| Vec::new();
                    ops::get_of(
                        &world.draw(of_operation(seed, number), number, store, &tokens),
                        name,
                    )
                };
                world.ask(number, store, call);
                number += 1;
            }
            world.wait_for_all();
            let call = {
                let names = world.model.names();
                let tokens = |_| Vec::new();
                ops::entries_of(
                    &world.draw(of_operation(seed, number), number, store, &tokens),
                    names,
                )
            };
            world.ask(number, store, call);
            world.wait_for_all();
            number += 1;
            if world.setup.kept == Kept::SharedFile {
                let call = {
                    let names = world.model.names();
                    let tokens = |_| Vec::new();
                    let rng = of_operation(seed, number);
                    ops::read_all_of(&world.draw(rng, number, store, &tokens), names, Told::Listed)
                };
                world.ask(number, store, call);
                world.wait_for_all();
                number += 1;
            }
            for make in [ops::stats, ops::verify, ops::read] {
                let call = {
                    let tokens = |_| Vec::new();
                    make(&mut world.draw(of_operation(seed, number), number, store, &tokens))
                };
                world.ask(number, store, call);
                world.wait_for_all();
                number += 1;
            }
        }
        for store in 0..world.setup.stores {
            number += 1;
            world.close(number, store, round == 0);
        }
        world.wait_for_all();
        world.make_index_anew(number + 1, |world| {
            let tokens = |_| Vec::new();
            ops::compact(&mut world.draw(of_operation(seed, number), number, 0, &tokens))
        });
        let left = world.side_files();
        if !left.is_empty() {
            fail(&format!("VIOLATION: side files are left after the last close: {left:?}"));
        }
        number += NUMBERS;
    }
}

const HELP: &str = "\
simulate                       runs seeds until the time is up, or one fails; that one is made small
simulate --one SEED OPERATIONS [--verbose]
                               runs these operations of one seed, such as 0-99,120, and prints a digest of
                               the run; with --verbose all that happens. Where it fails its files stay

Numbers in the environment say what runs:
  SEEN_SIMULATE_SECONDS        for how long (600)
  SEEN_SIMULATE_SEED           from which seed on (1)
  SEEN_SIMULATE_SEEDS          how many seeds at most (no limit)
  SEEN_SIMULATE_STEPS          how many operations a seed (300)
  SEEN_SIMULATE_SHRINK         1: a failing seed is made small; 0: it is not (1)
  SEEN_SIMULATE_FAILURES       after how many failing seeds to end (1)";

pub fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seed, operations, verbose) = match arguments[..] {
        [] => return many(),
        ["--help" | "-h"] => return println!("{HELP}"),
        ["--one", seed, operations] => (seed, operations, false),
        ["--one", seed, operations, "--verbose"] => (seed, operations, true),
        _ => refuse(&format!("what is {arguments:?}?\n{HELP}")),
    };
    let seed = seed.parse().unwrap_or_else(|_| refuse(&format!("{seed} is no seed")));
    let Some(keep) = read_list(operations) else {
        refuse(&format!("{operations} is no list of operations such as 0-99,120"))
    };
    run(&Plan { seed, keep, verbose });
}

/// Ends the program, which was called wrongly.
fn refuse(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(2);
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| {
        value.parse().unwrap_or_else(|_| refuse(&format!("{name}={value} is no number")))
    })
}

/// `0-99,120` as numbers. They go up.
fn read_list(text: &str) -> Option<Vec<u64>> {
    let mut numbers: Vec<u64> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || numbers.last().is_some_and(|before| *before >= first) {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn shown_list(numbers: &[u64]) -> String {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let shown =
        parts.iter().map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        );
    shown.collect::<Vec<_>>().join(",")
}

/// How a run in a process of its own ended.
struct Ended {
    ok: bool,
    output: String,
}

/// A run that takes longer than this hangs.
const LONGEST_RUN: Duration = Duration::from_secs(180);

fn program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

fn start(plan: &Plan) -> std::process::Child {
    let mut command = Command::new(program());
    command.args(["--one", &plan.seed.to_string(), &shown_list(&plan.keep)]);
    if plan.verbose {
        command.arg("--verbose");
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process")
}

fn wait(mut child: std::process::Child) -> Ended {
    let folder = folder_of(child.id());
    #[allow(clippy::disallowed_methods, reason = "the real time")]
    let started = Instant::now();
    let mut reader = child.stdout.take().expect("piped");
    let output =
        std::thread::spawn(move || std::io::read_to_string(&mut reader).unwrap_or_default());
    let mut errors = child.stderr.take().expect("piped");
    let errors =
        std::thread::spawn(move || std::io::read_to_string(&mut errors).unwrap_or_default());
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if started.elapsed() > LONGEST_RUN {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // The files of one that failed are in memory, and there may be thousands.
    let _ = std::fs::remove_dir_all(folder);
    let mut output = output.join().unwrap_or_default();
    output.push_str(&errors.join().unwrap_or_default());
    if status.is_none() {
        output.push_str("\nthe run hangs");
    }
    Ended { ok: status.is_some_and(|status| status.success()), output }
}

/// Runs seeds until the time is up; the first that fails is made small.
fn many() {
    let first = variable("SEEN_SIMULATE_SEED", 1);
    let seeds = variable("SEEN_SIMULATE_SEEDS", u64::MAX);
    let steps = variable("SEEN_SIMULATE_STEPS", 300);
    let seconds = variable("SEEN_SIMULATE_SECONDS", 600);
    let shrinks = variable("SEEN_SIMULATE_SHRINK", 1) == 1;
    let most_failures = variable("SEEN_SIMULATE_FAILURES", 1);
    #[allow(clippy::disallowed_methods, reason = "the real time")]
    let started = Instant::now();
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut done, mut judged, mut failures) = (0_u64, 0_u64, 0_u64);
    let mut next = first;
    while next - first < seeds && started.elapsed() < Duration::from_secs(seconds) {
        let plans: Vec<_> =
            (next..first.saturating_add(seeds).min(next.saturating_add(at_once as u64)))
                .map(|seed| Plan { seed, keep: (0..steps).collect(), verbose: false })
                .collect();
        next += plans.len() as u64;
        let children: Vec<_> = plans.iter().map(start).collect();
        // All of them, before the first that fails may end this.
        let ended: Vec<_> = children.into_iter().map(wait).collect();
        for (plan, ended) in plans.iter().zip(ended) {
            done += 1;
            if ended.ok {
                judged += figure(&ended.output, " judged");
                continue;
            }
            failures += 1;
            println!("seed {} fails:\n{}", plan.seed, ended.output);
            if shrinks {
                let small = shrink(plan);
                println!(
                    "needed of its {steps} operations: {}\n  {} --one {} {} --verbose",
                    small.keep.len(),
                    program().display(),
                    small.seed,
                    shown_list(&small.keep),
                );
            }
            if failures >= most_failures {
                println!("{done} seeds of {steps} operations, {failures} failed");
                std::process::exit(1);
            }
        }
    }
    println!(
        "{done} seeds of {steps} operations, {judged} answers judged, {failures} failed, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    if failures > 0 {
        std::process::exit(1);
    }
}

/// The number before a word of the report.
fn figure(report: &str, word: &str) -> u64 {
    let before = report.split(word).next().unwrap_or_default();
    before.rsplit([' ', ',']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Leaves out operations as long as it fails without them (Zeller and Hildebrandt, "Simplifying and isolating
/// failure-inducing input").
fn shrink(plan: &Plan) -> Plan {
    let mut small = plan.clone();
    let mut chunk = small.keep.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < small.keep.len() {
            let end = (at + chunk).min(small.keep.len());
            let mut shorter = small.clone();
            shorter.keep.drain(at..end);
            if wait(start(&shorter)).ok {
                at = end;
            } else {
                small = shorter;
            }
        }
        chunk /= 2;
    }
    small
}
