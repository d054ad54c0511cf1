//! The role of a foreign tool: another program that opens the file with SQLite, as the `sqlite3` shell does,
//! and keeps the write lock or an old snapshot for a while. It writes nothing.

use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::child::Me;

/// How long it keeps what it holds, in milliseconds. Real time: it stands for a person at a prompt.
const LONGEST_LOCK_MS: u64 = 100;
const LONGEST_SNAPSHOT_MS: u64 = 300;
const LONGEST_REST_MS: u64 = 300;

pub(crate) fn run(me: &Me) {
    let mut random = me.random(0);
    while me.goes_on() {
        let (sql, longest) = match random.below(2) {
            0 => ("BEGIN IMMEDIATE", LONGEST_LOCK_MS),
            _ => ("BEGIN; SELECT count(*) FROM meta", LONGEST_SNAPSHOT_MS),
        };
        let begun = me.ledger.begin();
        let held = Connection::open(&me.path).and_then(|file| {
            file.busy_timeout(Duration::from_secs(1))?;
            file.execute_batch(sql)?;
            thread::sleep(Duration::from_millis(random.below(longest)));
            file.execute_batch("ROLLBACK")
        });
        if held.is_ok() {
            me.done(&begun, "foreign");
        }
        thread::sleep(Duration::from_millis(random.below(LONGEST_REST_MS)));
    }
}
