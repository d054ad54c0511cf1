//! Items: an id, and what tells its versions or its requests apart.
//!
//! Owns the digest that is stored beside an id, its text, and the comparison of what is stored with what is shown. What
//! always holds: the digest depends on nothing but its kind and the bytes that were given, so it is the same in every
//! store and in every release. An id that is shown without one is the same, and so is one that was stored without:
//! adding versions to a store of many years changes nothing by itself. Knows nothing of stores.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::token::Token;

/// How many bytes of the SHA-256 are kept: no two versions share them by chance.
const HASH_BYTES: usize = 16;

/// An id, and if wanted its version or its payload. Wherever a verb takes an id, it takes an item: texts, byte
/// slices, and owned values of these are items without a version.
///
/// A **version** tells that the same id was changed: a feed item that was edited, an incident that went from firing
/// to resolved. Any bytes will do: a number, a time, the content. Versions are compared for equality alone, and the
/// store remembers only the latest one that it was shown. So an id that goes back to an earlier version has changed
/// again.
///
/// A **payload** guards an idempotency key: the same key with another payload is a mistake of the caller, and
/// refused with [`ErrorKind::Conflict`]. (As the status 422 of the IETF draft
/// idempotency-key-header.)
///
/// Of either, 16 bytes of a SHA-256 are stored with the id. An id that was stored without takes the first one that
/// it is shown as its own. A verb that has no use for a version or payload, such as
/// [`forget`](crate::SeenStore::forget), does not look at it.
///
/// ```
/// use seen_store::{Item, Verdict};
/// # fn main() -> seen_store::Result<()> {
/// # let store = seen_store::SeenStore::in_memory()?;
/// let fire = |updated| Item::new("fire-17").version(updated);
/// assert_eq!(store.check_and_mark(fire("10:00"))?, Verdict::New);
/// assert_eq!(store.check_and_mark(fire("10:00"))?, Verdict::Duplicate);
/// assert_eq!(store.check_and_mark(fire("10:05"))?, Verdict::Changed);
/// assert_eq!(store.check_and_mark("fire-17")?, Verdict::Duplicate);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Item<'a> {
    id: Cow<'a, [u8]>,
    digest: Option<Digest>,
    retry_of: Option<Token>,
    /// Whether it was given both a version and a payload.
    has_both: bool,
}

impl<'a> Item<'a> {
    /// Returns an item with this id.
    pub fn new(id: impl Into<Self>) -> Self {
        id.into()
    }

    /// Sets the version.
    pub fn version(self, version: impl AsRef<[u8]>) -> Self {
        self.with(Digest::of_version(version))
    }

    /// Sets the payload. An item with both a payload and a version is refused with
    /// [`ErrorKind::InvalidId`].
    pub fn payload(self, payload: impl AsRef<[u8]>) -> Self {
        self.with(Digest::of_payload(payload))
    }

    /// Says that the call is made again because the outcome of the one before is
    /// [unknown](ErrorKind::OutcomeUnknown): `token` is that of its [error](Error::token). If the call before has marked the
    /// id, the answer is the one that it would have given, and not a duplicate. Also from another process.
    ///
    /// It matters to [`check_and_mark`](crate::SeenStore::check_and_mark),
    /// [`check_and_mark_all`](crate::SeenStore::check_and_mark_all) and [`observe`](crate::SeenStore::observe). A store in
    /// a file finds the outcome out by itself, and gives no such error.
    ///
    /// A repetition in another version is a call of its own. In a file or in memory a repetition of a check that answered
    /// [`Changed`](crate::Verdict::Changed) answers `New`: either asks to act.
    ///
    /// `None` makes it an item of a call that is made for the first time.
    pub fn retry_of(self, token: impl Into<Option<Token>>) -> Self {
        Self { retry_of: token.into(), ..self }
    }

    fn with(self, digest: Digest) -> Self {
        let has_both = self.has_both || self.digest.is_some_and(|known| known.kind != digest.kind);
        Self { digest: Some(digest), has_both, ..self }
    }

    /// Returns the item with an id of its own.
    pub fn into_owned(self) -> Item<'static> {
        Item { id: Cow::Owned(self.id.into_owned()), ..self }
    }

    /// Returns the id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Returns the digest of its version or payload.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the token of the call that is made again: see [`retry_of`](Self::retry_of).
    pub fn retried(&self) -> Option<Token> {
        self.retry_of
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.has_both {
            return Err(Error::new(
                ErrorKind::InvalidId,
                "an item has a version or a payload, not both: a version tells that it changed, a payload must \
                 not change",
            ));
        }
        Ok(())
    }

    fn of(id: Cow<'a, [u8]>) -> Self {
        Self { id, digest: None, retry_of: None, has_both: false }
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Item<'a> {
    fn from(id: &'a T) -> Self {
        Self::of(Cow::Borrowed(id.as_ref()))
    }
}

