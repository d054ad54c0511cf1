//! The ids that were made once are made for ever: `golden_ids.jsonl` holds options, lines and their ids.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde_json::Value;

use crate::support::{Place, run};

/// A line and its id.
type Pair = (Vec<u8>, Vec<u8>);

fn bytes(object: &Value, name: &str) -> Vec<u8> {
    let text = |name: &str| object[name].as_str();
    let bytes = match (text(name), text(&format!("{name}_hex"))) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(hex)) => {
            let (pairs, _) = hex.as_bytes().as_chunks::<2>();
            let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16);
            pairs.iter().map(|pair| byte(pair).unwrap()).collect()
        }
        _ => panic!("{object} has no {name}"),
    };
    // Long lines are written with a tilde that stands for so many letters.
    let Some(fill) = object["fill"].as_u64() else { return bytes };
    let filled = vec![b'x'; usize::try_from(fill).unwrap()];
    bytes.split(|byte| *byte == b'~').collect::<Vec<_>>().join(&filled[..])
}

/// The lines of the file, by their options.
fn golden() -> BTreeMap<String, Vec<Pair>> {
    let mut golden = BTreeMap::<_, Vec<_>>::new();
    for line in include_str!("golden_ids.jsonl").lines().skip(1) {
        let object: Value = serde_json::from_str(line).unwrap();
        let options = object["options"].as_str().unwrap().to_owned();
        golden.entry(options).or_default().push((bytes(&object, "line"), bytes(&object, "id")));
    }
    golden
}

fn ids(output: &[u8]) -> Vec<Vec<u8>> {
    let objects = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    objects.map(|line| bytes(&serde_json::from_slice(line).unwrap(), "id")).collect()
}

#[test]
fn ids_are_what_they_have_always_been() {
    let place = Place::new();
    place.printed(&["mark", "x"]);
    let golden = golden();
    assert!(golden.len() > 25);
    for (options, pairs) in golden {
        let end = if options.contains("-0") { b'\0' } else { b'\n' };
        let options: Vec<_> = options.split_ascii_whitespace().collect();
        let check = || {
            let mut check = place.seen(&["check", "-q", "--json"]);
            check.args(&options);
            check
        };
        let input: Vec<_> =
            pairs.iter().flat_map(|(line, _)| [line, &[end][..]].concat()).collect();
        let from_input = ids(&run(check().arg("-"), &input).stdout);
        assert_eq!(from_input.len(), pairs.len(), "{options:?}");
        for ((line, id), made) in pairs.iter().zip(from_input) {
            let (line, made_text) = (line.escape_ascii(), made.escape_ascii());
            assert!(made == *id, "{options:?}: {line} is now {made_text}");
        }
        // An argument is at most 128 KiB long; `-` is not a line there.
        let pairs: Vec<_> = pairs.iter().filter(|(line, _)| *line != b"-").collect();
        let lines = pairs.iter().map(|(line, _)| OsStr::from_bytes(line));
        let from_arguments = ids(&check().arg("--").args(lines).output().unwrap().stdout);
        assert!(from_arguments.iter().eq(pairs.iter().map(|(_, id)| id)), "{options:?}");
    }
}
