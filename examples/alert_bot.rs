//! A small alert bot: polls a feed, alerts each incident once, survives restarts.
//!
//! ```text
//! alert_bot FEED [POLLS] [SECONDS]
//! ```
//!
//! `FEED` is a file with one JSON object a line. Without `POLLS` it polls for ever, every `SECONDS`
//! (60). The store is where `SEEN_DB_PATH` says, or `data/seen_ids.sqlite`. With
//! `FEATURE_PERSIST_SEEN=false` it remembers nothing and alerts everything at each poll.
//!
//! It claims an incident, sends, and then confirms. So any number of bots may share a store, on several machines if the
//! store is on a cluster: this program takes the path of a file, and the example `alert_bot_by_url` of the crate
//! `seen-cluster`, which is this file with another way to open the store, takes a URL as well. A crash between the send and
//! the confirm repeats one alert and loses none.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use seen_store::{Claim, ErrorKind, SeenStore, Store};
use serde_json::Value;

/// If a bot dies, its incident is alerted by the first poll after this time.
const LEASE: Duration = Duration::from_secs(5);
/// A send that takes longer than a lease keeps its claim for this long.
const LONGEST_SEND: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    run(|| Ok(Box::new(SeenStore::from_env()?)))
}

/// Runs the bot on the store that `open` opens.
pub(crate) fn run(
    open: impl FnOnce() -> seen_store::Result<Box<dyn Store>>,
) -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let feed = arguments.next().ok_or("usage: alert_bot FEED [POLLS] [SECONDS]")?;
    let polls: u64 = arguments.next().map_or(Ok(u64::MAX), |polls| polls.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(60), |seconds| seconds.parse())?;

    let bot = Bot { seen: if persists()? { Some(open()?.renewing(LONGEST_SEND)) } else { None } };
    for poll in 1..=polls {
        // A feed that cannot be read now may be there at the next poll.
        match fs::read_to_string(&feed) {
            Ok(lines) => bot.poll(&lines)?,
            Err(e) => eprintln!("poll {poll}: cannot read {feed}: {e}"),
        }
        if poll < polls {
            thread::sleep(Duration::from_secs(seconds));
        }
    }
    bot.close()
}

/// Whether the bot remembers what it has sent.
fn persists() -> Result<bool, Box<dyn Error>> {
    match std::env::var("FEATURE_PERSIST_SEEN").as_deref() {
        Ok("false") => Ok(false),
        Ok("true" | "") | Err(std::env::VarError::NotPresent) => Ok(true),
        _ => Err("FEATURE_PERSIST_SEEN must be true or false".into()),
    }
}

struct Bot {
    /// `None` when the switch is off.
    seen: Option<Box<dyn Store>>,
}

impl Bot {
    fn poll(&self, lines: &str) -> Result<(), Box<dyn Error>> {
        let (mut alerted, mut filtered) = (0, 0);
        for line in lines.lines() {
            let Some((id, text)) = read_incident(line) else {
                eprintln!("passed over what is no incident: {line:?}");
                continue;
            };
            if self.alert(&id, &text)? {
                alerted += 1;
            } else {
                filtered += 1;
            }
        }
        eprintln!("poll done: {alerted} alerted, {filtered} seen before");
        Ok(())
    }

    /// Alerts an incident that was not alerted before. Returns whether it did.
    fn alert(&self, id: &str, text: &str) -> Result<bool, Box<dyn Error>> {
        let Some(seen) = &self.seen else {
            return Ok(send(text).map(|()| true)?);
        };
        match seen.claim(id.into(), LEASE) {
            Ok(Claim::Granted(mut lease)) => {
                // A lease that is dropped gives the incident back.
                send(text)?;
                // The alert is out already: a confirm that fails means that it may go out again, and no more.
                if let Err(e) = lease.confirm() {
                    eprintln!("{id} may be alerted again: {e}");
                }
                Ok(true)
            }
            // Alerted before, or at this moment by another bot. If that one dies, a later poll alerts it.
            Ok(_) => Ok(false),
            // The claim may be there: then it is free when its lease ends, and a later poll alerts the incident.
            Err(e) if e.kind() == ErrorKind::OutcomeUnknown => {
                eprintln!("{id} waits for a later poll: {e}");
                Ok(false)
            }
            // An alert twice is better than none.
            Err(e) => {
                eprintln!("{id} may have been alerted before: {e}");
                Ok(send(text).map(|()| true)?)
            }
        }
    }

    fn close(self) -> Result<(), Box<dyn Error>> {
        self.seen.map_or(Ok(()), |seen| Ok(seen.close()?))
    }
}

/// The incident's id and the words of its alert.
fn read_incident(line: &str) -> Option<(String, String)> {
    let incident: Value = serde_json::from_str(line).ok()?;
    let id = incident["id"].as_str().filter(|id| !id.is_empty())?;
    let name = incident["name"].as_str()?;
    let acres = incident["acres"].as_f64().unwrap_or(0.0);
    let page = incident["url"].as_str().unwrap_or("");
    Some((id.to_owned(), format!("ALERT {}: {acres} acres {page}", name.trim())))
}

/// Sends the alert; put your chat's API call here. It must not return Ok before the alert is out.
fn send(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}
