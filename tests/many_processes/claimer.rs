//! The role of a claimer: claims ids that others claim too, under leases of some milliseconds, and ends its
//! claims in all ways, in time and too late; confirms also by tokens that other processes were given.
//!
//! Owns what becomes of a claim. What always holds: each grant and each confirm that was acknowledged is in
//! the ledger, with its token; a claim that was failed or released is not confirmed by its holder.

use std::thread;
use std::time::Duration;

use seen_store::{Claim, Error, ErrorKind, SeenStore, Token};

use crate::child::Me;
use crate::ledger::{Begun, Event};
use crate::support_process::Random;

const SCOPE: &str = "claims";

/// The longest lease in milliseconds. A holder that is late has waited for longer than its own.
const LONGEST_LEASE_MS: u64 = 30;

const THREADS: u64 = 2;

pub(crate) fn run(me: &Me) {
    let store = me.open();
    let scope = store.scope(SCOPE);
    thread::scope(|threads| {
        for thread in 0..THREADS {
            let scope = &scope;
            threads.spawn(move || {
                let mut random = me.random(thread);
                while me.goes_on() {
                    claim(me, scope, &mut random);
                    confirm_anothers(me, scope, &mut random);
                }
            });
        }
    });
    me.close(&store);
}

fn claim(me: &Me, store: &SeenStore, random: &mut Random) {
    let id = me.shared_id(random, "claim");
    let lease_time = Duration::from_millis(1 + random.below(LONGEST_LEASE_MS));
    let begun = me.ledger.begin();
    let mut lease = match store.claim(&id, lease_time) {
        Ok(Claim::Granted(lease)) => lease,
        // The others hold what there is to claim.
        Ok(_) => return thread::sleep(Duration::from_millis(1)),
        Err(e) => return me.failed(&begun, "claim", &e),
    };
    let token = lease.token();
    me.ledger.write(&begun, &Event::Granted { id: id.clone(), token: token.to_string() });
    match random.below(8) {
        0 | 1 => confirm(me, &id, token, || lease.confirm()),
        2 | 3 => {
            // Late: the lease is over, and another may have the id. Real time is what a lease is made of.
            thread::sleep(lease_time + Duration::from_millis(random.below(10)));
            confirm(me, &id, token, || lease.confirm());
        }
        4 => end(me, "fail", || lease.fail("told to")),
        5 => end(me, "release", || lease.release()),
        6 => {
            // Vanishes: only its token is left, for others to confirm by.
            let _ = lease.into_token();
        }
        _ => {
            let token = lease.into_token();
            confirm(me, &id, token, || store.confirm(&id, &token));
            confirm(me, &id, token, || store.confirm(&id, &token));
        }
    }
}

fn confirm(me: &Me, id: &str, token: Token, call: impl FnOnce() -> seen_store::Result<()>) {
    let begun = me.ledger.begin();
    match call() {
        Ok(()) => {
            let event = Event::Confirmed { id: id.to_owned(), token: token.to_string() };
            me.ledger.write(&begun, &event);
        }
        Err(e) => lost_or_failed(me, &begun, "confirm", &e),
    }
}

fn end(me: &Me, name: &str, call: impl FnOnce() -> seen_store::Result<()>) {
    let begun = me.ledger.begin();
    match call() {
        Ok(()) => me.done(&begun, name),
        Err(e) => lost_or_failed(me, &begun, name, &e),
    }
}

fn lost_or_failed(me: &Me, begun: &Begun, call: &str, error: &Error) {
    match error.kind() {
        ErrorKind::LeaseLost => me.done(begun, "lost"),
        _ => me.failed(begun, call, error),
    }
}

/// Confirms by a token that some process was granted of late, which may be dead or stopped by now.
fn confirm_anothers(me: &Me, store: &SeenStore, random: &mut Random) {
    if random.below(8) > 0 {
        return;
    }
    let granted = me.ledger.newest(1_000 + random.below(8_000)).into_iter();
    let mut granted = granted.filter(|line| line.child != me.name).filter_map(|line| {
        let Event::Granted { id, token } = line.event else { return None };
        Some((id, token.parse::<Token>().unwrap()))
    });
    if let Some((id, token)) = granted.next() {
        confirm(me, &id, token, || store.confirm(&id, &token));
    }
}
