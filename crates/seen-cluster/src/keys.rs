//! The keys on the servers: which one an id has.
//!
//! Owns the form of a key: `seen{}:scope:id`, where `seen` is the namespace of the URL. What always holds: two ids, in any
//! scopes, never have one key, and the keys of all ids spread over all slots. The braces see to that: a cluster hashes what
//! is between the first `{` and the next `}`, or all of the key if that is nothing (the cluster specification of Redis, "Hash
//! tags"). So braces in an id mean nothing.

/// The namespace of a store, which is the beginning of all its keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

/// The namespace of a URL without one.
pub(crate) const DEFAULT_NAMESPACE: &str = "seen";

impl Keys {
    /// `namespace` holds letters, digits, `.`, `-` and `_` alone: the URL is checked for that.
    pub(crate) fn new(namespace: &str) -> Self {
        Self { prefix: format!("{namespace}{{}}:") }
    }

    /// Returns the key of an id.
    pub(crate) fn key(&self, scope: &str, id: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + scope.len() + 1 + id.len());
        key.extend(self.prefix.as_bytes());
        key.extend(escaped(scope).as_bytes());
        key.push(b':');
        key.extend(id);
        key
    }

    /// Returns the scope and the id of a key; `None` if no store made it.
    pub(crate) fn parse<'k>(&self, key: &'k [u8]) -> Option<(String, &'k [u8])> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        let colon = rest.iter().position(|byte| *byte == b':')?;
        let (scope, id) = (&rest[..colon], &rest[colon + 1..]);
        let scope = unescaped(str::from_utf8(scope).ok()?)?;
        (!id.is_empty()).then_some((scope, id))
    }

    /// Returns the pattern of `SCAN` for the keys of a scope, or of all.
    pub(crate) fn pattern(&self, scope: Option<&str>) -> Vec<u8> {
        let mut pattern = as_pattern(&self.prefix);
        if let Some(scope) = scope {
            pattern.extend(as_pattern(&escaped(scope)));
            pattern.push(b':');
        }
        pattern.push(b'*');
        pattern
    }
}

/// A scope ends at the first colon.
fn escaped(scope: &str) -> String {
    scope.replace('%', "%25").replace(':', "%3A")
}

fn unescaped(scope: &str) -> Option<String> {
    let plain = scope.replace("%3A", ":").replace("%25", "%");
    (escaped(&plain) == scope).then_some(plain)
}

fn as_pattern(text: &str) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if b"*?[]\\^-".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_scope_and_its_id() {
        let keys = Keys::new("seen");
        assert_eq!(keys.key("discord", b"17"), b"seen{}:discord:17");
        for scope in ["", "a", ":", "a:b", "%", "%3A", "%25", "ä", "*?[x]"] {
            for id in [&b"x"[..], b":", b"{a}", b"\x00\xFF", b"a:b"] {
                let key = keys.key(scope, id);
                assert_eq!(keys.parse(&key), Some((scope.to_owned(), id)), "{scope:?} {id:?}");
            }
        }
    }

    #[test]
    fn no_two_scopes_and_ids_have_one_key() {
        let keys = Keys::new("seen");
        assert_ne!(keys.key("a", b"b:c"), keys.key("a:b", b"c"));
        assert_ne!(keys.key("a%3Ab", b"c"), keys.key("a:b", b"c"));
    }

    #[test]
    fn a_key_of_another_program_is_no_id() {
        let keys = Keys::new("seen");
        for key in [&b"seen:a:b"[..], b"seen{}:ab", b"seen{}:a:", b"other{}:a:b", b"seen{}:%3a:b"] {
            assert_eq!(keys.parse(key), None, "{key:?}");
        }
    }

    #[test]
    fn the_pattern_of_a_scope_takes_its_characters_for_themselves() {
        let keys = Keys::new("se-en");
        assert_eq!(keys.pattern(Some("a*")), b"se\\-en{}:a\\*:*");
        assert_eq!(keys.pattern(None), b"se\\-en{}:*");
    }
}
