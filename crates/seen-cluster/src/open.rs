//! Opening a store by a text that may be a URL or the path of a file.

use seen_store::{Config, Result, SeenStore, Store};

use crate::blocking::ClusterStore;
use crate::url::is_cluster_url;

/// Opens the store at the URL of a cluster, or in the file at a path, with the default settings.
///
/// ```
/// use seen_store::Verdict;
/// # fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("seen.db");
/// # let url_or_path = path.to_str().unwrap();
/// let store = seen_cluster::open_url(url_or_path)?;
/// assert_eq!(store.check_and_mark("incident-17".into())?, Verdict::New);
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// Those of [`ClusterStore::open`] for what begins with `redis://`, `rediss://`, `valkey://` or `valkeys://`; those of
/// [`SeenStore::open`] for all else.
pub fn open_url(url_or_path: &str) -> Result<Box<dyn Store>> {
    open_url_with(url_or_path, Config::default())
}

/// Opens the store at the URL of a cluster, or in the file at a path.
///
/// # Errors
///
/// Those of [`open_url`].
pub fn open_url_with(url_or_path: &str, config: Config) -> Result<Box<dyn Store>> {
    Ok(if is_cluster_url(url_or_path) {
        Box::new(ClusterStore::open_with(url_or_path, config)?)
    } else {
        Box::new(SeenStore::open_with(url_or_path, config)?)
    })
}
