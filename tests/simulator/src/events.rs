//! What happens to stores besides being asked: clocks, kills, faults, restores, locks of others.
//!
//! To add one: a function, and its line in [`TABLE`].

use std::time::Duration;

use fastrand::Rng;
use rusqlite::ffi;

use crate::setup::choose;
use crate::world::World;
use crate::world::damage::Damage;

type Event = fn(&mut World, u64, &mut Rng);

/// How often each comes up.
pub const TABLE: &[(u32, Event)] = &[
    (4, step_all_clocks),
    (3, step_one_clock),
    (6, step_to_a_border),
    (3, open_after_a_step_back),
    (4, let_time_pass),
    (2, kill),
    (3, kill_later),
    (4, fail_once),
    (2, fail_for_a_while),
    (4, spare),
    (3, close),
    (2, drop_handle),
    (8, open_all),
    (2, back_up),
    (2, put_back),
    (3, fork),
    (2, lose_the_log),
    (1, hold_the_lock),
    (1, hold_a_snapshot),
    (8, damage_index),
];

pub fn happen(world: &mut World, number: u64, rng: &mut Rng) {
    let total: u32 = TABLE.iter().map(|(often, _)| often).sum();
    let mut left = rng.u32(..total);
    for (often, event) in TABLE {
        if left < *often {
            return event(world, number, rng);
        }
        left -= often;
    }
}

fn a_store(world: &World, rng: &mut Rng) -> usize {
    rng.usize(..world.setup.stores)
}

fn a_step(rng: &mut Rng) -> i64 {
    const STEPS: [i64; 14] = [
        1,
        999,
        5_000,
        30_000,
        60_000,
        600_000,
        3_600_000,
        -1,
        -5_000,
        -45_000,
        -60_000,
        -60_001,
        -3_600_000,
        -86_400_000,
    ];
    *choose(rng, &STEPS)
}

fn step_all_clocks(world: &mut World, number: u64, rng: &mut Rng) {
    let by = a_step(rng);
    world.step_clocks(number, None, by);
}

fn step_one_clock(world: &mut World, number: u64, rng: &mut Rng) {
    let (store, by) =
        (a_store(world, rng), *choose(rng, &[1, 999, 5_000, 30_000, -1, -5_000, -45_000]));
    world.step_clocks(number, Some(store), by);
}

/// Of two stores on one clock, one was open before the step and stands still.
fn open_after_a_step_back(world: &mut World, number: u64, rng: &mut Rng) {
    let (store, by) = (a_store(world, rng), *choose(rng, &[-5_000, -45_000, -60_000]));
    world.close(number, store, rng.bool());
    world.step_clocks(number + 10, None, by);
    world.open(number + 20, store);
}

/// Something ends now, or in a millisecond.
fn step_to_a_border(world: &mut World, number: u64, rng: &mut Rng) {
    let borders: Vec<_> = world.borders().into_iter().collect();
    let latest = world.model.latest;
    let ahead: Vec<_> =
        borders.into_iter().filter(|border| (1..86_400_000).contains(&(border - latest))).collect();
    if !ahead.is_empty() {
        let border = *choose(rng, &ahead) - i64::from(rng.bool());
        world.step_clocks(number, None, border - latest);
    }
}

fn let_time_pass(world: &mut World, _: u64, rng: &mut Rng) {
    let ms = *choose(rng, &[1, 20, 101, 400, 2_500]);
    world.wait(Duration::from_millis(ms));
}

fn kill(world: &mut World, _: u64, rng: &mut Rng) {
    let store = a_store(world, rng);
    if world.is_open(store) {
        world.kill(store, None);
    }
}

fn kill_later(world: &mut World, _: u64, rng: &mut Rng) {
    let (store, calls) = (a_store(world, rng), rng.u32(..60));
    world.kill(store, Some(calls));
}

fn fail_once(world: &mut World, _: u64, rng: &mut Rng) {
    let (store, code) = (a_store(world, rng), a_code(rng));
    world.hurt(store, a_number_of_calls(code, rng), code, false);
}

fn fail_for_a_while(world: &mut World, _: u64, rng: &mut Rng) {
    let (store, code) = (a_store(world, rng), a_code(rng));
    world.hurt(store, a_number_of_calls(code, rng), code, true);
}

fn a_code(rng: &mut Rng) -> i32 {
    *choose(rng, &[ffi::SQLITE_IOERR, ffi::SQLITE_IOERR, ffi::SQLITE_FULL, ffi::SQLITE_IOERR_FSYNC])
}

/// How many that could meet it pass before one does. Syncs are few.
fn a_number_of_calls(code: i32, rng: &mut Rng) -> u32 {
    rng.u32(..if code == ffi::SQLITE_IOERR_FSYNC { 3 } else { 60 })
}

fn spare(world: &mut World, _: u64, _: &mut Rng) {
    world.spare_all();
}

fn close(world: &mut World, number: u64, rng: &mut Rng) {
    let store = a_store(world, rng);
    world.close(number, store, false);
}

fn drop_handle(world: &mut World, number: u64, rng: &mut Rng) {
    let store = a_store(world, rng);
    world.close(number, store, true);
}

fn open_all(world: &mut World, number: u64, _: &mut Rng) {
    for store in 0..world.setup.stores {
        world.open(number + store as u64, store);
    }
}

fn back_up(world: &mut World, number: u64, rng: &mut Rng) {
    let store = a_store(world, rng);
    world.back_up(number, store);
}

fn put_back(world: &mut World, number: u64, _: &mut Rng) {
    world.put_back(number);
}

fn fork(world: &mut World, number: u64, rng: &mut Rng) {
    let store = a_store(world, rng);
    world.fork(number, store);
}

fn lose_the_log(world: &mut World, number: u64, _: &mut Rng) {
    world.lose_the_log(number);
}

fn hold_the_lock(world: &mut World, number: u64, rng: &mut Rng) {
    let ms = *choose(rng, &[1, 50, 1_000]);
    world.hold(number, true, Duration::from_millis(ms));
}

fn hold_a_snapshot(world: &mut World, number: u64, rng: &mut Rng) {
    let ms = *choose(rng, &[1, 50, 1_000, 5_000]);
    world.hold(number, false, Duration::from_millis(ms));
}

fn damage_index(world: &mut World, number: u64, rng: &mut Rng) {
    let (damage, at) = (*choose(rng, &Damage::ALL), rng.i64(0..1 << 40));
    world.damage_index(number, damage, at);
}
