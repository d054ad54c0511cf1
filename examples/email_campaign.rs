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
//! A claim gives each recipient to one sender. What no store can know is whether a sender that was
//! killed had sent: so at a second attempt the sender asks the server first, as one would ask a real
//! one by its idempotency key or message id.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use seen_store::{Claim, Config, SeenStore, Ttl};

/// Longer than any send takes; a sender that died gives its recipient up after this time.
const LEASE: Duration = Duration::from_millis(500);
const SENDERS: usize = 2;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: email_campaign RECIPIENTS.csv FOLDER";
    let recipients = read_recipients(&arguments.next().ok_or(usage)?)?;
    let folder: PathBuf = arguments.next().ok_or(usage)?.into();
    fs::create_dir_all(&folder)?;

    let config = Config::default().ttl(Ttl::Never).max_attempts(50);
    let store = SeenStore::open_with(folder.join("campaign.db"), config)?;
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
        let mut pending = 0;
        for recipient in recipients {
            match store.claim(recipient, LEASE)? {
                Claim::Granted(mut lease) => {
                    // The attempt before may have been killed between its send and its confirm.
                    if lease.attempt() > 1 && was_sent(outbox, recipient)? {
                        lease.confirm()?;
                        continue;
                    }
                    match send(outbox, recipient, lease.attempt()) {
                        Ok(message) => lease.confirm_with(message)?,
                        Err(e) => {
                            pending += 1;
                            lease.fail(e.to_string())?;
                        }
                    }
                }
                Claim::InFlight { .. } => pending += 1,
                Claim::GivenUp { attempts } => {
                    eprintln!("{recipient}: given up after {attempts} attempts");
                }
                _ => {}
            }
        }
        if pending == 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
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

/// Asks the server whether it has a mail to the recipient.
fn was_sent(outbox: &Path, recipient: &str) -> io::Result<bool> {
    match fs::read_to_string(outbox) {
        Ok(mails) => Ok(mails.lines().any(|mail| mail.split(' ').next() == Some(recipient))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
