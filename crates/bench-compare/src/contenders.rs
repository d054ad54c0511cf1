//! Who takes part.

/// How a contender stands to this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This store itself.
    Own,
    /// This store's async form.
    Async,
    /// This store's blocking calls, from tasks: only beside its async form.
    Blocking,
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
    /// Whether its callers are tasks.
    pub(crate) by_tasks: bool,
}

impl Contender {
    const fn by_tasks(self) -> Self {
        Self { by_tasks: true, ..self }
    }

    /// Whether it stands in the tables of all contenders.
    pub(crate) fn contends(&self) -> bool {
        !matches!(self.kind, Kind::Blocking | Kind::Baseline)
    }

    /// Whether it also stands in the tables that have no figures of this store's async form.
    pub(crate) fn contends_everywhere(&self) -> bool {
        self.contends() && self.kind != Kind::Async
    }
}

const fn contender(
    name: &'static str,
    label: &'static str,
    program: &'static str,
    kind: Kind,
    family: &'static str,
    large: bool,
) -> Contender {
    Contender { name, label, program, kind, family, large, by_tasks: false }
}

pub(crate) const STORE: &str = "store";
pub(crate) const EXCLUSIVE: &str = "store-exclusive";
pub(crate) const ASYNC: &str = "store-async";
pub(crate) const BLOCKING: &str = "store-blocking";
pub(crate) const NOTHING_TASKS: &str = "nothing-tasks";

pub(crate) const ALL: &[Contender] = &[
    contender(STORE, "this store, shared", "four-ways", Kind::Own, "store", true),
    contender(EXCLUSIVE, "this store, exclusive", "four-ways", Kind::Own, "store", true),
    contender(ASYNC, "this store, async", "four-ways", Kind::Async, "store", false).by_tasks(),
    contender(BLOCKING, "this store, spawn_blocking", "four-ways", Kind::Blocking, "store", false)
        .by_tasks(),
    contender("mutex", "SQLite, one mutex", "four-ways", Kind::Sqlite, "sqlite", false),
    contender("thread-local", "SQLite, thread-local", "four-ways", Kind::Sqlite, "sqlite", false),
    contender("r2d2", "SQLite, r2d2 pool", "pools", Kind::Sqlite, "sqlite", false),
    contender("tokio-rusqlite", "SQLite, tokio-rusqlite", "pools", Kind::Sqlite, "sqlite", false)
        .by_tasks(),
    contender("redb", "redb", "peers", Kind::Peer, "redb", false),
    contender("fjall", "fjall", "peers", Kind::Peer, "fjall", true),
    contender("lmdb", "LMDB", "peers", Kind::Peer, "lmdb", true),
    contender("rocksdb", "RocksDB", "peers", Kind::Peer, "rocksdb", true),
    contender("sled", "sled", "peers", Kind::Peer, "sled", false),
    contender("redis", "Redis, Unix socket", "peers", Kind::Peer, "redis", false),
    contender("nothing", "the harness alone", "baselines", Kind::Baseline, "nothing", false),
    contender(
        NOTHING_TASKS,
        "the harness alone, tasks",
        "four-ways",
        Kind::Baseline,
        "nothing",
        false,
    )
    .by_tasks(),
    contender("fsync", "a bare fsync", "baselines", Kind::Baseline, "fsync", false),
];

pub(crate) fn rivals() -> impl Iterator<Item = &'static Contender> {
    ALL.iter().filter(|contender| matches!(contender.kind, Kind::Sqlite | Kind::Peer))
}

/// Those that `COMPARE_ONLY` leaves out unless it names them.
pub(crate) fn optional() -> impl Iterator<Item = &'static Contender> {
    ALL.iter().filter(|contender| !matches!(contender.kind, Kind::Own | Kind::Baseline))
}

pub(crate) fn label(name: &str) -> &'static str {
    ALL.iter().find(|contender| contender.name == name).map_or("?", |contender| contender.label)
}
