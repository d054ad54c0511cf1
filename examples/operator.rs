//! An operator's tool: what stands in a store, what needs a decision, and what can go.
//!
//! ```text
//! operator [STORE]
//! ```
//!
//! Without a store it makes one in memory, in which some things went wrong. The command `seen` has all of this; a
//! tool of one's own does it by one's own rules.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use seen_store::{
    Abandoned, Claim, Config, Entry, Failure, Filter, ManualClock, Resolution, SeenStore, State,
};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let store = match std::env::args().nth(1) {
        Some(path) => SeenStore::open(path)?,
        None => sample()?,
    };
    report(&store)?;

    // By this tool's own rule, a message whose worker vanished is sent again, and a payment is not.
    for entry in store.entries(Filter::default().state(State::Unresolved)) {
        let Entry { scope, id, holder, .. } = entry?;
        let decision = if scope == "payments" { Resolution::Done } else { Resolution::Retry };
        store.scope(&scope).resolve(&id, decision)?;
        println!("{scope}/{} of {}: {decision:?}", text(&id), holder.unwrap_or_default());
    }

    let messages = store.scope("messages");
    let old_failures = || Filter::default().state(State::Failed).older_than(30 * DAY);
    println!("{} failures are older than 30 days", messages.count(old_failures())?);
    println!("{} of them are removed", messages.remove(old_failures())?);
    report(&store)?;
    Ok(store.close()?)
}

fn report(store: &SeenStore) -> seen_store::Result<()> {
    let stats = store.stats()?;
    println!(
        "{} seen, {} failed, {} given up, {} unresolved",
        stats.seen, stats.failed, stats.given_up, stats.unresolved
    );
    let done = stats.since_opened;
    println!("since it was opened: {} claims, {} errors", done.claims_granted, done.errors.len());
    for entry in store.entries(Filter::default()).newest(3)? {
        let error = entry.last_error.map(|error| format!(": {error}")).unwrap_or_default();
        println!("  {}/{} {}{error}", entry.scope, text(&entry.id), entry.state);
    }
    Ok(())
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

/// A store in which some things went wrong.
fn sample() -> seen_store::Result<SeenStore> {
    let clock = Arc::new(ManualClock::default());
    let config = Config::default().clock(clock.clone()).ttl(90 * DAY).holder("worker-7");
    let store = SeenStore::in_memory_with(config.abandoned(Abandoned::Hold))?;
    let claim = |scope: &str, id: &str| store.scope(scope).claim(id, DAY);
    if let Claim::Granted(mut lease) = claim("messages", "welcome-1")? {
        lease.fail("450 mailbox busy")?;
    }
    clock.advance(40 * DAY);
    if let Claim::Granted(mut lease) = claim("messages", "welcome-2")? {
        lease.fail(Failure::new("550 no such mailbox").is_final())?;
    }
    if let Claim::Granted(mut lease) = claim("messages", "welcome-3")? {
        lease.confirm()?;
    }
    for (scope, id) in [("messages", "welcome-4"), ("payments", "invoice-17")] {
        clock.advance(Duration::from_secs(60));
        if let Claim::Granted(lease) = claim(scope, id)? {
            lease.into_token(); // The worker vanishes.
        }
    }
    clock.advance(2 * DAY);
    Ok(store)
}
