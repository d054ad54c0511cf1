//! Stores on a Redis or Valkey Cluster: the feature `cluster`.
//!
//! Owns which texts are URLs of clusters, how messages name them, and what a `seen` without the feature says. What always
//! holds: no message shows what stands before the `@` of such a URL. All commands use these stores by their trait, so
//! nothing else knows of the feature.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use seen_store::{Config, Store};

use crate::Result;
use crate::args::place::Place;

#[cfg(feature = "cluster")]
const SILENT_FOR: std::time::Duration = std::time::Duration::from_secs(2);

/// Returns whether a text is the URL of a cluster, not the path of a file.
#[cfg(feature = "cluster")]
pub(crate) use seen_cluster::is_cluster_url as is_url;

/// Returns whether a text is the URL of a cluster, also a misspelled one, and not the path of a file.
#[cfg(not(feature = "cluster"))]
pub(crate) fn is_url(text: &str) -> bool {
    let text = text.trim_start().to_ascii_lowercase();
    let scheme = text.split_once(":/").map_or("", |(scheme, _)| scheme);
    ["redis", "valkey"].iter().any(|name| scheme.starts_with(name))
}

/// Opens the store at the URL of the place.
#[cfg(feature = "cluster")]
pub(crate) fn open(_: &Place, url: &str, config: Config) -> Result<Box<dyn Store>> {
    // A dry run opens the store like any other: a cluster has no store that could be left alone.
    let opened = telling_that_it_waits(&name(url), || {
        seen_cluster::ClusterStore::open_with(url, config.read_only(false))
    });
    let store = opened?;
    log::info!("{}: opened", name(url));
    Ok(Box::new(store))
}

/// Says after a moment that a cluster does not answer yet: opening a store tries again for half a minute.
#[cfg(feature = "cluster")]
fn telling_that_it_waits<T>(name: &str, open: impl FnOnce() -> T) -> T {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    let (opened, is_opened) = channel::<()>();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            if is_opened.recv_timeout(SILENT_FOR) == Err(RecvTimeoutError::Timeout) {
                log::warn!("{name}: no server of it answers yet; trying on");
            }
        });
        let store = open();
        drop(opened);
        store
    })
}

/// Says what is missing.
#[cfg(not(feature = "cluster"))]
pub(crate) fn open(place: &Place, url: &str, _: Config) -> Result<Box<dyn Store>> {
    Err(place.misplaced(format!(
        "{}: this `seen` was built without the feature `cluster`, which stores on a cluster need; \
         `cargo install --path crates/seen-cli --features cluster` installs it with it",
        name(url)
    )))
}

/// Returns the URL without its user, its password and its options.
pub(crate) fn name(url: &str) -> String {
    let shown = without_secrets(url);
    shown.split('?').next().unwrap_or_default().to_owned()
}

/// Returns a message in which no URL of a cluster has a user or a password: one that was mistyped may be quoted by what
/// refuses it.
pub(crate) fn without_secrets(message: &str) -> Cow<'_, str> {
    // Up to the last `@`: a password may hold one.
    static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?i)((?:rediss?|valkeys?):/*)[^\s"'`]*@"#).expect("a pattern of this program")
    });
    SECRETS.replace_all(message, "$1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_no_user_and_no_password() {
        for (message, shown) in [
            ("redis://bot:hunter2@a,b/c", "redis://a,b/c"),
            ("x 'valkeys://:hun/t@er2@a:1/c' found", "x 'valkeys://a:1/c' found"),
            ("REDISS://hunter2@a", "REDISS://a"),
            ("redis:/bot:hunter2@a: no", "redis:/a: no"),
            ("redis://a/b", "redis://a/b"),
            ("https://bot:x@a", "https://bot:x@a"),
            ("redis://a/b: the key \"c@d\"", "redis://a/b: the key \"c@d\""),
        ] {
            assert_eq!(without_secrets(message), shown);
        }
    }

    #[test]
    fn a_url_is_named_without_its_options() {
        assert_eq!(name("redis://bot:hunter2@a,b/c?min_replicas=2"), "redis://a,b/c");
        // One that is not well-formed, too.
        assert_eq!(name("redis://bot:hunter2?@a"), "redis://a");
    }

    #[test]
    fn the_schemes_of_clusters_are_those_of_the_store() {
        for url in
            ["redis://a", "rediss://a", "valkey://a", "valkeys://a", " Redis://a", "redis:/a"]
        {
            assert!(is_url(url), "{url}");
        }
        for path in ["redis", "redis.db", "./redis://a", "sqlite://a", "https://a"] {
            assert!(!is_url(path), "{path}");
        }
    }
}
