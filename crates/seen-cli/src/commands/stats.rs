//! `seen stats`: figures of a store, for people, for programs and for Prometheus.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use seen_store::{Counts, FileStats, State};

use serde_json::{Map, Value, json};

use crate::Result;
use crate::args::database::ReadLocation;
use crate::args::duration::parse_since;
use crate::output::Output;
use crate::output::words::{count, harmless, local_time, rough_duration, size, utc_time};
use crate::reading::Reading;

/// The number of parts of the time of `--since`: each is one character of the sparkline.
const BUCKETS: u16 = 56;

/// The figures that a cluster has not.
const OF_FILES: [&str; 4] = ["last_purge_at", "file_bytes", "wal_bytes", "index_bytes"];

/// Count the ids in each state, and print the sizes of the store
///
/// Counts by scope and state, sizes of the file, of its log and of the index that opening the store
/// builds in memory, the oldest and the newest mark, and what expires soon; on a terminal, a line that
/// draws when the ids were first seen. Changes nothing, and works without permission to write. Reads the
/// whole store, a few seconds for 10,000,000 ids. Statuses: 0 done, 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: ReadLocation,

    /// How far back the line of first sightings begins: 90s, 36h, 7d.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_since)]
    since: Duration,

    /// Print one JSON object.
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,

    /// Print the text format of Prometheus, as docs/monitoring.md describes it.
    #[arg(long)]
    prometheus: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let reader = arguments.database.read()?;
    let stats = reader.stats(arguments.since, BUCKETS)?;
    let mut output = Output::new();
    if arguments.json {
        output.line(to_json(&reader, &stats, arguments.since).to_string())?;
    } else if arguments.prometheus {
        for metric in metrics(&reader, &stats) {
            output.line(metric.to_string())?;
        }
    } else {
        for line in in_words(&reader, &stats, arguments.since) {
            output.line(line)?;
        }
    }
    output.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// The counts in the order in which they are told, with the words for their states.
fn by_state(counts: &Counts) -> impl Iterator<Item = (&'static str, u64)> {
    State::ALL.iter().map(|state| (state.as_str(), counts.of(*state)))
}

/// The states that people are always told of; of the others, those in which there are ids.
const USUAL: [State; 4] = [State::Seen, State::InFlight, State::Failed, State::Expired];

fn in_words(reader: &Reading, stats: &FileStats, since: Duration) -> Vec<String> {
    let mut lines = vec![harmless(&reader.name())];
    lines.extend(table(stats));
    let now = reader.now();
    let mut fact = |name: &str, value: String| lines.push(format!("{name:<12}{value}"));
    let moment = |time: Option<SystemTime>| match time {
        Some(time) => {
            let age = now.duration_since(time).unwrap_or_default();
            format!("{} ({} ago)", local_time(time), rough_duration(age))
        }
        None => "-".into(),
    };
    fact("oldest", moment(stats.oldest));
    fact("newest", moment(stats.newest));
    fact(
        "expiring",
        format!(
            "{} within an hour, {} within a day",
            count(stats.expiring_within_hour),
            count(stats.expiring_within_day)
        ),
    );
    if reader.is_a_file() {
        fact("last purge", moment(stats.last_purge_at));
        fact("file", size(stats.file_bytes));
        fact("log", size(stats.wal_bytes));
        fact("index", format!("about {} of memory where it is awake", size(stats.index_bytes)));
    }
    if Output::is_terminal() {
        let title = format!("first seen in the last {}:", rough_duration(since));
        lines.push(format!("{title} {}", sparkline(&stats.marks)));
    }
    lines
}

