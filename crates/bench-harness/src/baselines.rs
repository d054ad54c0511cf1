//! What the machine itself costs: the harness with no store at all, and a bare fsync.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::sync::Mutex;

use harness::{Contender, Plan, Report, Result, Worker, Workload};

/// Answers what is expected, at once.
struct Nothing(bool);

impl Contender for Nothing {
    fn open(plan: &Plan) -> Result<Self> {
        Ok(Self(plan.workload == Workload::New))
    }

    fn report(&self) -> Report {
        Report { version: String::new(), settings: "the harness alone".to_owned() }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(Self(self.0)))
    }
}

impl Worker for Nothing {
    fn test_and_set(&mut self, id: &str, _: bool) -> Result<bool> {
        std::hint::black_box(id);
        Ok(self.0)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        std::hint::black_box(ids);
        Ok(ids.len() as u64)
    }
}

/// How much a log of 4 KiB records grows before it begins again, as a write-ahead log does.
const LOG_BYTES: u64 = 4 << 20;

/// Appends 4 KiB and waits for the disk.
struct Fsync(Mutex<File>);

impl Contender for Fsync {
    fn open(plan: &Plan) -> Result<Self> {
        let path = plan.dir.join("log");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        // Allocated beforehand, so that only data is synced, as in a log that is written anew.
        file.write_all(&vec![0; usize::try_from(LOG_BYTES)?])?;
        file.sync_all()?;
        file.rewind()?;
        Ok(Self(Mutex::new(file)))
    }

    fn report(&self) -> Report {
        let settings = "4 KiB written, then fdatasync, in a file of 4 MiB".to_owned();
        Report { version: String::new(), settings }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }
}

impl Worker for &Fsync {
    fn test_and_set(&mut self, _: &str, _: bool) -> Result<bool> {
        let mut file = self.0.lock().expect("no holder panics");
        if file.stream_position()? >= LOG_BYTES {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        Ok(true)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        self.test_and_set("", true)?;
        Ok(ids.len() as u64)
    }
}

fn main() {
    harness::main(|plan| match plan.contender.as_str() {
        "nothing" => plan.run::<Nothing>(),
        "fsync" => plan.run::<Fsync>(),
        other => Err(format!("no contender is called {other:?}").into()),
    });
}
