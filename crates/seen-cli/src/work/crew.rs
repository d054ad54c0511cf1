//! The commands that run at the same time.
//!
//! Owns their processes. What always holds: a signal is sent to all that run, and only to a process that was not reaped;
//! after a signal that asks for an end, none is started. Does not know what they are run for.

use std::collections::HashMap;
use std::io;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::Result;
use crate::work::child::{self, Caught, Signals};

#[derive(Default)]
pub(crate) struct Crew {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<u64, Child>,
    started: u64,
    is_ending: bool,
}

/// A command that was started.
pub(crate) struct Running {
    number: u64,
    process: u32,
}

impl Crew {
    /// Passes signals on from now on. Calls the function when one asks for an end, with the status to end with.
    pub(crate) fn pass_on(
        self: &Arc<Self>,
        signals: Signals,
        mut asked_to_end: impl FnMut(u8) + Send + 'static,
    ) -> Result<()> {
        let crew = Arc::clone(self);
        thread::Builder::new()
            .name("seen-signals".into())
            .spawn(move || {
                signals.for_each(|caught| {
                    crew.send(caught);
                    if let Some(status) = caught.asks_to_end() {
                        asked_to_end(status);
                    }
                });
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(())
    }

    /// Starts a command. `None` once a signal has asked for an end.
    pub(crate) fn start(
        &self,
        start: impl FnOnce() -> io::Result<Child>,
    ) -> io::Result<Option<Running>> {
        let mut state = self.lock();
        if state.is_ending {
            return Ok(None);
        }
        let child = start()?;
        state.started += 1;
        let running = Running { number: state.started, process: child.id() };
        state.running.insert(running.number, child);
        Ok(Some(running))
    }

    /// Waits until the command has ended.
    pub(crate) fn wait(&self, running: &Running) -> io::Result<ExitStatus> {
        child::wait_until_ended(running.process);
        let child = self.lock().running.remove(&running.number);
        // Nothing sends it a signal any more.
        child.expect("it is waited for once").wait()
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.lock().is_ending
    }

    /// The second signal that asks for an end kills what did not end by the first.
    fn send(&self, caught: Caught) {
        let mut state = self.lock();
        let kills = state.is_ending && caught.insists();
        state.is_ending |= caught.asks_to_end().is_some();
        for child in state.running.values_mut() {
            if kills {
                let _ = child.kill(); // It has ended by itself.
            } else {
                caught.pass_on(child);
            }
        }
    }

    /// The state is consistent whenever the lock is free, also after a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
