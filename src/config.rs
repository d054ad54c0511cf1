//! The settings of a store, their defaults and their costs.
//!
//! Owns what a caller may choose; `environment` and `serialized` read it from elsewhere. What always holds: a config is valid
//! once [`Config::validate`] has passed, which every `open` calls before it touches a file. Does not know how
//! a setting is applied.

mod environment;
#[cfg(feature = "serde")]
mod serialized;

pub(crate) use self::environment::read_environment;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, MAX_MS, MIN_MS, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::process::default_holder;

/// The longest receipt that a store can be set to take, in bytes.
pub(crate) const MAX_RECEIPT_BYTES: usize = 1 << 20;

/// The most calls that the queue of an async store can be set to take.
const MAX_ASYNC_QUEUE: usize = 1_000_000;

/// The longest label of a holder, in bytes.
pub(crate) const MAX_HOLDER_BYTES: usize = 255;

/// How long a mark lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ttl {
    /// This long after the mark's timestamp, in whole milliseconds, rounded up. With zero a mark expires at
    /// once: it is recorded and never seen.
    After(Duration),
    /// The mark never expires.
    Never,
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

impl Ttl {
    /// Returns when a mark made at `at_ms` expires, in unix milliseconds; `None` is never. Saturates.
    pub(crate) fn expires_at(self, at_ms: i64) -> Option<i64> {
        match self {
            Self::Never => None,
            Self::After(duration) => {
                let ms = i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
                Some(at_ms.saturating_add(ms).clamp(MIN_MS, MAX_MS))
            }
        }
    }
}

/// Whether a sighting of a seen id extends its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "serialized::WindowForm", into = "serialized::WindowForm")
)]
#[non_exhaustive]
pub enum Window {
    /// A mark lasts one TTL, however often the id comes back.
    #[default]
    Fixed,
    /// A mark lasts one TTL after the last sighting by [`check_and_mark`](crate::SeenStore::check_and_mark)
    /// or [`claim`](crate::SeenStore::claim): an id that is still in the feed stays seen. So that not every
    /// sighting needs a commit, a mark is extended by a sixteenth of the TTL more than asked, and again only
    /// when that is used up.
    Sliding {
        /// The longest time that a mark may last after the id was first seen, however often it comes back;
        /// `None` means no limit.
        max_age: Option<Duration>,
    },
}

impl Window {
    /// A sliding window without a maximum age.
    pub const SLIDING: Self = Self::Sliding { max_age: None };
}

/// What becomes of an id whose claim was abandoned: the lease ran out, and its holder said nothing. Whether the
/// holder did its work is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Abandoned {
    /// The id can be claimed again at once. The new holder can ask how the attempt before it ended:
    /// [`Lease::previous`](crate::Lease::previous). An alert may be sent twice, and is not lost.
    #[default]
    Retry,
    /// The id stays claimed until it is [resolved](crate::SeenStore::resolve), or its holder confirms late.
    /// An alert is not sent twice by the store's doing.
    Hold,
}

/// How long an id cannot be claimed again after its claim failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "serialized::RetryDelayForm", into = "serialized::RetryDelayForm")
)]
#[non_exhaustive]
pub enum RetryDelay {
    /// This long after each failure.
    Fixed(Duration),
    /// Twice as long after each attempt, and by chance up to half of that less, so that many ids that failed
    /// together are not tried again together. (The "equal jitter" of M. Brooker, "Exponential Backoff And
    /// Jitter", AWS Architecture Blog, 2015.)
    Exponential {
        /// The delay after the first attempt.
        first: Duration,
        /// The longest delay.
        max: Duration,
    },
}

impl From<Duration> for RetryDelay {
    fn from(delay: Duration) -> Self {
        Self::Fixed(delay)
    }
}