impl<'a> From<&'a Item<'_>> for Item<'a> {
    fn from(item: &'a Item<'_>) -> Self {
        Self { id: Cow::Borrowed(&item.id), ..*item }
    }
}

impl<'a> From<Cow<'a, str>> for Item<'a> {
    fn from(id: Cow<'a, str>) -> Self {
        Self::of(match id {
            Cow::Borrowed(id) => Cow::Borrowed(id.as_bytes()),
            Cow::Owned(id) => Cow::Owned(id.into_bytes()),
        })
    }
}

impl<'a> From<Cow<'a, [u8]>> for Item<'a> {
    fn from(id: Cow<'a, [u8]>) -> Self {
        Self::of(id)
    }
}

impl From<String> for Item<'_> {
    fn from(id: String) -> Self {
        Self::of(Cow::Owned(id.into_bytes()))
    }
}

impl From<Vec<u8>> for Item<'_> {
    fn from(id: Vec<u8>) -> Self {
        Self::of(Cow::Owned(id))
    }
}

impl<const N: usize> From<[u8; N]> for Item<'_> {
    fn from(id: [u8; N]) -> Self {
        Self::of(Cow::Owned(id.to_vec()))
    }
}

impl From<Box<str>> for Item<'_> {
    fn from(id: Box<str>) -> Self {
        id.into_string().into()
    }
}

impl From<Box<[u8]>> for Item<'_> {
    fn from(id: Box<[u8]>) -> Self {
        id.into_vec().into()
    }
}

impl From<Arc<str>> for Item<'_> {
    fn from(id: Arc<str>) -> Self {
        id.as_bytes().to_vec().into()
    }
}

impl From<Arc<[u8]>> for Item<'_> {
    fn from(id: Arc<[u8]>) -> Self {
        id.to_vec().into()
    }
}

impl From<Rc<str>> for Item<'_> {
    fn from(id: Rc<str>) -> Self {
        id.as_bytes().to_vec().into()
    }
}

/// What a [`Digest`] is of. The numbers are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Version = 1,
    Payload = 2,
}

/// The digest of the version or of the payload that an id was stored with.
///
/// Its text is `version:` or `payload:` and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    kind: Kind,
    hash: [u8; HASH_BYTES],
}

impl Digest {
    /// Returns the digest of a version.
    pub fn of_version(version: impl AsRef<[u8]>) -> Self {
        Self::of(Kind::Version, version.as_ref())
    }

    /// Returns the digest of a payload.
    pub fn of_payload(payload: impl AsRef<[u8]>) -> Self {
        Self::of(Kind::Payload, payload.as_ref())
    }

    /// Returns whether it is of a version.
    pub fn is_version(self) -> bool {
        self.kind == Kind::Version
    }

    fn of(kind: Kind, bytes: &[u8]) -> Self {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(&Sha256::digest(bytes)[..HASH_BYTES]);
        Self { kind, hash }
    }

    /// Returns the bytes in the file: the number of the kind, then the hash.
    pub(crate) fn bytes(self) -> [u8; HASH_BYTES + 1] {
        let mut bytes = [self.kind as u8; HASH_BYTES + 1];
        bytes[1..].copy_from_slice(&self.hash);
        bytes
    }

    /// Reads what [`bytes`](Self::bytes) returned. Anything else was written by another program.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, hash) = bytes.split_first()?;
        let kind = match kind {
            1 => Kind::Version,
            2 => Kind::Payload,
            _ => return None,
        };
        Some(Self { kind, hash: hash.try_into().ok()? })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Version => "version:",
            Kind::Payload => "payload:",
        })?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            let text: String = text.chars().take(100).collect();
            Error::new(
                ErrorKind::InvalidId,
                format!(
                    "{text:?} is no digest: it is `version:` or `payload:` and 32 hexadecimal digits"
                ),
            )
        };
        let (kind, digits) = match text.split_once(':').ok_or_else(invalid)? {
            ("version", digits) => (Kind::Version, digits),
            ("payload", digits) => (Kind::Payload, digits),
            _ => return Err(invalid()),
        };
        let mut hash = [0; HASH_BYTES];
        let is_hash =
            digits.len() == 2 * HASH_BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hash {
            return Err(invalid());
        }
        for (byte, digits) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid())?;
        }
        Ok(Self { kind, hash })
    }
}

