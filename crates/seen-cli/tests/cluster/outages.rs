//! A cluster that does not answer: an error within the timeout, never an answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{ChildStdout, Output};
use std::time::Duration;

use cluster_harness::{Cluster, Options, needs_server};

use crate::support::{Place, Told, start, wait_until};
use crate::{Site, told};

/// More than the 30 seconds that a call may take, and the 5 that closing may.
const TIMEOUT: Duration = Duration::from_secs(45);

/// Returns what a command told after it had said that it waits for a server.
fn after_waiting(output: Output) -> Told {
    let said = told(output);
    let (notice, rest) = said.stderr.split_once('\n').unwrap();
    assert!(notice.ends_with("no server of it answers yet; trying on"), "{said:?}");
    Told { stderr: rest.to_owned(), ..said }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long other processes take")]
fn a_killed_cluster_is_an_error_and_no_answer() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().masters(1).replicas_per_master(0));
    let url = format!("{}killed?min_replicas=0", cluster.url());
    let site = Site { place: Place::new(), url };
    site.printed(&["mark", "a"]);
    let mut filters = [&["filter"][..], &["filter", "--on-error", "pass"]].map(|arguments| {
        let mut filter = start(site.seen(arguments).args(["--scope", arguments.last().unwrap()]));
        filter.stdin.as_ref().unwrap().write_all(b"a\n").unwrap();
        let mut printed = BufReader::new(filter.stdout.take().unwrap());
        let mut line = String::new();
        printed.read_line(&mut line).unwrap();
        assert_eq!(line, "a\n");
        wait_until("the line to be remembered", || {
            site.told(&["check", "a", "--scope", arguments.last().unwrap()]).status == Some(0)
        });
        (filter, printed)
    });
    cluster.nodes().iter().for_each(cluster_harness::Node::kill);
    let begun = std::time::SystemTime::now();
    for (filter, _) in &mut filters {
        filter.stdin.take().unwrap().write_all(b"b\n").unwrap();
    }
    let check = start(&mut site.seen(&["check", "a"]));
    let mark = start(&mut site.seen(&["mark", "b"]));
    let run = start(&mut site.seen(&["run", "--id", "b", "--", "touch", "ran"]));
    // Seen before: neither its status nor that of an unseen id.
    after_waiting(check.wait_with_output().unwrap()).assert(2, &["redis://127.0.0.1:"]);
    after_waiting(mark.wait_with_output().unwrap()).assert(2, &["redis://127.0.0.1:"]);
    after_waiting(run.wait_with_output().unwrap()).assert(125, &["redis://127.0.0.1:"]);
    assert!(site.place.names().is_empty(), "the command ran");
    let [(fails, of_fails), (passes, of_passes)] = filters;
    let rest = |mut printed: BufReader<ChildStdout>| {
        let mut rest = String::new();
        printed.read_to_string(&mut rest).unwrap();
        rest
    };
    assert_eq!((rest(of_fails), rest(of_passes)), (String::new(), "b\n".to_owned()));
    told(fails.wait_with_output().unwrap()).assert(2, &["redis://127.0.0.1:"]);
    told(passes.wait_with_output().unwrap()).assert(1, &["all lines are printed"]);
    let took = begun.elapsed().unwrap();
    assert!(took < TIMEOUT, "{took:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long another process takes")]
fn a_server_that_is_not_there_is_told_soon_and_tried_for_as_long_as_the_url_says() {
    // A port that no server has.
    let url = "redis://127.0.0.1:1/x?timeout_ms=3500".to_owned();
    let (site, begun) = (Site { place: Place::new(), url }, std::time::SystemTime::now());
    let said = after_waiting(site.seen(&["check", "a"]).output().unwrap());
    said.assert(2, &["Connection refused", "check that the servers run"]);
    let took = begun.elapsed().unwrap();
    assert!((3..15).contains(&took.as_secs()), "{took:?}");
}
