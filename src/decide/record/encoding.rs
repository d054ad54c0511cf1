//! A record as bytes.
//!
//! Owns the format: a byte for its version, sixteen for the token of the write, then which fields follow and the fields.
//! What always holds: the bytes of two writes differ, since each has a token of its own, so a record is unchanged if its
//! bytes are; and a plain mark takes at most 44 bytes, which Redis keeps in one allocation with its header.

use std::sync::Arc;

use super::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::item::Digest;
use crate::journal::row::Earlier;
use crate::journal::{ClaimRow, MarkRow, Outcome};
use crate::token::Token;

const VERSION: u8 = 1;

/// Which fields of a mark follow.
mod of_mark {
    pub(super) const EXISTS: u64 = 1;
    pub(super) const EXPIRES: u64 = 1 << 1;
    pub(super) const LAST_SEEN: u64 = 1 << 2;
    /// Its token is that of the write.
    pub(super) const SAME_TOKEN: u64 = 1 << 3;
    /// Those after this one are rare.
    pub(super) const TOKEN: u64 = 1 << 4;
    pub(super) const RETAIN: u64 = 1 << 5;
    pub(super) const DIGEST: u64 = 1 << 6;
    pub(super) const DUPLICATES: u64 = 1 << 7;
    pub(super) const EARLIER: u64 = 1 << 8;
    pub(super) const ATTEMPTS: u64 = 1 << 9;
    pub(super) const LAST_ERROR: u64 = 1 << 10;
    pub(super) const RECEIPT: u64 = 1 << 11;
    pub(super) const IS_CHANGE: u64 = 1 << 12;
    pub(super) const ALL: u64 = (1 << 13) - 1;
}

/// Which fields of a claim follow. The two lowest bits above `EXISTS` are its outcome.
mod of_claim {
    pub(super) const EXISTS: u64 = 1;
    pub(super) const OUTCOME_SHIFT: u32 = 1;
    pub(super) const TOKEN: u64 = 1 << 3;
    pub(super) const HELD: u64 = 1 << 4;
    pub(super) const HOLDER: u64 = 1 << 5;
    pub(super) const EXPIRES: u64 = 1 << 6;
    pub(super) const DIGEST: u64 = 1 << 7;
    pub(super) const DUPLICATES: u64 = 1 << 8;
    pub(super) const ABANDONED: u64 = 1 << 9;
    pub(super) const LAST_ERROR: u64 = 1 << 10;
    pub(super) const ALL: u64 = (1 << 11) - 1;
}

impl Record {
    /// Returns the bytes of a record that is written with this token.
    pub fn encode(&self, write: Token) -> Vec<u8> {
        let mut to = Writer(Vec::with_capacity(48));
        to.0.push(VERSION);
        to.0.extend(write.bytes());
        to.mark(self, write);
        to.claim(self.claim.as_ref());
        to.0
    }

    /// Reads a record. `name` says of what, in an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NewerVersion`] for a record that a newer version of this crate wrote; [`ErrorKind::Corrupt`] for bytes
    /// that are no record.
    pub fn decode(bytes: &[u8], name: impl Fn() -> String) -> Result<Self> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) if version > VERSION && version < 32 => {
                return Err(Error::new(
                    ErrorKind::NewerVersion,
                    format!(
                        "{}: it was written by a newer version of seen-store (format {version}); update this program",
                        name()
                    ),
                ));
            }
            _ => return Err(corrupt(name)),
        }
        let mut from = Reader(&bytes[1..]);
        let read = || -> Option<Self> {
            let write = from.token()?;
            let (mark, is_change) = from.mark(write)?;
            let claim = from.claim()?;
            from.0.is_empty().then_some(Self { mark, is_change, claim })
        }();
        read.ok_or_else(|| corrupt(name))
    }

    /// Returns the token of the write that wrote these bytes.
    pub fn write_of(bytes: &[u8]) -> Option<Token> {
        Token::from_bytes(bytes.get(1..17)?)
    }
}

fn corrupt(name: impl Fn() -> String) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "{}: it holds something that no store wrote; another program uses these keys: choose another namespace",
            name()
        ),
    )
}

