//! A child: one process with its own stores, in one role.
//!
//! Owns what all roles share: the path, the ledger, when to end, and the choice of ids that several children
//! ask for. What always holds: an id of the empty scope never expires and is never forgotten, so it is New
//! once at most.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use seen_store::{Config, Error, IndexMode, SeenStore, Synchronous, Ttl};

use crate::ledger::{Answer, Begun, Event, Ledger, Line};
use crate::support_process::{Random, lines, variable};

/// By how much the ledger grows until the children ask for other shared ids.
const BYTES_A_ROUND: u64 = 4_000;

/// How many shared ids there are at a time.
const SHARED: u64 = 4;

/// An id that is marked before the children start.
pub(crate) const KNOWN: &str = "known/0";

/// The number of rounds that means: until the parent ends the child's input.
pub(crate) const WITHOUT_END: u64 = u64::MAX;

/// See the module's header.
pub(crate) struct Me {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) ledger: Ledger,
    seed: u64,
    told_to_end: Arc<AtomicBool>,
    /// How many rounds are left to do.
    rounds: AtomicU64,
    /// How many stores it has opened.
    opened: AtomicU64,
    busy_timeout: Duration,
    synchronous: Synchronous,
}

impl Me {
    /// Reads what the parent has set. See `crew` for the variables.
    pub(crate) fn from_env() -> Self {
        let number = |name: &str| variable(name).parse::<u64>().unwrap();
        let life = u32::try_from(number("SEEN_LIFE")).unwrap();
        // SAFETY: sets a timer and touches no memory.
        unsafe { libc::alarm(life) };
        let (rounds, told_to_end) = (number("SEEN_ROUNDS"), Arc::new(AtomicBool::new(false)));
        // A child that has so many rounds to do does them.
        if rounds == WITHOUT_END {
            let told = Arc::clone(&told_to_end);
            std::thread::spawn(move || {
                lines().for_each(drop);
                told.store(true, SeqCst);
            });
        }
        let name = variable("SEEN_NAME");
        Self {
            ledger: Ledger::open(variable("SEEN_LEDGER").as_ref(), &name),
            name,
            path: variable("SEEN_PATH").into(),
            seed: number("SEEN_CHILD_SEED"),
            told_to_end,
            rounds: AtomicU64::new(rounds),
            opened: AtomicU64::new(0),
            busy_timeout: Duration::from_millis(number("SEEN_BUSY_MS")),
            synchronous: match number("SEEN_MORTAL") {
                0 => Synchronous::Normal,
                _ => Synchronous::Full,
            },
        }
    }

    pub(crate) fn random(&self, thread: u64) -> Random {
        Random(self.seed ^ thread << 32)
    }

    /// Takes a round of the work, until all are done or the parent says that it is enough.
    pub(crate) fn goes_on(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        !self.is_told_to_end() && self.rounds.fetch_update(SeqCst, SeqCst, take).is_ok()
    }

    pub(crate) fn is_told_to_end(&self) -> bool {
        self.told_to_end.load(SeqCst)
    }

    pub(crate) fn open(&self) -> SeenStore {
        self.try_open().unwrap_or_else(|e| panic!("{} cannot open: {e}", self.name))
    }

    /// Busy beside a stopped process or a foreign tool, as any other call.
    pub(crate) fn try_open(&self) -> seen_store::Result<SeenStore> {
        let begun = self.ledger.begin();
        let config = Config::default().ttl(Ttl::Never).busy_timeout(self.busy_timeout);
        let opened = self.opened.fetch_add(1, SeqCst);
        let index = match self.random(u64::from(u32::MAX) - opened).below(3) {
            0 => IndexMode::Asleep,
            1 => IndexMode::Awake,
            _ => IndexMode::Wakes,
        };
        let config = config.synchronous(self.synchronous).index(index);
        SeenStore::open_with(&self.path, config).inspect_err(|e| self.failed(&begun, "open", e))
    }

    pub(crate) fn close(&self, store: &SeenStore) {
        let begun = self.ledger.begin();
        if let Err(e) = store.close() {
            self.failed(&begun, "close", &e);
        }
    }

    pub(crate) fn failed(&self, begun: &Begun, call: &str, error: &Error) {
        let (call, kind) = (call.to_owned(), format!("{:?}", error.kind()));
        if kind != "Busy" {
            eprintln!("{}: {call}: {error:?}", self.name);
        }
        self.ledger.write(begun, &Event::Failed { call, kind });
    }

    pub(crate) fn done(&self, begun: &Begun, what: &str) {
        self.ledger.write(begun, &Event::Done { what: what.to_owned() });
    }

    pub(crate) fn wrong(&self, text: String) {
        self.ledger.write(&self.ledger.begin(), &Event::Wrong { text });
    }

    /// An id that other children ask for at the same time: the ledger's length tells all of them which.
    pub(crate) fn shared_id(&self, random: &mut Random, kind: &str) -> String {
        format!("{kind}-{}-{}", self.ledger.bytes() / BYTES_A_ROUND, random.below(SHARED))
    }

    /// The newest id that another child was told to be New.
    pub(crate) fn id_of_another(&self) -> Option<String> {
        let newest = self.ledger.newest(1_000);
        newest.into_iter().rev().find_map(|Line { child, event, .. }| match event {
            Event::Mark { id, answer: Answer::New } if child != self.name => Some(id),
            _ => None,
        })
    }
}

/// Ends this process at once, as a kill does.
pub(crate) fn die() -> ! {
    // SAFETY: ends this very process, with no destructor run and nothing said.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("killed")
}
