//! Keeping the index in the file: the tail is written to runs, and runs are merged, in small pieces.
//!
//! Owns what is written to the index in the file, and when; `limits` has the sizes. What always holds:
//!
//! - A piece is *read* first, in any snapshot, also on a second connection beside callers. Then it is *written*, in a short
//!   write transaction, if the runs and the history of the file are still those that it was read from.
//! - Rows that are deleted meanwhile do no harm: an entry is a hint. Only the counts of the marks must be exact, so the
//!   rows of a tail are counted again if any may have been deleted since they were read.
//! - Damaged runs are thrown away. No mark is lost: all of it is derived from the table. What cannot even be thrown away,
//!   because SQLite cannot write to its pages, is left alone until the store is opened again.

mod limits;

use std::time::Duration;

use rusqlite::Connection;

pub(crate) use self::limits::Callers;
use self::limits::{Limits, long_tail, tail_to_write_first, tail_worth_writing};

use super::asleep::{Damage, Usability};
use super::catch_up::{read_data_version, read_newest, read_schema_version};
use super::counts::{self, Tail};
use super::load::ReadError;
use super::runs::{self, Runs, gone_left};
use super::second_connection::SecondConnection;
use super::{Journal, run};
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::create::replace_derived;
use crate::format::sqlite_errors::{is_busy, is_corrupt};
use crate::id::KeyHasher;
use crate::index::Index;
use crate::machine::sleep;

/// What is to be written next.
enum Piece {
    /// The tail, as a new run.
    Tail(Tail),
    Runs(runs::Step),
}

/// A piece that was read, and what it depends on.
pub(crate) struct PreparedPiece {
    piece: Piece,
    runs: Runs,
    schema_version: i64,
    begun: Deletions,
}

/// What changes whenever a mark may have been deleted from the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deletions {
    by_this_store: u64,
    /// Changes with each commit of another connection.
    data_version: i64,
}

/// What is to be written next, before a tail is read.
enum Wanted {
    /// The rows after this one.
    Tail(i64),
    Step(runs::Step),
    /// Nothing now. `later` tells that something is, once callers do less.
    Nothing {
        later: bool,
    },
}

/// Returns what is to be written next. The caller has a snapshot.
fn wanted(
    connection: &Connection,
    hasher: &KeyHasher,
    runs: &Runs,
    limits: Limits,
) -> Result<Wanted, ReadError> {
    let (covered, newest) = (runs.complete_to(), read_newest(connection)?.unwrap_or(0));
    if newest - covered >= limits.shortest_tail {
        return Ok(Wanted::Tail(covered));
    }
    let marks = counts::total(connection)?;
    Ok(match runs.read_step(connection, hasher, marks, limits.step)? {
        Some(step) => Wanted::Step(step),
        None => Wanted::Nothing { later: newest - covered >= long_tail() || runs.has_work(marks) },
    })
}

impl Wanted {
    /// Reads the tail, if it is wanted. `None` if nothing is worth writing.
    fn read(
        self,
        connection: &Connection,
        hasher: &KeyHasher,
        limits: Limits,
    ) -> Result<Option<Piece>, ReadError> {
        Ok(match self {
            Self::Tail(after) => {
                counts::read_tail(connection, hasher, after, limits.rows_per_run)?.map(Piece::Tail)
            }
            Self::Step(step) => Some(Piece::Runs(step)),
            Self::Nothing { .. } => None,
        })
    }
}

/// Writes a piece in the caller's write transaction. `is_recent` tells that no mark of a tail was deleted since it was
/// read. Returns false if there is no room for one more run.
fn write_piece(
    connection: &Connection,
    hasher: &KeyHasher,
    runs: &mut Runs,
    piece: Piece,
    is_recent: bool,
) -> Result<bool, ReadError> {
    match piece {
        Piece::Tail(Tail { last, entries, marks }) => {
            let after = runs.complete_to();
            if after == 0 {
                counts::clear(connection)?;
            }
            if !runs.append(connection, hasher, last, &entries)? {
                return Ok(false);
            }
            let marks = if is_recent { marks } else { counts::of_rows(connection, after, last)? };
            counts::add(connection, &marks)?;
        }
        Piece::Runs(step) => runs.write_step(connection, hasher, step)?,
    }
    Ok(true)
}

/// What a search for a piece came to.
pub(crate) enum Prepared {
    /// Empty once it was written.
    Piece(Option<PreparedPiece>),
    /// Nothing is worth writing now. The runs are complete up to this row. `later`: see [`Wanted::Nothing`].
    Nothing { complete_to: i64, later: bool },
    /// The runs are damaged: see [`Journal::throw_away`].
    Damage(Damage),
}

