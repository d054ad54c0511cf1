//! The tokens that identify claims.
//!
//! Owns the 128-bit tokens. They are unique over processes and machines, and a process that has seen some
//! cannot guess others: they are a pseudo-random function (SipHash under a random key of this store) of a
//! counter. That costs no system call for a claim.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::error::{Error, ErrorKind};
use crate::machine::fill_random;

/// Identifies one claim of one id. A worker that has the token can confirm, fail, release and renew the
/// claim, also in another process. Its text form has 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u128);

impl Token {
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Returns `None` unless there are 16 bytes: the file keeps an empty token of a claim that has ended.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl Error {
    /// Returns the token of a call whose outcome is [unknown](ErrorKind::OutcomeUnknown). Of a check it is for
    /// [`Item::retry_of`](crate::Item::retry_of): the same call with it gives the true answer. Of a claim, or of what ends
    /// one, it is the token of the claim, which may have been granted: [confirm](crate::SeenStore::confirm) or
    /// [release](crate::SeenStore::release) it, or let its lease end. An error of another kind has one if other ids of a batch
    /// were written, as when one of them is in [conflict](ErrorKind::Conflict).
    pub fn token(&self) -> Option<Token> {
        self.token_bits().map(Token)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hexadecimal = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = hexadecimal.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidClaim,
                format!("{text:?} is not a token: a token has 32 hexadecimal digits"),
            )
        })
    }
}

/// Makes the tokens of a store.
pub(crate) struct Tokens {
    secret: SipHasher13,
    made: AtomicU64,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let mut key = [0; 16];
        fill_random(&mut key);
        Self { secret: SipHasher13::new_with_key(&key), made: AtomicU64::new(0) }
    }

    pub(crate) fn make(&self) -> Token {
        let mut state = self.secret;
        state.write_u64(self.made.fetch_add(1, Relaxed));
        Token(state.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_its_bytes() {
        let token = Tokens::new().make();
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        assert_eq!(Token::from_bytes(&token.bytes()), Some(token));
        assert_eq!(Token::from_bytes(&[]), None);
    }

    #[test]
    fn no_two_tokens_are_the_same_and_no_two_stores_make_the_same_ones() {
        let (one, other) = (Tokens::new(), Tokens::new());
        let tokens = [one.make(), one.make(), other.make(), other.make()];
        for (n, token) in tokens.iter().enumerate() {
            assert!(!tokens[..n].contains(token));
        }
    }

    #[test]
    fn a_text_that_is_not_a_token_is_refused() {
        for text in ["", "12", "+1234567890123456789012345678901", &"g".repeat(32)] {
            assert_eq!(text.parse::<Token>().unwrap_err().kind(), ErrorKind::InvalidClaim);
        }
    }
}
