//! Which programs use a scope, as they have announced it.
//!
//! Owns the rows `announced SCOPE` of `meta`. Each has a line for each name: the time until which ids that the program
//! left may be there, and the name. What always holds: a row has one line for each name, and what is not understood
//! there, as another program may have written it, counts as nothing. Lookups, listings and counts never read it.

use rusqlite::{Connection, OptionalExtension};

use super::{Journal, Transaction};
use crate::error::Result;

/// A program that has announced itself.
struct Announced {
    until_ms: i64,
    name: String,
}

fn key(scope: &str) -> String {
    format!("announced {scope}")
}

fn read(connection: &Connection, scope: &str) -> rusqlite::Result<Vec<Announced>> {
    let text: Option<Option<String>> = connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key(scope)], |row| Ok(row.get_ref(0)?.as_str().ok().map(str::to_owned)))
        .optional()?;
    let text = text.flatten().unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let read = lines.filter_map(|(until, name)| {
        Some(Announced { until_ms: until.parse().ok()?, name: name.to_owned() })
    });
    Ok(read.collect())
}

impl Journal {
    /// Returns the names that are announced for a scope.
    pub(crate) fn announced(&mut self, scope: &str, now_ms: i64) -> Result<Vec<String>> {
        let all = self.read(|connection| read(connection, scope))?;
        Ok(all.into_iter().filter(|it| now_ms < it.until_ms).map(|it| it.name).collect())
    }
}

impl Transaction<'_> {
    /// Announces a name for a scope, and returns the other names. Writes nothing if the name is announced until
    /// `enough_ms` already.
    pub(crate) fn announce(
        &mut self,
        scope: &str,
        name: &str,
        enough_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<String>> {
        let now_ms = self.now_ms;
        self.with(|connection| {
            let mut all = read(connection, scope)?;
            let known = all.iter().any(|it| it.name == name && it.until_ms >= enough_ms);
            if !known {
                let own = all.iter().filter(|it| it.name == name).map(|it| it.until_ms).max();
                all.retain(|it| it.name != name && now_ms < it.until_ms);
                let until_ms = own.map_or(until_ms, |own| own.max(until_ms));
                all.push(Announced { until_ms, name: name.to_owned() });
                let lines: Vec<String> =
                    all.iter().map(|it| format!("{} {}\n", it.until_ms, it.name)).collect();
                connection
                    .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                    .execute((key(scope), lines.concat()))?;
            }
            let others = all.into_iter().filter(|it| it.name != name && now_ms < it.until_ms);
            Ok(others.map(|it| it.name).collect())
        })
    }
}
