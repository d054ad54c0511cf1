//! Ids and scopes: which are valid, and how the two become an index key.
//!
//! Owns the limits and the keyed hash. A key is 128 bits of SipHash-1-3 (Aumasson and Bernstein, "SipHash: a
//! fast short-input PRF") under a random key, which a file keeps for the stores on it and other users may not read. So an
//! attacker who chooses ids cannot make two of them collide. Knows nothing of where keys are kept.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::error::{Error, ErrorKind, Result};
use crate::item::{Digest, Item};
use crate::machine::fill_random;
use crate::token::Token;

/// The longest id and the longest scope, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 65_536;

/// The longest receipt and the longest failure reason that is stored with an id, in bytes.
pub(crate) const MAX_NOTE_BYTES: usize = 65_536;

/// An id in its scope, as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

/// Hashes ids under a random key.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    fresh: SipHasher13,
    key: [u8; 16],
}

impl KeyHasher {
    pub(crate) fn random() -> Self {
        Self::with_key(random_key())
    }

    pub(crate) fn with_key(key: [u8; 16]) -> Self {
        Self { fresh: SipHasher13::new_with_key(&key), key }
    }

    pub(crate) fn has_key(&self, key: [u8; 16]) -> bool {
        self.key == key
    }

    /// Returns a hasher for checksums of what this key was used for. Its hashes are those of no id.
    pub(crate) fn checksum(&self) -> SipHasher13 {
        let mut state = self.fresh;
        state.write_u64(u64::MAX); // No scope has this length.
        state
    }

    /// Returns the hash state after `scope`. The length of the scope is hashed first, so that the end of a
    /// scope and the start of an id cannot be confused.
    pub(crate) fn scoped(&self, scope: &str) -> ScopedHasher {
        let mut state = self.fresh;
        state.write_u64(scope.len() as u64);
        state.write(scope.as_bytes());
        ScopedHasher { state }
    }
}

/// Returns a key for a [`KeyHasher`].
pub(crate) fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    fill_random(&mut key);
    key
}

impl fmt::Debug for KeyHasher {
    /// The key is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher")
    }
}

/// Hashes the ids of one scope.
#[derive(Clone)]
pub(crate) struct ScopedHasher {
    state: SipHasher13,
}

impl ScopedHasher {
    pub(crate) fn key(&self, id: &[u8]) -> Key {
        let mut state = self.state;
        state.write(id);
        let hash = state.finish128();
        Key { low: hash.h1, high: hash.h2 }
    }
}

/// A namespace for ids, with the scope's part of the hash computed once.
#[derive(Clone)]
pub(crate) struct Scope {
    name: Arc<str>,
    hasher: ScopedHasher,
}

impl Scope {
    pub(crate) fn new(name: &str, hasher: &KeyHasher) -> Self {
        Self { name: name.into(), hasher: hasher.scoped(name) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Validates an id. Fails with `InvalidId` when the id or the scope has a length that is not allowed.
    #[inline]
    pub(crate) fn id<'a>(&'a self, bytes: &'a [u8]) -> Result<Id<'a>> {
        if self.name.len() > MAX_ID_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidId,
                format!(
                    "the scope has {} bytes; at most 65536 are allowed: give a shorter name",
                    self.name.len()
                ),
            ));
        }
        match bytes.len() {
            0 => Err(Error::new(
                ErrorKind::InvalidId,
                "the id is empty; 1 to 65536 bytes are needed",
            )),
            1..=MAX_ID_BYTES => Ok(Id {
                scope: &self.name,
                bytes,
                key: self.hasher.key(bytes),
                digest: None,
                retry_of: None,
            }),
            length => Err(Error::new(
                ErrorKind::InvalidId,
                format!("the id has {length} bytes; at most 65536 are allowed: use a digest of it"),
            )),
        }
    }

    /// Validates an item: see [`id`](Self::id).
    #[inline]
    pub(crate) fn item<'a>(&'a self, item: &'a Item<'_>) -> Result<Id<'a>> {
        item.check()?;
        Ok(Id { digest: item.digest(), retry_of: item.retried(), ..self.id(item.id())? })
    }

    /// Validates items: see [`id`](Self::id).
    pub(crate) fn items<'a>(&'a self, items: &'a [Item<'_>]) -> Result<Vec<Id<'a>>> {
        items.iter().map(|item| self.item(item)).collect()
    }
}

/// A valid id in its scope.
#[derive(Clone, Copy)]
pub(crate) struct Id<'a> {
    pub(crate) scope: &'a str,
    pub(crate) bytes: &'a [u8],
    pub(crate) key: Key,
    /// What its version or its payload is told by.
    pub(crate) digest: Option<Digest>,
    /// The token of the call that is made again.
    pub(crate) retry_of: Option<Token>,
}

impl Id<'_> {
    /// Returns the id for messages: its beginning, in quotes.
    pub(crate) fn shown(self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(200)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_65536_bytes() {
        let scope = Scope::new("", &KeyHasher::random());
        assert_eq!(scope.id(b"").err().unwrap().kind(), ErrorKind::InvalidId);
        assert!(scope.id(b"a").is_ok());
        assert!(scope.id(&vec![0; 65_536]).is_ok());
        assert_eq!(scope.id(&vec![0; 65_537]).err().unwrap().kind(), ErrorKind::InvalidId);
    }

    #[test]
    fn a_scope_that_is_too_long_makes_each_id_invalid() {
        let scope = Scope::new(&"s".repeat(65_537), &KeyHasher::random());
        assert_eq!(scope.id(b"a").err().unwrap().kind(), ErrorKind::InvalidId);
    }

    #[test]
    fn the_border_between_scope_and_id_is_part_of_the_key() {
        let hasher = KeyHasher::random();
        assert_ne!(hasher.scoped("ab").key(b"c"), hasher.scoped("a").key(b"bc"));
        assert_eq!(hasher.scoped("ab").key(b"c"), hasher.scoped("ab").key(b"c"));
    }

    #[test]
    fn two_processes_hash_differently() {
        let (one, other) = (KeyHasher::random(), KeyHasher::random());
        assert_ne!(one.scoped("").key(b"a"), other.scoped("").key(b"a"));
    }
}
