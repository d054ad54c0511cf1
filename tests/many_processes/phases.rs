//! The phases of a run: who takes part, what the parent does to them, and what is asked afterwards.
//!
//! - *alone*: one store in one process. Its log has the bound of a single store.
//! - *streams*: several processes that write single marks as fast as they can.
//! - *batches*: single marks beside two processes that write batches without a pause. Here it is counted
//!   how many of these overtake a mark.
//! - *free*: single marks beside batches, imports, purges, cleanups and claims. In these three nothing is
//!   stopped or killed and nothing holds a snapshot: the bounds on waits and on the log count.
//! - *mortal*: processes end in the moment of an acknowledgement.
//! - *hindered*: processes are killed and stopped, a foreign tool holds the lock or a snapshot, and there are
//!   backups, verifies and compactions. Calls may take long and be told Busy; nothing may be lost or doubled.
//!
//! What is to be done is an amount of work, not a time.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use seen_store::{Config, SeenStore, Ttl};

use crate::child::WITHOUT_END;
use crate::crew::{Place, Post};
use crate::ledger::{Event, Line};
use crate::oracle::{Judged, acknowledged, judge};
use crate::settings::Settings;
use crate::support_process::Child;
use crate::table::Table;

/// How many batches may overtake a single mark that waits for the write lock beside two processes that write
/// batches without a pause. A store waits by asking again, so this is a matter of chance and of the
/// processor: 7 to 16 of 80 were counted on a busy machine, and 22 and more where a store gives the lock
/// back each time.
const FAIR: u64 = 16;

/// How often the batches are written at most. A store that lets others starve does so each time.
const FAIR_TRIES: usize = 6;

/// How many ids a file holds at the beginning: so many that an index takes time to build, and a few.
const MANY: u64 = 20_000;
const FEW: u64 = 1_000;

/// How many backups of a phase are looked into.
const BACKUPS: usize = 2;

/// How many bytes of ledger lie at most between two acts of the parent: some 100 answers.
const MOST_GROWTH: u64 = 6_000;

/// How long the parent waits for that at most: a process that is stopped may hold the lock.
const STOPPED: Duration = Duration::from_millis(150);

pub(crate) fn alone(settings: Settings, table: &mut Table) {
    let mut place = Place::new("alone", settings, FEW);
    let log = place.watch_log();
    let child = place.start(Post::worker("Batch Purge Clean Import", settings.scaled(30)));
    child.finish();
    let longest = log.end();
    let lines = place.ledger.read(0).0;
    table.length("alone", "longest log", longest, 8, false);
    nothing_is_lost("alone", &place, &lines, &judge(&lines), table);
}

pub(crate) fn streams(settings: Settings, table: &mut Table) {
    let marks = settings.scaled(10_000);
    let works = [
        Post { rounds: marks, ..Post::marker(1, 1) },
        Post { rounds: marks, ..Post::marker(1, 1) },
        Post { rounds: marks, ..Post::marker(2, 2) },
        Post::worker("Batch", settings.scaled(20)),
    ];
    unhindered("streams", FEW, &[], &works, settings, table);
}

pub(crate) fn batches(settings: Settings, table: &mut Table) {
    const PHASE: &str = "batches";
    let works = [Post::worker("Large", settings.scaled(40)); 2];
    let mut fewest = u64::MAX;
    for _ in 0..FAIR_TRIES {
        let beside = [Post::rare_marker(); 2];
        fewest = fewest.min(unhindered(PHASE, FEW, &beside, &works, settings, table));
        if fewest <= FAIR {
            break;
        }
    }
    table.at_most(PHASE, "batches that overtook a mark, in the best run", fewest, FAIR);
}

