//! The tokens that identify claims.
//!
//! Owns the 128-bit tokens. They are unique over processes and machines, and a process that has seen some
//! cannot guess others: they are a pseudo-random function (SipHash under a random key of this store) of a
//! counter. That costs no system call for a claim.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, ErrorKind};
use crate::id::KeyHasher;

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
    secret: KeyHasher,
    made: AtomicU64,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { secret: KeyHasher::random(), made: AtomicU64::new(0) }
    }

    pub(crate) fn make(&self) -> Token {
        let key = self.secret.scoped("").key(&self.made.fetch_add(1, Relaxed).to_be_bytes());
        Token(u128::from(key.high) << 64 | u128::from(key.low))
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
