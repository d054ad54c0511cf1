//! An e-mail campaign: two senders, a table of recipients, and no recipient is mailed twice.
//!
//! ```text
//! email_campaign RECIPIENTS.csv FOLDER
//! ```
//!
//! Reads addresses from the first column of a CSV file with a header. `FOLDER` gets the store and the
//! outbox, a file with a line for each mail, which stands for the mail server here. Some sends fail and
//! are tried again. Kill it at any moment and run it again: at the end the outbox has each recipient
//! once.
//!
//! A claim gives each recipient to one sender. Its lease is short, so that a sender that dies is noticed soon, and
//! renews itself, so that a send may take long. What no store can know is whether a sender that died had sent:
//! `Lease::previous` tells the next one, which asks the server first, as one would ask a real one by its idempotency
//! key or message id.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use seen_store::{Claim, Config, Failure, Lease, Previous, SeenStore, Ttl};

/// A sender that died gives its recipient up after this time.
const LEASE: Duration = Duration::from_millis(500);
/// A sender that hangs gives its recipient up after this time.
const LONGEST_SEND: Duration = Duration::from_secs(60);
/// How long a busy mailbox is left alone.
const BUSY: Duration = Duration::from_millis(30);
const SENDERS: usize = 2;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: email_campaign RECIPIENTS.csv FOLDER";
    let recipients = read_recipients(&arguments.next().ok_or(usage)?)?;
    let folder: PathBuf = arguments.next().ok_or(usage)?.into();
    fs::create_dir_all(&folder)?;

    let config = Config::default().ttl(Ttl::Never).max_attempts(50);
    let store = SeenStore::open_with(folder.join("campaign.db"), config)?.renewing(LONGEST_SEND);
    let outbox = folder.join("outbox.txt");
    thread::scope(|scope| {
        let senders: Vec<_> =
            (0..SENDERS).map(|_| scope.spawn(|| send_all(&store, &recipients, &outbox))).collect();
        senders.into_iter().try_for_each(|sender| sender.join().expect("no sender panics"))
    })?;
    let stats = store.stats()?;
    println!(
        "{} recipients: {} sent, {} failed, {} in flight",
        recipients.len(),
        stats.seen,
        stats.failed,
        stats.in_flight
    );
    Ok(store.close()?)
}

/// Goes through the recipients until each was sent to or given up.
fn send_all(
    store: &SeenStore,
    recipients: &[String],
    outbox: &Path,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    loop {
        let mut all_done = true;
        for recipient in recipients {
            all_done &= match store.claim(recipient, LEASE)? {
                Claim::Granted(lease) => mail(lease, recipient, outbox)?,
                // Another sender has it, or its mailbox was busy.
                Claim::InFlight { .. } => false,
                Claim::GivenUp { attempts } => {
                    eprintln!("{recipient}: given up after {attempts} attempts");
                    true
                }
                _ => true,
            };
        }
        if all_done {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Mails to one recipient, and returns whether that is done.
fn mail(mut lease: Lease, recipient: &str, outbox: &Path) -> seen_store::Result<bool> {
    if let Previous::Abandoned { .. } = lease.previous() {
        match was_sent(outbox, recipient) {
            Ok(None) => {}
            Ok(Some(message)) => {
                lease.confirm_with(message)?;
                return Ok(true);
            }
            // It is still not known. The claim is left to run out, so that the next sender asks again.
            Err(e) => {
                eprintln!("{recipient}: the server does not tell: {e}");
                lease.into_token();
                return Ok(false);
            }
        }
    }
    match send(outbox, recipient, lease.attempt()) {
        Ok(message) => lease.confirm_with(message).map(|()| true),
        Err(e) => lease.fail(Failure::new(e.to_string()).retry_after(BUSY)).map(|()| false),
    }
}

fn read_recipients(path: &str) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let text = fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let addresses = text.lines().skip(1).filter_map(|line| line.split(',').next());
    Ok(addresses.map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect())
}

/// Hands the mail to the server, which answers with its message id. One in nine refuses at first.
fn send(outbox: &Path, recipient: &str, attempt: u32) -> io::Result<String> {
    thread::sleep(Duration::from_millis(2));
    if attempt == 1 && recipient.bytes().map(u32::from).sum::<u32>() % 9 == 0 {
        return Err(io::Error::other("450 mailbox busy"));
    }
    let message = format!("<{recipient}.{attempt}@example.org>");
    // One write in append mode: a kill leaves the whole line or nothing of it.
    let mut file: File = OpenOptions::new().append(true).create(true).open(outbox)?;
    file.write_all(format!("{recipient} {message}\n").as_bytes())?;
    Ok(message)
}

/// Asks the server for the id of its mail to the recipient.
fn was_sent(outbox: &Path, recipient: &str) -> io::Result<Option<String>> {
    let mails = match fs::read_to_string(outbox) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        mails => mails?,
    };
    let mut mails = mails.lines().filter_map(|mail| mail.split_once(' '));
    Ok(mails.find(|(to, _)| *to == recipient).map(|(_, message)| message.to_owned()))
}
