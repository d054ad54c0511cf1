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
//! One worker sends, so it marks *after* the send: a crash between the two repeats one alert and loses
//! none.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use seen_store::SeenStore;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let feed = arguments.next().ok_or("usage: alert_bot FEED [POLLS] [SECONDS]")?;
    let polls: u64 = arguments.next().map_or(Ok(u64::MAX), |polls| polls.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(60), |seconds| seconds.parse())?;

    let bot = Bot::from_env()?;
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

struct Bot {
    /// `None` when the switch is off.
    seen: Option<SeenStore>,
}

impl Bot {
    fn from_env() -> Result<Self, Box<dyn Error>> {
        let persist = match std::env::var("FEATURE_PERSIST_SEEN").as_deref() {
            Ok("false") => false,
            Ok("true" | "") | Err(std::env::VarError::NotPresent) => true,
            _ => return Err("FEATURE_PERSIST_SEEN must be true or false".into()),
        };
        Ok(Self { seen: persist.then(SeenStore::from_env).transpose()? })
    }

    fn poll(&self, lines: &str) -> Result<(), Box<dyn Error>> {
        let (mut alerted, mut filtered) = (0, 0);
        for line in lines.lines() {
            let Some((id, text)) = read_incident(line) else {
                eprintln!("passed over what is no incident: {line:?}");
                continue;
            };
            if self.should_filter(&id) {
                filtered += 1;
                continue;
            }
            send(&text)?;
            self.sent(&id);
            alerted += 1;
        }
        eprintln!("poll done: {alerted} alerted, {filtered} seen before");
        Ok(())
    }

    /// Whether this was alerted before. On an error it was not: an alert twice is better than none.
    fn should_filter(&self, id: &str) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.is_seen(id))
    }

    /// The alert is out already: a mark that fails means that it may go out again, and no more.
    fn sent(&self, id: &str) {
        if let Some(Err(e)) = self.seen.as_ref().map(|seen| seen.mark_seen(id)) {
            eprintln!("{id} may be alerted again: {e}");
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
