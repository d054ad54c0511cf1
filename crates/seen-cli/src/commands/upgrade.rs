//! `seen upgrade`: takes a file of the older format over.

use std::process::ExitCode;

use clap::Args;
use seen_store::{Config, ErrorKind, Ttl};

use crate::Result;
use crate::args::database::{self, Location};
use crate::args::duration::parse_ttl;
use crate::output;
use crate::output::words;

/// Upgrade a file of the older format, seen(id, ts), in place
///
/// Copies the file first, to PATH.v0.bak, and prints what was done. Each id expires one --ttl after the
/// timestamp it has in the file: give the time that the program had which wrote it. (Every command that writes
/// upgrades such a file by itself, with its own --ttl; those that only read ask for this.) A store of the
/// present format is left as it is. Statuses: 0 done, or nothing to do; 2 an error, with the file as it was.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,

    /// How long an id is remembered after its timestamp: 90s, 36h, 7d, never. A day has 24 hours.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if is_current(&arguments.location)? {
        return output::line("nothing to do: the file has the present format");
    }
    let config = Config::default().ttl(arguments.ttl).purge_on_open(false);
    let store = arguments.location.open_existing(config)?;
    let upgrade = store.upgrade_report()?;
    database::close(&store);
    output::line(&match upgrade {
        Some(done) => {
            let ids = words::counted(done.kept, "id");
            format!("upgraded {ids}; the old file is kept as {}", done.copy.display())
        }
        None => "nothing to do: another process has just upgraded the file".into(),
    })
}

fn is_current(location: &Location) -> Result<bool> {
    match location.open_existing(Config::default().read_only(true)) {
        Ok(store) => {
            database::close(&store);
            Ok(true)
        }
        Err(e) if database::kind(&*e) == Some(ErrorKind::NeedsUpgrade) => Ok(false),
        Err(e) => Err(e),
    }
}
