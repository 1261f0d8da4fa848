// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent: every command, with several data, in several ways.

use clap::ValueEnum;
use kernel_abi::ipmi_devintf::{
    IPMI_BMC_CHANNEL, IPMI_IPMB_ADDR_TYPE, IPMI_SYSTEM_INTERFACE_ADDR_TYPE,
};

/// The controller behind the BMC that messages are carried to, on channel 0.
const SATELLITE: u8 = 0x82;
/// The BMC's own address.
const BMC: u8 = 0x20;

/// How a command gets to its controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Way {
    /// To the BMC.
    Direct,
    /// To the controller behind it, by an IPMB address.
    Ipmb,
    /// In a Send Message, 06/34.
    Send,
    /// The same as 46/34, which drivers pass for another network function.
    Send46,
    /// In a Master Write-Read, 06/52.
    Write,
}

/// What data a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Pattern {
    /// 00.
    Zero,
    /// FF.
    Ones,
    /// 00, and the last byte FF.
    Last,
    /// 00, and the first byte FF.
    First,
    /// 00, and the first byte DC, as in DCMI.
    Dcmi,
    /// Begins as a request to erase the log or the records.
    Clear,
}

impl Pattern {
    /// The data; `None` where another pattern gives the same.
    pub fn data(self, len: usize) -> Option<Vec<u8>> {
        let mut data = vec![0; len];
        match self {
            Self::Zero => {}
            Self::Ones if len > 0 => data.fill(0xff),
            Self::Last if len > 1 => data[len - 1] = 0xff,
            Self::First if len > 1 => data[0] = 0xff,
            Self::Dcmi if len > 0 => data[0] = 0xdc,
            Self::Clear if len > 5 => data[..6].copy_from_slice(b"\0\0CLR\xaa"),
            _ => return None,
        }
        Some(data)
    }
}

/// One message, and which command it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub way: Way,
    /// Network function and command that are tried; inside, where the message carries them.
    pub tried: (u8, u8),
    pub addr: [u8; 8],
    pub netfn: u8,
    pub cmd: u8,
    pub data: Vec<u8>,
}

impl Message {
    fn new(way: Way, tried: (u8, u8), lun: u8, data: &[u8]) -> Self {
        let bmc = |lun| addr(IPMI_SYSTEM_INTERFACE_ADDR_TYPE, IPMI_BMC_CHANNEL, [lun, 0]);
        let carried = || ipmb(tried, lun, data);
        let (addr, (netfn, cmd), data) = match way {
            Way::Direct => (bmc(lun), tried, data.to_vec()),
            Way::Ipmb => (addr(IPMI_IPMB_ADDR_TYPE, 0, [SATELLITE, lun]), tried, data.to_vec()),
            Way::Send => (bmc(0), (0x06, 0x34), [&[0x40], &carried()[..]].concat()),
            Way::Send46 => (bmc(0), (0x46, 0x34), [&[0x40], &carried()[..]].concat()),
            // Public bus of channel 0, the slave's address, nothing to read.
            Way::Write => (bmc(0), (0x06, 0x52), [&[0, SATELLITE, 0], &carried()[1..]].concat()),
        };
        Self { way, tried, addr, netfn, cmd, data }
    }
}

fn addr(kind: i32, channel: i16, rest: [u8; 2]) -> [u8; 8] {
    let mut addr = [0; 8];
    addr[..4].copy_from_slice(&kind.to_ne_bytes());
    addr[4..6].copy_from_slice(&channel.to_ne_bytes());
    addr[6..].copy_from_slice(&rest);
    addr
}

/// A request on the IPMB, from system software.
fn ipmb((netfn, cmd): (u8, u8), lun: u8, data: &[u8]) -> Vec<u8> {
    let checksum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    let mut bytes = vec![SATELLITE, netfn << 2 | lun];
    bytes.push(checksum(&bytes));
    bytes.extend([BMC, 0x2a << 2 | 2, cmd]);
    bytes.extend(data);
    bytes.push(checksum(&bytes[3..]));
    bytes
}

/// All combinations of these.
#[derive(Debug, Clone)]
pub struct Plan {
    pub ways: Vec<Way>,
    pub luns: Vec<u8>,
    pub netfns: Vec<u8>,
    pub cmds: Vec<u8>,
    pub lengths: Vec<u8>,
    pub patterns: Vec<Pattern>,
}

impl Plan {
    /// The messages, one command after the other.
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        let all = |pattern: Pattern| {
            self.lengths.iter().filter_map(move |l| pattern.data(usize::from(*l)))
        };
        let data: Vec<Vec<u8>> = self.patterns.iter().copied().flat_map(all).collect();
        let luns = self.ways.iter().flat_map(|way| self.luns.iter().map(move |lun| (*way, *lun)));
        let netfns = luns.flat_map(|(w, l)| self.netfns.iter().map(move |netfn| (w, l, *netfn)));
        let tried = netfns.flat_map(|(w, l, n)| self.cmds.iter().map(move |cmd| (w, l, (n, *cmd))));
        tried.flat_map(move |(way, lun, tried)| {
            let data = data.clone();
            data.into_iter().map(move |data| Message::new(way, tried, lun, &data))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(way: Way) -> Message {
        Message::new(way, (0x06, 0x01), 1, &[9])
    }

    /// Get Device ID to LUN 1 of the controller at 0x82, with a byte too many.
    const CARRIED: [u8; 8] = [0x82, 0x19, 0x65, 0x20, 0xaa, 0x01, 0x09, 0x2c];

    #[test]
    fn messages_are_those_of_the_specification() {
        let direct = message(Way::Direct);
        assert_eq!((direct.netfn, direct.cmd, &direct.data[..]), (0x06, 0x01, &[9][..]));
        assert_eq!(direct.addr[4..], [15, 0, 1, 0]);
        assert_eq!(message(Way::Ipmb).addr[4..], [0, 0, 0x82, 1]);
        let send = message(Way::Send46);
        assert_eq!((send.netfn, send.cmd, send.data[0]), (0x46, 0x34, 0x40));
        assert_eq!(send.data[1..], CARRIED);
        assert_eq!(message(Way::Write).data[..3], [0, 0x82, 0]);
        assert_eq!(message(Way::Write).data[3..], CARRIED[1..]);
    }

    #[test]
    fn a_plan_has_each_combination_once() {
        let plan = Plan {
            ways: vec![Way::Direct, Way::Send],
            luns: vec![0, 1],
            netfns: (0..4).collect(),
            cmds: (0..=255).collect(),
            lengths: vec![0, 1, 6],
            patterns: Pattern::value_variants().to_vec(),
        };
        let mut all: Vec<_> = plan.messages().map(|m| (m.addr, m.netfn, m.cmd, m.data)).collect();
        assert_eq!(all.len(), 2 * 2 * 4 * 256 * (3 + 2 + 1 + 1 + 2 + 1));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2 * 2 * 4 * 256 * 10);
    }
}
