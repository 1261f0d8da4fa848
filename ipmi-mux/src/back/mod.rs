// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways to the BMC. Each takes requests without waiting and reports what comes back as events.

pub mod devintf;
pub mod vm;
mod vm_link;

use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::mpsc;

use crate::devintf::CommandSpec;
use crate::mux::{Incoming, Outgoing, Token};

/// What a back end reports.
#[derive(Debug)]
pub enum BackEvent {
    /// The answer to a request.
    Reply(Token, Incoming),
    /// An event from the BMC.
    Event(Incoming),
    /// A command from another controller, with its sequence number.
    Command(i64, Incoming),
    /// The BMC can be reached again, or no more; for the log and the status.
    Reachable(bool),
    /// The BMC is gone for good: the daemon ends.
    Gone(String),
}

/// Where back ends report to.
pub type Events = mpsc::Sender<BackEvent>;
/// Reports waiting for the main loop, at most; a back end that has more waits.
pub const MAX_EVENTS: usize = 256;

/// A way to the BMC.
#[derive(Debug)]
pub enum Back {
    /// `/dev/ipmiN`.
    Devintf(devintf::Devintf),
    /// A simulator.
    Vm(vm::Vm),
}

impl Back {
    /// Requests to have with the BMC at a time.
    #[must_use]
    pub fn window(&self) -> usize {
        match self {
            Self::Devintf(_) => devintf::WINDOW,
            Self::Vm(_) => vm::WINDOW,
        }
    }

    /// How long a request that was given up still occupies the BMC.
    #[must_use]
    pub fn abandoned_for(&self) -> Duration {
        match self {
            Self::Devintf(_) => devintf::ABANDONED_FOR,
            Self::Vm(_) => Duration::ZERO,
        }
    }

    /// Whether the BMC's device was removed. It does not tell by itself while nothing is sent.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Devintf(back) => back.is_gone(),
            Self::Vm(_) => false,
        }
    }

    /// Returns when the back end can be dropped.
    pub async fn until_closable(&self) {
        if let Self::Devintf(back) = self {
            back.until_closable().await;
        }
    }

    /// Nobody waits for this request any more.
    pub fn forget(&mut self, token: Token) {
        match self {
            // The driver cannot take it back.
            Self::Devintf(_) => {}
            Self::Vm(back) => back.forget(token),
        }
    }

    /// Hands a request over.
    ///
    /// # Errors
    /// `EAGAIN` and `EBUSY`: not now. Anything else: never.
    pub fn send(&mut self, out: &Outgoing) -> Result<(), Errno> {
        match self {
            Self::Devintf(back) => back.send(out),
            Self::Vm(back) => back.send(out),
        }
    }

    /// Switches events.
    ///
    /// # Errors
    /// The driver's errors.
    pub fn set_gets_events(&mut self, on: bool) -> Result<(), Errno> {
        match self {
            Self::Devintf(back) => back.set_gets_events(on),
            Self::Vm(back) => back.set_gets_events(on),
        }
    }

    /// Asks for commands of other controllers.
    ///
    /// # Errors
    /// The driver's errors: `EBUSY` where a user of the kernel's node has one of them.
    pub fn register(&mut self, spec: CommandSpec) -> Result<(), Errno> {
        match self {
            Self::Devintf(back) => back.register(spec),
            // Nobody else can have them, and none come.
            Self::Vm(_) => Ok(()),
        }
    }

    /// Asks for them no more.
    ///
    /// # Errors
    /// The driver's errors.
    pub fn unregister(&mut self, spec: CommandSpec) -> Result<(), Errno> {
        match self {
            Self::Devintf(back) => back.unregister(spec),
            Self::Vm(_) => Ok(()),
        }
    }

    /// The interface's maintenance mode.
    ///
    /// # Errors
    /// The driver's errors.
    pub fn maintenance_mode(&mut self) -> Result<i32, Errno> {
        match self {
            Self::Devintf(back) => back.maintenance_mode(),
            Self::Vm(back) => Ok(back.maintenance_mode),
        }
    }

    /// Sets the interface's maintenance mode.
    ///
    /// # Errors
    /// The driver's errors.
    pub fn set_maintenance_mode(&mut self, mode: i32) -> Result<(), Errno> {
        match self {
            Self::Devintf(back) => back.set_maintenance_mode(mode),
            Self::Vm(back) => {
                back.maintenance_mode = mode;
                Ok(())
            }
        }
    }
}
