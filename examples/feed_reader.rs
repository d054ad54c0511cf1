//! A feed reader: tells each item once, and again when it was edited.
//!
//! ```text
//! feed_reader STORE
//! ```
//!
//! The polls of a feed stand in the program; put your own in their place. A poll repeats what the one before it
//! had. An item is known by its id, and its version is the time of its last edit. `check_and_mark` marks an item
//! before it is told: a crash between the two loses one. (`examples/alert_bot.rs` marks after it, and repeats one.)

use std::error::Error;

use seen_store::{Item, SeenStore, Verdict};

/// Each line is an item: its id, when it was last edited, its title.
const POLLS: [&str; 3] = [
    "post-1\t09:00\tRelease 1.0\npost-2\t09:30\tTips for cron",
    "post-1\t09:00\tRelease 1.0\npost-2\t10:15\tTips for cron and at",
    "post-3\t11:00\tRelease 1.1\npost-2\t10:15\tTips for cron and at",
];

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let path = std::env::args().nth(1).ok_or("usage: feed_reader STORE")?;
    let store = SeenStore::open(path)?;
    let posts = store.scope("posts");
    for feed in POLLS {
        let told = poll(&posts, feed)?;
        println!("poll done: {told} of {} told", feed.lines().count());
    }
    Ok(store.close()?)
}

/// Tells what is new in the feed or was changed, and returns how many items that were.
fn poll(posts: &SeenStore, feed: &str) -> Result<usize, Box<dyn Error>> {
    let mut told = 0;
    for line in feed.lines() {
        let [id, edited, title] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("no item: {line:?}").into());
        };
        match posts.check_and_mark(Item::new(id).version(edited))? {
            Verdict::New => println!("new: {title}"),
            Verdict::Changed => println!("changed: {title}"),
            _ => continue, // Told before, in this version.
        }
        told += 1;
    }
    Ok(told)
}
