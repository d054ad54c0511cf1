use cluster_harness::{Cluster, Options, needs_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{address, command, connect, in_ms, keys_at, patient, settings};
use crate::nodes::wire::time_us;
use crate::nodes::{NodeError, NodeErrorKind, Nodes, Settings, Tls, slot};

const PASSWORD: &str = "right-password";

async fn error_of(settings: Settings) -> NodeError {
    let error = Nodes::connect(settings, in_ms(3_000)).await.err().expect("it does not connect");
    assert!(!error.may_be_executed());
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("right-password") && !shown.contains("wrong-password"), "{shown}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_needed_checked_and_never_shown() {
    needs_server!();
    let options = Options::new()
        .replicas_per_master(0)
        .require_default_password(PASSWORD)
        .user("alice on >right-password ~* +@all -cluster|slots");
    let cluster = Cluster::start_with(&options);
    let with = |user: Option<&str>, password: Option<&str>| {
        let mut settings = settings(&cluster);
        settings.username = user.map(Into::into);
        settings.password = password.map(Into::into);
        settings
    };
    let error = error_of(with(None, None)).await;
    assert_eq!((error.kind(), error.code()), (NodeErrorKind::Denied, Some("NOAUTH")));
    let error = error_of(with(None, Some("wrong-password"))).await;
    assert_eq!((error.kind(), error.code()), (NodeErrorKind::Denied, Some("WRONGPASS")));
    let error = error_of(with(Some("alice"), Some(PASSWORD))).await;
    assert_eq!((error.kind(), error.code()), (NodeErrorKind::Denied, Some("NOPERM")));
    assert!(error.to_string().contains("CLUSTER SLOTS"), "{error}");

    let nodes = Nodes::connect(with(None, Some(PASSWORD)), patient()).await.unwrap();
    assert_eq!(nodes.masters().len(), 3);
}

#[tokio::test]
async fn a_password_that_is_not_asked_for_is_refused() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().masters(1).replicas_per_master(0));
    let mut settings = settings(&cluster);
    settings.password = Some(PASSWORD.into());
    assert_eq!(error_of(settings).await.kind(), NodeErrorKind::Denied);
}

/// A server that answers the first question with a time, and each further one with this.
async fn server_that_says(answer: &'static str) -> Settings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 1_000];
                let mut next = "*2\r\n$1\r\n5\r\n$1\r\n0\r\n";
                while client.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    client.write_all(next.as_bytes()).await.unwrap();
                    next = answer;
                }
            });
        }
    });
    Settings::new(vec![("127.0.0.1".into(), port)])
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_named_with_the_remedy() {
    let settings = server_that_says(
        "-ERR This instance has cluster support disabled\r\n\
         -ERR This instance has cluster support disabled\r\n",
    )
    .await;
    let error = error_of(settings).await;
    assert_eq!(error.kind(), NodeErrorKind::NotACluster);
    assert!(error.to_string().contains("cluster-enabled yes"), "{error}");
}

#[tokio::test]
async fn a_cluster_that_does_not_serve_all_slots_is_waited_for_and_named() {
    let error = error_of(server_that_says("*0\r\n$16\r\ncluster_state:ok\r\n").await).await;
    assert_eq!(error.kind(), NodeErrorKind::NotReady);
    assert!(error.to_string().contains("slot 0"), "{error}");
}

#[tokio::test]
async fn another_protocol_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut bytes = [0; 1_000];
        while let Ok((mut client, _)) = listener.accept().await {
            _ = client.read(&mut bytes).await;
            _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = error_of(Settings::new(vec![("127.0.0.1".into(), port)])).await;
    assert_eq!(error.kind(), NodeErrorKind::Tls);
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_tried_until_the_deadline() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = error_of(Settings::new(vec![("127.0.0.1".into(), free)])).await;
    assert_eq!(error.kind(), NodeErrorKind::Unreachable);
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert_eq!(error_of(Settings::new(Vec::new())).await.kind(), NodeErrorKind::Unreachable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_that_answers_is_enough_and_a_killed_master_is_no_obstacle() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    cluster.node(0).kill();
    let nodes = connect(&cluster).await;
    assert!(nodes.masters().contains(&address(cluster.node(0))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_is_that_of_the_servers() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    let nodes = connect(&cluster).await;
    for index in 0..3 {
        let key = keys_at(&nodes, cluster.node(index)).next().unwrap();
        let owner = nodes.cluster.map().owner(slot(key.as_bytes())).unwrap().clone();
        let before = nodes.now_ms(key.as_bytes());
        let time = nodes.on_master(&owner, command(&["TIME"]), patient()).await.unwrap();
        let server_ms = time_us(&time).unwrap() / 1_000;
        let after = nodes.now_ms(key.as_bytes());
        assert!((before - 50..=after + 50).contains(&server_ms), "{before} {server_ms} {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_close_calls_fail_and_the_connections_end() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().masters(1).replicas_per_master(0));
    let nodes = connect(&cluster).await;
    let key = keys_at(&nodes, cluster.node(0)).next().unwrap();
    let clients = || cluster.node(0).command(&["CLIENT", "LIST", "TYPE", "normal"]).text();
    let before = clients().lines().count();
    nodes.clone().close().await;
    let set = command(&["SET", &key, "v"]);
    let error = nodes.write(key.as_bytes(), set, patient()).await.unwrap_err();
    assert_eq!((error.kind(), error.may_be_executed()), (NodeErrorKind::Closed, false));
    while clients().lines().count() > before - 2 {}
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_connections_trust_the_named_certificate_only() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0).tls(true));
    let ca = std::fs::read(cluster.ca_path()).unwrap();
    let with = |tls: Option<Tls>| {
        let mut settings = settings(&cluster);
        settings.tls = tls;
        settings
    };
    for tls in [Tls { ca: Some(ca), insecure: false }, Tls { ca: None, insecure: true }] {
        let nodes = Nodes::connect(with(Some(tls)), patient()).await.unwrap();
        let written = nodes.write(b"k", command(&["SET", "k", "v"]), patient()).await.unwrap();
        assert_eq!(written.value, redis::Value::Okay);
    }
    let error = error_of(with(Some(Tls::default()))).await;
    assert_eq!(error.kind(), NodeErrorKind::Tls);
    // Without encryption, such a server says nothing that could be read.
    let error = error_of(with(None)).await;
    assert!(matches!(error.kind(), NodeErrorKind::Tls | NodeErrorKind::Unreachable), "{error}");
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn encryption_without_the_feature_is_an_error() {
    let mut settings = Settings::new(vec![("127.0.0.1".into(), 1)]);
    settings.tls = Some(Tls::default());
    let error = error_of(settings).await;
    assert_eq!(error.kind(), NodeErrorKind::Tls);
    assert!(error.to_string().contains("feature `tls`"), "{error}");
}