fn when(condition: bool, bit: u64) -> u64 {
    if condition { bit } else { 0 }
}

struct Writer(Vec<u8>);

impl Writer {
    /// LEB128: seven bits in a byte, the lowest first.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    /// Small numbers of either sign take few bytes.
    fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn mark(&mut self, record: &Record, write: Token) {
        let Some(mark) = &record.mark else { return self.number(0) };
        self.number(
            of_mark::EXISTS
                | when(mark.expires_at.is_some(), of_mark::EXPIRES)
                | when(mark.last_seen != mark.first_seen, of_mark::LAST_SEEN)
                | match mark.token {
                    Some(token) if token == write => of_mark::SAME_TOKEN,
                    token => when(token.is_some(), of_mark::TOKEN),
                }
                | when(mark.retain_until.is_some(), of_mark::RETAIN)
                | when(mark.digest.is_some(), of_mark::DIGEST)
                | when(mark.duplicates != 0, of_mark::DUPLICATES)
                | when(mark.earlier.is_some(), of_mark::EARLIER)
                | when(mark.attempts != 0, of_mark::ATTEMPTS)
                | when(mark.last_error.is_some(), of_mark::LAST_ERROR)
                | when(mark.receipt.is_some(), of_mark::RECEIPT)
                | when(record.is_change, of_mark::IS_CHANGE),
        );
        let first = mark.first_seen;
        self.signed(first);
        if mark.last_seen != first {
            self.signed(mark.last_seen.wrapping_sub(first));
        }
        for at in [mark.expires_at, mark.retain_until].into_iter().flatten() {
            self.signed(at.wrapping_sub(first));
        }
        if let Some(token) = mark.token.filter(|token| *token != write) {
            self.0.extend(token.bytes());
        }
        self.0.extend(mark.digest.iter().flat_map(|digest| digest.bytes()));
        if mark.duplicates != 0 {
            self.signed(mark.duplicates);
        }
        if let Some(Earlier { windows, duplicates, first_seen, last_seen }) = mark.earlier {
            for number in [windows, duplicates, first_seen, last_seen] {
                self.signed(number);
            }
        }
        if mark.attempts != 0 {
            self.number(mark.attempts.into());
        }
        let notes = [mark.last_error.as_ref().map(String::as_bytes), mark.receipt.as_deref()];
        for note in notes.into_iter().flatten() {
            self.bytes(note);
        }
    }

