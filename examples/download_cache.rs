//! A download cache: workers fetch the images that are missing, each image once.
//!
//! ```text
//! download_cache FOLDER [IMAGES] [WORKERS]
//! ```
//!
//! Every worker goes through the same list of timestamps and claims what is missing. A download that
//! fails releases its claim, and the timestamp is tried again by whichever worker comes by next. A run
//! that was killed leaves its claims to run out; the next run takes them over. A run on a complete
//! cache downloads nothing.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use seen_store::{Claim, Config, SeenStore, Ttl};

/// Longer than any download takes; a worker that died gives its image up after this time.
const LEASE: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let folder: PathBuf =
        arguments.next().ok_or("usage: download_cache FOLDER [IMAGES] [WORKERS]")?.into();
    let images: u32 = arguments.next().map_or(Ok(100), |images| images.parse())?;
    let workers: u32 = arguments.next().map_or(Ok(4), |workers| workers.parse())?;
    fs::create_dir_all(&folder)?;

    // One store for all workers: a handle is cheap to clone and may be used by any thread.
    let store = SeenStore::open_with(folder.join("seen.db"), Config::default().ttl(Ttl::Never))?;
    let downloaded = AtomicU64::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| work(&store, &folder, images, &downloaded)))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    println!("{} downloaded, {} present", downloaded.into_inner(), store.stats()?.seen);
    Ok(store.close()?)
}

/// Goes through the list until nothing is missing.
fn work(
    store: &SeenStore,
    folder: &Path,
    images: u32,
    downloaded: &AtomicU64,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    loop {
        let mut missing = 0;
        for timestamp in (0..images).map(|n| format!("2026-01-01T{:02}-{:02}Z", n / 60, n % 60)) {
            match store.claim(&timestamp, LEASE)? {
                Claim::Granted(mut lease) => match download(folder, &timestamp, lease.attempt()) {
                    Ok(()) => {
                        downloaded.fetch_add(1, Relaxed);
                        lease.confirm()?;
                    }
                    Err(e) => {
                        missing += 1;
                        eprintln!("{timestamp}: {e}; another try will follow");
                        lease.release()?;
                    }
                },
                // Another worker is at it, or died and holds it until its lease ends.
                Claim::InFlight { .. } => missing += 1,
                _ => {}
            }
        }
        if missing == 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// "Downloads" one image: writes its file under another name and renames it, so that a killed worker
/// leaves no half image. Every tenth one fails at the first attempt, as servers do.
fn download(folder: &Path, timestamp: &str, attempt: u32) -> io::Result<()> {
    thread::sleep(Duration::from_millis(3));
    if attempt == 1 && timestamp.ends_with("7Z") {
        return Err(io::Error::other("503 Service Unavailable"));
    }
    let unfinished = folder.join(format!("{timestamp}.{}.part", std::process::id()));
    fs::write(&unfinished, format!("pixels of {timestamp}\n"))?;
    fs::rename(unfinished, folder.join(format!("{timestamp}.img")))
}
