//! The model of one id: what may be known of it, and what each verb makes of that.
//!
//! Written from the contract. Pure: no store, no clock, no file.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use seen_store::{Digest, Entry, Item, State as Label, Token, Ttl};

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

/// What an id is shown or stored with besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tag {
    Version(u8),
    Payload(u8),
}

/// What an id that is stored with one tag, or none, is when it is shown with another.
#[derive(Clone, Copy, PartialEq)]
enum Meeting {
    Same,
    /// The same, and what it is shown with becomes its own.
    First,
    Changed,
    Conflict,
}

impl Tag {
    pub(crate) const ALL: [Self; 5] =
        [Self::Version(0), Self::Version(1), Self::Version(2), Self::Payload(0), Self::Payload(1)];

    pub(crate) fn item(tag: Option<Self>, id: &[u8]) -> Item<'_> {
        match tag {
            None => id.into(),
            Some(Self::Version(number)) => Item::new(id).version([number]),
            Some(Self::Payload(number)) => Item::new(id).payload([number]),
        }
    }

    /// The tag of a digest that a store shows.
    pub(crate) fn of(digest: Option<Digest>) -> Option<Self> {
        static DIGESTS: LazyLock<[Option<Digest>; 5]> =
            LazyLock::new(|| Tag::ALL.map(|tag| Tag::item(Some(tag), b"a").digest()));
        digest.map(|digest| {
            let place = DIGESTS.iter().position(|known| *known == Some(digest));
            Self::ALL[place.unwrap_or_else(|| panic!("{digest} was never given"))]
        })
    }

    fn meet(stored: Option<Self>, shown: Option<Self>) -> Meeting {
        match (stored, shown) {
            (_, None) => Meeting::Same,
            (None, _) => Meeting::First,
            (Some(stored), Some(shown)) if stored == shown => Meeting::Same,
            (Some(Self::Version(_)), Some(Self::Version(_))) => Meeting::Changed,
            _ => Meeting::Conflict,
        }
    }

    fn is_change(stored: Option<Self>, shown: Option<Self>) -> bool {
        Self::meet(stored, shown) == Meeting::Changed
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
    /// How long what is known is kept from the mark on, if longer than the TTL.
    pub(crate) retention: Option<Span>,
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

/// What is known of the windows of an id before the present one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Earlier {
    pub(crate) windows: u64,
    pub(crate) first: i64,
    /// When it was seen last in the last of them: at the earliest, and at the latest.
    pub(crate) last: (i64, i64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) first: i64,
    /// When it was marked last.
    pub(crate) last: i64,
    /// When it was turned away last, if at all. Whether `last_seen` tells of that is not certain.
    pub(crate) sighted: i64,
    pub(crate) expires: i64,
    /// Until when it is kept: no earlier than its expiry.
    pub(crate) kept: i64,
    pub(crate) tag: Option<Tag>,
    pub(crate) earlier: Option<Earlier>,
    pub(crate) token: Option<Token>,
    pub(crate) attempts: u32,
    pub(crate) error: Option<String>,
    pub(crate) receipt: Option<Vec<u8>>,
}

impl Mark {
    /// A mark made at `at`, whose window began at `first`.
    fn new(at: i64, first: i64, tag: Option<Tag>, life: Life) -> Self {
        let expires = life.end(at, first);
        let kept = life.retention.map_or(expires, |retention| retention.end(at).max(expires));
        Self { first, last: at, expires, kept, tag, ..Self::default() }
    }

    fn fresh(at: i64, tag: Option<Tag>, life: Life) -> Self {
        Self::new(at, at, tag, life)
    }

    pub(crate) fn is_live(&self, now: i64) -> bool {
        now < self.expires
    }

    /// A mark of the same version.
    fn refreshed(&self, at: i64, tag: Option<Tag>, life: Life) -> Self {
        let first = self.first.min(at);
        let new = Self::new(at, first, tag, life);
        Self {
            first,
            last: self.last.max(at),
            expires: self.expires.max(new.expires),
            kept: self.kept.max(new.kept),
            tag: tag.or(self.tag),
            ..self.clone()
        }
    }

    /// A refresh by a store that still knew the mark after the other had purged it.
    fn begun_anew(&self, at: i64, tag: Option<Tag>, life: Life) -> Self {
        let fresh = Self::fresh(at, tag, life);
        let expires = self.expires.max(fresh.expires);
        Self { expires, kept: fresh.kept.max(expires), ..fresh }
    }

