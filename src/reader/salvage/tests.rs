//! Stores with damage that the tests make, page by page.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::store::{Claim, SeenStore};

const PAGE_BYTES: usize = 1024;

fn filled(marks: usize, claims: usize) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    let store = SeenStore::open(&path).unwrap();
    for n in 0..claims {
        match store.claim(format!("claim {n}"), Duration::from_secs(600)).unwrap() {
            Claim::Granted(lease) => drop(lease.into_token()),
            other => panic!("{other:?}"),
        }
    }
    store.seed((0..marks).map(|n| format!("id {n}"))).unwrap();
    store.close().unwrap();
    (folder, path)
}

#[test]
fn a_sound_file_is_read_whole_and_left_as_it_is() {
    let (_folder, path) = filled(2_500, 30);
    let before = fs::read(&path).unwrap();
    let mut salvage = Salvage::open(&path).unwrap();
    assert_eq!(salvage.by_ref().count(), 2_530);
    assert_eq!(salvage.report().marks_lost_at_most, Some(0));
    assert!(salvage.report().is_complete());
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn what_lies_around_damaged_pages_is_read_and_the_rest_is_counted() {
    let (_folder, path) = filled(5_000, 200);
    let whole = fs::read(&path).unwrap();
    let pages = whole.len() / PAGE_BYTES;
    for (damaged, at_least) in [
        (vec![pages / 2], 4_000),
        (vec![pages / 3, pages / 2, pages - 1], 4_000),
        ((pages / 4..pages / 2).collect(), 2_000),
        ((8..pages).step_by(5).collect(), 2_000),
    ] {
        let mut bytes = whole.clone();
        for page in &damaged {
            bytes[page * PAGE_BYTES..][..PAGE_BYTES].fill(0xA5);
        }
        fs::write(&path, bytes).unwrap();
        let mut salvage = Salvage::open(&path).unwrap();
        let read: Vec<_> = salvage.by_ref().collect();
        let report = salvage.report().clone();
        let marks = read.iter().filter(|entry| entry.id.starts_with(b"id ")).count();
        assert!(marks >= at_least, "{marks} with {damaged:?}: {report:?}");
        assert!(!report.is_complete(), "{damaged:?}");
        if let Some(lost) = report.marks_lost_at_most {
            assert_eq!(marks as u64 + lost, 5_000, "{damaged:?}: {report:?}");
        }
        let fresh = SeenStore::in_memory().unwrap();
        assert!(fresh.restore(read).unwrap().refused.is_empty());
    }
}

#[test]
fn a_file_that_was_cut_gives_its_beginning() {
    let (_folder, path) = filled(1_500, 0);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2 + 100]).unwrap();
    let mut salvage = Salvage::open(&path).unwrap();
    let count = salvage.by_ref().count();
    assert!(count > 500, "{count}: {:?}", salvage.report());
    assert!(!salvage.report().is_complete());
}

#[test]
fn nothing_is_salvaged_from_what_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    let kind = || Salvage::open(&path).unwrap_err().kind();
    assert_eq!(kind(), ErrorKind::NotFound);
    fs::write(&path, [b'x'; 4096]).unwrap();
    assert_eq!(kind(), ErrorKind::NotADatabase);
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert_eq!(kind(), ErrorKind::WrongApplication);
}

/// What is on a page of a file.
#[derive(Debug, PartialEq)]
enum Content {
    /// The rows of these numbers, of the table of marks.
    Rows(Vec<i64>),
    /// A part of the row of this number.
    PartOf(i64),
    /// Numbers of other pages of the table of marks.
    Inner,
    /// Nothing of a mark.
    Other,
}

/// A store with damage to come.
struct Subject {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    whole: Vec<u8>,
    pages: Vec<Content>,
    /// All rows: ids by `seq`, and whether they are tombstones.
    rows: BTreeMap<i64, (Vec<u8>, bool)>,
    entries: HashMap<Vec<u8>, Entry>,
}

