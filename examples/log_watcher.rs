//! A log watcher: tells the first of equal messages, and with the next how many it was silent about.
//!
//! Each check has one id. Its version is its level, so that a check that gets worse is told at once. A message is told
//! again when its hour of silence is over; what was known of it before is kept for a month, and told with it.
//!
//! The lines stand in the program. Their times set the store's clock, so that the log of yesterday can be read today;
//! a program that follows a log leaves the clock alone.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use seen_store::{Clock, Config, Entry, Item, ManualClock, SeenStore, Verdict};

const HOUR: Duration = Duration::from_secs(3_600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Minutes since midnight, the level, the check.
const LOG: &str = "\
    10 warning disk /var\n12 warning disk /var\n14 warning disk /var\n15 warning load\n20 critical disk /var\n\
    21 critical disk /var\n75 warning disk /var\n80 warning load\n200 warning disk /var\n205 warning disk /var\n\
    300 warning disk /var";

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let midnight = ManualClock::default().now();
    let clock = Arc::new(ManualClock::new(midnight));
    let store = SeenStore::in_memory_with(Config::default().clock(clock.clone()))?;
    let alerts = store.scope("log").ttl(HOUR).retention(MONTH);
    for line in LOG.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(minute), Some(level), Some(check)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!("no message: {line:?}").into());
        };
        clock.set(midnight + Duration::from_secs(60 * minute.parse::<u64>()?));
        if let Some(text) = alert(&alerts, level, check, midnight)? {
            println!("{minute} {level} {check}{text}");
        }
    }
    Ok(store.close()?)
}

/// Returns what is told of the message besides itself, or `None` when it is to be silenced.
fn alert(
    alerts: &SeenStore,
    level: &str,
    check: &str,
    midnight: SystemTime,
) -> seen_store::Result<Option<String>> {
    let seen = alerts.observe(Item::new(check).version(level))?;
    Ok(match (seen.verdict, seen.before) {
        (Verdict::New, None) => Some(String::new()),
        (Verdict::New, Some(before)) => Some(format!(", again{}", repeats(&before, midnight))),
        (Verdict::Changed, Some(before)) => {
            Some(format!(", changed{}", repeats(&before, midnight)))
        }
        _ => None,
    })
}

fn repeats(before: &Entry, midnight: SystemTime) -> String {
    let minute =
        |time: SystemTime| time.duration_since(midnight).unwrap_or_default().as_secs() / 60;
    let (mut repeats, mut since, mut windows) = (before.duplicates, before.first_seen, 1);
    if let Some(history) = before.history {
        repeats += history.duplicates;
        since = history.first_seen;
        windows += history.windows;
    }
    format!(", after {repeats} repeats since minute {}, in {windows} windows", minute(since))
}