    fn claim(&mut self, claim: Option<&ClaimRow>) {
        let Some(claim) = claim else { return self.number(0) };
        let outcome = claim.outcome.map_or(0, |outcome| outcome as u64);
        self.number(
            of_claim::EXISTS
                | outcome << of_claim::OUTCOME_SHIFT
                | when(claim.token.is_some(), of_claim::TOKEN)
                | when(claim.held, of_claim::HELD)
                | when(claim.holder.is_some(), of_claim::HOLDER)
                | when(claim.expires_at.is_some(), of_claim::EXPIRES)
                | when(claim.digest.is_some(), of_claim::DIGEST)
                | when(claim.duplicates != 0, of_claim::DUPLICATES)
                | when(claim.abandoned != 0, of_claim::ABANDONED)
                | when(claim.last_error.is_some(), of_claim::LAST_ERROR),
        );
        let claimed = claim.claimed_at;
        self.signed(claimed);
        self.signed(claim.lease_until.wrapping_sub(claimed));
        self.number(claim.attempts.into());
        self.0.extend(claim.token.iter().flat_map(|token| token.bytes()));
        claim.holder.iter().for_each(|holder| self.bytes(holder.as_bytes()));
        claim.expires_at.iter().for_each(|at| self.signed(at.wrapping_sub(claimed)));
        self.0.extend(claim.digest.iter().flat_map(|digest| digest.bytes()));
        if claim.duplicates != 0 {
            self.signed(claim.duplicates);
        }
        if claim.abandoned != 0 {
            self.number(claim.abandoned.into());
        }
        claim.last_error.iter().for_each(|error| self.bytes(error.as_bytes()));
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = self.number()?.try_into().ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn token(&mut self) -> Option<Token> {
        Token::from_bytes(self.take(16)?)
    }

    fn digest(&mut self) -> Option<Digest> {
        Digest::from_bytes(self.take(17)?)
    }

    /// Reads a mark, and whether the check that made it found another version. The outer `None`: it is damaged.
    fn mark(&mut self, write: Token) -> Option<(Option<MarkRow>, bool)> {
        let fields = self.number()?;
        if fields & of_mark::EXISTS == 0 || fields & !of_mark::ALL != 0 {
            return (fields == 0).then_some((None, false));
        }
        let has = |field| fields & field != 0;
        let first_seen = self.signed()?;
        let mut time = |is_there: bool| -> Option<Option<i64>> {
            if !is_there {
                return Some(None);
            }
            Some(Some(first_seen.wrapping_add(self.signed()?)))
        };
        let last_seen = time(has(of_mark::LAST_SEEN))?.unwrap_or(first_seen);
        let (expires_at, retain_until) =
            (time(has(of_mark::EXPIRES))?, time(has(of_mark::RETAIN))?);
        let mark = MarkRow {
            scope: String::new(),
            id: Vec::new(),
            first_seen,
            last_seen,
            expires_at,
            retain_until,
            token: if has(of_mark::TOKEN) {
                Some(self.token()?)
            } else {
                has(of_mark::SAME_TOKEN).then_some(write)
            },
            digest: if has(of_mark::DIGEST) { Some(self.digest()?) } else { None },
            duplicates: if has(of_mark::DUPLICATES) { self.signed()?.max(0) } else { 0 },
            earlier: if has(of_mark::EARLIER) {
                Some(Earlier {
                    windows: self.signed()?,
                    duplicates: self.signed()?,
                    first_seen: self.signed()?,
                    last_seen: self.signed()?,
                })
            } else {
                None
            },
            attempts: if has(of_mark::ATTEMPTS) { self.small()? } else { 0 },
            last_error: if has(of_mark::LAST_ERROR) { Some(self.text()?) } else { None },
            receipt: if has(of_mark::RECEIPT) { Some(self.bytes()?.to_vec()) } else { None },
        };
        Some((Some(mark), has(of_mark::IS_CHANGE)))
    }

    /// Reads a claim. The outer `None`: it is damaged.
    #[expect(clippy::option_option, reason = "damaged, absent, or there")]
    fn claim(&mut self) -> Option<Option<ClaimRow>> {
        let fields = self.number()?;
        if fields & of_claim::EXISTS == 0 || fields & !of_claim::ALL != 0 {
            return (fields == 0).then_some(None);
        }
        let has = |field| fields & field != 0;
        let claimed_at = self.signed()?;
        let lease_until = claimed_at.wrapping_add(self.signed()?);
        Some(Some(ClaimRow {
            claimed_at,
            lease_until,
            attempts: self.small()?,
            outcome: match fields >> of_claim::OUTCOME_SHIFT & 3 {
                0 => None,
                1 => Some(Outcome::Released),
                2 => Some(Outcome::Failed),
                _ => Some(Outcome::FailedFinally),
            },
            held: has(of_claim::HELD),
            token: if has(of_claim::TOKEN) { Some(self.token()?) } else { None },
            holder: if has(of_claim::HOLDER) { Some(Arc::from(self.text()?)) } else { None },
            expires_at: if has(of_claim::EXPIRES) {
                Some(claimed_at.wrapping_add(self.signed()?))
            } else {
                None
            },
            digest: if has(of_claim::DIGEST) { Some(self.digest()?) } else { None },
            duplicates: if has(of_claim::DUPLICATES) { self.signed()?.max(0) } else { 0 },
            abandoned: if has(of_claim::ABANDONED) { self.small()? } else { 0 },
            last_error: if has(of_claim::LAST_ERROR) { Some(self.text()?) } else { None },
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn digests() -> impl Strategy<Value = Option<Digest>> {
        option::of(any::<bool>().prop_map(|is_version| {
            if is_version { Digest::of_version("a") } else { Digest::of_payload("b") }
        }))
    }

    fn tokens() -> impl Strategy<Value = Option<Token>> {
        option::of(any::<[u8; 16]>().prop_map(|bytes| Token::from_bytes(&bytes).unwrap()))
    }

    fn earlier() -> impl Strategy<Value = Option<Earlier>> {
        option::of(any::<[i64; 4]>().prop_map(|[windows, duplicates, first_seen, last_seen]| {
            Earlier { windows, duplicates, first_seen, last_seen }
        }))
    }

    fn marks() -> impl Strategy<Value = MarkRow> {
        let times = (any::<i64>(), any::<i64>(), any::<Option<i64>>(), any::<Option<i64>>());
        let rest = (digests(), 0..i64::MAX, earlier(), tokens(), any::<u32>());
        let notes = (any::<Option<String>>(), option::of(vec(any::<u8>(), 0..200)));
        (times, rest, notes).prop_map(|(times, rest, (last_error, receipt))| {
            let (first_seen, last_seen, expires_at, retain_until) = times;
            let (digest, duplicates, earlier, token, attempts) = rest;
            MarkRow {
                scope: String::new(),
                id: Vec::new(),
                first_seen,
                last_seen,
                expires_at,
                retain_until,
                digest,
                duplicates,
                earlier,
                token,
                attempts,
                last_error,
                receipt,
            }
        })
    }

    fn claims() -> impl Strategy<Value = ClaimRow> {
        let outcomes = prop_oneof![
            Just(None),
            Just(Some(Outcome::Released)),
            Just(Some(Outcome::Failed)),
            Just(Some(Outcome::FailedFinally)),
        ];
        let times = (any::<i64>(), any::<i64>(), any::<Option<i64>>());
        let rest = (any::<u32>(), any::<u32>(), digests(), 0..i64::MAX, any::<Option<String>>());
        (tokens(), outcomes, any::<bool>(), any::<Option<String>>(), times, rest).prop_map(
            |(token, outcome, held, holder, (claimed_at, lease_until, expires_at), rest)| {
                let (attempts, abandoned, digest, duplicates, last_error) = rest;
                ClaimRow {
                    token,
                    outcome,
                    held,
                    holder: holder.map(Arc::from),
                    claimed_at,
                    lease_until,
                    attempts,
                    abandoned,
                    digest,
                    duplicates,
                    last_error,
                    expires_at,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(
            mark in option::of(marks()),
            is_change in any::<bool>(),
            claim in option::of(claims()),
            write in tokens(),
        ) {
            let write = write.or(mark.as_ref().and_then(|mark| mark.token));
            let Some(write) = write else { return Ok(()) };
            let record = Record { is_change: is_change && mark.is_some(), mark, claim };
            let bytes = record.encode(write);
            prop_assert_eq!(Record::write_of(&bytes), Some(write));
            prop_assert_eq!(Record::decode(&bytes, String::new).unwrap(), record);
            for length in 0..bytes.len() {
                prop_assert!(Record::decode(&bytes[..length], String::new).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..100)) {
            let _ = Record::decode(&bytes, String::new);
            bytes.splice(..0, [VERSION]);
            let _ = Record::decode(&bytes, String::new);
        }
    }

    #[test]
    fn a_plain_mark_fits_one_allocation_of_redis() {
        let token = Token::from_bytes(&[7; 16]).unwrap();
        let now_ms = 1_790_000_000_000;
        let year_ms = 366 * 24 * 3_600_000;
        let mark = crate::journal::NewMark {
            token: Some(token),
            ..crate::journal::NewMark::at(now_ms, Some(now_ms + year_ms))
        };
        let record = Record { mark: Some(MarkRow::new(&mark)), ..Record::default() };
        assert!(record.encode(token).len() <= 44, "{}", record.encode(token).len());
    }

    #[test]
    fn what_no_store_or_a_newer_one_wrote_is_refused_by_name() {
        let error = |bytes: &[u8]| Record::decode(bytes, || "here".to_owned()).unwrap_err();
        for (bytes, kind) in [
            (&b"OK"[..], ErrorKind::Corrupt),
            (b"", ErrorKind::Corrupt),
            (b"\x02", ErrorKind::NewerVersion),
        ] {
            let error = error(bytes);
            assert_eq!(error.kind(), kind, "{bytes:?}");
            assert!(error.to_string().starts_with("here: "));
        }
    }
}
