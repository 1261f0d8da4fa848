// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a handle or a node has alone: commands, ranges of message ids, maintenance mode; who holds what.

use kernel_abi::ipmi_devintf::{
    IPMI_MAINTENANCE_MODE_AUTO, IPMI_MAINTENANCE_MODE_OFF, IPMI_MAINTENANCE_MODE_ON,
};
use nix::errno::Errno;
use std::time::Instant;

use super::handle::Handle;
use super::{Action, AttachToken, HandleId, Held, Holder, Mux, NodeRules, Range, Unavailable};
use crate::addr::Kind;

impl Mux {
    /// What holds for a node; without it nothing is held back.
    pub fn set_rules(&mut self, node: usize, rules: NodeRules) {
        self.nodes.insert(node, rules);
    }

    /// Reserves a command for a handle's virtual controller.
    ///
    /// # Errors
    /// `EPERM` where the node's policy does not let its handles reserve, or not this command, `EBUSY`
    /// where somebody else has it, `ENOSPC` with [`MAX_RESERVED`] reserved.
    pub fn reserve_command(&mut self, id: HandleId, netfn: u8, cmd: u8) -> Result<(), Errno> {
        self.may_take(id)?;
        let handle = self.handle(id)?;
        let (node, holder) = (handle.owner.node, Holder::Handle(handle.controller));
        if self.nodes.get(&node).is_some_and(|n| !n.policy.lists_command(netfn, cmd)) {
            return Err(Errno::EPERM);
        }
        self.exclusive.reserve(holder, netfn, cmd).map_err(|why| match why {
            Unavailable::Busy { .. } => Errno::EBUSY,
            Unavailable::Full => Errno::ENOSPC,
        })
    }

    /// Whether a handle may take for itself what others could use.
    pub(super) fn may_take(&mut self, id: HandleId) -> Result<(), Errno> {
        let node = self.handle(id)?.owner.node;
        let may = self.nodes.get(&node).is_none_or(|n| n.policy.may_reserve());
        if may { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Gives a command back.
    ///
    /// # Errors
    /// `ENOENT` where the handle's virtual controller has not reserved it.
    pub fn release_command(&mut self, id: HandleId, netfn: u8, cmd: u8) -> Result<(), Errno> {
        let holder = Holder::Handle(self.handle(id)?.controller);
        if self.exclusive.release(holder, netfn, cmd) { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// Reserves commands for all handles of a node: all of them or, with an error, none.
    ///
    /// # Errors
    /// The command, and who has it.
    pub fn reserve_for_node(
        &mut self,
        node: usize,
        commands: &[(u8, u8)],
    ) -> Result<(), (u8, u8, Unavailable)> {
        for (netfn, cmd) in commands {
            if let Err(why) = self.exclusive.reserve(Holder::Node(node), *netfn, *cmd) {
                self.exclusive.release_all(Holder::Node(node));
                return Err((*netfn, *cmd, why));
            }
        }
        Ok(())
    }

    /// A node is gone, and the kernel will not tell of its handles: they are closed.
    pub fn close_node(&mut self, now: Instant, node: usize) {
        let of_node =
            |(id, handle): (&HandleId, &Handle)| (handle.owner.node == node).then_some(*id);
        let ids: Vec<HandleId> = self.handles.iter().filter_map(of_node).collect();
        for id in ids {
            self.close(now, id);
        }
        self.exclusive.release_all(Holder::Node(node));
        self.nodes.remove(&node);
    }

    /// Reserves sequence numbers; `token` is 128 random bits.
    ///
    /// # Errors
    /// `EINVAL` for a count of 0 or over [`MAX_RANGE_LEN`], `ENOSPC` with [`MAX_RANGES`] ranges.
    pub fn reserve_sequence(
        &mut self,
        id: HandleId,
        count: u32,
        token: AttachToken,
    ) -> Result<Range, Errno> {
        self.handle(id)?;
        self.sequences.reserve(id, count, token)
    }

    /// Gives a range back, by its first number.
    ///
    /// # Errors
    /// `ENOENT` where the handle has none that begins so.
    pub fn release_sequence(&mut self, id: HandleId, first: i64) -> Result<(), Errno> {
        self.sequences.release(id, first)
    }

    /// Makes a handle the virtual client of a range: it joins the virtual controller of the handle
    /// that reserved it, and what it held alone is given back.
    ///
    /// # Errors
    /// `ENOENT` for a token of no range, `EBUSY` where the range has a client, or the handle waits for
    /// answers: what it has asked was asked as another controller.
    pub fn attach(
        &mut self,
        now: Instant,
        id: HandleId,
        token: &AttachToken,
    ) -> Result<Range, Errno> {
        let handle = self.handle(id)?;
        let before = handle.controller;
        if !handle.pending.is_empty() {
            return Err(Errno::EBUSY);
        }
        let range = self.sequences.attach(id, token)?;
        let controller = self.handle(range.owner)?.controller;
        if controller != before {
            self.handle(id)?.controller = controller;
            *self.controllers.entry(controller).or_default() += 1;
            self.leave_controller(now, before);
            self.pump(now);
        }
        Ok(range)
    }

    /// Sets the interface's maintenance mode. While a handle holds it on, it is on; it goes back to
    /// automatic when the last such handle sets it otherwise or closes.
    ///
    /// # Errors
    /// `EINVAL` for a mode that is none, `EPERM` where the node's policy lets its handles take nothing for
    /// themselves.
    pub fn set_maintenance_mode(&mut self, id: HandleId, mode: i32) -> Result<(), Errno> {
        self.may_take(id)?;
        let set = match mode {
            IPMI_MAINTENANCE_MODE_ON => {
                self.maintenance.insert(id);
                IPMI_MAINTENANCE_MODE_ON
            }
            IPMI_MAINTENANCE_MODE_AUTO | IPMI_MAINTENANCE_MODE_OFF => {
                self.maintenance.remove(&id);
                if !self.maintenance.is_empty() {
                    return Ok(());
                }
                mode
            }
            _ => return Err(Errno::EINVAL),
        };
        self.actions.push_back(Action::SetMaintenanceMode(set));
        Ok(())
    }

    /// What is held alone, and by whom; oldest holders first.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let by = |handle, what: String| Held { holder: Holder::Handle(handle), what };
        let commands = self.exclusive.all().map(|(netfn, cmd, holder)| {
            let name = ipmi::names::name(netfn, cmd).unwrap_or("vendor's command");
            Held { holder, what: format!("{netfn:02x}/{cmd:02x} {name}") }
        });
        let leases = self.leases.all().map(|((addr, part), holder)| {
            let direct = addr.kind() == Kind::SystemInterface;
            by(holder, if direct { part.to_string() } else { format!("{part} of {addr}") })
        });
        let ranges = self.sequences.all().map(|range| {
            let last = range.first + i64::from(range.count) - 1;
            let client = range.client.map(|HandleId(id)| format!(" for handle {id}"));
            by(
                range.owner,
                format!("message ids {} to {last}{}", range.first, client.unwrap_or_default()),
            )
        });
        let maintenance = self.maintenance.iter().map(|id| by(*id, "maintenance mode".to_owned()));
        let mut held: Vec<Held> = commands.chain(leases).chain(ranges).chain(maintenance).collect();
        held.sort();
        held
    }
}
