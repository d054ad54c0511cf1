//! The figures of opening: processes that open a store, ask, close it and end.
//!
//! What always holds: each figure is a new process, and the contenders take turns. What is said to be cold was out of
//! the page
//! cache when the process began, and the process had the disk read.

use harness::{Outcome, Result};

use super::{Files, Runner, page_cache, sync};
use crate::contenders::{Contender, Kind};
use crate::results::Results;
use crate::schedule::{Cell, PageCache};

impl Runner<'_> {
    /// Starts each contender several times, in turn.
    pub(super) fn start_all(&self, cell: Cell, contenders: &[&Contender], results: &mut Results) {
        let mut ready = Vec::new();
        for contender in contenders {
            match self.warm_files(contender, cell) {
                Ok(files) => ready.push((*contender, files)),
                Err(e) => results.failed(contender, cell, &e),
            }
        }
        for start in 0..=self.scale.starts {
            ready.retain(|(contender, files)| match self.start_once(contender, cell, files) {
                // The first one is not counted: it is the one that finds the program itself on the disk.
                Ok(_) if start == 0 => true,
                Ok(outcome) => {
                    results.add(contender.name, cell, outcome);
                    true
                }
                Err(e) => {
                    results.failed(contender, cell, &e);
                    false
                }
            });
        }
        for (contender, files) in ready {
            let left = match cell.page_cache {
                // As all other cells expect them.
                PageCache::Cold => page_cache::read_files(&files.dir),
                PageCache::Warm => Ok(()),
            };
            if let Err(e) = left.and_then(|()| files.remove()) {
                results.failed(contender, cell, &e);
            }
        }
    }

    fn warm_files(&self, contender: &Contender, cell: Cell) -> Result<Files> {
        let files = self.files(contender, cell)?;
        page_cache::read_files(&files.dir)?;
        Ok(files)
    }

    fn start_once(&self, contender: &Contender, cell: Cell, files: &Files) -> Result<Outcome> {
        let beyond = |why: String| Outcome { unsupported: Some(why), ..Outcome::default() };
        if contender.kind != Kind::Baseline {
            // What an earlier process left to be written can neither be dropped nor be in the way.
            sync(&files.dir)?;
        }
        if cell.page_cache == PageCache::Cold
            && let Err(e) = page_cache::drop_files(&files.dir)
        {
            return Ok(beyond(format!("it could not be made cold: {e}")));
        }
        let outcome = self.run(&cell.plan(contender, self.scale, &files.dir))?;
        if cell.page_cache == PageCache::Cold && outcome.extra.get("read_bytes") == Some(&0.0) {
            return Ok(beyond("it read nothing from the disk: it was not cold".to_owned()));
        }
        Ok(outcome)
    }
}
