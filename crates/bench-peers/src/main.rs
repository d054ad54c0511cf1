//! Other stores that a user might pick, each doing this store's job: test-and-set of an id, with an
//! expiry that is checked when it is read.
//!
//! Each module's header gives the settings and says why they are equal in durability. A contender that
//! has no level for what is asked takes the next stronger one, or says that it cannot.

#![expect(clippy::disallowed_methods, reason = "it measures, and needs no clock that steps")]

mod fjall;
mod lmdb;
mod redb;
mod redis;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;

/// What each stores with an id: when it expires.
fn expiry() -> [u8; 8] {
    (harness::now_ms() + harness::TTL_MS).to_be_bytes()
}

/// Whether what is stored with an id makes it seen now.
fn is_live(value: &[u8]) -> bool {
    value.try_into().is_ok_and(|expiry| u64::from_be_bytes(expiry) > harness::now_ms())
}

/// The cache that those get which keep one of their own: a million ids fit several times.
const CACHE_BYTES: u32 = 512 << 20;

fn main() {
    harness::main(|plan| match plan.contender.as_str() {
        "fjall" => plan.run::<fjall::Fjall>(),
        "lmdb" => plan.run::<lmdb::Lmdb>(),
        "redb" => plan.run::<redb::Redb>(),
        "redis" => plan.run::<redis::Redis>(),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => plan.run::<rocksdb::Rocks>(),
        "sled" => plan.run::<sled::Sled>(),
        other => Err(format!("no contender is called {other:?}").into()),
    });
}
