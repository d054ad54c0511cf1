//! A cron job: a report that is mailed once a day, by whichever machine's cron or person starts it first.
//!
//! If a run dies, it is not known whether the report went out. A second report would embarrass, so the day is held
//! until an operator has looked into the mailbox, and says by `resolve` what he found. (From a shell:
//! `seen run --hold --id report --every day -- ./send-report`, and `seen resolve`.)
//!
//! The program plays four nights, on a clock of its own and in memory. A real one runs once, opens a file, and takes
//! the date of today.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use seen_store::{Abandoned, Claim, Config, ManualClock, Resolution, SeenStore};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Longer than a report takes.
const LEASE: Duration = Duration::from_secs(10 * 60);

/// Sends the report of the date, unless that was done, and says what came of it.
fn run(reports: &SeenStore, date: &str, send: impl FnOnce() -> Send) -> seen_store::Result<String> {
    Ok(match reports.claim(date, LEASE)? {
        Claim::Granted(mut lease) => match send() {
            Send::Sent(message) => {
                lease.confirm_with(&message)?;
                format!("sent as {message}, at attempt {}", lease.attempt())
            }
            Send::Refused(error) => {
                lease.fail(error)?;
                format!("refused: {error}")
            }
            Send::Died => {
                lease.into_token(); // As if the process had been killed here.
                "died".to_owned()
            }
        },
        Claim::Seen(known) => {
            // A day that was resolved has no receipt.
            let message = known.receipt()?.unwrap_or(b"a message that is not known".to_vec());
            format!("was sent before as {}", String::from_utf8_lossy(&message))
        }
        Claim::InFlight { .. } => "is being sent".to_owned(),
        Claim::Unresolved { .. } => "may have been sent: look, then resolve it".to_owned(),
        _ => "is given up".to_owned(),
    })
}

/// What becomes of an attempt to send.
enum Send {
    Sent(String),
    Refused(&'static str),
    Died,
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let clock = Arc::new(ManualClock::default());
    let store = SeenStore::in_memory_with(Config::default().clock(clock.clone()))?;
    // The date is in the id, so a mark need not outlive the day by much.
    let reports = store.scope("reports").ttl(DAY).abandoned(Abandoned::Hold);
    let sent = |date: &str| Send::Sent(format!("<{date}@example.org>"));
    let say = |date: &str, what: String| println!("{date}: {what}");

    let date = "2020-01-01";
    say(date, run(&reports, date, || sent(date))?);
    say(date, run(&reports, date, || sent(date))?);

    clock.advance(DAY);
    let date = "2020-01-02";
    say(date, run(&reports, date, || Send::Refused("450 mailbox busy"))?);
    say(date, run(&reports, date, || sent(date))?);

    for (date, decision) in [("2020-01-03", Resolution::Done), ("2020-01-04", Resolution::Retry)] {
        clock.advance(DAY);
        say(date, run(&reports, date, || Send::Died)?);
        say(date, run(&reports, date, || sent(date))?);
        clock.advance(2 * LEASE);
        say(date, run(&reports, date, || sent(date))?);
        // The operator has looked.
        reports.resolve(date, decision)?;
        println!("{date}: resolved as {decision:?}");
        say(date, run(&reports, date, || sent(date))?);
    }
    Ok(store.close()?)
}
