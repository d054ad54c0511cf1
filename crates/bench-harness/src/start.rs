//! A process that opens the store, asks, closes it and ends.
//!
//! What always holds: a process does it once, so that it has no memory and no caches of an earlier time; every
//! answer is checked. The start of the process itself is not in the time. Whether the files are in the page cache is up
//! to the program that starts the process.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::ids::mix;
use crate::run::nanos;
use crate::{Contender, Ids, Latency, Outcome, Plan, Result, Workload, memory, now_ms};

const MANY: u64 = 400;
/// One id in so many of a bot's cycle is new.
const NEW_ONE_IN: u64 = 40;

impl Plan {
    /// Opens the store, asks and closes it, once.
    pub(crate) fn start<C: Contender>(&self) -> Result<Outcome> {
        let asked = self.asked();
        let this = std::process::id();
        let read_before = memory::read_from_disk(this);

        let begin = Instant::now();
        let store = C::open(self)?;
        let mut worker = store.worker()?;
        for (id, is_new) in &asked {
            if worker.test_and_set(id, false)? != *is_new {
                return Err(format!("{id} was taken for {}", old_or_new(!is_new)).into());
            }
        }
        let answered = begin.elapsed();

        let (pid, report) = (store.pid(), store.report());
        let (private, _) = memory::resident(pid);
        // A server is gone when it is closed.
        let mut peak = memory::peak(pid);
        let mut read = memory::read_from_disk(pid);

        let closing = Instant::now();
        drop(worker);
        store.close()?;
        let time = answered + closing.elapsed();

        if pid == this {
            peak = memory::peak(this);
            read = memory::read_from_disk(this)
                .zip(read_before)
                .map(|(after, before)| after.saturating_sub(before));
        }
        let mut extra = BTreeMap::from([
            ("answered_ns".to_owned(), nanos(answered) as f64),
            ("peak_bytes".to_owned(), peak as f64),
            ("private_bytes".to_owned(), private as f64),
        ]);
        extra.extend(read.map(|bytes| ("read_bytes".to_owned(), bytes as f64)));
        let ns = nanos(time) as f64;
        Ok(Outcome {
            version: report.version,
            settings: report.settings,
            ops: 1,
            ns_per_op: ns,
            latency: Latency { p50: ns, p99: ns, p999: ns, max: ns },
            disk_bytes: memory::on_disk(&self.dir),
            extra,
            ..Outcome::default()
        })
    }

    /// The ids to ask for, and whether each is new. All are others than those of an earlier process.
    fn asked(&self) -> Vec<(String, bool)> {
        let ids = Ids(self.id_length);
        // Beyond the new ids of all other workloads.
        let first = now_ms() << 16;
        let calls = if self.workload == Workload::OpenOne { 1 } else { MANY };
        (first..first + calls)
            .map(|n| {
                let is_new = self.workload == Workload::Cycle && n.is_multiple_of(NEW_ONE_IN);
                (ids.id(if is_new { n } else { mix(n) % self.ids.max(1) }), is_new)
            })
            .collect()
    }
}

fn old_or_new(is_new: bool) -> &'static str {
    if is_new { "new" } else { "a duplicate" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, IdLength};

    fn asked(workload: Workload) -> Vec<(String, bool)> {
        let plan = Plan {
            contender: "store".into(),
            workload,
            threads: 1,
            ids: 1_000,
            durability: Durability::Kill,
            id_length: IdLength::Short,
            seconds: 0.5,
            dir: "/nowhere".into(),
        };
        plan.asked()
    }

    #[test]
    fn a_cycle_asks_for_400_ids_of_which_10_are_new() {
        for (workload, all, new) in
            [(Workload::OpenOne, 1, 0), (Workload::OpenMany, 400, 0), (Workload::Cycle, 400, 10)]
        {
            let asked = asked(workload);
            assert_eq!(asked.len(), all);
            assert_eq!(asked.iter().filter(|(_, is_new)| *is_new).count(), new);
        }
        let held: std::collections::HashSet<_> =
            (0..1_000).map(|n| Ids(IdLength::Short).id(n)).collect();
        for (id, is_new) in asked(Workload::Cycle) {
            assert_eq!(held.contains(&id), !is_new, "{id}");
        }
    }
}
