// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a handle receives: answers, events, commands of other controllers.

use kernel_abi::ipmi_devintf::{IPMI_ASYNC_EVENT_RECV_TYPE, IPMI_CMD_RECV_TYPE};
use nix::errno::Errno;

use super::trace::{Msg, What};
use super::{Action, HandleId, Incoming, Mux};
use crate::devintf::{CommandSpec, Delivery, Message, Receive};

impl Mux {
    /// An event from the BMC: every handle that asked gets a copy.
    pub fn handle_event(&mut self, event: &Incoming) {
        self.stats.events += 1;
        let Self { handles, actions, stats, traces, .. } = self;
        for (id, handle) in handles.iter_mut().filter(|(_, h)| h.gets_events) {
            traces.push(*id, handle.owner, || What::Event(Msg::unsolicited(0, event)));
            let message = unsolicited(IPMI_ASYNC_EVENT_RECV_TYPE, 0, event);
            stats.events_dropped += u64::from(handle.push_unsolicited(message));
            actions.push_back(Action::Wake(*id));
        }
    }

    /// A command from another controller, with its sequence number: the handle that registered for it
    /// gets it. Returns whether one had.
    pub fn handle_command(&mut self, seq: i64, command: &Incoming) -> bool {
        let (netfn, cmd) = (command.netfn, command.cmd);
        let receiver = self.receivers.find(netfn, cmd, command.addr.channel());
        let Some((id, handle)) = receiver.and_then(|id| Some((id, self.handles.get_mut(&id)?)))
        else {
            self.stats.commands_unclaimed += 1;
            return false;
        };
        self.stats.commands += 1;
        self.traces.push(id, handle.owner, || What::Command(Msg::unsolicited(seq, command)));
        let dropped = handle.push_unsolicited(unsolicited(IPMI_CMD_RECV_TYPE, seq, command));
        self.stats.events_dropped += u64::from(dropped);
        self.actions.push_back(Action::Wake(id));
        true
    }

    /// The message a handle would receive next.
    ///
    /// # Errors
    /// `EAGAIN` where there is none.
    pub fn peek(&mut self, id: HandleId) -> Result<&Message, Errno> {
        self.handle(id)?.inbox.front().ok_or(Errno::EAGAIN)
    }

    /// Takes the message that [`Mux::peek`] showed.
    pub fn take(&mut self, id: HandleId) {
        if let Ok(handle) = self.handle(id) {
            handle.take();
        }
    }

    /// Lays out the next message for a caller; it is taken when it is delivered.
    ///
    /// # Errors
    /// `EAGAIN` where there is none.
    pub fn receive(&mut self, id: HandleId, receive: &Receive) -> Result<Delivery, Errno> {
        let delivery = receive.deliver(self.peek(id)?);
        if matches!(delivery, Delivery::Deliver(..)) {
            self.take(id);
        }
        Ok(delivery)
    }

    /// Whether a handle has something to receive.
    #[must_use]
    pub fn is_readable(&self, id: HandleId) -> bool {
        self.handles.get(&id).is_some_and(|h| !h.inbox.is_empty())
    }

    /// Turns events on or off for a handle.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle.
    pub fn set_gets_events(&mut self, id: HandleId, on: bool) -> Result<(), Errno> {
        let handle = self.handle(id)?;
        let was = std::mem::replace(&mut handle.gets_events, on);
        match (was, on) {
            (false, true) => {
                self.event_listeners += 1;
                if self.event_listeners == 1 {
                    self.actions.push_back(Action::SetGetsEvents(true));
                }
            }
            (true, false) => self.event_listener_left(),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn event_listener_left(&mut self) {
        self.event_listeners -= 1;
        if self.event_listeners == 0 {
            self.actions.push_back(Action::SetGetsEvents(false));
        }
    }

    /// Books commands of other controllers for a handle. The shell then asks the back end, and takes
    /// the booking back with [`Mux::unregister`] where that refuses.
    ///
    /// # Errors
    /// `EBUSY` where another handle has one of them, `ENOMEM` with [`MAX_RECEIVERS`] bookings, `EPERM` where
    /// the node's policy lets its handles take nothing for themselves.
    pub fn register(&mut self, id: HandleId, spec: CommandSpec) -> Result<(), Errno> {
        self.may_take(id)?;
        self.receivers.add(id, spec)
    }

    /// Takes bookings of a handle back.
    ///
    /// # Errors
    /// `ENOENT` where the handle has none of them.
    pub fn unregister(&mut self, id: HandleId, spec: CommandSpec) -> Result<(), Errno> {
        self.handle(id)?;
        for gone in self.receivers.remove(id, spec)? {
            self.actions.push_back(Action::Unregister(gone));
        }
        Ok(())
    }
}

fn unsolicited(recv_type: i32, msgid: i64, from: &Incoming) -> Message {
    Message {
        recv_type,
        addr: from.addr,
        msgid,
        netfn: from.netfn,
        cmd: from.cmd,
        data: from.data.clone(),
    }
}
