//! One id from several fields.
//!
//! Owns the format, which must never change: stores remember what it produced.

use std::io::Write as _;

use crate::digest::{MAX_ID_BYTES, sha256_hex};

/// The id of these parts, in this order: `f1:`, then for each part its length in bytes, a colon and
/// its bytes. `["ab", "c"]` gives `f1:2:ab1:c`.
///
/// The lengths make it unambiguous: different lists of parts never give one id. One that would be
/// longer than an id may be becomes `f1:sha256:` and the SHA-256 of the long form in hexadecimal. The
/// two forms cannot be confused, since a length begins with a digit.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> Vec<u8> {
    let mut id = b"f1:".to_vec();
    for part in parts {
        write!(id, "{}:", part.len()).expect("writing to memory does not fail");
        id.extend_from_slice(part);
    }
    if id.len() > MAX_ID_BYTES {
        id = format!("f1:sha256:{}", sha256_hex(&id)).into_bytes();
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_stays_as_it_is() {
        assert_eq!(fingerprint(&[b"ab", b"c"]), b"f1:2:ab1:c");
        assert_eq!(fingerprint(&[b"", b"\n"]), b"f1:0:1:\n");
        assert_eq!(fingerprint(&[]), b"f1:");
    }

    #[test]
    fn no_two_lists_of_parts_share_a_fingerprint() {
        let lists: [&[&[u8]]; 8] = [
            &[],
            &[b""],
            &[b"", b""],
            &[b"ab", b"c"],
            &[b"a", b"bc"],
            &[b"abc"],
            &[b"c", b"ab"],
            &[b"1:a", b""],
        ];
        for (n, one) in lists.iter().enumerate() {
            for other in &lists[..n] {
                assert_ne!(fingerprint(one), fingerprint(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_long_fingerprint_is_a_digest_of_the_same_format() {
        // `f1:65527:` are nine bytes: this one just fits.
        let fits = vec![b'x'; MAX_ID_BYTES - 9];
        assert_eq!(fingerprint(&[&fits]).len(), MAX_ID_BYTES);
        let long = vec![b'x'; MAX_ID_BYTES - 8];
        let expected =
            format!("f1:sha256:{}", sha256_hex(&[b"f1:65528:".as_slice(), &long].concat()));
        assert_eq!(fingerprint(&[&long]), expected.as_bytes());
        assert_ne!(fingerprint(&[&long, b""]), fingerprint(&[&long]));
    }
}