/// What an id is, compared with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Same,
    /// The same, and it is to be stored with what it was shown with.
    First,
    Changed,
    /// Another payload under the same key, or a version where a payload was stored.
    Conflict,
}

/// Compares what an id is shown with, with what is stored.
pub(crate) fn compare(stored: Option<Digest>, shown: Option<Digest>) -> Comparison {
    match (stored, shown) {
        (_, None) => Comparison::Same,
        (None, Some(_)) => Comparison::First,
        (Some(stored), Some(shown)) if stored == shown => Comparison::Same,
        (Some(stored), Some(shown)) if stored.is_version() && shown.is_version() => {
            Comparison::Changed
        }
        _ => Comparison::Conflict,
    }
}

/// Returns whether what is stored is what was shown.
pub(crate) fn is_same(stored: Option<Digest>, shown: Option<Digest>) -> bool {
    matches!(compare(stored, shown), Comparison::Same | Comparison::First)
}

/// Returns whether a claim with the one digest handles a change of a mark with the other, and so can stand beside it.
pub(crate) fn is_change(claim: Option<Digest>, mark: Option<Digest>) -> bool {
    compare(mark, claim) == Comparison::Changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_text_and_bytes_is_an_item() {
        let (text, bytes) = (String::from("a"), b"a".to_vec());
        let items: Vec<Item<'_>> = vec![
            "a".into(),
            (&"a").into(),
            (&text).into(),
            text.clone().into(),
            b"a".into(),
            (*b"a").into(),
            b"a".as_slice().into(),
            b"a".to_vec().into(),
            (&bytes).into(),
            Cow::Borrowed("a").into(),
            Cow::<str>::Owned(text.clone()).into(),
            Cow::Borrowed(b"a".as_slice()).into(),
            Box::<str>::from("a").into(),
            Box::<[u8]>::from(*b"a").into(),
            Arc::<str>::from("a").into(),
            Arc::<[u8]>::from(*b"a").into(),
            Rc::<str>::from("a").into(),
        ];
        assert!(items.iter().all(|item| *item == Item::new("a") && item.digest().is_none()));
        let changed = Item::new("a").version("1");
        assert_eq!(Item::from(&changed), changed, "a borrowed item keeps its version");
    }

    #[test]
    fn a_digest_is_the_same_for_ever_and_tells_a_version_from_a_payload() {
        // By `printf 10:00 | sha256sum`.
        let text = "version:90e1062f1578fa30baaf182388e88d3e";
        let digest = Digest::of_version("10:00");
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        assert_eq!(Digest::from_bytes(&digest.bytes()), Some(digest));
        assert_ne!(Digest::of_payload("10:00"), digest);
        assert_eq!(Digest::of_payload("10:00").to_string()[7..], text[7..]);
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let zeros = "0".repeat(32);
        for text in ["", "version:", "other:", "version", "payload:00", "version:é"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert!(format!("version:{zeros}").parse::<Digest>().is_ok());
        assert!(format!("version:+{}", &zeros[1..]).parse::<Digest>().is_err());
        assert!(format!("version:{zeros}0").parse::<Digest>().is_err());
        for bytes in [&[][..], &[1], &[0; 17], &[3; 17], &[1; 16], &[1; 18]] {
            assert_eq!(Digest::from_bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn an_item_with_a_version_and_a_payload_is_refused_and_the_last_of_a_kind_counts() {
        assert!(Item::new("a").version("1").payload("2").check().is_err());
        assert!(Item::new("a").payload("1").version("2").version("3").check().is_err());
        let item = Item::new("a").version("1").version("2");
        assert!(item.check().is_ok());
        assert_eq!(item.digest(), Some(Digest::of_version("2")));
    }

    #[test]
    fn only_two_versions_differ_and_a_payload_must_not() {
        let (one, two) = (Some(Digest::of_version("1")), Some(Digest::of_version("2")));
        let (pay, other) = (Some(Digest::of_payload("1")), Some(Digest::of_payload("2")));
        let table = [
            (None, None, Comparison::Same),
            (one, None, Comparison::Same),
            (None, one, Comparison::First),
            (None, pay, Comparison::First),
            (one, one, Comparison::Same),
            (one, two, Comparison::Changed),
            (pay, pay, Comparison::Same),
            (pay, other, Comparison::Conflict),
            (pay, one, Comparison::Conflict),
            (one, pay, Comparison::Conflict),
        ];
        for (stored, shown, expected) in table {
            assert_eq!(compare(stored, shown), expected, "{stored:?} {shown:?}");
            assert_eq!(is_change(shown, stored), expected == Comparison::Changed);
        }
    }
}
