//! `seen import`: adds to the store what another store, another program or a legacy file remembers.
//!
//! Owns the batches and the messages about them. What always holds: entries that were read before a failure are
//! committed and counted; an import can be repeated; an entry that the store refuses is named, and the others are
//! imported. Knows nothing of formats: see [`source`](crate::input::source).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use seen_store::{Clock, Config, Entry, Refused, RestoreSummary, SystemClock, Ttl};

use crate::Result;
use crate::args::database::{self, Database};
use crate::args::duration::parse_ttl;
use crate::args::ids::{self, Spelling};
use crate::input::recognise::Format;
use crate::input::source::Source;
use crate::output::entry::Defaults;
use crate::output::message;

/// How many entries are imported at a time: the most that the store commits at once.
const BATCH: usize = 1_000;

/// Import an export, a list of ids or a file of the older format
///
/// Reads the output of `seen export`, a CSV file with a column `id` (or `id_hex`), plain ids, one a
/// line, or a SQLite file of the older format, seen(id, ts). Creates the store if it is missing. Statuses: 0 done,
/// 2 an error.
///
/// An import may be repeated, also after an interruption: known entries are merged, and never shortened or
/// doubled. For a known id, the earliest and latest times, the latest expiry and the largest counts are kept. An id
/// without a time counts as seen at the time of the import. A failed claim keeps its attempts and its error. A claim
/// in flight cannot be confirmed, and ends with its lease, after which it may wait for `seen resolve`. Expired entries
/// are left out. An entry that no store can
/// hold, such as one whose id is too long, is left out with a message on standard error; all others are imported,
/// and the status is 2. The import ends at the first line that is not understood; the lines before it are imported.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The file to read; standard input for `-`.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    database: Database,

    #[command(flatten)]
    spelling: Spelling,

    /// The format of the file. By default the content decides: a database, lines that begin with `{`, a
    /// first line with a column `id`; anything else is lines, as `seen filter` takes them. With an option that says
    /// what of a line is its id, it is lines.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// How long after it was last seen an id without an expiry expires: 90s, 36h, 7d, never.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,

    /// When done, print to standard error how many entries were added, changed, known and expired.
    #[arg(long)]
    stats: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let defaults = Defaults {
        scope: arguments.database.scope().to_owned(),
        ttl: arguments.ttl,
        now: SystemClock.now(),
    };
    // The source is opened before the store: a wrong file must not create a store.
    let mut source =
        Source::open(&arguments.file, arguments.format, &arguments.spelling, &defaults)?;
    let store = arguments.database.open(Config::default())?;
    let (mut restored, mut refused_count) = (RestoreSummary::default(), 0_u64);
    let mut done = Ok(());
    while done.is_ok() {
        let mut batch: Vec<Entry> = Vec::new();
        done = source.fill(&mut batch, BATCH);
        if batch.is_empty() {
            break;
        }
        let is_told = log::log_enabled!(log::Level::Info);
        let names: Vec<Vec<u8>> =
            batch.iter().filter(|_| is_told).map(|entry| entry.id.clone()).collect();
        match store.restore(&mut batch.into_iter()) {
            Ok(mut more) => {
                for id in names {
                    if !more.refused.iter().any(|refused| refused.id == id) {
                        log::info!("{}: imported", ids::shown(&id));
                    }
                }
                // Printed at once and not kept in memory: there may be very many.
                for refused in std::mem::take(&mut more.refused) {
                    message::tell(&left_out(&refused));
                    refused_count += 1;
                }
                restored += more;
            }
            Err(e) => {
                let (why, told) = (message::with_causes(&e), counts(&restored));
                return Err(format!("{why}; import it again to go on: so far {told}").into());
            }
        }
    }
    source.finish();
    database::close(&store);
    if let Err(e) = done {
        let told = counts(&restored);
        return Err(format!("{e}; what comes before it is imported: {told}").into());
    }
    refused_count += source.left_out();
    if refused_count > 0 {
        let entries = if refused_count == 1 { "entry was" } else { "entries were" };
        let told = counts(&restored);
        return Err(
            format!("{refused_count} {entries} left out; all others are imported: {told}").into()
        );
    }
    if arguments.stats {
        message::tell(&counts(&restored));
    } else {
        log::info!("imported: {}", counts(&restored));
    }
    Ok(ExitCode::SUCCESS)
}

fn left_out(refused: &Refused) -> String {
    let (id, why) = (ids::shown(&refused.id), message::with_causes(&refused.error));
    match refused.scope.as_str() {
        "" => format!("{id}: left out: {why}"),
        scope => format!("{id} in scope {}: left out: {why}", ids::shown(scope.as_bytes())),
    }
}

fn counts(restored: &RestoreSummary) -> String {
    let RestoreSummary { added, changed, unchanged, expired, .. } = restored;
    format!("added {added}, changed {changed}, known {unchanged}, expired {expired}")
}
