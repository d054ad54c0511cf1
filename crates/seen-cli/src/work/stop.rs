//! An orderly stop: a signal asks for it, and a command that waits for its input or its output ends its wait.
//!
//! Owns the signals of a command that runs no other one, and its standard input and output as what it waits for. What
//! always holds: the first signal is only noted, and ends each wait of this module; a second SIGTERM or SIGINT ends the
//! process at once. A signal that was ignored from the start stays ignored. Must not know what is to be done before the
//! end.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};

/// Whether a wait ended because of what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Ready,
    TimedOut,
    Stopped,
}

/// An input that is read until a stop is asked for, or nothing reads the output any more: then a read is an error.
pub(crate) struct Interruptible<'a, R> {
    input: R,
    stop: &'a Stop,
    output: &'a StandardOutput,
}

impl<'a, R: Source> Interruptible<'a, R> {
    pub(crate) fn new(input: R, stop: &'a Stop, output: &'a StandardOutput) -> Self {
        Self { input, stop, output }
    }
}

/// Returns whether a read of an [`Interruptible`] failed because no more is to be read.
pub(crate) fn is_end(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<End>()).is_some()
}

/// No more is to be read.
#[derive(Debug)]
struct End;

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a signal or the reader of the output asked for the end")
    }
}

impl Error for End {}

impl<R: Source> Read for Interruptible<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stop.wait_for_input(&self.input, self.output)? {
            Waited::Stopped => Err(io::Error::other(End)),
            _ => self.input.read(buffer),
        }
    }
}

#[cfg(unix)]
pub(crate) use unix::{Source, StandardOutput, Stop, standard_input};

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::{Errno, retry_on_intr};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::{flag, low_level};

    use super::Waited;
    use crate::Result;
    use crate::work::child::not_ignored;

    /// What can be read, and waited for.
    pub(crate) trait Source: Read + AsFd {}

    impl Source for File {}

    /// Returns standard input without a buffer: what a buffer holds cannot be waited for.
    pub(crate) fn standard_input() -> io::Result<File> {
        Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// Standard output without a buffer.
    pub(crate) struct StandardOutput(File);

    impl StandardOutput {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
        }

        /// Whether a write may wait for its reader.
        pub(crate) fn may_block(&self) -> bool {
            !self.0.metadata().is_ok_and(|metadata| metadata.is_file())
        }

        /// Whether a write would not wait now.
        pub(crate) fn is_ready(&self) -> io::Result<bool> {
            let mut out = [PollFd::new(&self.0, PollFlags::OUT)];
            Ok(retry_on_intr(|| poll(&mut out, Some(&Timespec::default())))? > 0)
        }
    }

    impl Write for StandardOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    /// Catches the signals that ask a process to end, from when it is made.
    pub(crate) struct Stop {
        /// Readable as soon as a signal came, for ever.
        wake: UnixStream,
        /// The number of the signal that came, or 0.
        signal: Arc<AtomicUsize>,
        /// Whether the next signal ends the process at once.
        at_once: Arc<AtomicBool>,
    }

    impl Stop {
        pub(crate) fn catch() -> Result<Self> {
            Self::new().map_err(|e| format!("cannot catch signals: {e}").into())
        }

        fn new() -> io::Result<Self> {
            let (wake, woken) = UnixStream::pair()?;
            let (signal, came) = (Arc::default(), Arc::<AtomicBool>::default());
            let at_once = Arc::<AtomicBool>::default();
            for number in not_ignored([SIGTERM, SIGINT, SIGHUP]) {
                let status = 128 + number;
                // What is registered first is done first: the first signal does not see what it sets itself.
                flag::register_conditional_shutdown(number, status, Arc::clone(&at_once))?;
                // A shell sends the hangup of a terminal once more: two of them are one request.
                if number != SIGHUP {
                    flag::register_conditional_shutdown(number, status, Arc::clone(&came))?;
                }
                flag::register(number, Arc::clone(&came))?;
                flag::register_usize(number, Arc::clone(&signal), number.cast_unsigned() as usize)?;
                low_level::pipe::register(number, woken.try_clone()?)?;
            }
            Ok(Self { wake, signal, at_once })
        }

        /// Returns the status with which to end if a signal came: that of a process which it killed.
        pub(crate) fn status(&self) -> Option<u8> {
            match self.signal.load(Ordering::SeqCst) {
                0 => None,
                signal => u8::try_from(128 + signal).ok(),
            }
        }

        /// Does what may wait for long in a way that no signal ends, while there is nothing to do before the end: a signal
        /// ends the process at once. `None` if one has come.
        pub(crate) fn at_once_during<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
            self.at_once.store(true, Ordering::SeqCst);
            let done = self.status().is_none().then(act);
            self.at_once.store(false, Ordering::SeqCst);
            done
        }

        /// A pipe that its reader has closed is a stop too.
        pub(crate) fn wait_for_input(
            &self,
            input: &impl Source,
            output: &StandardOutput,
        ) -> io::Result<Waited> {
            let closed = PollFd::new(&output.0, PollFlags::empty());
            self.wait(&[PollFd::new(input, PollFlags::IN)], Some(closed), None)
        }

        pub(crate) fn wait_for_output(&self, output: &StandardOutput) -> io::Result<Waited> {
            self.wait(&[PollFd::new(&output.0, PollFlags::OUT)], None, None)
        }

        /// Waits for no longer than this.
        pub(crate) fn pause(&self, pause: Duration) -> io::Result<Waited> {
            self.wait(&[], None, Some(pause))
        }

        /// A stop goes first, so that a file which is always ready does not hide it.
        fn wait<'a>(
            &'a self,
            what: &[PollFd<'a>],
            stop: Option<PollFd<'a>>,
            longest: Option<Duration>,
        ) -> io::Result<Waited> {
            // A duration that is no `Timespec` lasts for ever.
            let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
            let mut all = vec![PollFd::new(&self.wake, PollFlags::IN)];
            all.extend(stop);
            let stops = all.len();
            all.extend_from_slice(what);
            loop {
                match poll(&mut all, longest.as_ref()) {
                    // The signal that interrupted it has woken this process.
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                    Ok(0) => return Ok(Waited::TimedOut),
                    Ok(_) if all[..stops].iter().all(|stop| stop.revents().is_empty()) => {
                        return Ok(Waited::Ready);
                    }
                    Ok(_) => return Ok(Waited::Stopped),
                }
            }
        }
    }
}

