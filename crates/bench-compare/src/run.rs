//! Runs the contenders, one process at a time.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use harness::{IdLength, Outcome, Plan, Result, Workload};

use crate::build::Programs;
use crate::contenders::{ALL, Contender, Kind};
use crate::results::{Results, Survival};
use crate::schedule::{self, Cell, LARGE, Scale};

mod page_cache;
mod starts;

/// When a contender is given up.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a contender marks ids before it is killed.
const LIFE: Duration = Duration::from_millis(300);

pub(crate) struct Runner<'a> {
    programs: &'a Programs,
    scratch: &'a Path,
    scale: &'a Scale,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(programs: &'a Programs, scratch: &'a Path, scale: &'a Scale) -> Self {
        Self { programs, scratch, scale }
    }

    fn contenders(&self) -> impl Iterator<Item = &'static Contender> {
        ALL.iter().filter(|contender| !self.programs.missing.contains_key(contender.name))
    }

    /// Kills each contender while it marks ids, opens its files again and looks for the marks.
    pub(crate) fn check_that_marks_survive(&self, results: &mut Results) -> Result<()> {
        for contender in self.contenders().filter(|contender| contender.kind != Kind::Baseline) {
            eprintln!("killing {}", contender.label);
            let dir = self.empty("killed")?;
            let cell = Cell::new(Workload::Survive, 1);
            let mut child = self.start(&cell.plan(contender, self.scale, &dir))?;
            let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
            // Read all the while: a full pipe would keep the contender waiting instead of marking.
            let (first, begun) = mpsc::channel();
            let reader = thread::spawn(move || {
                let acknowledged = lines.map_while(std::io::Result::ok).inspect(|_| {
                    let _ = first.send(());
                });
                // The kill may have cut the last line short; a shorter number is a smaller one.
                acknowledged.last().and_then(|line| line.parse().ok()).unwrap_or(0)
            });
            let _ = begun.recv();
            thread::sleep(LIFE);
            child.kill()?;
            child.wait()?;
            let acknowledged = reader.join().expect("the reader panicked");
            // A killed server may still hold its files for a moment.
            thread::sleep(Duration::from_millis(100));
            let cell = Cell::new(Workload::Survivors, 1).ids(acknowledged);
            let outcome = self.run(&cell.plan(contender, self.scale, &dir))?;
            let lost = outcome.extra.get("lost").copied().unwrap_or(f64::NAN) as u64;
            results.survival.insert(contender.name.to_owned(), Survival { acknowledged, lost });
            std::fs::remove_dir_all(&dir)?;
        }
        Ok(())
    }

    /// Fills one folder for each family, size and length of ids.
    pub(crate) fn fill(&self, results: &mut Results) -> Result<()> {
        let short = self.scale.sizes.iter().map(|size| (*size, IdLength::Short));
        let sizes: Vec<_> = short.chain([(self.scale.url_ids, IdLength::Url)]).collect();
        for contender in self.contenders().filter(|contender| contender.kind != Kind::Baseline) {
            for &(ids, id_length) in &sizes {
                let dir = self.filled(contender, ids, id_length);
                if dir.exists() || (ids == LARGE && !contender.large) {
                    continue;
                }
                eprintln!("filling {} with {ids} {} ids", contender.family, id_length.name());
                std::fs::create_dir_all(&dir)?;
                let cell = Cell { id_length, ..Cell::new(Workload::Fill, 1).ids(ids) };
                match self.run(&cell.plan(contender, self.scale, &dir)) {
                    Ok(outcome) => results.add(contender.name, cell, outcome),
                    // The rest is worth measuring without it; a run without files fails, visibly.
                    Err(e) => {
                        results.failed(contender, cell, &e);
                        std::fs::remove_dir_all(&dir)?;
                    }
                }
            }
        }
        sync(self.scratch)
    }

    pub(crate) fn round(&self, round: usize, results: &mut Results) {
        let cells = self.scale.cells();
        for (i, &cell) in cells.iter().enumerate() {
            eprint!("\rround {} of {}: {i} of {}  ", round + 1, self.scale.rounds, cells.len());
            let mut contenders: Vec<_> = self
                .contenders()
                .filter(|contender| schedule::includes(contender, cell, round))
                .collect();
            // The order changes, so that no contender always comes first, or always after the same other.
            let first = (round * 5 + i) % contenders.len().max(1);
            contenders.rotate_left(first);
            if cell.workload.is_start() {
                self.start_all(cell, &contenders, results);
                continue;
            }
            for contender in contenders {
                match self.measure(contender, cell) {
                    Ok(outcome) => results.add(contender.name, cell, outcome),
                    Err(e) => results.failed(contender, cell, &e),
                }
            }
        }
        eprintln!();
    }

    fn measure(&self, contender: &Contender, cell: Cell) -> Result<Outcome> {
        let files = self.files(contender, cell)?;
        if files.is_own {
            // What the copying left to be written must not be written during a measurement.
            sync(&files.dir)?;
        }
        let outcome = self.run(&cell.plan(contender, self.scale, &files.dir));
        files.remove()?;
        outcome
    }

    /// The files that a contender works on in a cell.
    fn files(&self, contender: &Contender, cell: Cell) -> Result<Files> {
        let name = format!("run-{}", contender.name);
        if contender.kind == Kind::Baseline || cell.workload == Workload::Purge {
            return Ok(Files { dir: self.empty(&name)?, is_own: true });
        }
        let filled = self.filled(contender, cell.ids, cell.id_length);
        if !filled.exists() {
            return Err("there are no files to begin with".into());
        }
        if cell.only_reads() {
            return Ok(Files { dir: filled, is_own: false });
        }
        Ok(Files { dir: self.copy(&filled, &name)?, is_own: true })
    }

    fn filled(&self, contender: &Contender, ids: u64, id_length: IdLength) -> PathBuf {
        self.scratch.join(format!("{}-{ids}-{}", contender.family, id_length.name()))
    }

    fn empty(&self, name: &str) -> Result<PathBuf> {
        let dir = self.scratch.join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn copy(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let to = self.scratch.join(name);
        let _ = std::fs::remove_dir_all(&to);
        // `cp` keeps holes as holes, and shares blocks where the file system can.
        let status =
            Command::new("cp").args(["-r", "--reflink=auto"]).arg(from).arg(&to).status()?;
        if status.success() { Ok(to) } else { Err("cp failed".into()) }
    }

    fn start(&self, plan: &Plan) -> Result<Child> {
        let contender = ALL.iter().find(|contender| contender.name == plan.contender);
        let program = contender.map_or("", |contender| contender.program);
        let path = self.programs.paths.get(program).ok_or("its program was not built")?;
        Ok(Command::new(path).args(plan.to_args()).stdout(Stdio::piped()).spawn()?)
    }

    fn run(&self, plan: &Plan) -> Result<Outcome> {
        let mut child = self.start(plan)?;
        let deadline = Instant::now() + PATIENCE;
        // The answer is one line: it fits the pipe, so the contender never waits for this to read it.
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                return Err(format!("not done after {} s", PATIENCE.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("{}: {}", plan.contender, output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// A folder for a cell.
struct Files {
    dir: PathBuf,
    /// Whether it is for this cell only.
    is_own: bool,
}

impl Files {
    fn remove(self) -> Result<()> {
        if self.is_own {
            std::fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }
}

/// Waits until everything on the folder's file system is on disk.
fn sync(folder: &Path) -> Result<()> {
    let status = Command::new("sync").arg("-f").arg(folder).status()?;
    if status.success() { Ok(()) } else { Err("sync failed".into()) }
}

/// What the report looks at for memory: a run that opened the store and read all over it.
pub(crate) fn resident_cell() -> Cell {
    Cell::new(Workload::Duplicate, 1)
}

/// What the report looks at for disk.
pub(crate) fn filled_cell(id_length: IdLength, ids: u64) -> Cell {
    Cell { id_length, ..Cell::new(Workload::Fill, 1).ids(ids) }
}
