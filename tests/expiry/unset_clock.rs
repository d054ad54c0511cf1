//! A system clock that begins in 1970 at each boot, until it is set.
#![cfg(target_os = "linux")]

use std::path::Path;

use seen_store::{Config, SeenStore};

use crate::common::Place;
use crate::support_process::{self, Child, say, variable};

#[test]
fn child() {
    if support_process::role().as_deref() == Some("boot") {
        let config = Config::default().check_clock(variable("CHECK") == "yes");
        let store = SeenStore::open_with(variable("STORE"), config).unwrap();
        let verdicts = variable("IDS");
        let verdicts = verdicts.split(' ').map(|id| store.check_and_mark(id).unwrap().to_string());
        say(verdicts.collect::<Vec<_>>().join(" "));
        store.close().unwrap();
    }
}

/// A process whose system clock begins there; with an empty time the clock is right.
fn boot(place: &Place, time: &str, check: &str, ids: &str) -> Option<String> {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !Path::new(LIBRARY).exists() {
        println!("SKIPPED: {LIBRARY} is not installed");
        return None;
    }
    let path = place.path().to_str().unwrap();
    let mut variables = vec![("STORE", path), ("CHECK", check), ("IDS", ids)];
    if !time.is_empty() {
        let fake = ["FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"];
        variables.extend(fake.map(|name| (name, "1")));
        variables.extend([("LD_PRELOAD", LIBRARY), ("FAKETIME", time)]);
    }
    Some(Child::spawn("boot", &variables).hear().expect("the child says its verdicts"))
}

const BOOT: &str = "@1970-01-01 00:05:00";

#[test]
fn marks_of_a_boot_with_an_unset_clock_are_known_at_the_next_boot_and_when_the_clock_is_set() {
    let place = Place::new();
    let Some(told) = boot(&place, "", "yes", "before") else { return };
    assert_eq!(told, "new");
    assert_eq!(boot(&place, BOOT, "yes", "before one one").unwrap(), "duplicate new duplicate");
    assert_eq!(boot(&place, BOOT, "yes", "one two").unwrap(), "duplicate new");
    assert_eq!(boot(&place, "", "yes", "before one two").unwrap(), "duplicate duplicate duplicate");
    // The same without the check, which can be switched off.
    assert_eq!(boot(&place, BOOT, "no", "three").unwrap(), "new");
    assert_eq!(boot(&place, "", "no", "three").unwrap(), "new");
}