    /// The mark of another version in place of `old`: its times and its counts stay.
    fn in_place_of(self, old: &Self) -> Self {
        Self {
            first: self.first.min(old.first),
            last: self.last.max(old.last),
            sighted: self.sighted.max(old.sighted),
            expires: self.expires.max(old.expires),
            kept: self.kept.max(old.kept),
            tag: self.tag.or(old.tag),
            earlier: old.earlier.clone(),
            ..self
        }
    }

    /// What the next window of the id knows of this one.
    fn as_earlier(&self) -> Earlier {
        let before = self.earlier.as_ref();
        Earlier {
            windows: before.map_or(0, |before| before.windows) + 1,
            first: before.map_or(self.first, |before| before.first.min(self.first)),
            last: (self.last, self.last.max(self.sighted)),
        }
    }

    /// Whether this is what a store or the file shows as `found`, whose times are certain.
    pub(crate) fn is_shown_as(&self, found: &Self) -> bool {
        let fixed = |mark: &Self| Self { last: 0, sighted: 0, earlier: None, ..mark.clone() };
        fixed(self) == fixed(found)
            && (self.last..=self.last.max(self.sighted)).contains(&found.last)
            && are_earlier(self.earlier.as_ref(), found.earlier.as_ref())
    }

    /// Whether both are one row, which may have been turned away in between.
    pub(crate) fn is_row_of(&self, other: &Self) -> bool {
        *self == Self { sighted: self.sighted, ..other.clone() }
    }
}

fn are_earlier(right: Option<&Earlier>, found: Option<&Earlier>) -> bool {
    match (right, found) {
        (None, None) => true,
        (Some(right), Some(found)) => {
            (right.windows, right.first) == (found.windows, found.first)
                && right.last.0 <= found.last.0
                && found.last.1 <= right.last.1
        }
        _ => false,
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
    pub(crate) tag: Option<Tag>,
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

    /// And a decision is needed.
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

    /// When it last changed, as far as a cleanup is concerned. One that is held changes only when it is
    /// ended.
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

/// What is known of an id. Both, if the claim is of a change of what is seen, or if the mark is only kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) mark: Option<Mark>,
    pub(crate) claim: Option<Claim>,
}

/// What `get` and `entries` show of an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) label: Label,
    pub(crate) first: i64,
    /// At the earliest, and at the latest.
    pub(crate) last: (i64, i64),
    pub(crate) expires: i64,
    pub(crate) tag: Option<Tag>,
    pub(crate) earlier: Option<Earlier>,
    pub(crate) until: Option<i64>,
    pub(crate) attempts: u32,
    pub(crate) abandoned: u32,
    pub(crate) held: bool,
    pub(crate) error: Option<String>,
    pub(crate) receipt: Option<Vec<u8>>,
}

impl View {
    /// What a store shows.
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            label: entry.state,
            first: unix_ms(entry.first_seen),
            last: (unix_ms(entry.last_seen), unix_ms(entry.last_seen)),
            expires: entry.expires_at.map_or(NEVER, unix_ms),
            tag: Tag::of(entry.digest),
            earlier: entry.history.map(|history| Earlier {
                windows: history.windows,
                first: unix_ms(history.first_seen),
                last: (unix_ms(history.last_seen), unix_ms(history.last_seen)),
            }),
            until: entry.lease_until.map(unix_ms),
            attempts: entry.attempts,
            abandoned: entry.abandoned,
            held: entry.held,
            error: entry.last_error.clone(),
            receipt: entry.receipt.clone(),
        }
    }

    /// Whether this is what a store shows as `found`.
    pub(crate) fn is_shown_as(&self, found: &Self) -> bool {
        let fixed = |view: &Self| Self { last: (0, 0), earlier: None, ..view.clone() };
        fixed(self) == fixed(found)
            && self.last.0 <= found.last.0
            && found.last.1 <= self.last.1
            && are_earlier(self.earlier.as_ref(), found.earlier.as_ref())
    }

    /// Of a mark of another version: what does not depend on when it was turned away.
    pub(crate) fn fixed(self) -> Self {
        let earlier = self.earlier.map(|earlier| Earlier { last: (0, 0), ..earlier });
        Self { last: (0, 0), earlier, ..self }
    }
}

