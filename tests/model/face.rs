//! A store as threads use it, and as tasks do: the same verbs, for one model.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use seen_store::{
    AsyncKnown, AsyncLease, AsyncSeenStore, Claim, Entry, Failure, Item, Known, Lease, Observation,
    Previous, Resolution, Result, SeenStore, Token, Verdict,
};
use tokio::runtime::{Builder, Runtime};

/// A handle of a store.
pub(crate) enum Handle {
    Threads(SeenStore),
    Tasks(AsyncSeenStore),
}

/// A claim that is held.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few at a time")]
pub(crate) enum Held {
    Thread(Lease),
    Task(AsyncLease),
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).build().unwrap());
    RUNTIME.block_on(future)
}

/// Defines methods that call the verb of the same name, of either kind.
macro_rules! verbs {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[allow(clippy::extra_unused_lifetimes, reason = "some verbs take no item")]
        impl Handle {
            $(pub(crate) fn $name<'a>(&self, $($argument: $type),*) -> $answer {
                match self {
                    Self::Threads(store) => store.$name($($argument),*),
                    Self::Tasks(store) => wait(store.$name($($argument),*)),
                }
            })*
        }
    };
}

verbs! {
    is_seen(id: impl Into<Item<'a>>) -> bool;
    try_is_seen(id: impl Into<Item<'a>>) -> Result<bool>;
    get(id: impl Into<Item<'a>>) -> Result<Option<Entry>>;
    mark_seen(id: impl Into<Item<'a>>) -> Result<()>;
    mark_seen_at(id: impl Into<Item<'a>>, at: SystemTime) -> Result<()>;
    check_and_mark(id: impl Into<Item<'a>>) -> Result<Verdict>;
    observe(id: impl Into<Item<'a>>) -> Result<Observation>;
    check_and_mark_all(ids: impl IntoIterator<Item: Into<Item<'a>>>) -> Result<Vec<Verdict>>;
    seed(ids: impl IntoIterator<Item: Into<Item<'a>>>) -> Result<u64>;
    forget(id: impl Into<Item<'a>>) -> Result<bool>;
    resolve(id: impl Into<Item<'a>>, resolution: Resolution) -> Result<bool>;
    confirm(id: impl Into<Item<'a>>, token: &Token) -> Result<()>;
    confirm_with(id: impl Into<Item<'a>>, token: &Token, receipt: &[u8]) -> Result<()>;
    release(id: impl Into<Item<'a>>, token: &Token) -> Result<()>;
    fail(id: impl Into<Item<'a>>, token: &Token, failure: impl Into<Failure>) -> Result<()>;
    renew(id: impl Into<Item<'a>>, token: &Token, lease: Duration) -> Result<()>;
    count_old_entries(older_than: Duration) -> Result<u64>;
    cleanup_old_entries(older_than: Duration) -> Result<u64>;
    count_expired() -> Result<u64>;
    purge_expired() -> Result<u64>;
}

impl Handle {
    pub(crate) fn claim<'a>(
        &self,
        id: impl Into<Item<'a>>,
        lease: Duration,
    ) -> Result<Claim<Held, ()>> {
        Ok(match self {
            Self::Threads(store) => of_thread(store.claim(id, lease)?),
            Self::Tasks(store) => of_task(wait(store.claim(id, lease))?),
        })
    }

    pub(crate) fn claim_all<'a>(
        &self,
        ids: impl IntoIterator<Item: Into<Item<'a>>>,
        lease: Duration,
    ) -> Result<Vec<Claim<Held, ()>>> {
        Ok(match self {
            Self::Threads(store) => {
                store.claim_all(ids, lease)?.into_iter().map(of_thread).collect()
            }
            Self::Tasks(store) => {
                wait(store.claim_all(ids, lease))?.into_iter().map(of_task).collect()
            }
        })
    }
}

fn of_thread(claim: Claim<Lease, Known>) -> Claim<Held, ()> {
    map(claim, Held::Thread)
}

fn of_task(claim: Claim<AsyncLease, AsyncKnown>) -> Claim<Held, ()> {
    map(claim, Held::Task)
}

fn map<L, K>(claim: Claim<L, K>, granted: impl FnOnce(L) -> Held) -> Claim<Held, ()> {
    match claim {
        Claim::Granted(lease) => Claim::Granted(granted(lease)),
        Claim::InFlight { until, holder } => Claim::InFlight { until, holder },
        Claim::Seen(_) => Claim::Seen(()),
        Claim::Unresolved { since, holder } => Claim::Unresolved { since, holder },
        Claim::GivenUp { attempts } => Claim::GivenUp { attempts },
        _ => panic!("an answer to a claim is new to the model"),
    }
}

/// The same for what a lease tells.
macro_rules! tells {
    ($($name:ident -> $told:ty;)*) => {
        impl Held {
            $(pub(crate) fn $name(&self) -> $told {
                match self {
                    Self::Thread(lease) => lease.$name(),
                    Self::Task(lease) => lease.$name(),
                }
            })*
        }
    };
}

tells! {
    id -> &[u8];
    token -> Token;
    attempt -> u32;
    expires_at -> SystemTime;
    previous -> &Previous;
}

/// The same for the verbs of a lease.
macro_rules! lease_verbs {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        impl Held {
            $(pub(crate) fn $name(&mut self, $($argument: $type),*) -> Result<()> {
                match self {
                    Self::Thread(lease) => lease.$name($($argument),*),
                    Self::Task(lease) => wait(lease.$name($($argument),*)),
                }
            })*
        }
    };
}

lease_verbs! {
    confirm();
    confirm_with(receipt: &[u8]);
    release();
    fail(failure: impl Into<Failure>);
    renew(lease: Duration);
}

impl Held {
    pub(crate) fn into_token(self) -> Token {
        match self {
            Self::Thread(lease) => lease.into_token(),
            Self::Task(lease) => lease.into_token(),
        }
    }
}