/// Reads the next piece.
fn prepare(
    connection: &Connection,
    hasher: &KeyHasher,
    begun: Deletions,
    limits: Limits,
) -> Result<Prepared, ReadError> {
    let mut read_of = None;
    let mut read = || -> Result<_, ReadError> {
        let snapshot = connection.unchecked_transaction()?;
        let schema_version = read_schema_version(connection)?;
        let runs = Runs::read(connection, hasher)?;
        read_of = Some(runs.clone());
        let wanted = wanted(connection, hasher, &runs, limits)?;
        // A tail takes longer to read, and a long snapshot keeps the log from being started again.
        snapshot.commit()?;
        let complete_to = runs.complete_to();
        let later = matches!(wanted, Wanted::Nothing { later: true });
        let piece = wanted.read(connection, hasher, limits)?;
        let piece = piece.map(|piece| PreparedPiece { piece, runs, schema_version, begun });
        Ok(match piece {
            Some(piece) => Prepared::Piece(Some(piece)),
            None => Prepared::Nothing { complete_to, later },
        })
    };
    match read().map_err(ReadError::in_the_index) {
        Err(ReadError::Index(what)) => Ok(Prepared::Damage(Damage::of(read_of, what))),
        prepared => prepared,
    }
}

impl PreparedPiece {
    pub(crate) fn is_tail(&self) -> bool {
        matches!(self.piece, Piece::Tail(_))
    }
}

impl SecondConnection {
    /// Reads the next piece beside callers. `begun` was asked for before.
    pub(crate) fn prepare(
        &mut self,
        hasher: &KeyHasher,
        begun: Deletions,
        callers: Callers,
    ) -> Result<Prepared> {
        let prepared = prepare(self.reader()?, hasher, begun, Limits::beside(callers));
        prepared.map_err(|e| e.at(&self.name()))
    }
}

impl Journal {
    /// Returns whether the thread has to be woken that lets the index wake and writes to the one in the file. Once that was
    /// so, it is not again until [`upkeep_ended`](Self::upkeep_ended).
    pub(crate) fn upkeep_is_due(
        &mut self,
        index: &Index,
        is_open_long: impl FnOnce() -> bool,
    ) -> bool {
        if self.file_index.is_kept_up {
            return false;
        }
        let known = &self.file_index;
        let may_write = known.is_usable() && !self.config.read_only;
        let is_due = may_write
            && (self.tail_rows() > long_tail() || known.has_work && is_open_long())
            || self.is_waking(index);
        self.file_index.is_kept_up = is_due;
        is_due
    }

    /// Records that the thread has nothing to do for now.
    pub(crate) fn upkeep_ended(&mut self) {
        self.file_index.is_kept_up = false;
    }

    /// Records that nothing is worth writing now to the index in the file, which is complete up to this row. If it is
    /// known to
    /// be damaged, throws it away instead, and returns true.
    pub(crate) fn found_nothing(&mut self, complete_to: i64, later: bool) -> Result<bool> {
        if self.file_index.damage.is_some() {
            return self.throw_known_damage_away().map(|()| true);
        }
        (self.file_index.complete_to, self.file_index.has_work) = (complete_to, later);
        Ok(false)
    }

    /// Returns how many row numbers come after the last row that the runs cover, as far as this store knows.
    fn tail_rows(&self) -> i64 {
        self.newest_seq() - self.file_index.complete_to
    }

    /// To be asked before a piece is read. `None` if there is no index in the file that this store can write to.
    pub(crate) fn begin_piece(&mut self) -> Result<Option<Deletions>> {
        self.ensure_open()?;
        if !self.file_index.is_usable() || self.config.read_only {
            return Ok(None);
        }
        self.deletions_so_far().map(Some)
    }

    fn deletions_so_far(&mut self) -> Result<Deletions> {
        let by_this_store = self.file_index.deletions;
        Ok(Deletions { by_this_store, data_version: self.read_data_version()? })
    }

    /// Writes a piece that was read on a second connection. Returns false if it does not fit any more, because another
    /// store was quicker. Fails with `Busy` when another process writes.
    pub(crate) fn write_piece(&mut self, prepared: &mut Option<PreparedPiece>) -> Result<bool> {
        let by_this_store = self.file_index.deletions;
        self.change_runs(|connection, hasher, runs| {
            let Some(PreparedPiece { piece, runs: known, schema_version, begun }) = prepared.take()
            else {
                return Ok(false);
            };
            if *runs != known || read_schema_version(connection)? != schema_version {
                return Ok(false);
            }
            let now = Deletions { by_this_store, data_version: read_data_version(connection)? };
            write_piece(connection, hasher, runs, piece, now == begun)
        })
    }

