//! Restoring entries from elsewhere.

use std::collections::BTreeMap;

use seen_store::backend::refused_entry;
use seen_store::{Entry, ErrorKind, Item, RestoreSummary, Result};

use super::AsyncClusterStore;
use super::marks::repeatable;
use crate::attempt::Basis;

/// How many entries are restored at a time.
const AT_ONCE: usize = 1_000;

impl AsyncClusterStore {
    /// Restores entries that another store has listed, with their scopes and times: see
    /// [`SeenStore::restore`](seen_store::SeenStore::restore). So a store in a file moves to a cluster.
    ///
    /// Two commands for each entry, in pipelines for 1,000 entries.
    ///
    /// Beside an id whose key cannot be read, an entry that was added may be counted as unchanged.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen), except for errors that come from one entry. What was restored before the error
    /// stays; restore all entries again to continue.
    pub async fn restore<I>(&self, entries: I) -> Result<RestoreSummary>
    where
        I: IntoIterator<Item = Entry>,
    {
        self.check_open()?;
        let (mut entries, mut restored) = (entries.into_iter(), RestoreSummary::default());
        loop {
            let mut of_scopes = BTreeMap::<String, Vec<Entry>>::new();
            for entry in entries.by_ref().take(AT_ONCE) {
                of_scopes.entry(entry.scope.clone()).or_default().push(entry);
            }
            if of_scopes.is_empty() {
                return Ok(restored);
            }
            for (scope, entries) in of_scopes {
                // The retention of this handle plays no part.
                let handle = self.scope(&scope).retention(None);
                restored += handle.restore_scope(entries).await?;
            }
        }
    }

    /// Restores entries of this handle's scope.
    async fn restore_scope(&self, entries: Vec<Entry>) -> Result<RestoreSummary> {
        let (mut restored, mut valid) = (RestoreSummary::default(), Vec::new());
        for entry in entries {
            match self.policy.check_entry(&entry) {
                Ok(()) => valid.push(entry),
                Err(e) => restored.refused.push(refused_entry(&entry, e)),
            }
        }
        match self.restore_valid(&valid).await {
            // The record of some id cannot be read: the others are restored without it.
            Err(e) if is_of_one_entry(e.kind()) => {
                for entry in &valid {
                    match self.restore_valid(std::slice::from_ref(entry)).await {
                        Err(e) if is_of_one_entry(e.kind()) => {
                            restored.refused.push(refused_entry(entry, e));
                        }
                        alone => restored += alone?,
                    }
                }
            }
            all => restored += all?,
        }
        Ok(restored)
    }

    async fn restore_valid(&self, entries: &[Entry]) -> Result<RestoreSummary> {
        let items: Vec<Item<'_>> = entries.iter().map(|entry| Item::new(&entry.id)).collect();
        let token = self.policy.make_token();
        let all = self.decide_all(
            &items,
            token,
            &Basis::Unread,
            repeatable(),
            |policy, record, place, now_ms| policy.restore(record, &entries[place], now_ms),
        );
        let mut restored = RestoreSummary::default();
        for one in all.await? {
            restored += one;
        }
        Ok(restored)
    }
}

fn is_of_one_entry(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::NewerVersion)
}
