//! How text of any length becomes an id.
//!
//! Owns the rule that a long text is remembered by its SHA-256. What always holds: equal texts give
//! equal ids and different texts different ones, and an id is never longer than the store takes.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The longest id that a store takes, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 65_536;

const PREFIX: &[u8] = b"sha256:";

/// The text itself, or `sha256:` and the digest of one that is too long to be an id.
///
/// A text that begins like a digest is digested too, or a line could pass for a long one.
pub(crate) fn id_of(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if text.len() <= MAX_ID_BYTES && !text.starts_with(PREFIX) {
        return text;
    }
    Cow::Owned([PREFIX, sha256_hex(&text).as_bytes()].concat())
}

/// 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), known);
    }

    #[test]
    fn a_text_is_its_own_id_up_to_the_longest_id() {
        let longest = vec![b'x'; MAX_ID_BYTES];
        assert_eq!(id_of(longest.as_slice().into()), longest);
        let long = vec![b'x'; MAX_ID_BYTES + 1];
        assert_eq!(id_of(long.as_slice().into()).len(), PREFIX.len() + 64);
    }

    #[test]
    fn a_text_that_looks_like_a_digest_is_not_confused_with_one() {
        let long = vec![b'x'; MAX_ID_BYTES + 1];
        let digest = id_of(long.as_slice().into());
        assert_ne!(id_of(digest.clone()), digest);
    }
}
