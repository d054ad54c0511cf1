//! `seen confirm`: marks a claimed id as seen because its work is done.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::process::ExitCode;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::holder::Holder;
use crate::args::ids;

/// Remember a claimed id as done
///
/// Call it once the work has succeeded. Confirming twice is allowed. Confirming after the lease has run out is
/// allowed too, as long as no other worker has claimed the id. Statuses: 0 done; 1 the claim is no longer this
/// token's; 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    holder: Holder,

    /// Keep this with the id, such as the number of the message that was sent; `seen show` prints it. `-`
    /// reads it from standard input and removes one newline at the end. At most 65,536 bytes.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    receipt: Option<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let receipt = match &arguments.receipt {
        Some(text) if text == "-" && arguments.holder.reads_standard_input() => {
            return Err("the id and the receipt cannot both come from standard input".into());
        }
        receipt => receipt.as_deref().map(read).transpose()?,
    };
    arguments.holder.act(Config::default(), "confirmed", |store, id, token| match &receipt {
        Some(receipt) => store.confirm_with(id, token, receipt),
        None => store.confirm(id, token),
    })
}

fn read(receipt: &OsStr) -> Result<Vec<u8>> {
    let mut bytes = receipt.as_encoded_bytes().to_vec();
    if receipt == "-" {
        bytes.clear();
        io::stdin().lock().read_to_end(&mut bytes).map_err(|e| ids::unreadable(&e))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
    }
    Ok(bytes)
}