    /// Throws damaged runs away, unless another store has made them anew meanwhile.
    pub(crate) fn throw_away(&mut self, damage: &Damage) -> Result<()> {
        self.record_damage(damage.clone());
        self.throw_known_damage_away()
    }

    /// Throws the runs away if they still are those that are known to be damaged.
    fn throw_known_damage_away(&mut self) -> Result<()> {
        self.change_runs(|_, _, _| Ok(true)).map(drop)
    }

    /// Reads a piece before it is written, on the store's own connection.
    fn read_ahead(&mut self, limits: Limits) -> Result<Prepared> {
        let begun = self.deletions_so_far()?;
        let prepared = prepare(self.open_connection(), &self.hasher, begun, limits);
        prepared.map_err(|e| e.at(&self.name()))
    }

    /// Reads and writes a piece in one transaction, where there is no second connection.
    pub(crate) fn do_piece(&mut self) -> Result<bool> {
        self.read_and_write_piece(Limits::beside(Callers::WriteLittle))
    }

    /// Returns false when nothing is worth doing.
    fn read_and_write_piece(&mut self, limits: Limits) -> Result<bool> {
        let done = self.change_runs(|connection, hasher, runs| {
            let piece = wanted(connection, hasher, runs, limits)
                .and_then(|wanted| wanted.read(connection, hasher, limits))
                .map_err(ReadError::in_the_index)?;
            let Some(piece) = piece else { return Ok(false) };
            write_piece(connection, hasher, runs, piece, true)
        });
        if done.is_err() && self.file_index.damage.is_some() {
            return self.throw_known_damage_away().map(|()| true);
        }
        done
    }

    /// Writes the tail and merges runs before the store closes, for up to `limit`: a store that is only ever used by
    /// programs that live for a second must not leave it all to the next one. After the time `at_once` it pauses for as long
    /// as each piece took, for other stores.
    pub(crate) fn upkeep_before_closing(
        &mut self,
        at_once: Duration,
        limit: Duration,
    ) -> Result<()> {
        let begun = Stopwatch::start();
        while self.file_index.is_usable()
            && !self.config.read_only
            && (self.tail_rows() >= tail_worth_writing()
                || self.file_index.has_work
                || self.file_index.damage.is_some())
            && begun.elapsed() < limit
        {
            let piece = Stopwatch::start();
            if !self.read_and_write_piece(Limits::at_close())? {
                break;
            }
            if begun.elapsed() > at_once {
                sleep(piece.elapsed());
            }
        }
        Ok(())
    }

    /// Writes a long tail to runs before the index is filled, so that opening takes little memory, and no later opening
    /// has to do the same again.
    pub(super) fn write_long_tail_first(&mut self) -> Result<()> {
        self.ensure_open()?;
        let is_writable = !self.config.read_only && !self.file_index.is_corrupt();
        if !is_writable || !self.with("read", runs::has_tables)? {
            return Ok(());
        }
        if self.with("read", runs::hash_key)?.is_none_or(|key| !self.hasher.has_key(key)) {
            return Ok(());
        }
        loop {
            let (covered, rows) = self.with("read", counts::covered_and_tail)?;
            if rows <= tail_to_write_first() {
                return Ok(());
            }
            // Read before the write lock is taken: other stores go on meanwhile.
            let prepared = self.read_ahead(Limits::at_open())?;
            let writing = Stopwatch::start();
            match prepared {
                Prepared::Piece(mut piece) => drop(self.write_piece(&mut piece)?),
                Prepared::Damage(damage) => self.throw_away(&damage)?,
                Prepared::Nothing { .. } => return Ok(()),
            }
            sleep(writing.elapsed());
            let file = self.name();
            log::debug!(
                file = file.as_str();
                "{file}: the index in the file reached row {covered}, {rows} rows before the end"
            );
            // No thread keeps the log short yet. While another process reads an older snapshot, it stays long.
            if let Err(e) = self.checkpoint()
                && e.kind() != ErrorKind::Busy
            {
                return Err(e);
            }
        }
    }

    /// Leaves all out of the runs that is about rows that are gone. Makes them anew if they are not sound.
    pub(super) fn compact_runs(&mut self, are_sound: &mut bool) -> Result<()> {
        let compacted = self.write_all_runs(are_sound);
        if !self.file_index.is_corrupt() {
            return compacted;
        }
        let replaced = replace_derived(self.connection()?);
        self.discard_position();
        replaced.map_err(|e| self.failure("compact", e))?;
        self.file_index.usability = Usability::Usable;
        *are_sound = true;
        self.write_all_runs(are_sound)
    }

