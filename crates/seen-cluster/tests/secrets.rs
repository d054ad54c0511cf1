//! Users, passwords and encryption.
#![cfg(unix)]

use std::process::{Command, Stdio};
use std::time::Duration;

use cluster_harness::{Cluster, Options, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{Claim, Config, ErrorKind, Filter, Verdict};

const PASSWORD: &str = "hunter2!@";
/// As the README says.
const RIGHTS: &str = "+get +set +del +evalsha +eval +wait +time +scan +info +cluster|slots +ping +asking +hello +auth";

/// What a bot does: all kinds of commands.
fn use_all(store: &ClusterStore) {
    assert_eq!(store.check_and_mark("incident-17").unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark("incident-17").unwrap(), Verdict::Duplicate);
    let Claim::Granted(mut lease) = store.claim("incident-18", Duration::from_secs(60)).unwrap()
    else {
        panic!("it is new");
    };
    lease.confirm_with("4711").unwrap();
    assert_eq!(store.entries(Filter::default()).count(), 2);
    assert!(store.forget("incident-17").unwrap());
    assert_eq!(store.stats().unwrap().seen, 1);
}

#[test]
fn a_user_with_the_rights_of_the_readme_uses_its_namespace_and_no_other() {
    needs_server!();
    let user = format!("bot on >{PASSWORD} ~alerts{{}}:* -@all {RIGHTS}");
    let cluster =
        Cluster::start_with(&Options::new().user(&user).require_default_password("other"));
    let escaped = "hunter2%21%40";
    let url = |namespace: &str| format!("{}{namespace}", cluster.url_as("bot", escaped));
    let store = ClusterStore::open(&url("alerts")).unwrap();
    use_all(&store);
    assert!(!format!("{store:?}").contains("hunter2"));
    store.close().unwrap();
    let other = ClusterStore::open(&url("others")).unwrap();
    let error = other.check_and_mark("incident-17").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let wrong = cluster.url_as("bot", "hunter3");
    for url in [wrong, cluster.url(), cluster.url_as("nobody", escaped)] {
        let config = Config::default().busy_timeout(Duration::from_secs(5));
        let error = ClusterStore::open_with(&url, config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hunter"), "{told}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn an_encrypted_cluster_is_used_with_its_certificate_and_refused_without() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().tls(true));
    let config = || Config::default().busy_timeout(Duration::from_secs(5));
    let url = format!("{}?ca={}", cluster.url(), cluster.ca_path().display());
    let store = ClusterStore::open_with(&url, config()).unwrap();
    use_all(&store);
    // The system does not trust this certificate.
    let error = ClusterStore::open_with(&cluster.url(), config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    // A server that speaks no plain text.
    let plain = cluster.url().replace("rediss://", "redis://");
    assert!(ClusterStore::open_with(&plain, config()).is_err());
}

/// Runs this program again with each log line shown.
#[test]
fn no_log_line_tells_a_password() {
    needs_server!();
    if std::env::var_os("SEEN_LOGS").is_some() {
        env_logger::Builder::new().filter_level(log::LevelFilter::Trace).init();
        let user = format!("bot on >{PASSWORD} ~*{{}}:* -@all {RIGHTS}");
        let cluster = Cluster::start_with(&Options::new().user(&user));
        use_all(&ClusterStore::open(&cluster.url_as("bot", "hunter2%21%40")).unwrap());
        let config = Config::default().busy_timeout(Duration::from_secs(2));
        let wrong = ClusterStore::open_with(&cluster.url_as("bot", "hunter3"), config);
        assert!(wrong.is_err());
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "no_log_line_tells_a_password", "--nocapture"]).env("SEEN_LOGS", "1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines}");
    assert!(lines.contains("connected"), "{lines}");
    assert!(!lines.contains("hunter"), "{lines}");
}