pub(crate) fn free(settings: Settings, table: &mut Table) {
    let rounds = |usual| settings.scaled(usual);
    let beside = [Post::marker(1, 2), Post::marker(2, 2), Post::CLAIMER];
    let works = [
        Post::worker("Batch", rounds(20)),
        Post::worker("Import Purge", rounds(20)),
        Post::worker("Clean Forget Forget", rounds(15)),
        Post::worker("Visit", rounds(5)),
    ];
    let known = if settings.has_small_index { FEW } else { MANY };
    unhindered("free", known, &beside, &works, settings, table);
}

/// Runs `works` to their end, with `beside` at work until then, and measures. Returns how many long
/// transactions overtook a single mark at most.
fn unhindered(
    phase: &'static str,
    known: u64,
    beside: &[Post],
    works: &[Post],
    settings: Settings,
    table: &mut Table,
) -> u64 {
    let mut place = Place::new(phase, settings, known);
    let log = place.watch_log();
    let children: Vec<Child> = beside.iter().map(|post| place.start(*post)).collect();
    let working: Vec<Child> = works.iter().map(|post| place.start(*post)).collect();
    finish(working);
    // Only now: a marker that counts rebuilds waits for cleanups by others to end.
    finish(children);
    let longest = log.end();

    let lines = place.ledger.read(0).0;
    let judged = judge(&lines);
    for (call, wait) in &judged.waits {
        println!("{phase}: longest {call}: {} ms", wait.as_millis());
    }
    table.told(phase, "single marks", judged.marks);
    table.wait(phase, "longest wait of a single mark", judged.longest_wait, 500);
    // A store that is being opened reads the file in one snapshot, and the log grows meanwhile.
    let opens = works.iter().any(|post| post.works.contains("Visit"));
    table.length(phase, "longest log", longest, 16, opens);
    let overtook = judged.overtaken.last().copied().unwrap_or(0) as u64;
    table.told(phase, "most long transactions that overtook a single mark", overtook);
    table.at_most(phase, "rebuilds of an index", judged.rebuilds, 0);
    table.at_most(phase, "Busy errors", judged.busy, 0);
    table.none(phase, "Duplicates of an id that was New to none", &judged.won_by_none);
    nothing_is_lost(phase, &place, &lines, &judged, table);
    overtook
}

/// Processes end in the very moment in which a mark was acknowledged to one of their threads. Should another
/// of their threads not have committed it yet, it is lost, for other processes go on writing the log.
pub(crate) fn mortal(settings: Settings, table: &mut Table) {
    const PHASE: &str = "mortal";
    let mut place = Place::new(PHASE, settings, FEW);
    let posts = [Post::mortal(6), Post::mortal(6)];
    let beside = [Post::marker(1, 1), Post::worker("Forget Purge", WITHOUT_END)];
    let beside: Vec<Child> = beside.into_iter().map(|post| place.start(post)).collect();
    let mut mortals: Vec<Child> = posts.into_iter().map(|post| place.start(post)).collect();
    for _ in 0..settings.scaled(40) {
        // They live about equally long.
        let mortal = &mut mortals[usize::try_from(place.random().below(2)).unwrap()];
        mortal.wait_for_death();
        *mortal = place.start(posts[0]);
    }
    drop(mortals);
    finish(beside);

    let lines = place.ledger.read(0).0;
    let judged = judge(&lines);
    table.told(PHASE, "single marks", judged.marks);
    table.at_most(PHASE, "Busy errors", judged.busy, 0);
    nothing_is_lost(PHASE, &place, &lines, &judged, table);
}

