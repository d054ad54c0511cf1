//! The command `seen` on a real Redis Cluster: the same commands, with a URL in the place of a path.
//!
//! All tests but those that break something share one cluster, with a namespace each.
#![cfg(unix)]

mod claims;
mod filters;
mod ids;
mod outages;
mod refusals;
#[path = "../cli/support.rs"]
mod support;

use std::process::{Command, Output};
use std::sync::LazyLock;

use cluster_harness::{Cluster, Options};

use crate::support::{Place, Told, run};

/// A user's password, which no message may show.
const PASSWORD: &str = "hunter2";

/// Ends with the process: a watcher sees to that.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::start_with(&Options::new().user(&format!("bot on >{PASSWORD} ~* +@all")))
});

/// A namespace on the cluster.
struct Site {
    place: Place,
    url: String,
}

impl Site {
    fn new(namespace: &str) -> Self {
        let url = format!("{}{namespace}", CLUSTER.url_as("bot", PASSWORD));
        Self { place: Place::new(), url }
    }

    /// `seen ARGUMENTS...` on the namespace.
    fn seen(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.seen(arguments);
        command.env("SEEN_DB_PATH", &self.url);
        command
    }

    fn told(&self, arguments: &[&str]) -> Told {
        told(self.seen(arguments).output().unwrap())
    }

    fn told_with_input(&self, arguments: &[&str], input: &str) -> Told {
        told(run(&mut self.seen(arguments), input.as_bytes()))
    }

    /// What a command prints that has to succeed without a word.
    #[track_caller]
    fn printed(&self, arguments: &[&str]) -> String {
        let told = self.told(arguments);
        told.assert(0, &[]);
        told.stdout
    }

    /// What a filter prints of its input, having succeeded without a word.
    #[track_caller]
    fn passed(&self, arguments: &[&str], input: &str) -> String {
        let told = told(run(self.seen(&["filter"]).args(arguments), input.as_bytes()));
        told.assert(0, &[]);
        told.stdout
    }
}

/// What a command told, which is never the password.
#[track_caller]
fn told(output: Output) -> Told {
    let told = Told::from(output);
    assert!(!told.stderr.contains(PASSWORD) && !told.stdout.contains(PASSWORD), "{told:?}");
    told
}
