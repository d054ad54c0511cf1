//! `seen filter` on a cluster, alone and in company.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use cluster_harness::needs_server;

use crate::support::{run, start, wait_until};
use crate::{Site, told};

#[test]
fn a_line_is_printed_once_and_again_when_its_version_changes() {
    needs_server!();
    let site = Site::new("lines");
    assert_eq!(site.passed(&[], "a\nb\na\n"), "a\nb\n");
    assert_eq!(site.passed(&[], "b\nc\n"), "c\n");
    assert_eq!(site.passed(&["--invert"], "c\nd\n"), "c\n");
    assert_eq!(site.passed(&["--limit", "1"], "e\nf\n"), "e\n");
    assert_eq!(site.passed(&["--dry-run"], "e\nf\nf\n"), "f\n");
    assert_eq!(site.passed(&[], "e\nf\n"), "f\n");
    let feed = |version: u32| {
        let line = format!("{{\"id\":\"i\",\"updated\":{version}}}\n");
        let arguments = ["--scope", "feed", "--key", "id", "--version", "updated", "--tell", "why"];
        site.passed(&arguments, &line)
    };
    assert_eq!(feed(1), "{\"id\":\"i\",\"updated\":1,\"why\":\"new\"}\n");
    assert_eq!(feed(1), "");
    assert_eq!(feed(2), "{\"id\":\"i\",\"updated\":2,\"why\":\"changed\"}\n");
}

#[test]
fn the_lines_are_counted_as_in_a_file() {
    needs_server!();
    let site = Site::new("counted");
    let told = told(run(&mut site.seen(&["filter", "--stats"]), b"a\nb\na\n"));
    told.assert(0, &["read 3, new 2, duplicates 1"]);
}

#[test]
fn two_filters_at_once_print_each_line_once() {
    needs_server!();
    let site = Site::new("company");
    let (chunks, lines) = (60, 50);
    let mut filters = [(); 2].map(|()| start(&mut site.seen(&["filter", "--lease", "30s"])));
    let count = Arc::new(AtomicUsize::new(0));
    let printed =
        filters.each_mut().map(|filter| collect(filter.stdout.take().unwrap(), Arc::clone(&count)));
    let mut inputs = filters.each_mut().map(|filter| filter.stdin.take().unwrap());
    // Neither is so late that the other one has done everything.
    for (number, input) in inputs.iter_mut().enumerate() {
        writeln!(input, "begun-{number}").unwrap();
    }
    wait_until("both", || count.load(SeqCst) == 2);
    for chunk in 0..chunks {
        let mut text = String::new();
        for line in 0..lines {
            writeln!(text, "incident-{chunk}-{line}").unwrap();
        }
        // Both get each line at once, now the one first, now the other.
        inputs[chunk % 2].write_all(text.as_bytes()).unwrap();
        inputs[1 - chunk % 2].write_all(text.as_bytes()).unwrap();
        wait_until("the chunk", || count.load(SeqCst) >= 2 + (chunk + 1) * lines);
    }
    drop(inputs);
    let printed = printed.map(|printed| printed.join().unwrap());
    for filter in filters {
        told(filter.wait_with_output().unwrap()).assert(0, &[]);
    }
    let shares = printed.each_ref().map(Vec::len);
    let mut times = HashMap::<&str, u32>::new();
    printed.iter().flatten().for_each(|line| *times.entry(line).or_default() += 1);
    assert_eq!(times.len(), 2 + chunks * lines, "{shares:?}");
    assert!(times.values().all(|times| *times == 1), "{shares:?}");
    assert!(shares.iter().all(|share| *share > 1), "both take part: {shares:?}");
}

/// Reads and counts the lines that a filter prints.
fn collect(pipe: ChildStdout, count: Arc<AtomicUsize>) -> JoinHandle<Vec<String>> {
    let lines = BufReader::new(pipe).lines().map(Result::unwrap);
    thread::spawn(move || lines.inspect(|_| _ = count.fetch_add(1, SeqCst)).collect())
}