#[cfg(not(unix))]
pub(crate) use elsewhere::{Source, StandardOutput, Stop, standard_input};

/// On other systems than Unix, a signal ends the process at once.
#[cfg(not(unix))]
mod elsewhere {
    use std::fs::File;
    use std::io::{self, Read, Stdin, Stdout, Write};
    use std::time::Duration;

    use super::Waited;
    use crate::Result;

    pub(crate) trait Source: Read {}

    impl Source for File {}

    impl Source for Stdin {}

    #[expect(clippy::unnecessary_wraps, reason = "it can fail on Unix")]
    pub(crate) fn standard_input() -> io::Result<Stdin> {
        Ok(io::stdin())
    }

    pub(crate) struct StandardOutput(Stdout);

    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as on Unix")]
    impl StandardOutput {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(io::stdout()))
        }

        pub(crate) fn may_block(&self) -> bool {
            false
        }

        pub(crate) fn is_ready(&self) -> io::Result<bool> {
            Ok(true)
        }
    }

    impl Write for StandardOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.0.write(bytes)?;
            self.0.flush()?;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    pub(crate) struct Stop;

    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as on Unix")]
    impl Stop {
        pub(crate) fn catch() -> Result<Self> {
            Ok(Self)
        }

        pub(crate) fn status(&self) -> Option<u8> {
            None
        }

        pub(crate) fn at_once_during<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
            Some(act())
        }

        pub(crate) fn wait_for_input(
            &self,
            _: &impl Source,
            _: &StandardOutput,
        ) -> io::Result<Waited> {
            Ok(Waited::Ready)
        }

        pub(crate) fn wait_for_output(&self, _: &StandardOutput) -> io::Result<Waited> {
            Ok(Waited::Ready)
        }

        pub(crate) fn pause(&self, pause: Duration) -> io::Result<Waited> {
            std::thread::sleep(pause);
            Ok(Waited::TimedOut)
        }
    }
}
