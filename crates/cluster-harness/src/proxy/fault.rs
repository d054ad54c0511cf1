//! What a proxy does to which commands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{News, Shared};

const WAIT: Duration = Duration::from_secs(10);

/// What a [`Proxy`](super::Proxy) does to some commands. At first it strikes each command; see
/// [`on`](Self::on), [`nth`](Self::nth) and [`one_in`](Self::one_in).
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    // In upper case. Empty: all.
    commands: Vec<Vec<u8>>,
    when: When,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    CutBefore,
    LoseAnswer,
    Delay(Duration),
    Hold,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    Nth(u64),
    OneIn { n: u64, seed: u64 },
}

impl Fault {
    /// Closes the connection instead of forwarding the command: the server never gets it, nor what follows it in
    /// the same pipeline. The client gets the answers to what it sent before.
    #[must_use]
    pub fn cut_before() -> Fault {
        Fault::new(Effect::CutBefore)
    }

    /// Forwards the command, waits until the server has answered, and closes the connection instead of passing the
    /// answer on. The client gets the answers to what it sent before.
    #[must_use]
    pub fn lose_answer() -> Fault {
        Fault::new(Effect::LoseAnswer)
    }

    /// Passes the answer on only `delay` after the server gave it. The answers behind it wait too.
    #[must_use]
    pub fn delay_answer(delay: Duration) -> Fault {
        Fault::new(Effect::Delay(delay))
    }

    /// Forwards the command, and holds back its answer and those behind it, until the fault is removed.
    #[must_use]
    pub fn hold_answer() -> Fault {
        Fault::new(Effect::Hold)
    }

    fn new(effect: Effect) -> Fault {
        Fault { effect, commands: Vec::new(), when: When::Always }
    }

    /// Strikes only these commands, such as `["EVAL", "EVALSHA"]`. Default: all, with those that a client sends on
    /// its own (`HELLO`, `AUTH`, `CLUSTER`).
    #[must_use]
    pub fn on(mut self, commands: &[&str]) -> Fault {
        self.commands =
            commands.iter().map(|name| name.to_ascii_uppercase().into_bytes()).collect();
        self
    }

    /// Strikes only the `n`th of the commands that match, counted from 1 over all connections.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Fault {
        self.when = When::Nth(n);
        self
    }

    /// Strikes one in `n` of the commands that match, at random. Which ones follows from `seed` and the order of the
    /// commands.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[must_use]
    pub fn one_in(mut self, n: u64, seed: u64) -> Fault {
        assert!(n > 0, "one in 0 commands");
        self.when = When::OneIn { n, seed };
        self
    }
}

/// A fault at work, with its counters.
#[derive(Debug)]
pub(super) struct Rule {
    fault: Fault,
    matched: AtomicU64,
    hits: AtomicU64,
    removed: AtomicBool,
}

impl Rule {
    pub(super) fn new(fault: Fault) -> Rule {
        Rule {
            fault,
            matched: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            removed: AtomicBool::new(false),
        }
    }

    pub(super) fn effect(&self) -> Effect {
        self.fault.effect
    }

    /// Counts the command `name`, and returns whether it is struck.
    pub(super) fn strikes(&self, name: &[u8]) -> bool {
        let commands = &self.fault.commands;
        if !commands.is_empty() && !commands.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return false;
        }
        let number = self.matched.fetch_add(1, Ordering::SeqCst) + 1;
        match self.fault.when {
            When::Always => true,
            When::Nth(n) => number == n,
            When::OneIn { n, seed } => random(seed, number).is_multiple_of(n),
        }
    }

    pub(super) fn hit(&self, news: &News) {
        self.hits.fetch_add(1, Ordering::SeqCst);
        news.tell();
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::SeqCst);
    }
}

/// The `number`th value of SplitMix64.
fn random(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A fault that a proxy works with.
#[derive(Debug)]
pub struct Injected {
    rule: Arc<Rule>,
    proxy: Weak<Shared>,
}

impl Injected {
    pub(super) fn new(rule: Arc<Rule>, proxy: &Arc<Shared>) -> Injected {
        Injected { rule, proxy: Arc::downgrade(proxy) }
    }

    /// Returns how many commands had a name that it strikes.
    pub fn matched(&self) -> u64 {
        self.rule.matched.load(Ordering::SeqCst)
    }

    /// Returns how many times it has taken effect. For a lost, delayed or held answer: how many answers the server
    /// has given for it.
    pub fn hits(&self) -> u64 {
        self.rule.hits.load(Ordering::SeqCst)
    }

    /// Returns when it has taken effect `hits` times.
    ///
    /// # Panics
    ///
    /// If that takes longer than 10 seconds.
    #[track_caller]
    pub fn wait_for_hits(&self, hits: u64) {
        let Some(proxy) = self.proxy.upgrade() else { panic!("the proxy is gone") };
        let mut guard = proxy.news.lock.lock();
        let wait = proxy.news.changed.wait_while_for(&mut guard, |()| self.hits() < hits, WAIT);
        let timed_out = wait.timed_out();
        assert!(!timed_out, "{} hits, waited for {hits}", self.hits());
    }

    /// Removes the fault, and passes on the answers that it holds back.
    pub fn remove(&self) {
        self.rule.remove();
        if let Some(proxy) = self.proxy.upgrade() {
            proxy.rules.lock().retain(|rule| !Arc::ptr_eq(rule, &self.rule));
            proxy.news.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_strikes_about_so_many_and_the_same_for_the_same_seed() {
        let strikes = |seed| -> Vec<bool> {
            let rule = Rule::new(Fault::lose_answer().on(&["set"]).one_in(20, seed));
            (0..10_000).map(|_| rule.strikes(b"SET")).collect()
        };
        let struck = strikes(7).iter().filter(|struck| **struck).count();
        assert!((400..600).contains(&struck), "{struck}");
        assert_eq!(strikes(7), strikes(7));
        assert_ne!(strikes(7), strikes(8));
    }

    #[test]
    fn only_matching_commands_are_counted() {
        let rule = Rule::new(Fault::cut_before().on(&["EVAL", "EVALSHA"]).nth(2));
        let struck: Vec<bool> = [&b"GET"[..], b"eval", b"SET", b"EVALSHA", b"EVAL"]
            .map(|name| rule.strikes(name))
            .into();
        assert_eq!(struck, [false, false, false, true, false]);
    }
}
