//! The model of one id: what may be known of it, and what each verb makes of that.
//!
//! Written from the contract. Pure: no store, no clock, no file.

use std::time::Duration;

use seen_store::{State as Label, Token, Ttl};

/// The latest instant that anything can end at.
pub(crate) const LAST_MS: i64 = (1 << 48) - 2;
/// Stands for never, so that "the later of both" is the maximum.
pub(crate) const NEVER: i64 = i64::MAX;

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Span {
    Ms(u64),
    /// Longer than any end that can be written down.
    Longest,
    Never,
}

impl Span {
    pub(crate) fn duration(self) -> Duration {
        match self {
            Span::Ms(length) => Duration::from_millis(length),
            Span::Longest | Span::Never => Duration::MAX,
        }
    }

    pub(crate) fn ttl(self) -> Ttl {
        match self {
            Span::Never => Ttl::Never,
            _ => self.duration().into(),
        }
    }

    /// When what begins at `at` ends.
    pub(crate) fn end(self, at: i64) -> i64 {
        match self {
            Span::Ms(length) => at.saturating_add_unsigned(length).clamp(1, LAST_MS),
            Span::Longest => LAST_MS,
            Span::Never => NEVER,
        }
    }

    /// A sixteenth more, rounded up to whole milliseconds.
    fn with_slack(self) -> Self {
        match self {
            Span::Ms(length) => Span::Ms((length * 17).div_ceil(16)),
            longer => longer,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Windowing {
    Fixed,
    Sliding { max_age_ms: Option<u64> },
}

/// How long marks last that are made through some handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) ttl: Span,
    pub(crate) window: Windowing,
}

impl Life {
    /// When a mark made at `at` expires, of an id first seen at `first`.
    fn end(self, at: i64, first: i64) -> i64 {
        match self.window {
            Windowing::Fixed => self.ttl.end(at),
            Windowing::Sliding { max_age_ms } => {
                let oldest = max_age_ms.map_or(Span::Never, Span::Ms).end(first);
                self.ttl.with_slack().end(at).min(oldest)
            }
        }
    }

    /// When an id claimed at `claimed` and confirmed now counts as first seen: the maximum age counts from
    /// the claim, unless nothing of it is left.
    fn begun(self, claimed: i64, now: i64) -> i64 {
        match self.window {
            Windowing::Sliding { max_age_ms: Some(age) } if Span::Ms(age).end(claimed) <= now => {
                now
            }
            _ => claimed.min(now),
        }
    }

    /// Whether a sighting at `now` finds that less than a TTL is left.
    fn is_short(self, expires: i64, now: i64) -> bool {
        self.window != Windowing::Fixed && expires < self.ttl.end(now)
    }

    fn has_max_age(self) -> bool {
        matches!(self.window, Windowing::Sliding { max_age_ms: Some(_) })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) expires: i64,
    pub(crate) token: Option<Token>,
    pub(crate) attempts: u32,
    pub(crate) error: Option<String>,
    pub(crate) receipt: Option<Vec<u8>>,
}

impl Mark {
    fn fresh(at: i64, life: Life) -> Self {
        Self { first: at, last: at, expires: life.end(at, at), ..Self::default() }
    }

    fn refreshed(&self, at: i64, life: Life) -> Self {
        let first = self.first.min(at);
        Self {
            first,
            last: self.last.max(at),
            expires: self.expires.max(life.end(at, first)),
            ..self.clone()
        }
    }

    /// A refresh by a store that still knew the mark after the other had purged it.
    fn begun_anew(&self, at: i64, life: Life) -> Self {
        let fresh = Self::fresh(at, life);
        Self { expires: self.expires.max(fresh.expires), ..fresh }
    }
}

/// How a holder ended its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Released,
    Failed,
    FailedFinally,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    /// `None` once its holder has ended it.
    pub(crate) token: Option<Token>,
    /// `None` while it has a token.
    pub(crate) outcome: Option<Outcome>,
    /// Whether it binds after its lease, until it is resolved.
    pub(crate) held: bool,
    pub(crate) at: i64,
    /// When the lease ends; after a failure with a delay, when the id may be claimed again; otherwise,
    /// once it was given back, `at`.
    pub(crate) until: i64,
    pub(crate) attempts: u32,
    /// How many attempts before this one ended with their leases.
    pub(crate) abandoned: u32,
    pub(crate) error: Option<String>,
    /// When the attempts are forgotten.
    pub(crate) expires: i64,
}

impl Claim {
    fn is_in_flight(&self, now: i64) -> bool {
        self.token.is_some() && now < self.until
    }

