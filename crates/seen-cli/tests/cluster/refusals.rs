//! What is no store on a cluster, what is only for files, and that no message shows a password.

use cluster_harness::{Cluster, needs_server};

use crate::{CLUSTER, PASSWORD, Site, told};

#[test]
fn commands_about_a_file_refuse_a_url_by_name() {
    needs_server!();
    let site = Site::new("files");
    for (arguments, command) in [
        (&["backup", "copy.db"][..], "`seen backup`"),
        (&["restore", "copy.db"], "`seen restore`"),
        (&["compact"], "`seen compact`"),
        (&["upgrade"], "`seen upgrade`"),
        (&["verify"], "`seen verify`"),
        (&["doctor"], "`seen doctor`"),
        (&["export", "--salvage"], "`seen export --salvage`"),
    ] {
        let named = [command, "a store in a file", "redis://127.0.0.1:", "/files", "SEEN_DB_PATH"];
        site.told(arguments).assert(2, &named);
        site.told(arguments).assert(2, &["the path of a file", "`seen export` and `seen import`"]);
    }
    site.told(&["purge", "--older-than", "1h", "--dry-run"]).assert(2, &["in a file", "seen list"]);
    assert_eq!(site.place.names(), [""; 0]);
}

#[test]
fn a_wrong_url_is_an_error_that_says_what_is_wrong_and_shows_no_password() {
    let site = Site { place: crate::Place::new(), url: String::new() };
    for (url, named) in [
        (format!("redis://bot:{PASSWORD}@"), "no host"),
        (format!("redis://bot:{PASSWORD}@127.0.0.1:x/"), "port"),
        (format!("redis://bot:{PASSWORD}@127.0.0.1/0/1"), "namespace"),
        (format!("redis://bot:{PASSWORD}@127.0.0.1/a b"), "namespace"),
        (format!("redis://bot:{PASSWORD}@127.0.0.1/a?min_replica=1"), "min_replica"),
        (format!("redis://bot:{PASSWORD}/@127.0.0.1/a"), "%2F"),
        (format!("redis:/bot:{PASSWORD}@127.0.0.1/a"), "redis:"),
        (format!("REDIS://bot:{PASSWORD}@127.0.0.1/a"), "REDIS:"),
    ] {
        for arguments in [&["check", "a"][..], &["mark", "a"], &["backup", "copy.db"]] {
            let mut command = site.place.seen(arguments);
            let told = told(command.arg("--db").arg(&url).output().unwrap());
            let named = if arguments[0] == "backup" { "redis" } else { named };
            assert_eq!(told.status, Some(2), "{url}: {told:?}");
            assert!(told.stderr.to_lowercase().contains(&named.to_lowercase()), "{url}: {told:?}");
        }
    }
    // Where a URL is not expected at all.
    let url = format!("redis://bot:{PASSWORD}@127.0.0.1/a");
    let told = told(site.place.seen(&["stats", &url]).output().unwrap());
    assert_eq!(told.status, Some(2), "{told:?}");
}

#[test]
fn a_wrong_password_is_an_error_and_not_shown() {
    needs_server!();
    let site =
        Site { place: crate::Place::new(), url: CLUSTER.url_as("bot", &format!("not-{PASSWORD}")) };
    for arguments in [&["check", "a"][..], &["mark", "a"], &["stats"]] {
        site.told(arguments).assert(2, &["redis://127.0.0.1:", "password"]);
    }
    site.told(&["run", "--id", "a", "--", "true"]).assert(125, &["password"]);
    let verbose = site.told(&["-vv", "check", "a"]);
    assert_eq!(verbose.status, Some(2), "{verbose:?}");
}

#[test]
fn encrypted_servers_are_reached_by_rediss() {
    needs_server!();
    let options = cluster_harness::Options::new().masters(1).replicas_per_master(0).tls(true);
    let cluster = Cluster::start_with(&options);
    let ca = cluster.ca_path().display();
    let site = Site {
        place: crate::Place::new(),
        url: format!("{}encrypted?min_replicas=0&ca={ca}", cluster.url()),
    };
    assert_eq!(site.passed(&[], "a\na\n"), "a\n");
    site.printed(&["check", "a"]);
}

#[test]
fn the_help_of_the_option_tells_of_urls() {
    let site = Site { place: crate::Place::new(), url: String::new() };
    for command in ["filter", "check"] {
        let help = site.place.printed(&["help", command]);
        assert!(
            help.contains("redis://host1,host2/namespace") && help.contains("SEEN_DB_PATH"),
            "{help}"
        );
    }
}