/// A store with ids of which some were forgotten, written again, or are long or have a receipt, and with free pages.
fn subject(marks: usize) -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    let store = SeenStore::open(&path).unwrap();
    let first = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for n in 0..marks {
        store.mark_seen_at(format!("id {n}"), first + Duration::from_secs(n as u64)).unwrap();
        if n % 100 == 0 {
            let long = format!("long {n} {}", "x".repeat(900 + n % 7 * 500));
            store.mark_seen(long).unwrap();
            match store.claim(format!("worked {n}"), Duration::from_secs(600)).unwrap() {
                Claim::Granted(mut lease) => lease.confirm_with([b'r'; 2_500]).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        if n % 50 == 0 {
            store.mark_seen(format!("gone {n}")).unwrap();
        }
    }
    for n in (0..marks).step_by(50) {
        assert!(store.forget(format!("gone {n}")).unwrap());
    }
    // Their pages are free afterwards.
    let scope = store.scope("removed");
    scope.seed((0..500).map(|n| format!("removed {n}"))).unwrap();
    scope.forget_scope().unwrap();
    for n in (0..marks).step_by(70) {
        store.mark_seen_at(format!("again {n}"), first).unwrap();
    }
    store.close().unwrap();
    let mut salvage = Salvage::open(&path).unwrap();
    let entries: HashMap<_, _> = salvage.by_ref().map(|entry| (entry.id.clone(), entry)).collect();
    assert!(salvage.report().is_complete());
    let whole = fs::read(&path).unwrap();
    let sql = Connection::open(&path).unwrap();
    let rows: BTreeMap<i64, (Vec<u8>, bool)> = sql
        .prepare("SELECT seq, CAST(id AS BLOB), ifnull(expires_at, 1) = 0 FROM seen")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let pages = contents(&sql, &rows, whole.len() / PAGE_BYTES);
    drop(sql);
    Subject { _folder: folder, path, whole, pages, rows, entries }
}

fn contents(sql: &Connection, rows: &BTreeMap<i64, (Vec<u8>, bool)>, pages: usize) -> Vec<Content> {
    let mut contents: Vec<_> = (0..pages).map(|_| Content::Other).collect();
    let mut statement = sql
        .prepare(
            "SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = 'seen' ORDER BY path",
        )
        .unwrap();
    let found: Vec<(String, u32, String, u32)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let mut rest = rows.keys().copied();
    let mut leaves: HashMap<String, Vec<i64>> = HashMap::new();
    for (path, page, kind, cells) in &found {
        contents[*page as usize - 1] = match &**kind {
            "leaf" => {
                let rows: Vec<i64> = rest.by_ref().take(*cells as usize).collect();
                leaves.insert(path.clone(), rows.clone());
                Content::Rows(rows)
            }
            "internal" => Content::Inner,
            _ => Content::Other,
        };
    }
    assert_eq!(rest.next(), None);
    // Without a page of the schema, nothing leads to the table either.
    let mut schema = sql
        .prepare("SELECT pageno FROM dbstat WHERE name = 'sqlite_schema' AND pageno > 1")
        .unwrap();
    for page in schema.query_map([], |row| row.get::<_, u32>(0)).unwrap() {
        contents[page.unwrap() as usize - 1] = Content::Inner;
    }
    for (path, page, kind, _) in &found {
        if kind == "overflow" {
            // The path of the leaf, the number of the cell, and that of the page in its chain.
            let cell = path.split('+').next().unwrap();
            let (leaf, cell) = cell.split_at(cell.len() - 3);
            let row = leaves[leaf][usize::from_str_radix(cell, 16).unwrap()];
            contents[*page as usize - 1] = Content::PartOf(row);
        }
    }
    contents
}

impl Subject {
    /// Returns the ids of marks that are found if these pages, from 0, are lost.
    fn left_without(&self, lost: Range<usize>) -> BTreeSet<Vec<u8>> {
        let mut rows = self.rows.clone();
        for page in &self.pages[lost] {
            match page {
                Content::Rows(lost) => rows.retain(|seq, _| !lost.contains(seq)),
                Content::PartOf(lost) => drop(rows.remove(lost)),
                Content::Inner | Content::Other => {}
            }
        }
        let newest: HashMap<_, _> = rows.into_values().collect();
        newest.into_iter().filter(|(_, removed)| !removed).map(|(id, _)| id).collect()
    }

    /// Salvages what is left of the file. Each entry is as it was.
    fn salvage(&self, bytes: Vec<u8>) -> (BTreeSet<Vec<u8>>, SalvageReport) {
        fs::write(&self.path, bytes).unwrap();
        // Of a file that was just written, a salvage waits until the next write would show.
        let file = fs::File::options().write(true).open(&self.path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        drop(file);
        let mut salvage = Salvage::open(&self.path).unwrap();
        let mut found = BTreeSet::new();
        for entry in salvage.by_ref() {
            if let Some(before) = self.entries.get(&entry.id) {
                assert_eq!(&entry, before);
            }
            assert!(found.insert(entry.id.clone()), "{entry:?} comes twice");
        }
        (found, salvage.report().clone())
    }
}

#[test]
fn whatever_page_is_lost_the_marks_on_all_others_come_back() {
    let subject = subject(5_000);
    let count = |is: fn(&Content) -> bool| subject.pages.iter().filter(|page| is(page)).count();
    assert!(count(|page| *page == Content::Inner) > 1);
    assert!(count(|page| *page == Content::Other) > 8);
    assert!(count(|page| matches!(page, Content::PartOf(_))) > 50);
    for page in 1..subject.pages.len() {
        let content = &subject.pages[page];
        // All take most of a minute. Of those that hold rows, some do.
        if matches!(content, Content::Rows(_) | Content::PartOf(_)) && page % 9 > 0 {
            continue;
        }
        let mut bytes = subject.whole.clone();
        bytes[page * PAGE_BYTES..][..PAGE_BYTES].fill(0);
        let (found, report) = subject.salvage(bytes);
        let expected = subject.left_without(page..page + 1);
        assert_eq!(found, expected, "page {page}: {content:?}, {report:?}");
        assert_eq!(report.entries, found.len() as u64);
        let lost = match content {
            Content::Rows(rows) => rows.len(),
            Content::PartOf(_) => 1,
            Content::Inner | Content::Other => 0,
        };
        assert!(
            report.marks_lost_at_most.is_none_or(|most| most >= lost as u64),
            "page {page}: {content:?}, {report:?}"
        );
        let is_inner = *content == Content::Inner;
        assert_eq!(report.marks_from_scan > 0, is_inner, "page {page}: {content:?}, {report:?}");
        assert!(!report.removed_may_return, "page {page}: {content:?}, {report:?}");
    }
}

#[test]
fn without_the_first_page_all_marks_come_back_and_removed_ids_may_too() {
    let subject = subject(1_200);
    for lost in [0..100, 0..PAGE_BYTES, 100..PAGE_BYTES] {
        let mut bytes = subject.whole.clone();
        bytes[lost.clone()].fill(0);
        let (found, report) = subject.salvage(bytes);
        let missing: Vec<_> = subject.entries.keys().filter(|id| !found.contains(*id)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let more: Vec<_> = found.iter().filter(|id| !subject.entries.contains_key(*id)).collect();
        assert!(more.iter().all(|id| id.starts_with(b"removed ")), "{more:?}");
        let header_is_lost = lost.start == 0;
        assert_eq!(!more.is_empty(), header_is_lost, "{lost:?}");
        assert_eq!(report.removed_may_return, header_is_lost, "{lost:?}");
        assert_eq!(report.marks_from_scan, found.len() as u64);
        assert_eq!(report.marks_lost_at_most, None);
        assert!(report.claims_are_lost);
    }
}

#[test]
fn a_file_that_was_cut_gives_all_that_is_whole_before_the_cut() {
    let subject = subject(5_000);
    let pages = subject.pages.len();
    for tenth in 1..10 {
        let kept = pages * tenth / 10;
        let (found, report) = subject.salvage(subject.whole[..kept * PAGE_BYTES].to_vec());
        let expected = subject.left_without(kept..pages);
        // Of ids that were forgotten, the older row may be all that is left.
        assert_eq!(found, expected, "{tenth} tenths: {report:?}");
        let all = subject.left_without(0..0);
        assert_eq!(report.is_complete(), expected == all, "{tenth} tenths: {report:?}");
        // A cut within a page.
        let (found, report) = subject.salvage(subject.whole[..kept * PAGE_BYTES + 700].to_vec());
        let whole_page = subject.left_without(kept + 1..pages);
        assert!(
            expected.difference(&found).all(|id| !subject.entries.contains_key(id)),
            "{tenth} tenths: {report:?}"
        );
        assert!(
            found.difference(&whole_page).all(|id| !subject.entries.contains_key(id)),
            "{tenth} tenths: {report:?}"
        );
    }
}

#[test]
fn the_pages_in_the_log_are_scanned_in_place_of_those_in_the_file() {
    let (_folder, path) = filled(3_000, 0);
    let store = SeenStore::open(&path).unwrap();
    store.seed((0..300).map(|n| format!("in the log {n}"))).unwrap();
    let copy = path.with_file_name("copy.db");
    fs::copy(file::beside(&path, "-wal"), file::beside(&copy, "-wal")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // Nothing leads to the rows, and of the pages that the log has, those in the file are no pages.
    bytes[..PAGE_BYTES].fill(0);
    fs::write(&copy, bytes).unwrap();
    let found: Vec<_> = Salvage::open(&copy).unwrap().collect();
    assert_eq!(found.len(), 3_300);
}

#[test]
fn a_damaged_file_that_this_process_has_open_is_not_scanned() {
    let (_folder, path) = filled(3_000, 0);
    let store = SeenStore::open(&path).unwrap();
    assert_eq!(Salvage::open(&path).unwrap().count(), 3_000);
    let mut bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / PAGE_BYTES;
    bytes[pages / 2 * PAGE_BYTES..][..PAGE_BYTES].fill(0);
    fs::write(&path, bytes).unwrap();
    assert_eq!(Salvage::open(&path).unwrap_err().kind(), ErrorKind::Busy);
    drop(store);
    assert!(Salvage::open(&path).unwrap().count() > 2_900);
}

/// Returns where the numbers are that cells have, on leaf pages or on inner pages. Each of so many.
fn numbers(bytes: &[u8], kind: u8, step: usize) -> Vec<usize> {
    let read_u16 = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let mut numbers = Vec::new();
    for page in (1..bytes.len() / PAGE_BYTES).map(|page| page * PAGE_BYTES) {
        if bytes[page] != kind {
            continue;
        }
        let (header, before) = if kind == 5 { (12, 4) } else { (8, 1) };
        let cells = 0..read_u16(page + 3);
        numbers.extend(cells.map(|cell| page + read_u16(page + header + 2 * cell) + before));
    }
    numbers.into_iter().step_by(step).collect()
}

/// Such a number leads past the rows between, and SQLite does not notice.
#[test]
fn a_wrong_number_of_a_row_or_in_an_inner_page_hides_no_other_row() {
    let (_folder, path) = filled(5_000, 0);
    let whole = fs::read(&path).unwrap();
    for (kind, step) in [(5, 9), (0x0D, 167)] {
        let numbers = numbers(&whole, kind, step);
        assert!(numbers.len() > 15, "{}", numbers.len());
        for at in numbers {
            for change in [0x01, 0x10, 0x40] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                fs::write(&path, bytes).unwrap();
                let mut salvage = Salvage::open(&path).unwrap();
                let read: HashSet<_> = salvage.by_ref().map(|entry| entry.id).collect();
                let report = salvage.report();
                let lost = report.marks_lost_at_most.unwrap_or(u64::MAX);
                assert!(read.len() >= 4_990, "{} at {at}, {change:x}: {report:?}", read.len());
                // A row whose number has become that of none is not missed: the numbers of a store have gaps.
                assert!((read.len() as u64).saturating_add(lost) >= 4_999, "{at}: {report:?}");
            }
        }
    }
}
