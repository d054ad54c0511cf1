//! What of a line is its id, and that lines and arguments are read alike.

use std::fs;
use std::io::Write as _;

use flate2::write::GzEncoder;

use crate::support::{Place, assert_error, run, stderr};

#[test]
fn an_argument_is_taken_as_a_line_is() {
    let place = Place::new();
    let long = "x".repeat(70_000);
    let lines = ["f1:x", "f1:2:ab1:c", "f1:line:17", "\u{feff}marked", "cr\r", &long];
    place.passed(&[], lines.join("\n"));
    for line in lines {
        place.told(&["check", line]).assert(0, &[]);
    }
    assert_eq!(place.passed(&[], "marked\ncr\r\ncr\n"), b"");
    place.told(&["check", "marked", "cr"]).assert(0, &[]);
    let json = r#"{"guid": "", "link": "http://Example.org/?utm_source=x"}"#;
    let shaping = ["--key", "guid", "--or-key", "link", "--normalize", "url1"];
    let with =
        |command: &str, more: &[&str]| place.told(&[&[command], &shaping[..], more].concat());
    with("mark", &[json]).assert(0, &[]);
    with("check", &[json]).assert(0, &[]);
    assert!(with("show", &[json]).stdout.starts_with("https://example.org\n"));
    with("run", &["--id", json, "--", "false"]).assert(0, &["seen before"]);
    with("forget", &[json]).assert(0, &[]);
    with("check", &[json]).assert(1, &[]);
}

#[test]
fn an_id_as_it_is_listed_is_asked_for_exactly_and_a_line_like_it_says_so() {
    let place = Place::new();
    place.passed(&["--key", "x,y"], r#"{"x": "ab", "y": "c"}"#);
    let id = "f1:2:ab1:c";
    assert!(place.printed(&["list"]).ends_with(&format!("  {id}\n")));
    place.told(&["check", "--exact", id]).assert(0, &[]);
    assert!(place.printed(&["show", "--exact", id]).starts_with(id));
    place.told(&["check", id]).assert(1, &[id, "--exact"]);
    let told = place.told(&["show", id]);
    assert!(told.stdout.contains("not seen") && told.stderr.contains("--exact"), "{told:?}");
    place.told(&["forget", id]).assert(1, &[id, "--exact"]);
    place.told(&["resolve", "--retry", id]).assert(1, &[id, "--exact"]);
    place.told(&["check", "f1:other"]).assert(1, &[]);
    let other = Place::new();
    other.told_with_input(&["import", "--exact", "-"], id).assert(0, &[]);
    other.told_with_input(&["forget", "--exact", "-"], id).assert(0, &[]);
    other.told(&["check", "--exact", "--key", "x", id]).assert(2, &["cannot be used"]);
}

#[test]
fn what_stands_outside_the_key_makes_no_line_idless() {
    let place = Place::new();
    let deep = format!("{{\"id\":3,\"d\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let lines: [&[u8]; 8] = [
        br#"{"id":1,"text":"\ud83d"}"#,
        br#"{"v":NaN,"w":[-Infinity],"id":2}"#,
        deep.as_bytes(),
        b"{\"a\":\"\xff\xfe\",\"id\":4}",
        b"{\"a\":\"\t\x01\",\"id\":5}",
        b"\xef\xbb\xbf{\"id\":6}\r",
        b"{\"id\":7,\"text\":\"cut o",
        b"{\"id\":8},",
    ];
    let input = lines.join(&b'\n');
    assert_eq!(place.passed(&["--key", "id"], &input), input);
    assert_eq!(place.passed(&["--key", "id"], &input), b"");
    place.told(&["check", "1", "2", "3", "4", "5", "6", "7", "8"]).assert(0, &[]);
}

#[test]
fn no_id_and_an_empty_one_are_errors() {
    let place = Place::new();
    place.printed(&["mark", "x"]);
    for command in ["check", "mark", "show", "forget"] {
        place.told(&[command]).assert(2, &["<ID|"]);
        for empty in ["", "\r", "\u{feff}"] {
            place.told(&[command, empty]).assert(2, &["the id is empty"]);
        }
    }
    place.told(&["import"]).assert(2, &["<FILE>"]);
    place.told(&["import", ""]).assert(2, &["FILE"]);
}

#[test]
fn a_file_that_is_missing_is_told_of_and_the_others_are_read() {
    let place = Place::new();
    place.file("a", "a\n");
    place.file("b", "b\n");
    let output = run(&mut place.filter(&["a", "missing", ".", "b"]), b"");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b"a\nb\n"[..]));
    let told = stderr(&output);
    assert!(told.contains("cannot open missing") && told.contains("cannot read .: "), "{told}");
    place.told(&["check", "a", "b"]).assert(0, &[]);
}

