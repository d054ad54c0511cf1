//! Who takes part.

/// How a contender stands to this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This store itself.
    Own,
    /// SQLite used directly.
    Sqlite,
    /// Another store.
    Peer,
    /// The machine itself; no contender.
    Baseline,
}

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) program: &'static str,
    pub(crate) kind: Kind,
    /// Those of one family can work on the same files.
    pub(crate) family: &'static str,
    /// Whether it also runs at the largest size.
    pub(crate) large: bool,
}

const fn contender(
    name: &'static str,
    label: &'static str,
    program: &'static str,
    kind: Kind,
    family: &'static str,
    large: bool,
) -> Contender {
    Contender { name, label, program, kind, family, large }
}

pub(crate) const STORE: &str = "store";
pub(crate) const EXCLUSIVE: &str = "store-exclusive";

pub(crate) const ALL: &[Contender] = &[
    contender(STORE, "this store, shared", "four-ways", Kind::Own, "store", true),
    contender(EXCLUSIVE, "this store, exclusive", "four-ways", Kind::Own, "store", true),
    contender("mutex", "SQLite, one mutex", "four-ways", Kind::Sqlite, "sqlite", false),
    contender("thread-local", "SQLite, thread-local", "four-ways", Kind::Sqlite, "sqlite", false),
    contender("r2d2", "SQLite, r2d2 pool", "pools", Kind::Sqlite, "sqlite", false),
    contender("tokio-rusqlite", "SQLite, tokio-rusqlite", "pools", Kind::Sqlite, "sqlite", false),
    contender("redb", "redb", "peers", Kind::Peer, "redb", false),
    contender("fjall", "fjall", "peers", Kind::Peer, "fjall", true),
    contender("lmdb", "LMDB", "peers", Kind::Peer, "lmdb", true),
    contender("rocksdb", "RocksDB", "peers", Kind::Peer, "rocksdb", true),
    contender("sled", "sled", "peers", Kind::Peer, "sled", false),
    contender("redis", "Redis, Unix socket", "peers", Kind::Peer, "redis", false),
    contender("nothing", "the harness alone", "baselines", Kind::Baseline, "nothing", false),
    contender("fsync", "a bare fsync", "baselines", Kind::Baseline, "fsync", false),
];

pub(crate) fn rivals() -> impl Iterator<Item = &'static Contender> {
    ALL.iter().filter(|contender| matches!(contender.kind, Kind::Sqlite | Kind::Peer))
}

pub(crate) fn label(name: &str) -> &'static str {
    ALL.iter().find(|contender| contender.name == name).map_or("?", |contender| contender.label)
}
