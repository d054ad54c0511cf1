//! What the file holds, read beside the stores.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};
use seen_store::Token;

use crate::ids::Held;
use crate::state::{Claim, Earlier, Mark, NEVER, Outcome, Tag};

/// As the file holds it: text where that is possible.
pub(crate) fn stored(id: &[u8]) -> Value {
    match std::str::from_utf8(id) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Blob(id.to_owned()),
    }
}

fn token_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Token>> {
    let bytes = row.get::<_, Option<Vec<u8>>>(column)?.filter(|bytes| !bytes.is_empty());
    Ok(bytes.map(|bytes| {
        let number = u128::from_be_bytes(bytes.try_into().unwrap());
        format!("{number:032x}").parse().unwrap()
    }))
}

/// The kind of a digest and the first bytes of a SHA-256.
fn tag_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Tag>> {
    let bytes = row.get::<_, Option<Vec<u8>>>(column)?;
    Ok(bytes.map(|bytes| {
        let kind = if bytes[0] == 1 { "version" } else { "payload" };
        let digits: Vec<String> = bytes[1..].iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("{kind}:{}", digits.concat()).parse().unwrap();
        Tag::of(Some(digest)).unwrap()
    }))
}

/// `[windows,duplicates,first_seen,last_seen]`.
fn earlier(text: &str) -> Earlier {
    let numbers = text.trim_matches(['[', ']']).split(',').map(|number| number.parse().unwrap());
    let numbers: Vec<i64> = numbers.collect();
    Earlier {
        windows: numbers[0].cast_unsigned(),
        first: numbers[2],
        last: (numbers[3], numbers[3]),
    }
}

/// What the file holds of an id.
pub(crate) fn held_in(file: &Connection, scope: &str, id: &[u8]) -> Held {
    let mark = file
        .prepare_cached(
            "SELECT first_seen, last_seen, expires_at, token, attempts, last_error, receipt, \
                    retain_until, digest, earlier FROM seen WHERE scope = ?1 AND id = ?2 ORDER BY seq DESC LIMIT 1",
        )
        .unwrap()
        .query_row((scope, stored(id)), |row| {
            let expires = row.get::<_, Option<i64>>(2)?.unwrap_or(NEVER);
            Ok(Mark {
                first: row.get(0)?,
                last: row.get(1)?,
                sighted: 0,
                expires,
                kept: row.get::<_, Option<i64>>(7)?.unwrap_or(0).max(expires),
                tag: tag_at(row, 8)?,
                earlier: row.get::<_, Option<String>>(9)?.map(|text| earlier(&text)),
                token: token_at(row, 3)?,
                attempts: row.get::<_, Option<u32>>(4)?.unwrap_or(0),
                error: row.get(5)?,
                receipt: row.get(6)?,
            })
        })
        .optional()
        .unwrap();
    let claim = file
        .prepare_cached(
            "SELECT token, outcome, held, claimed_at, lease_until, attempts, abandoned, last_error, \
                    expires_at, digest \
             FROM claims WHERE scope = ?1 AND id = ?2",
        )
        .unwrap()
        .query_row((scope, stored(id)), |row| {
            Ok(Claim {
                token: token_at(row, 0)?,
                outcome: row.get::<_, Option<i64>>(1)?.map(|outcome| match outcome {
                    1 => Outcome::Released,
                    2 => Outcome::Failed,
                    3 => Outcome::FailedFinally,
                    other => panic!("{other} is no outcome"),
                }),
                held: row.get(2)?,
                at: row.get(3)?,
                until: row.get(4)?,
                attempts: row.get(5)?,
                abandoned: row.get(6)?,
                tag: tag_at(row, 9)?,
                error: row.get(7)?,
                expires: row.get::<_, Option<i64>>(8)?.unwrap_or(NEVER),
            })
        })
        .optional()
        .unwrap();
    Held { mark: mark.filter(|mark| mark.expires != 0), claim }
}

fn count(file: &Connection, sql: &str, parameters: impl rusqlite::Params) -> u64 {
    let count: i64 =
        file.prepare_cached(sql).unwrap().query_row(parameters, |row| row.get(0)).unwrap();
    count.cast_unsigned()
}

/// How many marks there are by scope, expired ones too.
pub(crate) fn marks_by_scope(file: &Connection) -> BTreeMap<String, u64> {
    let sql = "SELECT scope, count(*) FROM seen WHERE expires_at IS NOT 0 GROUP BY scope";
    let mut statement = file.prepare_cached(sql).unwrap();
    let counted =
        statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())));
    counted.unwrap().collect::<Result<_, _>>().unwrap()
}

/// How many marks there are that have expired, and are kept no longer either.
pub(crate) fn doomed_marks(file: &Connection, now: i64) -> u64 {
    let sql = "SELECT count(*) FROM seen WHERE expires_at BETWEEN 1 AND ?1 \
               AND (retain_until IS NULL OR retain_until <= ?1)";
    count(file, sql, [now])
}

/// The ids that have marks that have expired.
pub(crate) fn expired(file: &Connection, now: i64) -> Vec<(String, Vec<u8>)> {
    let sql = "SELECT scope, CAST(id AS BLOB) FROM seen WHERE expires_at BETWEEN 1 AND ?1";
    let mut select = file.prepare_cached(sql).unwrap();
    let ids = select.query_map([now], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    ids.collect::<rusqlite::Result<_>>().unwrap()
}

/// How many marks of the scope were last seen before this time.
pub(crate) fn old_marks(file: &Connection, scope: &str, before_ms: i64) -> u64 {
    let sql = "SELECT count(*) FROM seen WHERE scope = ?1 AND last_seen < ?2 \
               AND expires_at IS NOT 0";
    count(file, sql, (scope, before_ms))
}

/// How many claims there are whose attempts are forgotten.
pub(crate) fn forgotten_claims(file: &Connection, now: i64) -> u64 {
    let sql = "SELECT count(*) FROM claims WHERE expires_at <= ?1 AND NOT \
               (lease_until > ?1 AND (token <> x'' OR lease_until > claimed_at \
                                                   AND claimed_at <= ?1 + 60000)) \
               AND NOT (held AND token <> x'')";
    count(file, sql, [now])
}

/// How many claims of the scope last changed before this time.
pub(crate) fn old_claims(file: &Connection, scope: &str, before_ms: i64) -> u64 {
    let sql = "SELECT count(*) FROM claims WHERE scope = ?1 AND max(claimed_at, lease_until) < ?2 \
               AND NOT (held AND token <> x'')";
    count(file, sql, (scope, before_ms))
}

/// Changes with each commit.
pub(crate) fn version(file: &Connection) -> i64 {
    file.pragma_query_value(None, "data_version", |row| row.get(0)).unwrap()
}

/// The time that stores have written down.
pub(crate) fn reached(file: &Connection) -> Option<i64> {
    file.prepare_cached("SELECT value FROM meta WHERE key = 'clock'")
        .unwrap()
        .query_row([], |row| row.get(0))
        .optional()
        .unwrap()
}
