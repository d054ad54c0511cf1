//! The integrity check: each row and claim of the file against the others, and the index in the file against the rows.
//!
//! Owns the comparison. What always holds: all is read in one snapshot, and nothing is repaired. The memory does not grow
//! with the file. An entry counts as wrong only if it is wrong for every store on the file, also for one whose clock is
//! ahead by the most that stores allow. Must not know of open stores and their indexes: `store::maintenance` checks those.

mod suspects;

use rusqlite::Connection;

use self::suspects::{Part, Suspects};
use super::access::{FileReader, Read, Snapshot, for_each_claim};
use crate::clock::ABSORBED_STEP_MS;
use crate::error::Result;
use crate::format;
use crate::id::{Key, KeyHasher, Scope};
use crate::index::Slot;
use crate::item::is_change;
use crate::journal::catch_up::Counters;
use crate::journal::claims::ClaimPosition;
use crate::journal::index_check::index_problems;
use crate::journal::load::{KeyRow, RowKeys, key_columns, max_rows};
use crate::journal::row::digest_of;
use crate::journal::runs::hash_key;
use crate::journal::{ClaimRow, IntegrityReport, MAX_PROBLEMS};
use crate::machine::step_size;

/// How much is looked at in one pass over the table, which takes two scans.
#[derive(Clone, Copy)]
struct PassSize {
    /// About 6 bytes of memory for each.
    rows: usize,
    /// About 40 bytes of memory for each.
    claims: usize,
}

const PASS_SIZE: PassSize = PassSize {
    rows: step_size!(1 << 24, in_a_simulation: 32),
    claims: step_size!(1 << 19, in_a_simulation: 8),
};

impl FileReader {
    /// Runs SQLite's check of the file, and then compares each row and claim with the others of its id.
    pub(crate) fn verify(&mut self, now_ms: i64) -> Result<IntegrityReport> {
        self.read(1, |connections| {
            let snapshot = Snapshot::begin(connections[0])?;
            let found = format::integrity_problems(snapshot.0)?;
            let (of_sqlite, is_sound) = IntegrityReport::of(found);
            if !is_sound && of_sqlite.index_problems == 0 {
                return Ok(of_sqlite);
            }
            let mut report = compare_all(snapshot.0, now_ms, PASS_SIZE)?;
            if report.index_problems == 0 {
                report.add_index_problems(of_sqlite.problems);
            }
            Ok(report)
        })
    }

    /// Compares the index in the file with the rows that it covers.
    pub(crate) fn verify_index(&mut self) -> Result<IntegrityReport> {
        self.read(1, |connections| {
            let snapshot = Snapshot::begin(connections[0])?;
            let mut report = IntegrityReport::default();
            let problems = index_problems(snapshot.0, |_| report.rows += 1)?;
            report.add_index_problems(problems);
            Ok(report)
        })
    }
}

/// Compares everything, in one snapshot.
fn compare_all(connection: &Connection, now_ms: i64, size: PassSize) -> Read<IntegrityReport> {
    let mut report = IntegrityReport::default();
    let floor = Counters::load(connection)?.floor;
    let newest: Option<i64> =
        connection.query_row("SELECT max(seq) FROM seen", [], |row| row.get(0))?;
    if newest.is_some_and(|newest| newest < floor) {
        report.problems.push("the newest row is below the floor that the file records".into());
    }
    let rows = max_rows(connection, 0)?;
    let claims: i64 = connection.query_row("SELECT count(*) FROM claims", [], |row| row.get(0))?;
    let claims = usize::try_from(claims).unwrap_or(usize::MAX);
    let passes = rows.div_ceil(size.rows).max(claims.div_ceil(size.claims)).max(1);
    let hasher = hash_key(connection)?.map_or_else(KeyHasher::random, KeyHasher::with_key);
    let mut found = Found {
        connection,
        hasher: &hasher,
        // Clocks of stores may be ahead of this one. An entry that had expired for a store may stand beside what came
        // after it.
        latest_ms: now_ms.saturating_add(ABSORBED_STEP_MS),
        rows: 0,
        wrong_rows: Vec::new(),
        wrong_claims: Vec::new(),
        of_index: Vec::new(),
    };
    for number in 0..passes {
        let part = Part { number: number as u64, of: passes as u64 };
        found.pass(part, rows.div_ceil(passes))?;
    }
    report.rows = found.rows;
    report.problems.extend(
        found
            .wrong_rows
            .iter()
            .map(|seq| format!("row {seq} is live beside a newer row of the same id")),
    );
    report.problems.extend(found.wrong_claims);
    report.add_index_problems(found.of_index);
    Ok(report)
}

/// What the passes have found so far.
struct Found<'a> {
    connection: &'a Connection,
    hasher: &'a KeyHasher,
    latest_ms: i64,
    rows: u64,
    /// The first ones that are live even at `latest_ms` although there is a newer row of the same id.
    wrong_rows: Vec<i64>,
    wrong_claims: Vec<String>,
    of_index: Vec<String>,
}