#[test]
fn compressed_input_and_other_encodings_are_refused_with_what_reads_them() {
    let place = Place::new();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"a\nb\n").unwrap();
    let gzip = gzip.finish().unwrap();
    place.file("log.1.gz", &gzip);
    place.file("b", "b\n");
    let output = run(&mut place.filter(&["log.1.gz", "b"]), b"");
    assert_error(&output, &["log.1.gz", "gzip", "zcat"]);
    assert_eq!(output.stdout, b"b\n");
    let utf16 = b"\xff\xfea\0\n\0";
    for command in [&["filter"][..], &["mark", "-"], &["check", "-"], &["import", "-"]] {
        for (input, named) in [(&gzip[..], "zcat"), (utf16, "iconv -f UTF-16")] {
            let told = place.told_with_input(command, input);
            told.assert(2, &["standard input", named]);
        }
    }
    assert_eq!(place.store().stats().unwrap().seen, 1);
}

#[test]
fn a_line_whose_end_is_not_written_yet_can_wait() {
    let place = Place::new();
    place.file("log", "a\nb");
    assert_eq!(place.passed(&["--complete", "log"], ""), b"a\n");
    place.file("log", "a\nbc\n");
    assert_eq!(place.passed(&["--complete", "log"], ""), b"bc\n");
    assert_eq!(place.passed(&["log"], ""), b"");
}

#[test]
fn lines_that_begin_with_a_time_are_compared_without_it() {
    let place = Place::new();
    let log = "10:00 host disk full\n10:01 host disk full\n10:02 host cpu hot\n";
    let first = "10:00 host disk full\n10:02 host cpu hot\n";
    assert_eq!(place.passed(&["-f", "1"], log), first.as_bytes());
    place.told(&["check", "-f1", "now host cpu hot"]).assert(0, &[]);
    let scope = ["--scope", "pattern", "--match", r"(\w+) (\w+)$"];
    assert_eq!(place.passed(&scope, log), first.as_bytes());
    let cut = ["--scope", "cut", "-s", "6", "-w", "5"];
    assert_eq!(place.passed(&cut, log), b"10:00 host disk full\n");
    place.told(&["check", "--match", "(", "a"]).assert(2, &["--match", "unclosed group"]);
    place.told(&["check", "--match", "a", "-f", "1", "a"]).assert(2, &["cannot be used"]);
    place.told(&["check", "--key", "a", "-w", "1", "a"]).assert(2, &["cannot be used"]);
    place.told(&["check", "-w", "0", "a"]).assert(2, &["--check-chars"]);
}

#[test]
fn a_table_is_understood_or_refused_with_what_was_understood() {
    for (name, table) in [
        ("semicolons", "Name;ID\r\na, b;1\r\nc;2\r\n"),
        ("tabs", "ID\tname\n1\ta\n2\tb\n"),
        ("mark", "\u{feff}\"Id\",\"Name\"\n1,a\n2,b\n"),
        ("hex", "ID_HEX\n31\n32\n"),
    ] {
        let place = Place::new();
        place.file(name, table);
        place.printed(&["import", name]);
        place.told(&["check", "1", "2"]).assert(0, &[]);
        assert_eq!(place.store().stats().unwrap().seen, 2, "{name}");
    }
    let place = Place::new();
    for (name, table, named) in [
        ("none", "1;a;x\n2;b;y\n", "semicolons between the values"),
        ("tabs", "1\ta\n2\tb\tc\n", "\"1\", \"a\""),
        ("other", "guid,title\n1,a\n", "\"guid\", \"title\""),
        ("two", "id,ID\n1,a\n", "two columns id"),
        ("sep", "sep=;\nid;x\n1;a\n", "no column id"),
        ("names.csv", "a\nb\n", "no column id"),
    ] {
        place.file(name, table);
        place.told(&["import", name]).assert(2, &[name, named]);
    }
    assert!(!place.names().contains(&"seen.db".to_owned()));
    place.printed(&["import", "--format", "ids", "other"]);
    place.told(&["check", "guid,title", "1,a"]).assert(0, &[]);
    let keyed = ["--key", "guid"];
    place.file("feed.jsonl", "{\"guid\": 17}\n\n{\"guid\": \"f1:\"}\n");
    place.printed(&[&["import"][..], &keyed, &["feed.jsonl"]].concat());
    assert_eq!(place.passed(&keyed, fs::read(place.path("feed.jsonl")).unwrap()), b"\n");
}