/// Prints a line for each scope, and one for all if there are several.
fn table(stats: &FileStats) -> Vec<String> {
    let mut rows: Vec<(String, Counts)> = stats
        .scopes
        .iter()
        .map(|(scope, counts)| {
            let name = if scope.is_empty() { "(no scope)".into() } else { harmless(scope) };
            (name, *counts)
        })
        .collect();
    if rows.len() != 1 {
        rows.push(("all".into(), stats.total()));
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(10);
    let total = stats.total();
    let told: Vec<State> = State::ALL
        .iter()
        .copied()
        .filter(|state| USUAL.contains(state) || total.of(*state) > 0)
        .collect();
    let line = |name: &str, cell: &dyn Fn(State) -> String| {
        let mut line = format!("{name:<width$}");
        for state in &told {
            let _ = write!(line, " {:>13}", cell(*state)); // A String takes everything.
        }
        line
    };
    let mut lines = vec![line("", &|state| state.to_string())];
    for (name, counts) in rows {
        lines.push(line(&name, &|state| count(counts.of(state))));
    }
    lines
}

/// Draws one bar for each number, scaled to the largest. Only zero is drawn as a space.
fn sparkline(numbers: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().copied().max().unwrap_or(0);
    numbers
        .iter()
        .map(|&number| {
            if number == 0 {
                return ' ';
            }
            // The largest number gives the highest bar, and 1 the lowest.
            let bar = (u128::from(number) * BARS.len() as u128).div_ceil(u128::from(most)) - 1;
            usize::try_from(bar).map_or('█', |bar| BARS[bar])
        })
        .collect()
}

fn to_json(reader: &Reading, stats: &FileStats, since: Duration) -> Value {
    let counts = |counts: &Counts| {
        let members =
            by_state(counts).map(|(state, number)| (state.replace('-', "_"), number.into()));
        Value::Object(members.collect::<Map<_, _>>())
    };
    let scopes: Vec<Value> = stats
        .scopes
        .iter()
        .map(|(scope, of_scope)| {
            let mut object = counts(of_scope);
            object["scope"] = scope.as_str().into();
            object
        })
        .collect();
    let mut object = json!({
        "path": reader.name(),
        "total": counts(&stats.total()),
        "scopes": scopes,
        "oldest": stats.oldest.and_then(utc_time),
        "newest": stats.newest.and_then(utc_time),
        "expiring_within_hour": stats.expiring_within_hour,
        "expiring_within_day": stats.expiring_within_day,
        "last_purge_at": stats.last_purge_at.and_then(utc_time),
        "file_bytes": stats.file_bytes,
        "wal_bytes": stats.wal_bytes,
        "index_bytes": stats.index_bytes,
        "first_seen": buckets(reader.now(), since, &stats.marks),
    });
    if !reader.is_a_file() {
        let members = object.as_object_mut().expect("it is made above");
        members.retain(|name, _| !OF_FILES.iter().any(|of_file| name == of_file));
    }
    object
}

/// Returns the buckets of the last `since` until `now`, each with its times and the number of ids now seen that were
/// first seen in it. The earliest comes first.
fn buckets(now: SystemTime, since: Duration, marks: &[u64]) -> Vec<Value> {
    let width = since / BUCKETS.into();
    let ago = |buckets: u32| now.checked_sub(width * buckets).and_then(utc_time);
    (0..u32::from(BUCKETS))
        .rev()
        .zip(marks)
        .map(|(after, seen)| json!({ "from": ago(after + 1), "to": ago(after), "seen": seen }))
        .collect()
}

/// A gauge in the text format of Prometheus.
struct Metric {
    name: &'static str,
    help: &'static str,
    /// The labels, as between the braces, and the value. All have the label `path`.
    samples: Vec<(String, String)>,
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "# HELP {0} {1}\n# TYPE {0} gauge", self.name, self.help)?;
        for (labels, value) in &self.samples {
            write!(f, "\n{}{{{labels}}} {value}", self.name)?;
        }
        Ok(())
    }
}

/// Returns the figures, with the path of the file or the URL of the cluster, which tells the stores of one machine apart.
fn metrics(reader: &Reading, stats: &FileStats) -> Vec<Metric> {
    let by_scope = stats.scopes.iter().flat_map(|(scope, counts)| {
        by_state(counts).map(|(state, number)| {
            (format!("scope=\"{}\",state=\"{state}\"", label(scope)), number.to_string())
        })
    });
    let single = |value: u64| vec![(String::new(), value.to_string())];
    let time = |time: Option<SystemTime>| {
        let since_epoch = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since_epoch.map(|since| (String::new(), since.as_secs_f64().to_string())).into_iter()
    };
    let metric = |name, help, samples| Metric { name, help, samples };
    let mut metrics = vec![
        metric("seen_ids", "Ids by scope and state.", by_scope.collect()),
        metric(
            "seen_ids_expiring_within_hour",
            "Ids that stop being seen within an hour.",
            single(stats.expiring_within_hour),
        ),
        metric(
            "seen_ids_expiring_within_day",
            "Ids that stop being seen within 24 hours, including those within an hour.",
            single(stats.expiring_within_day),
        ),
        metric("seen_file_bytes", "Size of the database file.", single(stats.file_bytes)),
        metric("seen_wal_bytes", "Size of the write-ahead log.", single(stats.wal_bytes)),
        metric(
            "seen_index_bytes",
            "About how much memory the whole index takes in a program in which it is awake.",
            single(stats.index_bytes),
        ),
        metric(
            "seen_oldest_mark_timestamp_seconds",
            "When the oldest id now seen was first seen.",
            time(stats.oldest).collect(),
        ),
        metric(
            "seen_newest_mark_timestamp_seconds",
            "When an id that is now seen was last seen.",
            time(stats.newest).collect(),
        ),
        metric(
            "seen_last_purge_timestamp_seconds",
            "When a purge last removed something.",
            time(stats.last_purge_at).collect(),
        ),
    ];
    let is_of_file =
        |name: &str| OF_FILES.iter().any(|of_file| name.strip_prefix("seen_") == Some(of_file));
    metrics.retain(|it| !it.samples.is_empty() && (reader.is_a_file() || !is_of_file(it.name)));
    let path = label(&reader.name());
    for (labels, _) in metrics.iter_mut().flat_map(|metric| &mut metric.samples) {
        let others = if labels.is_empty() { String::new() } else { format!(",{labels}") };
        *labels = format!("path=\"{path}\"{others}");
    }
    metrics
}

/// Returns the value of a label, escaped as the format asks. A scope may hold any character.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_scales_to_the_largest_and_hides_nothing() {
        assert_eq!(sparkline(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(sparkline(&[1, 1_000_000]), "▁█");
        assert_eq!(sparkline(&[0, 0]), "  ");
        assert_eq!(sparkline(&[u64::MAX]), "█");
    }

    #[test]
    fn a_scope_cannot_end_its_label() {
        assert_eq!(label("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }
}
