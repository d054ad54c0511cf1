//! The ids that all contenders mark: numbered, distinct, and in no order.

use crate::plan::IdLength;

/// The first number of an id that no filled store holds.
pub(crate) const FIRST_NEW: u64 = 1 << 40;
const URL_BYTES: usize = 200;
const URL_SLUG: &str = "/central-bank-holds-rates-as-inflation-slows-and-markets-brace-for-\
                        longer-pauses-than-analysts-had-expected?utm_campaign=rss";
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Spells ids out. Cheap on purpose (a few nanoseconds for a short one): its cost is in every figure.
#[derive(Clone, Copy, Debug)]
pub struct Ids(pub IdLength);

impl Ids {
    /// Writes the id number `n` into `buffer`.
    pub fn write(self, n: u64, buffer: &mut String) {
        buffer.clear();
        let mixed = mix(n);
        match self.0 {
            IdLength::Short => {
                buffer.push_str("feed:item");
                push_hex(buffer, mixed);
            }
            IdLength::Url => {
                buffer.push_str("https://news.example.org/2026/11/20/markets/");
                push_hex(buffer, mixed);
                buffer.push_str(URL_SLUG);
                push_hex(buffer, mixed);
            }
        }
    }

    /// The id number `n`.
    #[must_use]
    pub fn id(self, n: u64) -> String {
        let mut buffer = String::with_capacity(URL_BYTES + 32);
        self.write(n, &mut buffer);
        buffer
    }
}

fn push_hex(buffer: &mut String, n: u64) {
    let mut text = [0; 16];
    for (i, digit) in text.iter_mut().enumerate() {
        let [lowest, ..] = (n >> (60 - 4 * i)).to_le_bytes();
        *digit = DIGITS[usize::from(lowest & 15)];
    }
    buffer.push_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"));
}

/// SplitMix64's finaliser: a bijection, so distinct numbers stay distinct.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_lengths_that_the_report_states_and_differ() {
        for (kind, bytes) in [(IdLength::Short, 25), (IdLength::Url, 200)] {
            let ids: std::collections::HashSet<_> = (0..1_000).map(|n| Ids(kind).id(n)).collect();
            assert_eq!(ids.len(), 1_000);
            assert!(ids.iter().all(|id| id.len() == bytes && id.is_ascii()));
        }
    }
}
