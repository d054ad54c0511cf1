//! Slots that move between masters.

#![cfg(unix)]

use std::time::Duration;

use cluster_harness::{Cluster, Options, needs_server};

const LONG: Duration = Duration::from_secs(10);

#[test]
fn slots_move_with_their_keys() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    let key = "moves";
    let slot = cluster.slot_of(key);
    let (from, to) = (cluster.master_of_slot(slot), cluster.master_of_slot((slot + 8192) % 16_384));
    assert_ne!(from.index(), to.index());
    for number in 0..250 {
        let key = format!("{{{key}}}{number}");
        assert_eq!(from.command(&["SET", key.as_str(), "value"]).text(), "OK");
    }
    // With the slots around it: some have other masters, and most have no keys.
    cluster.migrate_slots(slot.saturating_sub(100)..=slot + 100, to);
    cluster.wait_until_ok(LONG);

    assert_eq!(cluster.master_of_slot(slot).index(), to.index());
    let count = to.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
    assert_eq!(count.int(), Some(250));
    let moved = from.command(&["GET", &format!("{{{key}}}7")]).text();
    assert_eq!(moved, format!("MOVED {slot} 127.0.0.1:{}", to.port()));
}

#[test]
fn a_slot_half_way_answers_ask_for_the_keys_that_have_moved() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().masters(2).replicas_per_master(0));
    let slot = cluster.slot_of("{half}");
    let from = cluster.master_of_slot(slot);
    let to = cluster.node(1 - from.index());
    let keys: Vec<String> = (0..10).map(|number| format!("{{half}}{number}")).collect();
    for key in &keys {
        assert_eq!(from.command(&["SET", key.as_str(), "value"]).text(), "OK");
    }
    assert_eq!(cluster.migrate_half(slot, to, 4), 4);

    let answers: Vec<String> = keys.iter().map(|key| from.command(&["GET", key]).text()).collect();
    let ask = format!("ASK {slot} 127.0.0.1:{}", to.port());
    assert_eq!(answers.iter().filter(|answer| **answer == ask).count(), 4, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == "value").count(), 6, "{answers:?}");
    let asked = &keys[answers.iter().position(|answer| *answer == ask).unwrap()];
    let mut connection = to.connect().unwrap();
    assert!(connection.command(&["GET", asked]).unwrap().text().starts_with("MOVED"));
    connection.command(&["ASKING"]).unwrap();
    assert_eq!(connection.command(&["GET", asked]).unwrap().text(), "value");

    cluster.migrate_slots(slot..=slot, to);
    cluster.wait_until_ok(LONG);
    for key in &keys {
        assert_eq!(to.command(&["GET", key]).text(), "value");
    }
}