impl RetryDelay {
    /// Returns the delay after this many attempts. `chance` is a random number.
    pub(crate) fn after(self, attempts: u32, chance: u64) -> Duration {
        match self {
            Self::Fixed(delay) => delay,
            Self::Exponential { first, max } => {
                let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
                let delay = first.saturating_mul(doubled).min(max);
                delay.saturating_sub((delay / 2).mul_f64(chance as f64 / u64::MAX as f64))
            }
        }
    }
}

/// What a commit waits for before it is acknowledged.
///
/// In both modes an acknowledged mark survives `kill -9`, and the file is never corrupted. (They are SQLite's
/// levels of the same name. SQLite's `OFF` could corrupt the file and is not offered.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Synchronous {
    /// Wait for the write. A power cut may undo the newest commits.
    #[default]
    Normal,
    /// Wait for the disk: one fsync for each commit. A power cut undoes nothing.
    Full,
}

/// Whether the index of ids is in memory.
///
/// The file has an index too, and a store that opens does not read more than the end of the file. What the index in memory
/// does not hold is looked up in the file: some tens of µs instead of some 0.3 µs, and a thread that calls a verb
/// may wait for the disk. Nothing is forgotten in any mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum IndexMode {
    /// Only what is asked for is kept in memory, at most 65,536 ids besides those that the end of the file has. For stores
    /// that are large and rarely asked, or where memory is short.
    Asleep,
    /// The default. Asleep, until so much was asked for that reading all of it would have been cheaper: after as many
    /// lookups in the file as a 32nd of its rows, and at least 1,000. Then a thread reads the whole file, about 0.3 s
    /// of work for a
    /// million ids, while callers go on; from then on the index takes 36 to 54 bytes for each id.
    Wakes,
    /// The whole file is read when the store opens: about 0.3 s for a million ids. For a store that is asked for much
    /// from the
    /// first moment on.
    Awake,
}

