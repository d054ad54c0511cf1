//! Builds one id from several fields.
//!
//! Owns the format, which must never change: stores keep the ids that it produced. A different format will
//! have another prefix. Knows nothing of stores.

use std::fmt::Write as _;
use std::io::Write as _;

use sha2::{Digest as _, Sha256};

use crate::id::MAX_ID_BYTES;

/// Returns one id for these parts, in this order: `f1:`, then for each part its length in bytes, a colon and
/// its bytes. `["ab", "c"]` gives `f1:2:ab1:c`.
///
/// The lengths make the id unambiguous (as in D. J. Bernstein's netstrings): different lists of parts never
/// give the same id. An id that would be longer than 65,536 bytes becomes `f1:sha256:` and the SHA-256 of the
/// long form in hexadecimal. The two forms cannot be confused, since a length begins with a digit. The id is
/// the same on every platform and in every release.
///
/// ```
/// use seen_store::fingerprint;
/// assert_eq!(fingerprint(["ab", "c"]), b"f1:2:ab1:c");
/// assert_ne!(fingerprint(["ab", "c"]), fingerprint(["a", "bc"]));
/// ```
pub fn fingerprint<I>(parts: I) -> Vec<u8>
where
    I: IntoIterator<Item: AsRef<[u8]>>,
{
    let mut id = b"f1:".to_vec();
    for part in parts {
        let part = part.as_ref();
        write!(id, "{}:", part.len()).expect("writing to memory does not fail");
        id.extend_from_slice(part);
    }
    if id.len() > MAX_ID_BYTES {
        let mut digest = String::from("f1:sha256:");
        for byte in Sha256::digest(&id) {
            write!(digest, "{byte:02x}").expect("writing to memory does not fail");
        }
        id = digest.into_bytes();
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_stays_as_it_is() {
        assert_eq!(fingerprint(["ab", "c"]), b"f1:2:ab1:c");
        assert_eq!(fingerprint(["", "\n"]), b"f1:0:1:\n");
        assert_eq!(fingerprint([""; 0]), b"f1:");
        // By `printf 'f1:70000:%070000d' 0 | sha256sum`.
        let long = "0".repeat(70_000);
        let digest = "04b8e01eb3c68997e16dcfbb1f018bee31a86d1e00106cdecdc65b9992c875e0";
        assert_eq!(fingerprint([long]), format!("f1:sha256:{digest}").as_bytes());
    }

    #[test]
    fn no_two_lists_of_parts_share_a_fingerprint() {
        let lists: [&[&str]; 8] = [
            &[],
            &[""],
            &["", ""],
            &["ab", "c"],
            &["a", "bc"],
            &["abc"],
            &["c", "ab"],
            &["1:a", ""],
        ];
        for (n, one) in lists.iter().enumerate() {
            for other in &lists[..n] {
                assert_ne!(fingerprint(*one), fingerprint(*other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_longest_id_is_spelled_out_and_a_longer_one_digested() {
        // `f1:65527:` are nine bytes: this one just fits.
        let fits = "x".repeat(MAX_ID_BYTES - 9);
        assert_eq!(fingerprint([&fits]).len(), MAX_ID_BYTES);
        let long = "x".repeat(MAX_ID_BYTES - 8);
        assert!(fingerprint([&long]).starts_with(b"f1:sha256:"));
        assert_ne!(fingerprint([&long]), fingerprint([&*long, ""]));
    }
}
