// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who receives which commands of other controllers: the driver's `cmd_rcvrs`, per handle.

use kernel_abi::ipmi_devintf::IPMI_NUM_CHANNELS;
use nix::errno::Errno;

use super::HandleId;
use crate::devintf::CommandSpec;

/// Bookings at once, over all handles. Real BMCs send a handful of commands to software.
pub const MAX_RECEIVERS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Receivers(Vec<(HandleId, CommandSpec)>);

impl Receivers {
    /// `ipmi_register_for_cmd`.
    pub fn add(&mut self, id: HandleId, spec: CommandSpec) -> Result<(), Errno> {
        let taken = self.0.iter().any(|(_, r)| same(r, &spec) && r.chans & spec.chans != 0);
        if taken {
            return Err(Errno::EBUSY);
        }
        if self.0.len() >= MAX_RECEIVERS {
            return Err(Errno::ENOMEM);
        }
        self.0.push((id, spec));
        Ok(())
    }

    /// `ipmi_unregister_for_cmd`: takes channels away from a handle's bookings; returns what the back
    /// end must be told.
    pub fn remove(&mut self, id: HandleId, spec: CommandSpec) -> Result<Vec<CommandSpec>, Errno> {
        // The driver looks channel by channel, of which there are 16.
        let chans = spec.chans & ((1 << IPMI_NUM_CHANNELS) - 1);
        let mut gone = vec![];
        for (owner, booked) in &mut self.0 {
            let taken = booked.chans & spec.chans;
            if *owner == id && same(booked, &spec) && booked.chans & chans != 0 {
                gone.push(CommandSpec { chans: taken, ..*booked });
                booked.chans &= !spec.chans;
            }
        }
        self.0.retain(|(_, booked)| booked.chans != 0);
        if gone.is_empty() { Err(Errno::ENOENT) } else { Ok(gone) }
    }

    pub fn remove_all(&mut self, id: HandleId) -> Vec<CommandSpec> {
        let mine = self.0.iter().filter(|(owner, _)| *owner == id).map(|(_, s)| *s).collect();
        self.0.retain(|(owner, _)| *owner != id);
        mine
    }

    pub fn find(&self, netfn: u8, cmd: u8, channel: u8) -> Option<HandleId> {
        let wanted = CommandSpec { netfn, cmd, chans: 1 << channel };
        let found = self.0.iter().find(|(_, s)| same(s, &wanted) && s.chans & wanted.chans != 0);
        found.map(|(id, _)| *id)
    }
}

fn same(a: &CommandSpec, b: &CommandSpec) -> bool {
    (a.netfn, a.cmd) == (b.netfn, b.cmd)
}
