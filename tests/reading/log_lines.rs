//! The fields of log lines, for loggers that keep structure.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once};

use log::kv::{Error, Key, Value, VisitSource};
use rusqlite::Connection;
use seen_store::{Claim, Config, SeenStore};

use crate::common::{Place, ms, secs};

/// The fields of a line, as text.
type Fields = BTreeMap<String, String>;

struct Log;

static LINES: Mutex<Vec<(String, Fields)>> = Mutex::new(Vec::new());

struct Collect(Fields);

impl<'kvs> VisitSource<'kvs> for Collect {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.to_string(), value.to_string());
        Ok(())
    }
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut fields = Collect(Fields::new());
        record.key_values().visit(&mut fields).unwrap();
        LINES.lock().unwrap().push((record.args().to_string(), fields.0));
    }

    fn flush(&self) {}
}

fn listen() {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
    });
}

/// The fields of the line about the store at `place` whose text contains `text`.
fn fields_of(place: &Place, text: &str) -> Fields {
    let path = place.path().to_str().unwrap();
    let lines = LINES.lock().unwrap();
    let mut of_file = lines.iter().filter(|(line, _)| line.contains(path));
    let (_, fields) = of_file.find(|(line, _)| line.contains(text)).expect(text);
    assert_eq!(fields["file"], path, "the text and the field name one file");
    fields.clone()
}

#[test]
fn an_answer_on_an_error_carries_the_error_and_its_kind() {
    listen();
    let place = Place::in_ram();
    let store = place.open(Config::default()).scope("mail");
    assert!(!store.is_seen(""));
    let fields = fields_of(&place, "answering \"not seen\"");
    assert_eq!(fields["scope"], "mail");
    assert_eq!(fields["error_kind"], "invalid_id");
    assert_eq!(fields["error"], store.try_is_seen("").unwrap_err().to_string());
}

#[test]
fn a_claim_that_stays_carries_its_scope_and_its_id() {
    listen();
    let place = Place::in_ram();
    let store = place.open(Config::default().busy_timeout(ms(5))).scope("mail");
    let Claim::Granted(lease) = store.claim(b"incident \xff", secs(60)).unwrap() else { panic!() };
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(lease);
    let fields = fields_of(&place, "a dropped claim could not be released");
    assert_eq!((&*fields["scope"], &*fields["id"]), ("mail", "incident \u{fffd}"));
    assert_eq!(fields["error_kind"], "busy");
}

#[test]
fn an_upgrade_carries_its_counts_and_the_name_of_the_copy() {
    listen();
    let place = Place::in_ram();
    let file = Connection::open(place.path()).unwrap();
    file.execute_batch(
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL); \
         INSERT INTO seen VALUES ('a', unixepoch()), ('b', unixepoch()), (NULL, 1);",
    )
    .unwrap();
    file.close().unwrap();
    drop(SeenStore::open(place.path()).unwrap());
    let copy = place.beside(".v0.bak");
    let upgraded = fields_of(&place, "upgraded 2 ids");
    assert_eq!((&*upgraded["kept"], &*upgraded["copy"]), ("2", copy.to_str().unwrap()));
    assert_eq!(fields_of(&place, "had no valid id")["skipped"], "1");
}
