//! A bot of tasks: it reads the pages of a feed and posts each item once, also when it is killed and run again.
//!
//! ```text
//! async_feed_fetcher FOLDER
//! ```
//!
//! `FOLDER` gets the store, `seen.db`, and what the server keeps, `posts.txt` with a line for each post. The server is in
//! `server.rs`, and `client.rs` talks to it.
//!
//! Each item is claimed, posted and confirmed. Between the post and the confirm the bot can die, and no store can know on
//! which side of the post it died. So a claim whose attempt before ended without a word first asks the server. An attempt
//! ends without a word if
//!
//! - the process died (`Previous::Abandoned`), or
//! - the task was dropped at some `.await`, as Ctrl-C does here (`Previous::Released`), or
//! - the post got no clear answer: then the bot leaves the claim to run out (`Previous::Abandoned`).
//!
//! This is exact as long as a post that arrives at all arrives before the lease of its sender ends. A server that refuses
//! the second post of an id needs no such condition.
//!
//! An image downloader is the same program: the ids are timestamps, to post is to write the image's file under another
//! name and to rename it, and to ask is to look whether the file is there.

mod client;
mod server;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use client::{Answer, Client};
use seen_store::{AsyncLease, AsyncSeenStore, Claim, Config, Failure, Previous, Ttl};
use tokio::task::JoinSet;

/// More than pages: two or three tasks read each page, like bots whose polls overlap.
const TASKS: usize = 100;
/// The next run waits this long for what was in flight when the bot was killed. Leases renew themselves, so a post may
/// take longer.
const LEASE: Duration = Duration::from_secs(3);
/// A claim is not renewed for longer than this, even if its task hangs.
const LONGEST_POST: Duration = Duration::from_secs(30);
/// How long an item is left alone after a post that the server refused.
const RETRY_AFTER: Duration = Duration::from_millis(50);

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    env_logger::init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("async_feed_fetcher: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome {
    let folder = std::env::args_os().nth(1).ok_or("usage: async_feed_fetcher FOLDER")?;
    let folder = PathBuf::from(folder);
    let address = server::start(&folder).await?;
    println!("server at {address}");

    // An item that fails so often is left to a person: `seen resolve ID --retry`.
    let config = Config::default().ttl(Ttl::Never).max_attempts(50);
    let store = AsyncSeenStore::open_with(folder.join("seen.db"), config).await?;
    let bot = Arc::new(Bot {
        store: store.renewing(LONGEST_POST).waiting(LEASE),
        client: Client::new(&address)?,
        counts: Counts::default(),
    });
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let bot = Arc::clone(&bot);
        tasks.spawn(async move { bot.read_page(n % server::PAGES).await });
    }
    let outcome = tokio::select! {
        outcome = all_done(&mut tasks) => outcome,
        Ok(()) = tokio::signal::ctrl_c() => Err("interrupted; run it again, it posts the rest".into()),
    };

    // The tasks that are left are dropped where they stand, which releases their claims: the next run need not wait for
    // them.
    tasks.shutdown().await;
    bot.counts.print();
    store.close().await?;
    outcome
}

/// Waits for all tasks, or until the first one fails.
async fn all_done(tasks: &mut JoinSet<Outcome>) -> Outcome {
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// What the tasks share. A handle of the store is cheap to clone, and one for all of them does as well.
struct Bot {
    store: AsyncSeenStore,
    client: Client,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    posted: AtomicUsize,
    found: AtomicUsize,
    refused: AtomicUsize,
}

impl Counts {
    fn print(&self) {
        let [posted, found, refused] =
            [&self.posted, &self.found, &self.refused].map(|count| count.load(Relaxed));
        println!("{posted} posted, {found} found posted, {refused} tries refused");
    }
}

impl Bot {
    async fn read_page(&self, page: usize) -> Outcome {
        let items = self.client.page(page).await.map_err(|e| {
            format!("cannot fetch page {page}: {e}; run it again when the server answers")
        })?;
        for id in items.lines() {
            self.handle(id).await?;
        }
        Ok(())
    }

    /// Claims the item until it is posted, by this task or by another one.
    async fn handle(&self, id: &str) -> Outcome {
        loop {
            match self.store.claim(id, LEASE).await? {
                Claim::Granted(lease) => self.post(lease, id).await?,
                // It has waited for the other holder, or for the time to try again. Both may take longer.
                Claim::InFlight { .. } => {}
                Claim::GivenUp { attempts } => {
                    let what = format!("{id} is given up after {attempts} attempts");
                    return Err(format!("{what}; `seen resolve {id} --retry` allows more").into());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Makes one attempt to post the item.
    async fn post(&self, mut lease: AsyncLease, id: &str) -> seen_store::Result<()> {
        let may_be_posted =
            matches!(lease.previous(), Previous::Abandoned { .. } | Previous::Released);
        let answer = if may_be_posted {
            self.client.find_or_post(id).await
        } else {
            self.client.post(id).await
        };
        match answer {
            Answer::Posted(number) => {
                lease.confirm_with(number).await?;
                let posted = 1 + self.counts.posted.fetch_add(1, Relaxed);
                if posted.is_multiple_of(200) {
                    println!("{posted} posted");
                }
            }
            Answer::Found(number) => {
                lease.confirm_with(number).await?;
                self.counts.found.fetch_add(1, Relaxed);
            }
            Answer::Refused(reason) => {
                lease.fail(Failure::new(reason).retry_after(RETRY_AFTER)).await?;
                self.counts.refused.fetch_add(1, Relaxed);
            }
            Answer::Unknown(e) => {
                eprintln!(
                    "{id} may be posted: {e}; the bot asks the server when the lease is over"
                );
                lease.into_token();
            }
        }
        Ok(())
    }
}