    /// Until when the id cannot be claimed. A held lease binds to its end; a delay after a failure is
    /// void once the clock stands more than a minute before the claim, for it was set back since.
    fn blocks_until(&self, now: i64) -> Option<i64> {
        let binds = self.token.is_some() || self.at < self.until && now >= self.at - 60_000;
        (binds && now < self.until).then_some(self.until)
    }

    /// The lease has run out, and the holder said nothing.
    fn is_abandoned(&self, now: i64) -> bool {
        self.token.is_some() && now >= self.until
    }

    /// How many attempts have ended with their leases, this one included.
    fn abandoned_by(&self, now: i64) -> u32 {
        self.abandoned + u32::from(self.is_abandoned(now))
    }

    /// And somebody must decide.
    fn is_unresolved(&self, now: i64) -> bool {
        self.held && self.is_abandoned(now)
    }

    pub(crate) fn is_forgotten(&self, now: i64) -> bool {
        self.blocks_until(now).is_none() && !self.is_unresolved(now) && now >= self.expires
    }

    /// Given back at `now`, to be claimed again at `again`. Without a delay no time is left that a clock
    /// set back could make a trap of.
    fn ended(&self, outcome: Outcome, now: i64, again: i64, life: Life) -> Self {
        let at = self.at.min(now);
        let until = if again > now { again } else { at };
        let outcome = Some(outcome);
        Self { token: None, outcome, at, until, expires: life.ttl.end(again), ..self.clone() }
    }

    /// When it last changed, as far as a cleanup is concerned. One that is held changes only when somebody
    /// ends it.
    pub(crate) fn changed(&self) -> i64 {
        if self.held && self.token.is_some() { i64::MAX } else { self.at.max(self.until) }
    }

    pub(crate) fn label(&self, now: i64) -> Label {
        match self.outcome {
            _ if self.is_forgotten(now) => Label::Expired,
            None if self.is_in_flight(now) => Label::InFlight,
            None if self.held => Label::Unresolved,
            None => Label::Abandoned,
            Some(Outcome::Released) => Label::Released,
            Some(Outcome::Failed) => Label::Failed,
            Some(Outcome::FailedFinally) => Label::GivenUp,
        }
    }

    /// Renewed through a handle of this TTL.
    fn until(&self, until: i64, life: Life) -> Self {
        Self { until, expires: life.ttl.end(until), ..self.clone() }
    }
}

/// What is known of an id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum State {
    #[default]
    Nothing,
    Mark(Mark),
    Claim(Claim),
}

/// What `get` and `entries` show of an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) label: Label,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) expires: i64,
    pub(crate) until: Option<i64>,
    pub(crate) attempts: u32,
    pub(crate) abandoned: u32,
    pub(crate) held: bool,
    pub(crate) error: Option<String>,
    pub(crate) receipt: Option<Vec<u8>>,
}

impl State {
    pub(crate) fn view(&self, now: i64) -> Option<View> {
        match self {
            State::Nothing => None,
            State::Mark(mark) => Some(View {
                label: if now < mark.expires { Label::Seen } else { Label::Expired },
                first: mark.first,
                last: mark.last,
                expires: mark.expires,
                until: None,
                attempts: mark.attempts,
                abandoned: 0,
                held: false,
                error: mark.error.clone(),
                receipt: mark.receipt.clone(),
            }),
            State::Claim(claim) => Some(View {
                label: claim.label(now),
                first: claim.at,
                last: claim.at,
                expires: if claim.is_unresolved(now) { NEVER } else { claim.expires },
                until: Some(claim.blocks_until(now).unwrap_or(claim.until.min(now))),
                attempts: claim.attempts,
                abandoned: claim.abandoned,
                held: claim.held,
                error: claim.error.clone(),
                receipt: None,
            }),
        }
    }
}

