// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals as events of the main loop.
//!
//! `SIGTERM` and `SIGINT` ask for an orderly stop, `SIGHUP` for a reload. A second request to stop
//! ends the process at once with 128 + signal, as a shell reports it. That must also work when the
//! main loop is stuck, so a thread of its own waits for signals.

use std::{io, process, thread};

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End in an orderly way.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Events waiting for the main loop. More reloads than this ask for nothing new and are dropped;
/// a stop always finds a place, because it comes once.
const QUEUE: usize = 8;

/// The signals of this process; make one, early.
#[derive(Debug)]
pub struct Signals {
    events: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Takes over `SIGTERM`, `SIGINT` and `SIGHUP`.
    ///
    /// # Errors
    /// The handlers or the thread cannot be set up.
    pub fn new() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut terminate, mut interrupt, mut hang_up) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            )
        };
        let (events, receiver) = mpsc::channel(QUEUE);
        let wait = async move {
            let mut stopping = false;
            loop {
                let stop_signal = tokio::select! {
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = hang_up.recv() => {
                        // The last place is kept for the stop.
                        if events.capacity() > 1 {
                            let _ = events.try_send(Signal::Reload);
                        }
                        continue;
                    }
                };
                if stopping {
                    process::exit(128 + stop_signal.as_raw_value());
                }
                stopping = true;
                let _ = events.try_send(Signal::Stop);
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
        Ok(Self { events: receiver })
    }

    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        match self.events.recv().await {
            Some(signal) => signal,
            // The thread never ends by itself.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal as Raw, raise};
    use std::process::Command;

    /// Runs in a process of its own, because signals are for a whole process.
    #[test]
    #[ignore = "run by the_second_stop_ends_a_stuck_process"]
    fn child() {
        let mut signals = Signals::new().unwrap();
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..3 * QUEUE {
            raise(Raw::SIGHUP).unwrap();
        }
        assert_eq!(runtime.block_on(signals.next()), Signal::Reload);
        raise(Raw::SIGTERM).unwrap();
        while runtime.block_on(signals.next()) != Signal::Stop {}
        raise(Raw::SIGINT).unwrap();
        // Stuck: the loop asks for no more events.
        thread::park();
    }

    #[test]
    fn the_second_stop_ends_a_stuck_process() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::tests::child", "--ignored"])
            .stdout(process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(130));
    }
}
