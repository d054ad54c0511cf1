//! The evidence that a claim is one's own.
//!
//! Owns the 128-bit tokens: unique over processes and machines, and not to be guessed by somebody who
//! has seen others. They are a pseudo-random function (SipHash under a random key of this store) of a
//! counter, which costs no system call a claim.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, ErrorKind};
use crate::id::KeyHasher;

/// Names one claim of one id. Whoever has it can confirm, fail, release and renew the claim, also in
/// another process: its text form is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u128);

impl Token {
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// `None` unless there are 16 bytes: a claim that has ended keeps an empty token.
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
                format!("{text:?} is no token: one has 32 hexadecimal digits"),
            )
        })
    }
}

/// Makes tokens.
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
    fn what_is_no_token_is_told() {
        for text in ["", "12", "+1234567890123456789012345678901", &"g".repeat(32)] {
            assert_eq!(text.parse::<Token>().unwrap_err().kind(), ErrorKind::InvalidClaim);
        }
    }
}