/// A verb on one id. `at` and `lease` are what it was given.
#[derive(Clone, Debug)]
pub(crate) enum Verb {
    Mark { at: i64 },
    Check,
    Seed,
    Claim { lease: Span, hold: bool, granted: Option<Token> },
    Confirm { token: Token, receipt: Option<Vec<u8>> },
    Release { token: Token },
    Fail { token: Token, reason: String, is_final: bool },
    Resolve { done: bool },
    Renew { token: Token, lease: Span },
    Forget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Done,
    New,
    Duplicate,
    Flying,
    Granted { attempt: u32, until: i64, previous: Before },
    InFlight { until: i64 },
    Seen,
    Unresolved { since: i64 },
    GivenUp { attempts: u32 },
    Held,
    Lost,
    Forgot(bool),
    Resolved(bool),
}

/// How the attempt before one that is granted ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Before {
    Nothing,
    Ended(Outcome),
    Abandoned { since: i64 },
}

/// What becomes of what was known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    Same,
    Mark(Mark),
    Claim(Claim),
    Gone,
}

/// What the answers depend on besides the id's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) now: i64,
    pub(crate) life: Life,
    pub(crate) retry_delay: Span,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) max_abandoned: Option<u32>,
}

/// The right answers and what each leaves, in this state. `hollow` is a mark whose store still knows
/// it and whose row another store, with its clock ahead, has purged.
pub(crate) fn outcomes(
    verb: &Verb,
    state: &State,
    hollow: bool,
    setting: Setting,
) -> Vec<(Answer, End)> {
    match state {
        State::Nothing => vec![on_nothing(verb, setting)],
        State::Mark(mark) => on_mark(verb, mark, hollow, setting),
        State::Claim(claim) => vec![on_claim(verb, claim, setting)],
    }
}

fn on_nothing(verb: &Verb, setting: Setting) -> (Answer, End) {
    let Setting { now, life, .. } = setting;
    match verb {
        Verb::Mark { at } => (Answer::Done, End::Mark(Mark::fresh(*at, life))),
        Verb::Check | Verb::Seed => (Answer::New, End::Mark(Mark::fresh(now, life))),
        Verb::Claim { lease, hold, granted } => grant((*lease, *hold), *granted, None, setting),
        Verb::Forget => (Answer::Forgot(false), End::Same),
        Verb::Resolve { .. } => (Answer::Resolved(false), End::Same),
        Verb::Confirm { .. } | Verb::Release { .. } | Verb::Fail { .. } | Verb::Renew { .. } => {
            (Answer::Lost, End::Same)
        }
    }
}

fn grant(
    (lease, held): (Span, bool),
    token: Option<Token>,
    before: Option<&Claim>,
    Setting { now, life, .. }: Setting,
) -> (Answer, End) {
    let until = lease.end(now);
    let previous = before.map_or(Before::Nothing, |claim| match claim.outcome {
        Some(outcome) => Before::Ended(outcome),
        None => Before::Abandoned { since: claim.until },
    });
    let attempt = before.map_or(0, |claim| claim.attempts) + 1;
    let claim = Claim {
        token,
        outcome: None,
        held,
        at: now,
        until,
        attempts: attempt,
        abandoned: before.map_or(0, |claim| claim.abandoned_by(now)),
        error: before.and_then(|claim| claim.error.clone()),
        expires: life.ttl.end(until),
    };
    (Answer::Granted { attempt, until, previous }, End::Claim(claim))
}

fn on_mark(verb: &Verb, mark: &Mark, hollow: bool, setting: Setting) -> Vec<(Answer, End)> {
    let Setting { now, life, .. } = setting;
    let refreshed = |at| if hollow { mark.begun_anew(at, life) } else { mark.refreshed(at, life) };
    let sighted = |answer| {
        if !life.is_short(mark.expires, now) {
            return vec![(answer, End::Same)];
        }
        let after = refreshed(now);
        let written = (after.expires > mark.expires).then_some((answer, End::Mark(after)));
        // At its maximum age there is nothing to write down. What that is, of a hollow mark, is known
        // only from before it was purged, if at all.
        let unwritten = written.is_none() || hollow && life.has_max_age();
        written.into_iter().chain(unwritten.then_some((answer, End::Same))).collect()
    };
    match verb {
        Verb::Mark { at } => vec![(Answer::Done, End::Mark(refreshed(*at)))],
        Verb::Check | Verb::Seed => sighted(Answer::Duplicate),
        Verb::Claim { .. } => sighted(Answer::Seen),
        Verb::Confirm { token, receipt } if mark.token == Some(*token) && !hollow => {
            let end = match (&mark.receipt, receipt) {
                (None, Some(_)) => End::Mark(Mark { receipt: receipt.clone(), ..mark.clone() }),
                _ => End::Same,
            };
            vec![(Answer::Held, end)]
        }
        Verb::Forget => vec![(Answer::Forgot(true), End::Gone)],
        Verb::Resolve { .. } => vec![(Answer::Resolved(false), End::Same)],
        Verb::Confirm { .. } | Verb::Release { .. } | Verb::Fail { .. } | Verb::Renew { .. } => {
            vec![(Answer::Lost, End::Same)]
        }
    }
}