/// Whether one of these is what a store shows.
pub(crate) fn is_one_of(right: &[Option<View>], found: Option<&View>) -> bool {
    right.iter().any(|right| match (right, found) {
        (None, None) => true,
        (Some(right), Some(found)) => right.is_shown_as(found),
        _ => false,
    })
}

impl Mark {
    pub(crate) fn view(&self, now: i64) -> View {
        View {
            label: if self.is_live(now) { Label::Seen } else { Label::Expired },
            first: self.first,
            last: (self.last, self.last.max(self.sighted)),
            expires: self.expires,
            tag: self.tag,
            earlier: self.earlier.clone(),
            until: None,
            attempts: self.attempts,
            abandoned: 0,
            held: false,
            error: self.error.clone(),
            receipt: self.receipt.clone(),
        }
    }
}

impl Claim {
    pub(crate) fn view(&self, now: i64) -> View {
        View {
            label: self.label(now),
            first: self.at,
            last: (self.at, self.at),
            expires: if self.is_unresolved(now) { NEVER } else { self.expires },
            tag: self.tag,
            earlier: None,
            until: Some(self.blocks_until(now).unwrap_or(self.until.min(now))),
            attempts: self.attempts,
            abandoned: self.abandoned,
            held: self.held,
            error: self.error.clone(),
            receipt: None,
        }
    }
}

impl State {
    /// The mark, if the id is seen.
    pub(crate) fn seen(&self, now: i64) -> Option<&Mark> {
        self.mark.as_ref().filter(|mark| mark.is_live(now))
    }

    /// Whether it is seen as what it is shown with.
    pub(crate) fn is_seen(&self, shown: Option<Tag>, now: i64) -> bool {
        self.seen(now).is_some_and(|mark| !Tag::is_change(mark.tag, shown))
    }

    /// What is kept of a mark that has expired.
    fn kept(&self, now: i64) -> Option<&Mark> {
        self.mark.as_ref().filter(|mark| !mark.is_live(now) && now < mark.kept)
    }

    /// Whether a claim stands beside a mark of its own version: a store whose clock is ahead granted it once the mark
    /// had expired there, and one that is behind has refreshed the mark.
    pub(crate) fn is_claimed_though_seen(&self) -> bool {
        let both = self.mark.as_ref().zip(self.claim.as_ref());
        both.is_some_and(|(mark, claim)| !Tag::is_change(mark.tag, claim.tag))
    }

    /// Whether nothing was written since it was `before`; it may have been turned away.
    pub(crate) fn is_left_of(&self, before: &Self) -> bool {
        let is_same_mark = match (&before.mark, &self.mark) {
            (Some(mark), Some(after)) => after.is_row_of(mark),
            (before, after) => before == after,
        };
        is_same_mark && self.claim == before.claim
    }

    /// A mark that begins a new window.
    pub(crate) fn begun(&self, mark: Mark, now: i64) -> Mark {
        Mark { earlier: self.kept(now).map(Mark::as_earlier), ..mark }
    }

    /// What `get` shows: the mark, else the claim, else what is kept.
    pub(crate) fn view(&self, now: i64) -> Option<View> {
        let claim = || self.claim.as_ref().map(|claim| claim.view(now));
        let seen = self.seen(now).map(|mark| mark.view(now));
        seen.or_else(claim).or_else(|| self.kept(now).map(|mark| mark.view(now)))
    }

    /// What a listing shows: the claim, and the mark unless the claim is of the same version.
    pub(crate) fn listed(&self, now: i64) -> Vec<View> {
        let claim = self.claim.as_ref();
        let is_shown = |mark: &&Mark| claim.is_none_or(|it| Tag::is_change(mark.tag, it.tag));
        let mark = self.seen(now).filter(is_shown).map(|mark| mark.view(now));
        claim.map(|claim| claim.view(now)).into_iter().chain(mark).collect()
    }
}

