//! Input that is no text of lines: compressed files, and texts in other encodings.
//!
//! Owns their recognition by the first bytes, and the command that reads each.

/// How many bytes tell what an input is.
pub(crate) const TELLING_BYTES: usize = 16;

/// Returns what an input is that begins so, and what reads it, if it is not lines of text.
pub(crate) fn refusal(beginning: &[u8]) -> Option<String> {
    const KINDS: [(&[u8], &str, &str); 12] = [
        (b"\x1f\x8b", "compressed (gzip)", "zcat"),
        (b"\x1f\x9d", "compressed (compress)", "zcat"),
        (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "zstdcat"),
        (b"\xfd7zXZ\0", "compressed (xz)", "xzcat"),
        (b"\x04\x22\x4d\x18", "compressed (lz4)", "lz4cat"),
        (b"PK\x03\x04", "an archive (zip)", "unzip -p"),
        (b"7z\xbc\xaf\x27\x1c", "an archive (7z)", "7z x -so"),
        // Before UTF-16, whose mark begins alike.
        (b"\xff\xfe\0\0", "text in UTF-32", "iconv -f UTF-32 -t UTF-8"),
        (b"\0\0\xfe\xff", "text in UTF-32", "iconv -f UTF-32 -t UTF-8"),
        (b"\xff\xfe", "text in UTF-16", "iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff", "text in UTF-16", "iconv -f UTF-16 -t UTF-8"),
        (b"SQLite format 3\0", "a SQLite database", "sqlite3 FILE 'SELECT column FROM table'"),
    ];
    let is_bzip2 = matches!(beginning, [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
        if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17\x72\x45\x38\x50\x90"));
    let found = KINDS.iter().find(|(magic, ..)| beginning.starts_with(magic));
    let (what, command) = match found {
        _ if is_bzip2 => ("compressed (bzip2)", "bzcat"),
        Some((_, what, command)) => (*what, *command),
        None => return None,
    };
    Some(format!("it is {what}; give `seen` what `{command}` prints of it, by a pipe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_taken_and_all_else_is_named_with_what_reads_it() {
        for (beginning, named) in [
            (&b"\x1f\x8b\x08"[..], "`zcat`"),
            (b"\x28\xb5\x2f\xfd\x04", "`zstdcat`"),
            (b"BZh91AY&SY", "`bzcat`"),
            (b"\xfd7zXZ\0\0", "`xzcat`"),
            (b"\xff\xfea\0", "UTF-16"),
            (b"\xfe\xff\0a", "UTF-16"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
        ] {
            let told = refusal(beginning).unwrap();
            assert!(told.contains(named), "{told}");
        }
        for text in [&b""[..], b"a\n", b"\xef\xbb\xbfa", b"BZh4 is a song", b"PK", b"\xff", b"\x1f"]
        {
            assert_eq!(refusal(text), None);
        }
    }
}
