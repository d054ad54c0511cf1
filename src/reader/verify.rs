//! The integrity check: each row and claim of the file against an index that is built for the purpose.
//!
//! Owns the comparison. What always holds: all is read in one snapshot, and nothing is repaired. An entry counts
//! as wrong only if it is wrong for every store on the file, also for one whose clock is ahead by the most that
//! stores allow. Must not know of open stores and their indexes: `store::maintenance` checks those.

use rusqlite::Connection;

use super::access::{FileReader, Read, Snapshot, for_each_claim};
use crate::clock::ABSORBED_STEP_MS;
use crate::error::Result;
use crate::format;
use crate::id::{KeyHasher, Scope};
use crate::index::Index;
use crate::item::is_change;
use crate::journal::load::{RowKeys, key_columns, load_within};
use crate::journal::row::digest_of;
use crate::journal::{IntegrityReport, MAX_PROBLEMS};

impl FileReader {
    /// Runs SQLite's check of the file, and then compares each row and claim with an index that is built from
    /// all of them.
    pub(crate) fn verify(&mut self, now_ms: i64) -> Result<IntegrityReport> {
        let hasher = KeyHasher::random();
        self.read(1, |connections| {
            let snapshot = Snapshot::begin(connections[0])?;
            let problems = format::integrity_problems(snapshot.0)?;
            let mut report = IntegrityReport { rows: 0, problems };
            if report.is_ok() {
                let loaded = load_within(snapshot.0, &hasher, now_ms)?;
                if loaded.tip.is_some_and(|tip| tip.seq < loaded.counters.floor) {
                    report
                        .problems
                        .push("the newest row is below the floor that the file records".into());
                }
                // Clocks of stores may be ahead of this one. An entry that had expired for a store may stand
                // beside what came after it.
                let latest_ms = now_ms.saturating_add(ABSORBED_STEP_MS);
                compare_rows(snapshot.0, &loaded.index, &hasher, latest_ms, &mut report)?;
                compare_claims(snapshot.0, &loaded.index, &hasher, latest_ms, &mut report)?;
            }
            Ok(report)
        })
    }
}

/// Reports rows that are live even at `latest_ms` although the index has a newer row of the same id.
fn compare_rows(
    connection: &Connection,
    index: &Index,
    hasher: &KeyHasher,
    latest_ms: i64,
    report: &mut IntegrityReport,
) -> Read<()> {
    let mut statement =
        connection.prepare(concat!("SELECT ", key_columns!(), " FROM seen ORDER BY seq"))?;
    let mut rows = statement.query([])?;
    let mut keys = RowKeys::new(hasher);
    let mut wrong = 0;
    while let Some(row) = rows.next()? {
        let row = keys.read(row)?;
        let seq = row.slot.seq;
        report.rows += 1;
        let leads_here = index.get(row.key).is_some_and(|slot| slot.seq == seq);
        if row.slot.is_live(latest_ms) && !leads_here {
            wrong += 1;
            if wrong <= MAX_PROBLEMS {
                report
                    .problems
                    .push(format!("row {seq} is live beside a newer row of the same id"));
            }
        }
    }
    Ok(())
}

/// Reports claims that have not expired even at `latest_ms` although a live mark of the same version of the id exists.
fn compare_claims(
    connection: &Connection,
    index: &Index,
    hasher: &KeyHasher,
    latest_ms: i64,
    report: &mut IntegrityReport,
) -> Read<()> {
    let mut wrong = 0;
    for_each_claim(connection, |place, claim| {
        let scope = Scope::new(&place.scope, hasher);
        // A mark that had expired when the id was claimed seems to live again under a clock that was set back
        // far.
        let mark = scope.id(&place.id).ok().and_then(|id| index.get(id.key));
        let mark = mark.filter(|slot| slot.is_live(latest_ms) && slot.is_live(claim.claimed_at));
        let Some(mark) = mark.filter(|_| !claim.is_expired(latest_ms)) else { return Ok(()) };
        if !is_change(claim.digest, digest_of(connection, mark.seq)?) {
            wrong += 1;
            if wrong <= MAX_PROBLEMS {
                report.problems.push(format!(
                    "{:?} in scope {:?} is claimed although it is seen",
                    String::from_utf8_lossy(&place.id),
                    place.scope
                ));
            }
        }
        Ok(())
    })
}