/// A verb on one id. `at`, `lease` and `tag` are what it was given.
#[derive(Clone, Debug)]
pub(crate) enum Verb {
    Mark {
        at: i64,
        tag: Option<Tag>,
    },
    /// `retry_of` is the token of a check that this one repeats, if it marked the id.
    Check {
        tag: Option<Tag>,
        retry_of: Option<Token>,
    },
    Seed {
        tag: Option<Tag>,
    },
    Claim {
        tag: Option<Tag>,
        lease: Span,
        hold: bool,
        granted: Option<Token>,
    },
    Confirm {
        token: Token,
        receipt: Option<Vec<u8>>,
    },
    Release {
        token: Token,
    },
    Fail {
        token: Token,
        reason: String,
        is_final: bool,
    },
    Resolve {
        done: bool,
    },
    Renew {
        token: Token,
        lease: Span,
    },
    Forget,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Done,
    New,
    Changed,
    Duplicate,
    Flying,
    Granted {
        attempt: u32,
        until: i64,
        previous: Before,
    },
    InFlight {
        until: i64,
    },
    Seen,
    Unresolved {
        since: i64,
    },
    GivenUp {
        attempts: u32,
    },
    /// It is stored with another payload.
    Conflict,
    Held,
    Lost,
    Forgot(bool),
    Resolved(bool),
}

/// How the attempt before one that is granted ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Before {
    Nothing,
    Ended(Outcome),
    Abandoned {
        since: i64,
    },
    /// There was none: the id is seen in another version. As [`View::fixed`] leaves it.
    Superseded(Box<View>),
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

impl Verb {
    fn tag(&self) -> Option<Tag> {
        match self {
            Verb::Mark { tag, .. }
            | Verb::Check { tag, .. }
            | Verb::Seed { tag }
            | Verb::Claim { tag, .. } => *tag,
            _ => None,
        }
    }
}

/// The right answers, each with what the id is afterwards, in this state. `hollow` is a mark whose store still
/// knows it and whose row another store, with its clock ahead, has purged.
pub(crate) fn outcomes(
    verb: &Verb,
    state: &State,
    hollow: bool,
    setting: Setting,
) -> Vec<(Answer, State)> {
    if let Verb::Resolve { done } = verb {
        return vec![on_resolve(*done, state, hollow, setting)];
    }
    let same = |answer| vec![(answer, state.clone())];
    match state.seen(setting.now) {
        // Nothing tells what its version was.
        Some(mark) if hollow => on_seen(verb, mark, true, state, setting),
        Some(mark) => match Tag::meet(mark.tag, verb.tag()) {
            Meeting::Same | Meeting::First => on_seen(verb, mark, false, state, setting),
            Meeting::Changed => vec![on_unseen(verb, Some(mark), state, setting)],
            Meeting::Conflict => same(Answer::Conflict),
        },
        None => vec![on_unseen(verb, None, state, setting)],
    }
}

/// Of an id that is seen, in the version that it is shown with.
fn on_seen(
    verb: &Verb,
    mark: &Mark,
    hollow: bool,
    state: &State,
    setting: Setting,
) -> Vec<(Answer, State)> {
    let Setting { now, life, .. } = setting;
    let refreshed = |at, tag| {
        if hollow { mark.begun_anew(at, tag, life) } else { mark.refreshed(at, tag, life) }
    };
    let with = |mark: Mark| State { mark: Some(mark), claim: state.claim.clone() };
    let sighted = |answer: Answer| {
        let mut seen = mark.clone();
        seen.sighted = seen.sighted.max(now);
        if !hollow {
            seen.tag = seen.tag.or(verb.tag());
        }
        let seen = with(seen);
        if !life.is_short(mark.expires, now) {
            return vec![(answer, seen)];
        }
        let after = refreshed(now, verb.tag().filter(|_| !hollow));
        let after = Mark { sighted: mark.sighted.max(now), ..after };
        let written = (after.expires > mark.expires).then(|| (answer.clone(), with(after)));
        // At its maximum age there is nothing to write down. What that is, of a hollow mark, is known
        // only from before it was purged, if at all.
        let unwritten = written.is_none() || hollow && life.has_max_age();
        written.into_iter().chain(unwritten.then_some((answer, seen))).collect()
    };
    match verb {
        Verb::Mark { at, tag } => vec![(Answer::Done, with(refreshed(*at, *tag)))],
        Verb::Check { retry_of: Some(token), .. } if mark.token == Some(*token) && !hollow => {
            vec![(Answer::New, state.clone())]
        }
        Verb::Check { .. } | Verb::Seed { .. } => sighted(Answer::Duplicate),
        Verb::Claim { .. } => sighted(Answer::Seen),
        Verb::Confirm { token, receipt } if mark.token == Some(*token) && !hollow => {
            let receipt = mark.receipt.clone().or_else(|| receipt.clone());
            vec![(Answer::Held, with(Mark { receipt, ..mark.clone() }))]
        }
        Verb::Release { token } | Verb::Fail { token, .. } | Verb::Renew { token, .. }
            if mark.token == Some(*token) && !hollow =>
        {
            vec![(Answer::Lost, state.clone())]
        }
        Verb::Forget => vec![(Answer::Forgot(true), State::default())],
        _ => vec![on_unseen(verb, (!hollow).then_some(mark), state, setting)],
    }
}

