//! `seen upgrade`: turns a file of the older format into a store.

use std::process::ExitCode;

use clap::Args;
use seen_store::{Config, ErrorKind, Ttl};

use crate::Result;
use crate::args::database;
use crate::args::duration::parse_ttl;
use crate::args::place::{FileLocation, Place, kind};
use crate::output;
use crate::output::words;

/// Upgrade a file of the older format, seen(id, ts), in place
///
/// Copies the file to PATH.v0.bak first, and prints what was done. Each id expires one --ttl after its timestamp in
/// the file: give the time to live of the program that wrote the file. (A command that writes upgrades such a file
/// by itself, with its own --ttl. A command that only reads says that an upgrade is needed.) A store of the present
/// format is left as it is. Statuses: 0 done, or nothing to do; 2 an error, and the file is unchanged.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: FileLocation,

    /// How long an id is remembered after its timestamp: 90s, 36h, 7d, never. A day has 24 hours.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let place = arguments.location.place("upgrade")?;
    if is_current(&place)? {
        return output::line("nothing to do: the file has the present format");
    }
    let config = Config::default().ttl(arguments.ttl).purge_on_open(false);
    let store = place.open_existing(config)?;
    let upgrade = store.upgrade_report()?;
    database::close_file(&store);
    output::line(&match upgrade {
        Some(done) => {
            let ids = words::counted(done.kept, "id");
            format!("upgraded {ids}; the old file is kept as {}", done.copy.display())
        }
        None => "nothing to do: another process has just upgraded the file".into(),
    })
}

fn is_current(place: &Place) -> Result<bool> {
    match place.open_existing(Config::default().read_only(true)) {
        Ok(store) => {
            database::close_file(&store);
            Ok(true)
        }
        Err(e) if kind(&*e) == Some(ErrorKind::NeedsUpgrade) => Ok(false),
        Err(e) => Err(e),
    }
}
