//! Builds one id from several fields, with or without names.
//!
//! Owns the two formats, which must never change: stores keep the ids that they produced. A different format will
//! have another prefix. What always holds: different input never gives the same id. Knows nothing of stores.

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
    let mut id = PARTS.to_vec();
    for part in parts {
        push(&mut id, part.as_ref());
    }
    shortened(id, PARTS)
}

/// Returns one id for these names and values, in whatever order they are given: `f1:named:`, then each name and
/// its value in the order of the names, each as its length in bytes, a colon and its bytes. `("host", "db1")` and
/// `("check", "disk")` give `f1:named:5:check4:disk4:host3:db1`.
///
/// Names are ordered by their bytes. A name may occur several times: its values stay in the order given, which
/// then matters. Leave out a field that has no value: an empty value is a value.
///
/// Different fields never give the same id, nor does an id of [`fingerprint`] equal one of these: after `f1:` the
/// former go on with a digit or `sha256:`. An id that would be longer than 65,536 bytes becomes `f1:named:sha256:`
/// and the SHA-256 of the long form in hexadecimal. The id is the same on every platform and in every release.
///
/// ```
/// use seen_store::fingerprint_fields;
/// let id = fingerprint_fields([("host", "db1"), ("check", "disk")]);
/// assert_eq!(id, b"f1:named:5:check4:disk4:host3:db1");
/// assert_eq!(id, fingerprint_fields([("check", "disk"), ("host", "db1")]));
/// assert_ne!(id, fingerprint_fields([("host", "disk"), ("check", "db1")]));
/// ```
pub fn fingerprint_fields<I, N, V>(fields: I) -> Vec<u8>
where
    I: IntoIterator<Item = (N, V)>,
    N: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let mut fields: Vec<_> = fields.into_iter().collect();
    // A stable sort: values of one name stay in their order.
    fields.sort_by(|(one, _), (other, _)| one.as_ref().cmp(other.as_ref()));
    let mut id = NAMED.to_vec();
    for (name, value) in &fields {
        push(&mut id, name.as_ref());
        push(&mut id, value.as_ref());
    }
    shortened(id, NAMED)
}

/// What ids of unnamed parts begin with.
const PARTS: &[u8] = b"f1:";

/// What ids of named fields begin with. They begin like the others too: a program that keeps other ids from
/// beginning with `f1:`, as the command does, needs no second rule.
const NAMED: &[u8] = b"f1:named:";

fn push(id: &mut Vec<u8>, part: &[u8]) {
    write!(id, "{}:", part.len()).expect("writing to memory does not fail");
    id.extend_from_slice(part);
}

/// Returns the id itself or, if it is too long for an id, the prefix and the id's digest.
fn shortened(id: Vec<u8>, prefix: &[u8]) -> Vec<u8> {
    if id.len() <= MAX_ID_BYTES {
        return id;
    }
    let mut digest = prefix.to_vec();
    digest.extend_from_slice(b"sha256:");
    for byte in Sha256::digest(&id) {
        write!(digest, "{byte:02x}").expect("writing to memory does not fail");
    }
    digest
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

    #[test]
    fn the_format_of_named_fields_stays_as_it_is() {
        let fields = [("host", "db1"), ("check", "disk")];
        assert_eq!(fingerprint_fields(fields), b"f1:named:5:check4:disk4:host3:db1");
        assert_eq!(fingerprint_fields([("", "")]), b"f1:named:0:0:");
        assert_eq!(fingerprint_fields([("", ""); 0]), b"f1:named:");
        // By `printf 'f1:named:1:k70000:%070000d' 0 | sha256sum`.
        let digest = "323658fbe9a3938f53a0b5c8f07f3ca25dcb2512b5878e3c368030ea462725ec";
        let long = "0".repeat(70_000);
        assert_eq!(
            fingerprint_fields([("k", &long)]),
            format!("f1:named:sha256:{digest}").as_bytes()
        );
    }

    #[test]
    fn the_order_of_named_fields_does_not_matter() {
        let one = fingerprint_fields([("b", "1"), ("a", "2"), ("ab", "3")]);
        assert_eq!(one, fingerprint_fields([("ab", "3"), ("b", "1"), ("a", "2")]));
        assert_eq!(one, fingerprint_fields([("a", "2"), ("ab", "3"), ("b", "1")]));
    }

    #[test]
    fn no_two_sets_of_fields_share_a_fingerprint_nor_does_a_list_of_parts() {
        let sets: [&[(&str, &str)]; 8] = [
            &[],
            &[("", "")],
            &[("a", "")],
            &[("", "a")],
            &[("a", "b")],
            &[("a", "1"), ("a", "2")],
            &[("a", "2"), ("a", "1")],
            &[("a", "1:b"), ("c", "")],
        ];
        for (n, one) in sets.iter().enumerate() {
            let id = fingerprint_fields(one.iter().copied());
            for other in &sets[..n] {
                assert_ne!(id, fingerprint_fields(other.iter().copied()), "{one:?} {other:?}");
            }
            assert_ne!(id, fingerprint(one.iter().flat_map(|(name, value)| [name, value])));
        }
        assert_ne!(fingerprint_fields([("", ""); 0]), fingerprint(["named:"]));
    }
}
