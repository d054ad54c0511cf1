//! Lost, late and held answers.

#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "a delay is measured")]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use cluster_harness::{Cluster, Connection, Fault, Injected, Options, Reply, needs_server};
use redis::cluster::ClusterClient;
use redis::cmd;

const LONG: Duration = Duration::from_secs(20);

/// One server with all slots, behind a proxy.
fn one() -> Cluster {
    let options = Options::new().masters(1).replicas_per_master(0);
    Cluster::start_with(&options.announce_through_proxies(true))
}

fn client(cluster: &Cluster) -> Connection {
    Connection::tcp(cluster.node(0).port()).unwrap()
}

/// Sends several commands at once, and returns the answers until the connection ends.
fn pipeline(client: &mut Connection, commands: &[&[&str]]) -> Vec<String> {
    for command in commands {
        client.send(command).unwrap();
    }
    let answers = (0..commands.len()).map_while(|_| client.receive().ok());
    answers.map(|answer| answer.text()).collect()
}

fn ended(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}

#[test]
fn a_lost_answer_is_of_a_command_that_the_server_has_executed() {
    needs_server!();
    let cluster = one();
    let lost = cluster.proxy(0).inject(Fault::lose_answer().on(&["set"]).nth(2));
    let mut client = client(&cluster);
    let answers = pipeline(
        &mut client,
        &[&["SET", "a", "1"], &["GET", "a"], &["SET", "b", "2"], &["GET", "b"]],
    );
    assert_eq!(answers, ["OK", "1"]);
    assert!(ended(&client.receive().unwrap_err()));
    assert_eq!((lost.matched(), lost.hits()), (2, 1));
    assert_eq!(cluster.node(0).command(&["GET", "b"]).text(), "2");

    let mut client = self::client(&cluster);
    assert_eq!(client.command(&["SET", "c", "3"]).unwrap().text(), "OK");
}

#[test]
fn a_connection_that_is_cut_before_a_command_still_answers_those_before_it() {
    needs_server!();
    let cluster = one();
    let cut = cluster.proxy(0).inject(Fault::cut_before().on(&["SET"]).nth(2));
    let mut client = client(&cluster);
    let answers = pipeline(
        &mut client,
        &[&["SET", "a", "1"], &["GET", "a"], &["SET", "b", "2"], &["GET", "a"]],
    );
    assert_eq!(answers, ["OK", "1"]);
    assert_eq!(cut.hits(), 1);
    assert_eq!(cluster.node(0).command(&["EXISTS", "b"]).int(), Some(0));

    // And where nothing came before it.
    cut.remove();
    let cut = cluster.proxy(0).inject(Fault::cut_before());
    let mut client = self::client(&cluster);
    assert!(ended(&client.command(&["SET", "b", "2"]).unwrap_err()));
    assert_eq!(cut.hits(), 1);
    assert_eq!(cluster.node(0).command(&["EXISTS", "b"]).int(), Some(0));
}

#[test]
fn a_held_answer_comes_when_the_fault_is_removed() {
    needs_server!();
    let cluster = one();
    let held = cluster.proxy(0).inject(Fault::hold_answer().on(&["INCR"]));
    let mut client = client(&cluster);
    client.send(&["INCR", "a"]).unwrap();
    held.wait_for_hits(1);
    assert_eq!(cluster.node(0).command(&["GET", "a"]).text(), "1");
    // Other connections go on.
    assert_eq!(self::client(&cluster).command(&["GET", "a"]).unwrap().text(), "1");
    held.remove();
    assert_eq!(client.receive().unwrap(), Reply::Int(1));
    assert_eq!(client.command(&["INCR", "a"]).unwrap(), Reply::Int(2));
}

#[test]
fn a_delayed_answer_comes_late() {
    needs_server!();
    let cluster = one();
    let delay = Duration::from_millis(200);
    let delayed = cluster.proxy(0).inject(Fault::delay_answer(delay).on(&["GET"]));
    let mut client = client(&cluster);
    let begun = Instant::now();
    let get: &[&str] = &["GET", "a"];
    assert_eq!(pipeline(&mut client, &[get; 10]).len(), 10);
    let took = begun.elapsed();
    // Answers that were given together are delayed together.
    assert!(took >= delay && took < delay * 5, "{took:?}");
    assert_eq!(delayed.hits(), 10);
}

#[test]
fn connections_can_be_refused_and_cut() {
    needs_server!();
    let cluster = one();
    let proxy = cluster.proxy(0);
    let mut open = client(&cluster);
    assert_eq!(open.command(&["PING"]).unwrap().text(), "PONG");
    proxy.refuse_connections(true);
    let refused = Connection::tcp(proxy.port()).and_then(|mut client| client.command(&["PING"]));
    assert!(refused.is_err());
    assert_eq!(open.command(&["PING"]).unwrap().text(), "PONG");
    proxy.cut_connections();
    assert!(open.command(&["PING"]).is_err());
    proxy.refuse_connections(false);
    assert_eq!(client(&cluster).command(&["PING"]).unwrap().text(), "PONG");
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.refused, counts.commands), (3, 1, 3));
}

#[test]
fn a_load_loses_the_share_of_answers_that_it_is_meant_to_lose() {
    needs_server!();
    let cluster = one();
    let seed = 20;
    let lost = cluster.proxy(0).inject(Fault::lose_answer().on(&["INCR"]).one_in(20, seed));
    let mut failed = 0;
    let mut client = client(&cluster);
    for _ in 0..1000 {
        if client.command(&["INCR", "a"]).is_err() {
            failed += 1;
            client = self::client(&cluster);
        }
    }
    assert!((20..80).contains(&failed), "{failed} with seed {seed}");
    assert_eq!(lost.hits(), failed);
    assert_eq!(cluster.node(0).command(&["GET", "a"]).text(), "1000");
}

#[test]
fn a_cluster_client_reaches_each_node_only_through_its_proxy() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().announce_through_proxies(true));
    // It counts, and delays nothing.
    let fault = Fault::delay_answer(Duration::ZERO).on(&["SET"]);
    let counting: Vec<_> =
        cluster.proxies().iter().map(|proxy| proxy.inject(fault.clone())).collect();
    // The client is told nothing but the first address.
    let client = ClusterClient::new(vec![format!("redis://{}", cluster.addresses()[0])]).unwrap();
    let mut client = client.get_connection().unwrap();
    for number in 0..100 {
        cmd("SET").arg(number).arg("value").exec(&mut client).unwrap();
    }
    assert_eq!(counting.iter().map(Injected::hits).sum::<u64>(), 100);
    for master in cluster.masters() {
        assert!(counting[master.index()].hits() > 10);
    }
}

#[test]
fn replication_meets_no_fault() {
    needs_server!();
    let options = Options::new().node_timeout(Duration::from_secs(1));
    let cluster = Cluster::start_with(&options.announce_through_proxies(true));
    for proxy in cluster.proxies() {
        proxy.inject(Fault::lose_answer());
        proxy.inject(Fault::cut_before());
        proxy.refuse_connections(true);
        proxy.cut_connections();
    }
    let master = cluster.node(0);
    // A new replica link, and a new master for it.
    cluster.replica_of(master).restart();
    cluster.wait_until_ok(LONG);
    master.kill();
    cluster.wait_until_ok(LONG);
    master.restart();
    cluster.wait_until_ok(LONG);
    for proxy in cluster.proxies() {
        assert_eq!(proxy.counts().commands, 0);
    }
}