/// Of an id that is not seen, or seen in another version, that of the mark `old`; or what a holder does with the
/// claim beside it.
fn on_unseen(verb: &Verb, old: Option<&Mark>, state: &State, setting: Setting) -> (Answer, State) {
    let Setting { now, life, .. } = setting;
    let claim = state.claim.as_ref();
    let same = |answer| (answer, state.clone());
    let with = |claim: Claim| State { mark: state.mark.clone(), claim: Some(claim) };
    // A mark that is written, in place of what is known.
    let written = |mark: Mark, claim: Option<&Claim>| {
        let mark = match old {
            Some(old) => mark.in_place_of(old),
            None => state.begun(mark, now),
        };
        State { mark: Some(mark), claim: claim.cloned() }
    };
    let binds = |claim: &Claim| claim.is_in_flight(now) || claim.is_unresolved(now);
    if let (Some(claim), Some(shown)) = (claim, verb.tag())
        && Tag::meet(claim.tag, Some(shown)) == Meeting::Conflict
    {
        return same(Answer::Conflict);
    }
    match verb {
        Verb::Mark { tag, .. } | Verb::Seed { tag } => {
            let (at, answer) = match verb {
                Verb::Mark { at, .. } => (*at, Answer::Done),
                _ if old.is_some() => (now, Answer::Changed),
                _ => (now, Answer::New),
            };
            // The maximum age of a change counts from the first version, unless nothing of it is left.
            let first = old.map_or(at, |old| life.begun(old.first, now).min(at));
            let fresh = Mark::new(at, first, *tag, life);
            // A claim is of one version: a mark of another one does not end it.
            let goes_on = |claim: &&Claim| Tag::is_change(*tag, claim.tag);
            match claim {
                None => (answer, written(fresh, None)),
                Some(_) if claim.is_some_and(|claim| goes_on(&claim)) => {
                    (answer, written(fresh, claim))
                }
                // A mark that expires at once does not end a lease, and no other ends before it.
                Some(claim) if binds(claim) && fresh.expires <= now => same(answer),
                // The holder's confirm will succeed.
                Some(claim) => (answer, written(claim.left_behind(fresh, claim.token, now), None)),
            }
        }
        Verb::Check { tag, retry_of } => {
            let answer = if old.is_some() { Answer::Changed } else { Answer::New };
            let first = old.map_or(now, |old| life.begun(old.first, now));
            let fresh = Mark { token: *retry_of, ..Mark::new(now, first, *tag, life) };
            match claim {
                None => (answer, written(fresh, None)),
                Some(claim) if binds(claim) => same(Answer::Flying),
                // Its holder has lost it.
                Some(claim) => (answer, written(claim.left_behind(fresh, *retry_of, now), None)),
            }
        }
        Verb::Claim { tag, lease, hold, granted } => {
            let Some(claim) = claim else {
                let previous = old.map_or(Before::Nothing, |old| {
                    Before::Superseded(Box::new(old.view(now).fixed()))
                });
                let (answer, claim) =
                    grant((*lease, *hold), (*tag, *granted), None, previous, setting);
                return (answer, with(claim));
            };
            // The attempts at one version say nothing of another.
            let changed = Tag::is_change(claim.tag, *tag);
            let reached = |most: Option<u32>, count| most.is_some_and(|most| count >= most);
            let given_up = claim.outcome == Some(Outcome::FailedFinally)
                || reached(setting.max_attempts, claim.attempts)
                || reached(setting.max_abandoned, claim.abandoned_by(now));
            match claim.blocks_until(now) {
                Some(until) => same(Answer::InFlight { until }),
                None if claim.is_unresolved(now) => same(Answer::Unresolved { since: claim.until }),
                None if given_up && !changed => same(Answer::GivenUp { attempts: claim.attempts }),
                None => {
                    let previous = match claim.outcome {
                        Some(Outcome::Released) => Before::Ended(Outcome::Released),
                        Some(_) => Before::Ended(Outcome::Failed),
                        None => Before::Abandoned { since: claim.until },
                    };
                    let (answer, claim) =
                        grant((*lease, *hold), (*tag, *granted), Some(claim), previous, setting);
                    (answer, with(claim))
                }
            }
        }
        Verb::Forget if state.kept(now).is_some() || claim.is_some() => {
            (Answer::Forgot(true), State::default())
        }
        Verb::Forget => same(Answer::Forgot(false)),
        Verb::Resolve { .. } => unreachable!("decided before"),
        Verb::Confirm { token, .. }
        | Verb::Release { token }
        | Verb::Fail { token, .. }
        | Verb::Renew { token, .. } => match claim.filter(|claim| claim.token == Some(*token)) {
            Some(claim) => match verb {
                Verb::Confirm { receipt, .. } => {
                    let begun = old.map_or(claim.at, |old| old.first.min(claim.at));
                    let first = life.begun(begun, now);
                    let mark = Mark::new(now, first, None, life);
                    let mark = claim.left_behind(mark, claim.token, i64::MAX);
                    let receipt = receipt.clone();
                    (Answer::Held, written(Mark { receipt, ..mark }, None))
                }
                _ => (Answer::Held, with(claim.changed_by(verb, setting))),
            },
            None => same(Answer::Lost),
        },
    }
}