    fn write_all_runs(&mut self, are_sound: &mut bool) -> Result<()> {
        if !*are_sound && self.file_index.is_usable() {
            self.runs_are_damaged("a check of it found problems");
            self.throw_known_damage_away()?;
            *are_sound = true;
            self.write_long_tail_first()?;
        }
        while self.file_index.is_usable() && self.read_and_write_piece(Limits::for_compacting())? {}
        Ok(())
    }

    /// Records that a transaction deletes marks: `covered` of those that the runs are about.
    pub(super) fn note_deletions(&mut self, covered: i64) {
        let known = &mut self.file_index;
        known.deletions += 1;
        known.gone += covered;
        if known.gone > gone_left() {
            (known.gone, known.has_work) = (0, true);
        }
    }

    /// Calls `change` in a write transaction with the runs as they are then, and returns what it returns. Runs that are
    /// damaged are thrown away.
    fn change_runs(
        &mut self,
        change: impl FnOnce(&Connection, &KeyHasher, &mut Runs) -> Result<bool, ReadError>,
    ) -> Result<bool> {
        self.ensure_open()?;
        let name = self.name();
        match run(self.open_connection(), "BEGIN IMMEDIATE") {
            Ok(()) => {}
            Err(e) if is_busy(&e) => return Err(Error::try_again()),
            Err(e) => return Err(self.failure("write to", e)),
        }
        let (connection, hasher) = (self.open_connection(), &self.hasher);
        let changed = || -> Result<_, ReadError> {
            if runs::hash_key(connection)?.is_none_or(|key| !hasher.has_key(key)) {
                return Ok(None); // Another file was restored in place.
            }
            let mut runs = match self.sound_runs(connection).map_err(ReadError::in_the_index) {
                Err(ReadError::Index(what)) => {
                    log::info!(
                        file = name.as_str();
                        "{name}: the damaged index in the file is thrown away, and made anew: {what}"
                    );
                    counts::clear(connection)?;
                    Runs::drop_all(connection, hasher)?
                }
                runs => runs?,
            };
            let done = change(connection, hasher, &mut runs)?;
            let has_work = counts::total(connection).map(|marks| runs.has_work(marks))?;
            run(connection, "COMMIT")?;
            Ok(Some((done, has_work, runs.complete_to())))
        };
        let changed = changed();
        self.file_index.reopened();
        match changed {
            Ok(Some((done, has_work, complete_to))) => {
                let known = &mut self.file_index;
                (known.damage, known.has_work, known.complete_to) = (None, has_work, complete_to);
                Ok(done)
            }
            Ok(None) => {
                self.rollback();
                self.file_index.usability = Usability::None;
                Ok(false)
            }
            Err(e) => {
                self.rollback();
                self.file_index.has_work = false;
                let error = match e {
                    // The pages themselves are damaged: no run can be made anew among them.
                    ReadError::Sqlite(e) if is_corrupt(&e) => self.index_is_corrupt(),
                    e => {
                        let e = e.in_the_index();
                        if let ReadError::Index(what) = e {
                            self.runs_are_damaged(what);
                        }
                        e.at(&name)
                    }
                };
                if error.kind() == ErrorKind::Io {
                    self.drop_failed_connection();
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::limits::rows_per_run;
    use super::*;
    use crate::config::Config;
    use crate::format::create::create_in_memory;

    #[test]
    fn the_more_callers_write_the_longer_a_tail_is_left_for_later() {
        let connection = create_in_memory(&Config::default()).unwrap();
        let hasher = KeyHasher::random();
        let runs = Runs::default();
        let wanted = |callers| match wanted(&connection, &hasher, &runs, Limits::beside(callers)) {
            Ok(Wanted::Tail(_)) => "tail",
            Ok(Wanted::Nothing { later: true }) => "later",
            Ok(Wanted::Nothing { later: false }) => "nothing",
            Ok(Wanted::Step(_)) | Err(_) => panic!("there are no runs"),
        };
        for (rows, little, much, long) in [
            (long_tail() - 1, "nothing", "nothing", "nothing"),
            (long_tail(), "tail", "later", "later"),
            (rows_per_run() - 1, "tail", "later", "later"),
            (rows_per_run(), "tail", "tail", "later"),
            (2 * rows_per_run(), "tail", "tail", "tail"),
        ] {
            let newest = "INSERT INTO seen (seq, id, first_seen, last_seen) VALUES (?1, 'x', 1, 1)";
            connection.execute(newest, [rows]).unwrap();
            let found =
                [Callers::WriteLittle, Callers::WriteMuch, Callers::HoldTheMutex].map(wanted);
            assert_eq!(found, [little, much, long], "{rows} rows");
        }
    }
}
