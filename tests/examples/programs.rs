//! The small programs of the examples, each run once to its end: what they print is what their comments say.

use std::process::Command;

use crate::claiming::example;

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_feed_reader_tells_what_is_new_or_edited_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let run = || lines(example("feed_reader").arg(folder.path().join("seen.db")));
    let first = [
        "new: Release 1.0",
        "new: Tips for cron",
        "poll done: 2 of 2 told",
        "changed: Tips for cron and at",
        "poll done: 1 of 2 told",
        "new: Release 1.1",
        "poll done: 1 of 2 told",
    ];
    assert_eq!(run(), first);
    // The second run begins with an older feed: the item that was edited goes back, and forth again.
    let second = [
        "changed: Tips for cron",
        "poll done: 1 of 2 told",
        "changed: Tips for cron and at",
        "poll done: 1 of 2 told",
        "poll done: 0 of 2 told",
    ];
    assert_eq!(run(), second);
}

#[test]
fn the_http_handler_pays_once_for_each_key_and_tells_repeats_from_conflicts() {
    let expected = [
        "no key: 400 the header Idempotency-Key is missing",
        "the bank is down: 502 the bank does not answer",
        "meanwhile: 409 this request is being handled",
        "tried again: 201 payment 1, 5 EUR",
        "sent again: 201 payment 1, 5 EUR",
        "another body: 422 this key was used with another body",
        "another key: 201 payment 2, 9 EUR",
        "2 payments",
    ];
    assert_eq!(lines(&mut example("http_handler")), expected);
}

#[test]
fn the_cron_job_sends_one_report_a_day_and_holds_a_day_whose_run_died() {
    let expected = [
        "2020-01-01: sent as <2020-01-01@example.org>, at attempt 1",
        "2020-01-01: was sent before as <2020-01-01@example.org>",
        "2020-01-02: refused: 450 mailbox busy",
        "2020-01-02: sent as <2020-01-02@example.org>, at attempt 2",
        "2020-01-03: died",
        "2020-01-03: is being sent",
        "2020-01-03: may have been sent: look, then resolve it",
        "2020-01-03: resolved as Done",
        "2020-01-03: was sent before as a message that is not known",
        "2020-01-04: died",
        "2020-01-04: is being sent",
        "2020-01-04: may have been sent: look, then resolve it",
        "2020-01-04: resolved as Retry",
        "2020-01-04: sent as <2020-01-04@example.org>, at attempt 1",
    ];
    assert_eq!(lines(&mut example("cron_job")), expected);
}

#[test]
fn the_log_watcher_tells_changes_and_how_often_it_was_silent() {
    let expected = [
        "10 warning disk /var",
        "15 warning load",
        "20 critical disk /var, changed, after 2 repeats since minute 10, in 1 windows",
        "75 warning disk /var, changed, after 3 repeats since minute 10, in 1 windows",
        "80 warning load, again, after 0 repeats since minute 15, in 1 windows",
        "200 warning disk /var, again, after 3 repeats since minute 10, in 1 windows",
        "300 warning disk /var, again, after 4 repeats since minute 10, in 2 windows",
    ];
    assert_eq!(lines(&mut example("log_watcher")), expected);
}

#[test]
fn the_operators_tool_resolves_by_its_rule_and_removes_old_failures() {
    let expected = [
        "1 seen, 1 failed, 1 given up, 2 unresolved",
        "since it was opened: 5 claims, 0 errors",
        "  payments/invoice-17 unresolved",
        "  messages/welcome-4 unresolved",
        "  messages/welcome-3 seen",
        "messages/welcome-4 of worker-7: Retry",
        "payments/invoice-17 of worker-7: Done",
        "1 failures are older than 30 days",
        "1 of them are removed",
        "2 seen, 0 failed, 1 given up, 0 unresolved",
        "since it was opened: 5 claims, 0 errors",
        "  payments/invoice-17 seen",
        "  messages/welcome-4 released",
        "  messages/welcome-3 seen",
    ];
    assert_eq!(lines(&mut example("operator")), expected);
}
