//! The server: it has the pages of a feed and takes posts. It runs in the bot's process, so that the example is one
//! program. What it has answered, it still knows after a kill.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /feed/PAGE` | the ids on the page, one a line |
//! | `POST /posts/ID` | the number of the post, or 503 if it is not taken, or 500 if that is not known |
//! | `GET /posts/ID` | the number of the post, or 404 |

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as PathOf, State};
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

pub(crate) const PAGES: usize = 40;
const ITEMS_ON_A_PAGE: usize = 25;
/// The rest of a page is on the page before it, too.
const NEW_ON_A_PAGE: usize = 20;
/// Every seventh request to post is refused.
const REFUSED: u64 = 7;
/// The post with this number is taken, but its answer is lost on the way.
const LOST: u64 = 400;
/// How long an answer to a post takes.
const SLOWNESS: Duration = Duration::from_millis(20);

struct Posts {
    file: File,
    /// The number of each item's post.
    numbers: HashMap<String, u64>,
    next_number: u64,
    requests: u64,
}

/// Starts the server on a free port, and returns its address.
pub(crate) async fn start(folder: &Path) -> Result<String, String> {
    let path = folder.join("posts.txt");
    let posts = fs::create_dir_all(folder).and_then(|()| Posts::open(&path)).map_err(|e| {
        format!("cannot use {}: {e}; name a folder that this program may write to", path.display())
    })?;
    posts.file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => {
            format!("{} is in use; wait for the other bot, or stop it", path.display())
        }
        TryLockError::Error(e) => format!("cannot lock {}: {e}", path.display()),
    })?;
    let router = Router::new()
        .route("/feed/{page}", get(page))
        .route("/posts/{id}", get(find).post(post))
        .with_state(Arc::new(Mutex::new(posts)));
    let cannot_listen = |e| format!("cannot listen on 127.0.0.1: {e}; does this machine allow it?");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}

async fn page(PathOf(page): PathOf<usize>) -> Result<String, StatusCode> {
    if page >= PAGES {
        return Err(StatusCode::NOT_FOUND);
    }
    let mut items = String::new();
    for item in (page * NEW_ON_A_PAGE..).take(ITEMS_ON_A_PAGE) {
        writeln!(items, "item-{item:03}").expect("a text takes all");
    }
    Ok(items)
}

type Shared = State<Arc<Mutex<Posts>>>;

async fn post(State(posts): Shared, PathOf(id): PathOf<String>) -> Result<String, StatusCode> {
    // A panic under the lock leaves at worst a number without a post.
    let taken = posts.lock().unwrap_or_else(PoisonError::into_inner).take(id);
    tokio::time::sleep(SLOWNESS).await;
    taken
}

async fn find(State(posts): Shared, PathOf(id): PathOf<String>) -> Result<String, StatusCode> {
    let posts = posts.lock().unwrap_or_else(PoisonError::into_inner);
    posts.numbers.get(&id).map(u64::to_string).ok_or(StatusCode::NOT_FOUND)
}

impl Posts {
    /// Reads the posts of earlier runs.
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let mut numbers = HashMap::new();
        for line in fs::read_to_string(path)?.lines() {
            let (number, id) = line.split_once(' ').unwrap_or_default();
            numbers.insert(id.to_owned(), number.parse().map_err(io::Error::other)?);
        }
        let next_number = numbers.values().max().map_or(1, |number| number + 1);
        Ok(Self { file, numbers, next_number, requests: 0 })
    }

    /// Takes the post and returns its number. Does not ask whether it has the item already: that is the bot's task.
    fn take(&mut self, id: String) -> Result<String, StatusCode> {
        self.requests += 1;
        if self.requests.is_multiple_of(REFUSED) {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        let number = self.next_number;
        // One write in append mode: a kill leaves the whole line or nothing of it.
        let written = self.file.write_all(format!("{number} {id}\n").as_bytes());
        written.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        self.next_number += 1;
        self.numbers.insert(id, number);
        if number == LOST {
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        Ok(number.to_string())
    }
}