fn on_claim(verb: &Verb, claim: &Claim, setting: Setting) -> (Answer, End) {
    let Setting { now, life, .. } = setting;
    let left_behind = |mark: Mark, token| Mark {
        token,
        attempts: claim.attempts,
        error: claim.error.clone(),
        ..mark
    };
    let is_its = |token: &Token| claim.token == Some(*token);
    // A mark that expires at once does not end a lease, and no other ends before it.
    let marked = |at| {
        let mut mark = left_behind(Mark::fresh(at, life), claim.token);
        if (claim.is_in_flight(now) || claim.is_unresolved(now)) && mark.expires <= now {
            return End::Same;
        }
        if claim.is_in_flight(now) {
            mark.expires = mark.expires.max(claim.until);
        }
        End::Mark(mark)
    };
    match verb {
        // The holder's confirm will succeed.
        Verb::Mark { at } => (Answer::Done, marked(*at)),
        Verb::Seed => (Answer::New, marked(now)),
        Verb::Check if claim.is_in_flight(now) || claim.is_unresolved(now) => {
            (Answer::Flying, End::Same)
        }
        // Whoever held it lost it.
        Verb::Check => (Answer::New, End::Mark(left_behind(Mark::fresh(now, life), None))),
        Verb::Claim { lease, hold, granted } => {
            let reached = |most: Option<u32>, count| most.is_some_and(|most| count >= most);
            let given_up = claim.outcome == Some(Outcome::FailedFinally)
                || reached(setting.max_attempts, claim.attempts)
                || reached(setting.max_abandoned, claim.abandoned_by(now));
            match claim.blocks_until(now) {
                Some(until) => (Answer::InFlight { until }, End::Same),
                None if claim.is_unresolved(now) => {
                    (Answer::Unresolved { since: claim.until }, End::Same)
                }
                None if given_up => (Answer::GivenUp { attempts: claim.attempts }, End::Same),
                None => grant((*lease, *hold), *granted, Some(claim), setting),
            }
        }
        Verb::Resolve { done } => {
            if claim.is_in_flight(now) {
                return (Answer::Resolved(false), End::Same);
            }
            let end = if *done {
                marked(now)
            } else {
                let ended = claim.ended(Outcome::Released, now, now, life);
                End::Claim(Claim { attempts: 0, abandoned: 0, ..ended })
            };
            (Answer::Resolved(end != End::Same), end)
        }
        Verb::Confirm { token, receipt } if is_its(token) => {
            let first = life.begun(claim.at, now);
            let mark = Mark { first, last: now, expires: life.end(now, first), ..Mark::default() };
            let mark = left_behind(mark, claim.token);
            (Answer::Held, End::Mark(Mark { receipt: receipt.clone(), ..mark }))
        }
        Verb::Release { token } if is_its(token) => {
            (Answer::Held, End::Claim(claim.ended(Outcome::Released, now, now, life)))
        }
        Verb::Fail { token, reason, is_final } if is_its(token) => {
            let ended = if *is_final {
                claim.ended(Outcome::FailedFinally, now, now, life)
            } else {
                claim.ended(Outcome::Failed, now, setting.retry_delay.end(now), life)
            };
            (Answer::Held, End::Claim(Claim { error: Some(reason.clone()), ..ended }))
        }
        Verb::Renew { token, lease } if is_its(token) => {
            (Answer::Held, End::Claim(claim.until(lease.end(now), life)))
        }
        Verb::Forget => (Answer::Forgot(true), End::Gone),
        Verb::Confirm { .. } | Verb::Release { .. } | Verb::Fail { .. } | Verb::Renew { .. } => {
            (Answer::Lost, End::Same)
        }
    }
}