impl Found<'_> {
    /// Looks at a part of the ids, with about so many rows. The first pass also compares the index in the file.
    fn pass(&mut self, part: Part, rows: usize) -> Read<()> {
        let mut ids = Suspects::new(part, rows);
        let mut count = 0;
        self.scan(0, |row| {
            ids.add(row, self.latest_ms);
            count += 1;
        })?;
        self.for_each_claim(part, |key, _, _| {
            ids.add_claimed(key);
            Ok(())
        })?;
        ids.begin_second_scan();
        let mut covered = 0;
        if part.number == 0 {
            self.rows = count;
            self.of_index = index_problems(self.connection, |row| {
                ids.meet(row);
                covered = covered.max(row.slot.seq);
            })?;
            if !self.of_index.is_empty() {
                covered = 0; // Not all rows up to there were read.
            }
        }
        self.scan(covered, |row| ids.meet(row))?;
        self.wrong_rows.extend(ids.rows_beside_newer_ones());
        self.wrong_rows.sort_unstable();
        self.wrong_rows.truncate(MAX_PROBLEMS);
        self.check_claims(part, &ids)
    }

    /// Reads the rows after `after`, from the newest back.
    fn scan(&self, after: i64, mut each: impl FnMut(&KeyRow)) -> Read<()> {
        let mut statement = self.connection.prepare_cached(concat!(
            "SELECT ",
            key_columns!(),
            " FROM seen WHERE seq > ?1 ORDER BY seq DESC"
        ))?;
        let mut rows = statement.query([after])?;
        let mut keys = RowKeys::new(self.hasher);
        while let Some(row) = rows.next()? {
            each(&keys.read(row)?);
        }
        Ok(())
    }

    /// Calls `each` with the claims of a part that have not expired even at the latest time.
    fn for_each_claim(
        &self,
        part: Part,
        mut each: impl FnMut(Key, &ClaimPosition, &ClaimRow) -> Read<()>,
    ) -> Read<()> {
        for_each_claim(self.connection, |place, claim| {
            let scope = Scope::new(&place.scope, self.hasher);
            let key = scope.id(&place.id).ok().map(|id| id.key).filter(|key| part.has(*key));
            match key.filter(|_| !claim.is_expired(self.latest_ms)) {
                Some(key) => each(key, place, &claim),
                None => Ok(()),
            }
        })
    }

    /// Reports claims although a live mark of the same version of the id exists.
    fn check_claims(&mut self, part: Part, ids: &Suspects) -> Read<()> {
        let mut problems = Vec::new();
        self.for_each_claim(part, |key, place, claim| {
            // A mark that had expired when the id was claimed seems to live again under a clock that was set back
            // far.
            let is_live =
                |slot: &Slot| slot.is_live(self.latest_ms) && slot.is_live(claim.claimed_at);
            let Some(mark) = ids.newest(key).filter(is_live) else { return Ok(()) };
            if problems.len() < MAX_PROBLEMS
                && !is_change(claim.digest, digest_of(self.connection, mark.seq)?)
            {
                problems.push(format!(
                    "{:?} in scope {:?} is claimed although it is seen",
                    String::from_utf8_lossy(&place.id),
                    place.scope
                ));
            }
            Ok(())
        })?;
        self.wrong_claims.extend(problems);
        self.wrong_claims.truncate(MAX_PROBLEMS);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::format::create::create_in_memory;

    /// A table with what is right and wrong beside it: ids that were marked again, with the older row expired, forgotten
    /// or still live.
    fn table() -> Connection {
        let connection = create_in_memory(&Config::default()).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000) \
                 INSERT INTO seen (seq, id, first_seen, last_seen, expires_at) \
                 SELECT n, 'id ' || n, 1, 1, iif(n % 5 = 0, 900, NULL) FROM n; \
                 INSERT INTO seen (id, first_seen, last_seen, expires_at) \
                 SELECT id, 1, 1, iif(seq = 100, 0, NULL) FROM seen WHERE seq IN (10, 100, 500, 501, 2999); \
                 INSERT INTO claims (scope, id, token, held, claimed_at, lease_until, attempts, abandoned, duplicates) \
                 VALUES ('', 'id 5', zeroblob(16), 0, 1000, 100000, 1, 0, 0), \
                        ('', 'id 7', zeroblob(16), 0, 1000, 100000, 1, 0, 0), \
                        ('', 'id 2998', zeroblob(16), 0, 1000, 100000, 1, 0, 0), \
                        ('a', 'id 8', zeroblob(16), 0, 1000, 100000, 1, 0, 0)",
            )
            .unwrap();
        connection
    }

    #[test]
    fn the_same_is_found_in_one_pass_and_in_many() {
        check_passes(&table());
    }

    #[test]
    fn the_same_is_found_in_the_file_of_an_earlier_program() {
        let connection = table();
        connection
            .execute_batch(
                "DROP TABLE runs; DROP TABLE blocks; DROP TABLE counts; DELETE FROM meta WHERE key = 'hash_key'",
            )
            .unwrap();
        check_passes(&connection);
    }

    fn check_passes(connection: &Connection) {
        for (rows, claims) in [(1 << 24, 1 << 19), (3_000, 1), (100, 100), (7, 2)] {
            let size = PassSize { rows, claims };
            let report = compare_all(connection, 1_000, size).unwrap();
            assert_eq!(report.rows, 3_005);
            let live = |seq| format!("row {seq} is live beside a newer row of the same id");
            let claimed =
                |id: &str| format!("\"{id}\" in scope \"\" is claimed although it is seen");
            let mut found = report.problems;
            found[2..].sort();
            assert_eq!(
                found,
                [live(501), live(2_999), claimed("id 2998"), claimed("id 7")],
                "{rows} {claims}"
            );
        }
    }

    #[test]
    fn of_many_problems_the_first_ones_are_listed() {
        let connection = table();
        connection
            .execute_batch(
                "INSERT INTO seen (id, first_seen, last_seen) SELECT id, 1, 1 FROM seen WHERE seq % 5 = 1",
            )
            .unwrap();
        let report = compare_all(&connection, 1_000, PASS_SIZE).unwrap();
        let rows: Vec<_> = report.problems.iter().filter(|it| it.starts_with("row ")).collect();
        assert_eq!(rows.len(), MAX_PROBLEMS);
        assert!(rows[1].starts_with("row 6 "), "{rows:?}");
    }
}