/// Declares the [`Config`]: of each setting its documentation, `name(argument: type): field = default`, and
/// the field's value after `=>` where that is not the argument itself.
macro_rules! settings {
    ($(#[$config:meta])* pub struct Config;
    $($(#[$doc:meta])+
    $name:ident($argument:ident: $type:ty $(=> $value:expr)?): $field:ty = $default:expr;)+) => {
        $(#[$config])*
        pub struct Config {
            $(pub(crate) $name: $field,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Config {
            $($(#[$doc])+
            #[must_use]
            pub fn $name(mut self, $argument: $type) -> Self {
                $(let $argument = $value;)?
                self.$name = $argument;
                self
            })+
        }
    };
}

settings! {
    /// The settings of a store. Start from the default and change what you need.
    ///
    /// ```
    /// use seen_store::{Config, Synchronous};
    /// use std::time::Duration;
    /// let config = Config::default()
    ///     .ttl(Duration::from_secs(36 * 3600))
    ///     .synchronous(Synchronous::Full);
    /// ```
    ///
    /// With the feature `serde`, a program reads the settings of its store from its own configuration file. They have
    /// the names of the methods here; durations are texts such as `90s`, `36h` or `7d`. A setting that is missing has
    /// its default, and an unknown one is an error that names it. The clock is no setting of a file.
    ///
    /// ```toml
    /// [store]
    /// ttl = "30d"                                 # or "never"
    /// window = { max_age = "90d" }                # or "fixed", "sliding"
    /// retry_delay = { first = "10s", max = "1h" } # or "30s"
    /// abandoned = "hold"                          # or "retry"
    /// synchronous = "full"                        # or "normal"
    /// busy_timeout = "5s"
    /// purge_interval = "never"                    # or "1h"
    /// index = "asleep"                            # or "wakes", "awake"
    /// ```
    #[derive(Clone, Debug)]
    pub struct Config;

    /// Sets how long a mark lasts. Default: 7 days. A longer TTL keeps more entries, at 80 to 100 bytes of
    /// disk each, and 36 to 54 bytes of memory once the [index](Self::index) is awake.
    ttl(ttl: impl Into<Ttl> => ttl.into()): Ttl = Ttl::After(Duration::from_secs(7 * 24 * 3_600));

    /// Sets whether a sighting of a seen id extends its mark. Default: [`Window::Fixed`]. `Sliding` costs one
    /// commit for each sixteenth of the TTL in which an id comes back.
    window(window: Window): Window = Window::Fixed;

    /// Sets how long what is known of an id is kept, counted from the mark as the TTL is. Default: `None`, no longer
    /// than the id is seen. See [`SeenStore::retention`](crate::SeenStore::retention).
    retention(retention: impl Into<Option<Duration>> => retention.into()): Option<Duration> = None;

    /// Sets how long an id cannot be claimed again after its claim [failed](crate::Lease::fail). Default:
    /// zero. A delay ends at once when the clock is set back to more than 60 s before the claim.
    retry_delay(retry_delay: impl Into<RetryDelay> => retry_delay.into()):
        RetryDelay = RetryDelay::Fixed(Duration::ZERO);

    /// Sets after how many attempts [`claim`](crate::SeenStore::claim) returns
    /// [`GivenUp`](crate::Claim::GivenUp). Default: `None`, never. A released attempt and one whose lease ran
    /// out count too.
    max_attempts(max_attempts: impl Into<Option<u32>> => max_attempts.into()): Option<u32> = None;

    /// Sets after how many abandoned attempts [`claim`](crate::SeenStore::claim) returns
    /// [`GivenUp`](crate::Claim::GivenUp): an item that kills its worker each time should not kill all of them.
    /// Default: `None`, never.
    max_abandoned(max_abandoned: impl Into<Option<u32>> => max_abandoned.into()): Option<u32> = None;

    /// Sets how many bytes a receipt may have. Default: 65,536; at most 1,048,576. Receipts are stored in the file,
    /// and a long one has a commit of its own.
    max_receipt(bytes: usize): usize = 65_536;

    /// Sets what becomes of an id whose claim is abandoned. Default: [`Abandoned::Retry`]. The setting is stored
    /// with the claim when it is granted, and binds every caller after that.
    abandoned(abandoned: Abandoned): Abandoned = Abandoned::Retry;

    /// Sets the label by which others can tell who holds a claim, of up to 255 bytes. Default: the name of the
    /// machine and the number of the process, as `host:4711`. It is stored with each claim, and decides nothing.
    holder(holder: impl Into<String> => Some(holder.into())): Option<String> = None;

    /// Sets what a commit waits for. Default: [`Synchronous::Normal`]. `Full` costs one fsync for each
    /// commit, often milliseconds.
    synchronous(synchronous: Synchronous): Synchronous = Synchronous::Normal;

    /// Sets SQLite's page cache: pages when positive, KiB when negative. Default: 10,000 pages (10 MB with
    /// this store's pages of 1 KiB). Costs that much memory once that many pages were used. Lookups use
    /// it while the index is [asleep](IndexMode): with a small one they take two to three times as long.
    cache_size(cache_size: i64): i64 = 10_000;

    /// Sets whether the index of ids is in memory. Default: [`IndexMode::Wakes`]. A file of up to 4,096 ids is always read
    /// whole. A [`read_only`](Self::read_only) store reads a file that has no index of its own whole, too. A store in memory
    /// has all of it in memory.
    index(index: IndexMode): IndexMode = IndexMode::Wakes;

    /// Sets how long a call waits for other stores and processes before it fails with [`ErrorKind::Busy`].
    /// Default: 30 s. Only the calling thread waits.
    ///
    /// A store that holds the file for long leaves a tenth of the time to others, and a batch of 10,000 ids
    /// holds it for about 15 ms. So beside batches, imports, purges and cleanups of others, a single mark
    /// waits some tens of milliseconds and at most 500, as long as the machine and its disk are not
    /// overloaded. Only [`compact`](crate::SeenStore::compact) holds the file for longer.
    busy_timeout(busy_timeout: Duration): Duration = Duration::from_secs(30);

    /// Sets how many small calls of an `AsyncSeenStore` (feature `tokio`) may be in its queue at once. Default: 1,024; 1 to
    /// 1,000,000. A task that calls while the queue is full waits for a place, in the order in which they came. A call in
    /// the queue takes some 500 bytes, and its id. Up to 256 of them share a commit, so fewer places than that make
    /// commits smaller; more than the default only let more calls wait in the store instead of before it.
    async_queue(calls: usize): usize = 1_024;

    /// Makes this store the file's only user. Default: off. When on, no lookup and no mark asks what other
    /// processes have done, so both are cheaper, and no `-shm` file is used; any second open, by this process or another,
    /// fails with [`ErrorKind::Busy`].
    exclusive(exclusive: bool): bool = false;

    /// Leaves the file as it is: no marks, no purge, no upgrade, no creation. Default: off. Creates a `-wal` and
    /// a `-shm` beside the file, and removes them when it is the last store to close, if the file is writable
    /// and the `-wal` is empty. A [`Reader`](crate::Reader) creates nothing.
    read_only(read_only: bool): bool = false;

    /// Sets whether opening makes a store where there is none, with its folders. Default: on. When off, a missing file
    /// is [`ErrorKind::NotFound`]: a volume that is not mounted does not become a store that knows nothing. An empty
    /// file is no store either. See also [`SeenStore::was_created`](crate::SeenStore::was_created).
    create(create: bool): bool = true;

    /// Sets how many pages the write-ahead log may have before a commit waits until they are copied into the
    /// file. Default: 7,000 (7 MB). Commits rarely wait: from half of that on, a thread copies the log while
    /// callers go on. Only where commits follow each other without a gap do they wait, at three quarters, for
    /// the rest to be copied. Other stores on the file do the same: the log grows beyond the limit by about
    /// 512 pages for each store, and by the size of a transaction.
    ///
    /// While a snapshot is open (a [`backup`](crate::SeenStore::backup), a
    /// [`verify`](crate::SeenStore::verify), a transaction of another program), the log grows by what is
    /// written. Commits go on, and the log is short again soon after the snapshot ends.
    ///
    /// Below 1,000 pages no thread is used, and in [exclusive](Self::exclusive) mode none is possible. With 0
    /// only [`checkpoint`](crate::SeenStore::checkpoint) and `close` copy the log.
    wal_autocheckpoint(pages: u32): u32 = 7_000;

    /// Sets to how many bytes a longer write-ahead log is cut after a checkpoint. Default: 8 MiB. A smaller
    /// limit costs file-system work to grow the log again, above all with [`Synchronous::Full`].
    journal_size_limit(bytes: u64): u64 = 8 << 20;

    /// Sets whether opening removes what has expired. Default: on. Goes from the oldest mark on as far as it finds expired
    /// ones, at most through 8,000; the rest is removed beside the next commits. Costs about a microsecond for each.
    purge_on_open(purge_on_open: bool): bool = true;

    /// Sets how often expired entries are removed while the store is in use; with `None` only
    /// [`purge_expired`](crate::SeenStore::purge_expired) removes them. Default: 1 hour. Once that time has
    /// passed, each commit does one small step (well under a millisecond) until the whole file is done. The
    /// processes on one file share the work.
    purge_interval(interval: impl Into<Option<Duration>> => interval.into()):
        Option<Duration> = Some(Duration::from_secs(3_600));

    /// Sets whether a thread of the store does those purges, also without any commits. Default: off. The
    /// thread ends with the last handle.
    purge_thread(purge_thread: bool): bool = false;

    /// Sets whether [`SystemClock`] is taken to be unset while it shows a time before the release of this version, as on
    /// a board that boots in 1970. Default: on. Time then goes on from the release date, 2026-11-01, or from the time
    /// that the store has reached if that is later, and a log message says so once: otherwise marks made before the
    /// clock is set would have expired when it is set, and the same alerts would come after every boot. Other clocks
    /// and times that callers give are never judged.
    check_clock(check_clock: bool): bool = true;

    /// Sets the source of the time of day. Default: [`SystemClock`].
    clock(clock: impl Clock => Arc::new(clock)): Arc<dyn Clock> = Arc::new(SystemClock);
}

impl Config {
    /// Returns the settings that environment variables describe: `SEEN_` and the name of the setting in capitals. What
    /// is not set, or empty, has its default.
    ///
    /// | variable | value | also understood |
    /// | --- | --- | --- |
    /// | `SEEN_TTL` | a duration, or `never` | `SEEN_TTL_DAYS`: whole days |
    /// | `SEEN_WINDOW` | `fixed` or `sliding` | |
    /// | `SEEN_MAX_AGE` | a duration, the maximum age of a sliding window | |
    /// | `SEEN_RETENTION` | a duration | |
    /// | `SEEN_RETRY_DELAY` | a duration | |
    /// | `SEEN_RETRY_MAX` | a duration, up to which the delay doubles | |
    /// | `SEEN_MAX_ATTEMPTS`, `SEEN_MAX_ABANDONED` | a number | |
    /// | `SEEN_MAX_RECEIPT` | a number of bytes | |
    /// | `SEEN_ABANDONED` | `retry` or `hold` | |
    /// | `SEEN_HOLDER` | text | |
    /// | `SEEN_SYNCHRONOUS` | `NORMAL` or `FULL` | `SQLITE_SYNCHRONOUS` |
    /// | `SEEN_INDEX` | `asleep`, `wakes` or `awake` | |
    /// | `SEEN_CACHE_SIZE` | a number of pages, of KiB when negative | `SQLITE_CACHE_SIZE` |
    /// | `SEEN_BUSY_TIMEOUT` | a duration | |
    /// | `SEEN_ASYNC_QUEUE` | a number of calls | |
    /// | `SEEN_EXCLUSIVE`, `SEEN_READ_ONLY`, `SEEN_CREATE` | `true` or `false` | |
    /// | `SEEN_WAL_AUTOCHECKPOINT` | a number of pages | |
    /// | `SEEN_JOURNAL_SIZE_LIMIT` | a number of bytes | |
    /// | `SEEN_PURGE_ON_OPEN`, `SEEN_PURGE_THREAD` | `true` or `false` | |
    /// | `SEEN_PURGE_INTERVAL` | a duration, or `never` | |
    /// | `SEEN_CHECK_CLOCK` | `true` or `false` | |
    ///
    /// A duration is a text such as `90s`, `36h` or `1w 2d`. Where a setting has two variables and both are set, the
    /// one on the left counts. The names on the right are those of the program that this crate grew from; of its
    /// others, `SQLITE_MMAP_SIZE` and `SEEN_STORE_CACHE_*` have no effect, and a log message says so, as it does for
    /// a misspelt `SEEN_...`.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) when a variable is not understood; the message names the variable
    /// and its value.
    pub fn from_env() -> Result<Self> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        environment::read_settings(|name| std::env::var_os(name), names)
    }

    /// Returns whether opening may make a store where there is none.
    pub(crate) fn may_create(&self) -> bool {
        self.create && !self.read_only
    }

    /// Returns the label of this store's claims.
    pub(crate) fn holder_label(&self) -> Arc<str> {
        self.holder.clone().unwrap_or_else(default_holder).into()
    }

    /// Validates the settings for a store whose servers keep the ids.
    #[cfg(feature = "backend")]
    pub(crate) fn validate_for_servers(&self, store: &str) -> Result<()> {
        self.validate()?;
        if self.read_only || self.exclusive {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "{store}: read_only and exclusive are settings of a store in a file; on servers, give the store a user \
                     who may do no more"
                ),
            ));
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.cache_size == 0 || i32::try_from(self.cache_size).is_err() {
            return invalid(
                "cache_size must be a number of pages, or of KiB when negative, that is not 0 and \
                 fits 32 bits; the default is 10000",
            );
        }
        if i32::try_from(self.wal_autocheckpoint).is_err() {
            return invalid("wal_autocheckpoint must be below 2147483648 pages");
        }
        if i64::try_from(self.journal_size_limit).is_err() {
            return invalid("journal_size_limit must be below 2^63 bytes");
        }
        if self.purge_interval.is_some_and(|interval| interval.is_zero()) {
            return invalid("purge_interval must not be zero; use None to switch it off");
        }
        if self.purge_thread && self.purge_interval.is_none() {
            return invalid("purge_thread needs a purge_interval");
        }
        if self.max_attempts == Some(0) {
            return invalid("max_attempts must be at least 1; use None for no limit");
        }
        if self.max_abandoned == Some(0) {
            return invalid("max_abandoned must be at least 1; use None for no limit");
        }
        if self.max_receipt > MAX_RECEIPT_BYTES {
            return invalid("max_receipt must be at most 1048576 bytes");
        }
        if !(1..=MAX_ASYNC_QUEUE).contains(&self.async_queue) {
            return invalid("async_queue must be 1 to 1000000 calls; the default is 1024");
        }
        if self.holder.as_ref().is_some_and(|holder| holder.len() > MAX_HOLDER_BYTES) {
            return invalid("holder must have at most 255 bytes");
        }
        check_retention(self.retention, self.ttl)?;
        if self.exclusive && self.read_only {
            return invalid("a store cannot be both exclusive and read_only");
        }
        Ok(())
    }
}

/// Fails when the retention would end before the TTL.
pub(crate) fn check_retention(retention: Option<Duration>, ttl: Ttl) -> Result<()> {
    match (retention, ttl) {
        (Some(retention), Ttl::After(ttl)) if retention < ttl => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "the retention of {retention:?} is shorter than the TTL of {ttl:?}: both count from the mark; give a \
                 longer retention, or none"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_delay_doubles_up_to_its_maximum_and_varies_by_half() {
        let secs = Duration::from_secs;
        let delay = RetryDelay::Exponential { first: secs(1), max: secs(60) };
        for (attempts, longest) in [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (99, 60)] {
            assert_eq!(delay.after(attempts, 0), secs(longest), "{attempts}");
            assert_eq!(delay.after(attempts, u64::MAX), secs(longest) / 2, "{attempts}");
        }
        assert_eq!(RetryDelay::from(secs(5)).after(9, 17), secs(5));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let second = Duration::from_secs(1);
        for config in [
            Config::default().cache_size(0),
            Config::default().cache_size(1 << 40),
            Config::default().async_queue(0),
            Config::default().async_queue(1_000_001),
            Config::default().wal_autocheckpoint(u32::MAX),
            Config::default().journal_size_limit(u64::MAX),
            Config::default().purge_interval(Duration::ZERO),
            Config::default().purge_interval(None).purge_thread(true),
            Config::default().busy_timeout(second).exclusive(true).read_only(true),
        ] {
            assert_eq!(config.validate().unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
        Config::default().validate().unwrap();
    }

    #[test]
    fn a_ttl_saturates_and_rounds_up_so_that_only_zero_is_zero() {
        assert_eq!(Ttl::from(Duration::MAX).expires_at(5), Some(MAX_MS));
        assert_eq!(Ttl::from(Duration::from_nanos(1)).expires_at(5), Some(6));
        assert_eq!(Ttl::from(Duration::ZERO).expires_at(5), Some(5));
        assert_eq!(Ttl::from(Duration::ZERO).expires_at(-5), Some(MIN_MS));
        assert_eq!(Ttl::Never.expires_at(5), None);
    }
}
