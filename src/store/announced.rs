//! Which programs use a scope.
//!
//! Owns the names that programs may announce, and how long they are remembered. Nothing else of a store depends on
//! them.

use super::SeenStore;
use crate::error::{Error, ErrorKind, Result};

/// The longest name of a program, in bytes.
const MAX_NAME_BYTES: usize = 200;

impl SeenStore {
    /// Announces that a program uses this handle's scope, and returns the names of the others that do. Two programs
    /// that use one scope without meaning to silence each other's ids: the caller can say so.
    ///
    /// The store remembers the name for as long as an id that is marked now. It changes no answer of any other
    /// verb, and no listing shows it. Costs a transaction, which writes only if the name was not announced lately.
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// assert!(store.announce("feed bot")?.is_empty());
    /// assert_eq!(store.announce("log watcher")?, ["feed bot"]);
    /// assert!(store.scope("logs").announce("log watcher")?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) for a name that is empty, longer than 200 bytes or has control
    /// characters; otherwise those of [`mark_seen`](Self::mark_seen).
    pub fn announce(&self, name: &str) -> Result<Vec<String>> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "{name:?} cannot be announced: a name has 1 to {MAX_NAME_BYTES} bytes without control characters"
                ),
            ));
        }
        self.engine.write(|transaction| {
            let now_ms = transaction.now_ms;
            let until_ms = self.lifetime.ttl.expires_at(now_ms).unwrap_or(i64::MAX);
            // Written again when a sixteenth of the time has passed, so that most runs write nothing.
            let enough_ms = until_ms.saturating_sub(until_ms.saturating_sub(now_ms) / 16);
            transaction.announce(self.scope.name(), name, enough_ms, until_ms)
        })
    }

    /// Returns the names that programs have [announced](Self::announce) for this handle's scope.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn announced(&self) -> Result<Vec<String>> {
        self.engine.check_open()?;
        let now_ms = self.engine.clock.now_ms();
        self.engine.with_journal(|writer| writer.journal.announced(self.scope.name(), now_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{Config, Ttl};
    use crate::entry::Filter;

    #[test]
    fn a_name_is_announced_for_as_long_as_its_ids_last_and_is_no_entry() {
        let clock = Arc::new(ManualClock::default());
        let store = SeenStore::in_memory_with(Config::default().clock(clock.clone())).unwrap();
        let hour = Duration::from_secs(3_600);
        assert!(store.ttl(hour).announce("a").unwrap().is_empty());
        assert_eq!(store.ttl(Ttl::Never).announce("b c").unwrap(), ["a"]);
        assert_eq!(store.announce("a").unwrap(), ["b c"]);
        assert_eq!(store.announced().unwrap().len(), 2);
        assert!(store.scope("x").announced().unwrap().is_empty());
        assert_eq!(store.entries(Filter::default()).count(), 0);
        assert_eq!(store.stats().unwrap().seen, 0);
        // The longer time counts: the default of seven days.
        clock.advance(2 * hour);
        assert_eq!(store.announce("d").unwrap(), ["b c", "a"]);
        clock.advance(24 * 8 * hour);
        assert_eq!(store.announced().unwrap(), ["b c"]);
    }

    #[test]
    fn a_name_that_was_announced_lately_is_not_written_again() {
        let store = SeenStore::in_memory().unwrap();
        store.announce("a").unwrap();
        let commits = || store.stats().unwrap().since_opened.commits;
        let before = commits();
        store.announce("a").unwrap();
        assert_eq!(commits(), before);
    }

    #[test]
    fn a_name_is_one_line() {
        let store = SeenStore::in_memory().unwrap();
        for name in ["", "a\nb", &"a".repeat(201)] {
            assert_eq!(store.announce(name).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }
}
