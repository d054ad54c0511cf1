//! The bot as its users run it: killed, interrupted, run again. It posts each item once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use seen_store::{SeenStore, State};
use tempfile::TempDir;

/// 40 pages with 20 new items each, and five more on the last one.
const ITEMS: usize = 805;

/// The folder of one bot.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bot(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_async_feed_fetcher"));
        command.arg(self.0.path()).env_remove("RUST_LOG");
        command
    }

    /// Starts the bot, and returns it once there are so many posts.
    fn bot_with_posts(&self, posts: usize) -> Child {
        let mut bot = self.bot().stdout(Stdio::null()).spawn().unwrap();
        while self.posts().len() < posts {
            assert!(bot.try_wait().unwrap().is_none(), "the bot ended before {posts} posts");
            thread::sleep(Duration::from_millis(1));
        }
        bot
    }

    /// Runs the bot to its end, and returns what its last line counts.
    fn run(&self) -> Counts {
        let output = self.bot().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let last = stdout.lines().last().unwrap();
        let counts: Vec<usize> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [posted, found, refused] = counts[..] else { panic!("{last}") };
        assert_eq!(last, format!("{posted} posted, {found} found posted, {refused} tries refused"));
        Counts { posted, found, refused }
    }

    /// Returns the lines of the server's file.
    fn posts(&self) -> Vec<String> {
        match fs::read_to_string(self.path("posts.txt")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            posts => posts.unwrap().lines().map(str::to_owned).collect(),
        }
    }

    /// Each item is posted once, and seen with the number of its post. The store was closed.
    fn check_complete(&self) {
        let mut posts = BTreeMap::<String, Vec<String>>::new();
        for line in self.posts() {
            let (number, id) = line.split_once(' ').unwrap();
            posts.entry(id.to_owned()).or_default().push(number.to_owned());
        }
        let twice: Vec<_> = posts.iter().filter(|(_, numbers)| numbers.len() > 1).collect();
        assert!(twice.is_empty(), "posted more than once: {twice:?}");
        assert_eq!(posts.len(), ITEMS);

        assert_closed(&self.path("seen.db"));
        let store = SeenStore::open(self.path("seen.db")).unwrap();
        for (id, numbers) in &posts {
            let entry = store.get(id).unwrap().unwrap_or_else(|| panic!("{id} is not known"));
            assert_eq!(entry.state, State::Seen, "{id}");
            let receipt = entry.receipt.as_deref();
            assert_eq!(receipt, Some(numbers[0].as_bytes()), "the receipt of {id}");
        }
        assert_eq!(store.stats().unwrap().seen, ITEMS as u64);
    }
}

struct Counts {
    posted: usize,
    found: usize,
    refused: usize,
}

fn assert_closed(store: &Path) {
    assert!(store.exists());
    assert!(!store.with_extension("db-wal").exists(), "the store was not closed");
}

#[test]
fn a_bot_killed_at_four_moments_posts_each_item_once_and_then_none() {
    let place = Place::new();
    for posts in [1, 150, 300, 600] {
        let mut bot = place.bot_with_posts(posts);
        bot.kill().unwrap();
        bot.wait().unwrap();
        assert!(place.posts().len() < ITEMS, "the bot was to die in the middle");
    }
    let last = place.run();
    place.check_complete();
    // One is the lost answer. Without others no kill came between a post and its confirm: this would show little.
    assert!(last.found > 1, "{} found posted", last.found);

    let again = place.run();
    assert_eq!((again.posted, again.found, again.refused), (0, 0, 0));
    place.check_complete();
}

#[cfg(unix)]
#[test]
fn a_bot_that_is_interrupted_closes_its_store_and_posts_each_item_once() {
    let place = Place::new();
    let mut bot = place.bot_with_posts(200);
    let id = rustix::process::Pid::from_child(&bot);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(bot.wait().unwrap().code(), Some(1));
    assert_closed(&place.path("seen.db"));
    assert!(place.posts().len() < ITEMS, "the bot was to end in the middle");

    let last = place.run();
    place.check_complete();
    assert!(last.found > 1, "{} found posted", last.found);
}

#[test]
fn a_bot_that_is_left_alone_tries_again_what_was_refused_and_asks_for_a_lost_answer() {
    let place = Place::new();
    let counts = place.run();
    // The answer to one post is lost. Every seventh request is refused: one for each six that are taken.
    let expected = (ITEMS - 1, 1, (ITEMS - 1) / 6);
    assert_eq!((counts.posted, counts.found, counts.refused), expected);
    place.check_complete();
}

#[test]
fn a_second_bot_in_the_folder_is_refused_and_told_what_to_do() {
    let place = Place::new();
    let mut bot = place.bot_with_posts(1);
    let second = place.bot().output().unwrap();
    bot.kill().unwrap();
    bot.wait().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert!(stderr.contains("is in use; wait for the other bot, or stop it"), "{stderr}");
}