pub(crate) fn hindered(settings: Settings, table: &mut Table) {
    const PHASE: &str = "hindered";
    let mut place = Place::new(PHASE, settings, FEW);
    let posts = [
        Post::marker(1, 3),
        Post::marker(2, 2).impatient(),
        Post::worker("Batch Import Purge Clean Forget", WITHOUT_END),
        Post::worker("Visit Visit Read Forget Purge Backup Compact", WITHOUT_END).impatient(),
        Post::CLAIMER,
        Post::CLAIMER,
        Post::FOREIGN,
    ];
    let mut crew: Vec<Child> = posts.into_iter().map(|post| place.start(post)).collect();
    let (mut kills, mut stops) = (0_u64, 0_u64);
    for _ in 0..settings.scaled(60) {
        let random = place.random();
        let (growth, later) = (random.below(MOST_GROWTH), random.below(MOST_GROWTH));
        let victim = usize::try_from(random.below(posts.len() as u64)).unwrap();
        let (is_stopped, is_killed) = (random.below(3) > 0, random.below(3) == 0);
        place.wait_for_growth(growth, STOPPED);
        if is_stopped {
            crew[victim].stop();
            stops += 1;
            place.wait_for_growth(later, STOPPED);
        }
        if is_killed {
            crew[victim].kill();
            crew[victim] = place.start(posts[victim]);
            kills += 1;
        } else if is_stopped {
            crew[victim].go_on();
        }
    }
    finish(crew);

    let lines = place.ledger.read(0).0;
    let judged = judge(&lines);
    let wait = format!("{} ms", judged.longest_wait.as_millis());
    table.told(PHASE, "single marks", judged.marks);
    table.told(PHASE, "longest wait of a single mark", wait);
    table.told(PHASE, "Busy errors", judged.busy);
    table.told(PHASE, "claims confirmed", judged.confirmed);
    table.told(PHASE, "claims found lost", judged.lost_claims);
    table.told(PHASE, "kills", kills);
    table.told(PHASE, "stops", stops);
    table.none(PHASE, "acknowledged ids missing in a backup", &missing_in_backups(&place, &lines));
    nothing_is_lost(PHASE, &place, &lines, &judged, table);
}

/// Every child must end in peace.
fn finish(children: Vec<Child>) {
    for child in children {
        child.finish();
    }
}

/// What counts in every phase.
fn nothing_is_lost(
    phase: &'static str,
    place: &Place,
    lines: &[Line],
    judged: &Judged,
    table: &mut Table,
) {
    let begun = Instant::now();
    let store = SeenStore::open_with(&place.path, Config::default().ttl(Ttl::Never)).unwrap();
    table.none(phase, "ids New twice", &judged.new_twice);
    table.none(phase, "acknowledged ids missing", &missing(&store, place.known, lines));
    table.none(phase, "double confirms", &judged.confirmed_twice);
    table.none(phase, "answers found wrong by a child", &judged.wrong);
    table.none(phase, "errors other than Busy", &judged.failures);
    table.none(phase, "problems found by verify", &store.verify().unwrap().problems);
    store.close().unwrap();
    table.none(phase, "side files left behind", &place.side_files());
    println!("{phase}: judged in {:.1} s", begun.elapsed().as_secs_f64());
}

fn missing(store: &SeenStore, known: u64, lines: &[Line]) -> Vec<String> {
    let mut missing = Vec::new();
    let known: BTreeSet<String> = (0..known).map(|number| format!("known/{number}")).collect();
    for (scope, ids) in acknowledged(lines).into_iter().chain([("", known)]) {
        let store = store.scope(scope);
        missing.extend(ids.into_iter().filter(|id| !store.try_is_seen(id).unwrap()));
    }
    missing
}

/// What was acknowledged before a backup began must be in the copy.
fn missing_in_backups(place: &Place, lines: &[Line]) -> Vec<String> {
    let backups = lines.iter().filter_map(|line| match &line.event {
        Event::Backup { path } => Some((line.begun, path)),
        _ => None,
    });
    let mut all = Vec::new();
    for (begun, path) in backups.take(BACKUPS) {
        let before: Vec<Line> = lines.iter().filter(|line| line.at < begun).cloned().collect();
        let config = Config::default().ttl(Ttl::Never);
        let store = SeenStore::open_with(Path::new(path), config).unwrap();
        all.extend(missing(&store, place.known, &before));
        store.close().unwrap();
    }
    all
}