fn on_resolve(done: bool, state: &State, hollow: bool, setting: Setting) -> (Answer, State) {
    let Setting { now, life, .. } = setting;
    let claim = state.claim.as_ref().filter(|claim| !claim.is_in_flight(now));
    let Some(claim) = claim else { return (Answer::Resolved(false), state.clone()) };
    if !done {
        let ended = claim.ended(Outcome::Released, now, now, life);
        let claim = Some(Claim { attempts: 0, abandoned: 0, ..ended });
        return (Answer::Resolved(true), State { mark: state.mark.clone(), claim });
    }
    // As a mark of the version that was claimed.
    let marked = outcomes(&Verb::Mark { at: now, tag: claim.tag }, state, hollow, setting);
    let (answer, after) = marked.into_iter().next().expect("a mark has an outcome");
    if answer == Answer::Conflict {
        return (answer, after);
    }
    let is_seen = state.is_seen(claim.tag, now) || hollow;
    (Answer::Resolved(is_seen || after != *state), after)
}

fn grant(
    (lease, held): (Span, bool),
    (tag, token): (Option<Tag>, Option<Token>),
    before: Option<&Claim>,
    previous: Before,
    Setting { now, life, .. }: Setting,
) -> (Answer, Claim) {
    let until = lease.end(now);
    let same = before.filter(|claim| !Tag::is_change(claim.tag, tag));
    let attempt = same.map_or(0, |claim| claim.attempts) + 1;
    let claim = Claim {
        token,
        outcome: None,
        held,
        at: now,
        until,
        attempts: attempt,
        abandoned: same.map_or(0, |claim| claim.abandoned_by(now)),
        tag: tag.or(before.and_then(|claim| claim.tag)),
        error: before.and_then(|claim| claim.error.clone()),
        expires: life.ttl.end(until),
    };
    (Answer::Granted { attempt, until, previous }, claim)
}

impl Claim {
    /// The mark with which the claim ends at `now`. No other worker is to be granted the id before the lease ends.
    fn left_behind(&self, mark: Mark, token: Option<Token>, now: i64) -> Mark {
        let least = if self.is_in_flight(now) { self.until } else { 0 };
        Mark {
            expires: mark.expires.max(least),
            kept: mark.kept.max(least),
            tag: mark.tag.or(self.tag),
            token,
            attempts: self.attempts,
            error: self.error.clone(),
            ..mark
        }
    }

    /// What becomes of it by a verb of its holder.
    fn changed_by(&self, verb: &Verb, Setting { now, life, retry_delay, .. }: Setting) -> Self {
        match verb {
            Verb::Release { .. } => self.ended(Outcome::Released, now, now, life),
            Verb::Fail { reason, is_final, .. } => {
                let ended = if *is_final {
                    self.ended(Outcome::FailedFinally, now, now, life)
                } else {
                    self.ended(Outcome::Failed, now, retry_delay.end(now), life)
                };
                Self { error: Some(reason.clone()), ..ended }
            }
            Verb::Renew { lease, .. } => self.until(lease.end(now), life),
            _ => unreachable!("{verb:?} is not of a holder"),
        }
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).expect("a time that can be written down"),
        Err(before) => -i64::try_from(before.duration().as_millis()).expect("a time"),
    }
}
