//! Figures and the newest entries, of a listing.
//!
//! A cluster lists its entries one by one, and these are counted here as the reader of a file counts its rows.

use std::time::{Duration, SystemTime};

use seen_store::{Counts, Entry, FileStats, State};

const HOUR: Duration = Duration::from_secs(3_600);

/// Figures that are being counted.
pub(super) struct Tally {
    pub(super) stats: FileStats,
    now: SystemTime,
    /// The length of a bucket.
    width: Duration,
}

impl Tally {
    /// The time from `since` ago until now has so many buckets.
    pub(super) fn of(now: SystemTime, since: Duration, buckets: u16) -> Self {
        let mut stats = FileStats::default();
        stats.marks = vec![0; buckets.into()];
        let width = (since / buckets.max(1).into()).max(Duration::from_millis(1));
        Self { stats, now, width }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        let Self { stats, now, .. } = self;
        let counts = stats.scopes.entry(entry.scope.clone()).or_default();
        *field(counts, entry.state) += 1;
        if entry.state != State::Seen {
            return;
        }
        stats.oldest = Some(stats.oldest.map_or(entry.first_seen, |it| it.min(entry.first_seen)));
        stats.newest = Some(stats.newest.map_or(entry.last_seen, |it| it.max(entry.last_seen)));
        let left = entry.expires_at.map(|at| at.duration_since(*now).unwrap_or_default());
        stats.expiring_within_hour += u64::from(left.is_some_and(|left| left <= HOUR));
        stats.expiring_within_day += u64::from(left.is_some_and(|left| left <= 24 * HOUR));
        let age = now.duration_since(entry.first_seen).unwrap_or_default();
        // The last bucket ends now.
        let back = usize::try_from(age.as_nanos() / self.width.as_nanos()).unwrap_or(usize::MAX);
        let bucket = stats.marks.len().checked_sub(1).and_then(|last| last.checked_sub(back));
        if let Some(bucket) = bucket {
            stats.marks[bucket] += 1;
        }
    }
}

fn field(counts: &mut Counts, state: State) -> &mut u64 {
    match state {
        State::Seen => &mut counts.seen,
        State::InFlight => &mut counts.in_flight,
        State::Released => &mut counts.released,
        State::Failed => &mut counts.failed,
        State::GivenUp => &mut counts.given_up,
        State::Abandoned => &mut counts.abandoned,
        State::Unresolved => &mut counts.unresolved,
        _ => &mut counts.expired,
    }
}

/// The newest of the entries that were added.
pub(super) struct Newest {
    entries: Vec<Entry>,
    count: usize,
}

impl Newest {
    pub(super) fn of(count: usize) -> Self {
        Self { entries: Vec::new(), count }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
        if self.entries.len() >= self.count.saturating_mul(2).max(1_000) {
            self.shorten();
        }
    }

    pub(super) fn sorted(mut self) -> Vec<Entry> {
        self.shorten();
        self.entries
    }

    fn shorten(&mut self) {
        self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.last_seen));
        self.entries.truncate(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, at: SystemTime) -> Entry {
        Entry::new("", id, at)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn figures_count_by_scope_state_and_time() {
        let mut tally = Tally::of(at(1_000_000), 4 * HOUR, 4);
        let mut soon = seen("a", at(1_000_000));
        soon.expires_at = Some(at(1_000_000 + 3_600));
        tally.add(&soon);
        tally.add(&seen("b", at(1_000_000 - 3 * 3_600)));
        tally.add(&seen("c", at(1)));
        let mut failed = Entry::new("x", "d", at(1_000_000));
        failed.state = State::Failed;
        tally.add(&failed);
        let stats = tally.stats;
        assert_eq!(
            (stats.scopes[""].seen, stats.scopes["x"].failed, stats.total().seen),
            (3, 1, 3)
        );
        assert_eq!((stats.expiring_within_hour, stats.expiring_within_day), (1, 1));
        assert_eq!((stats.oldest, stats.newest), (Some(at(1)), Some(at(1_000_000))));
        assert_eq!(stats.marks, [1, 0, 0, 1]);
    }

    #[test]
    fn the_newest_come_first_and_no_more_than_asked_for() {
        let mut newest = Newest::of(2);
        for second in (0..3_000).rev().chain(3_000..5_000) {
            newest.add(seen("a", at(second)));
        }
        let times: Vec<_> = newest.sorted().into_iter().map(|it| it.last_seen).collect();
        assert_eq!(times, [at(4_999), at(4_998)]);
        assert!(Newest::of(0).sorted().is_empty());
    }
}
