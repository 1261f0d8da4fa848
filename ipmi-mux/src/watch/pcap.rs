// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records as a capture for Wireshark: a pcapng file (draft-ietf-opsawg-pcapng) of packets with link type
//! `LINKTYPE_IPMI_HPM_2`, the trace blocks of PICMG HPM.2 chapter 6.
//!
//! Each node is an interface of the capture, and each packet has a comment that says whose it is. A
//! request is written beside its answer, at the time it was accepted: on the system interface nothing
//! but this order tells the dissector what belongs together.

use std::io::{self, Write};

use ipmi::ipmb::{self, Ipmb};
use ipmi::{Lun, NetFn};

use super::show::process;
use super::{Kind, Message, Origin, Record, decode};

/// Trace blocks of HPM.2.
const LINKTYPE_IPMI_HPM_2: u16 = 260;
/// Kinds of trace blocks, bits 5:4 of the first byte: a message, and a remark in ASCII.
const MESSAGE: u8 = 0 << 4;
const REMARK: u8 = 2 << 4;
/// Protocols of a channel, IPMI 2.0 table 6-2.
const IPMB: u8 = 1;
const KCS: u8 = 5;
/// The channel of the system interface.
const SYSTEM: u8 = 15;
/// The BMC's slave address.
const BMC: u8 = 0x20;

/// Way of a message as HPM.2 puts it, bit 7 of the protocol data.
#[derive(Clone, Copy)]
enum Way {
    FromController = 0x00,
    ToController = 0x80,
}

/// Writes a capture, each record with one write.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Nodes in the order of their interfaces.
    nodes: Vec<String>,
    /// Sequence number of the next message on an IPMB, 0 to 63.
    seq: u8,
}

impl<W: Write> Writer<W> {
    /// Begins a capture.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut body = vec![];
        // Byte order, version 1.0, length of the section unknown.
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        // shb_userappl
        body.extend(options(&[(4, concat!("ipmi-mux ", env!("CARGO_PKG_VERSION")))]));
        out.write_all(&block(0x0a0d_0d0a, &body))?;
        Ok(Self { out, nodes: vec![], seq: 0 })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = vec![];
        let node = record.who.as_ref().map_or("", |who| who.node.as_str());
        let interface = self.nodes.iter().position(|known| known == node).unwrap_or_else(|| {
            let mut body = vec![];
            body.extend(LINKTYPE_IPMI_HPM_2.to_le_bytes());
            body.extend([0; 6]);
            // if_name; times are in microseconds without an option.
            body.extend(options(&[(2, if node.is_empty() { "ipmi-mux" } else { node })]));
            bytes.extend(block(1, &body));
            self.nodes.push(node.to_owned());
            self.nodes.len() - 1
        });
        for (time_us, packet) in self.packets(record) {
            let mut body = vec![];
            body.extend(u32::try_from(interface).unwrap_or(0).to_le_bytes());
            body.extend(((time_us >> 32) as u32).to_le_bytes());
            body.extend((time_us as u32).to_le_bytes());
            let len = u32::try_from(packet.len()).unwrap_or(0).to_le_bytes();
            body.extend([len, len].concat());
            body.extend(&packet);
            pad(&mut body);
            // opt_comment
            body.extend(options(&[(1, &comment(record))]));
            bytes.extend(block(6, &body));
        }
        self.out.write_all(&bytes)?;
        self.out.flush()
    }

    /// The packets of a record with their times.
    fn packets(&mut self, record: &Record) -> Vec<(u64, Vec<u8>)> {
        let time = record.time_us;
        let Some(message) = &record.message else {
            let text = format!("{} records missed", record.missed.unwrap_or(0));
            return vec![(time, remark(time, &text))];
        };
        let then = time.saturating_sub(record.took_us.unwrap_or(0));
        match record.kind {
            // Written with its answer.
            Kind::Request | Kind::Missed => vec![],
            Kind::Answer => {
                let mut both = vec![(then, self.request(then, message))];
                // Where a handle itself answered, this only says that it was sent.
                if message.netfn & 1 == 0 {
                    both.push((time, self.answer(time, message)));
                }
                both
            }
            Kind::Unanswered if record.sent == Some(true) => {
                vec![(then, self.request(then, message))]
            }
            Kind::Unanswered | Kind::Refused => {
                let errno = record.errno.as_deref().unwrap_or("closed before it was sent");
                let text = format!("{}: {errno}", decode::name(message.netfn, message.cmd));
                vec![(time, remark(time, &text))]
            }
            Kind::Event => vec![(time, self.answer(time, message))],
            Kind::Command => {
                let data = message.request.clone().unwrap_or_default();
                let command = Ipmb {
                    to: BMC,
                    to_lun: Lun::SMS,
                    from: message.target.unwrap_or(0),
                    from_lun: lun(message),
                    // Its low 6 bits are those of the wire.
                    seq: (message.msgid & 0x3f) as u8,
                    netfn: netfn(message.netfn),
                    cmd: message.cmd,
                    data,
                };
                let bytes = ipmb::encode(&command);
                vec![(time, trace(time, message.channel, IPMB, Way::ToController, &bytes))]
            }
        }
    }

    fn request(&mut self, time: u64, message: &Message) -> Vec<u8> {
        let data = message.request.clone().unwrap_or_default();
        self.seq = (self.seq + 1) & 0x3f;
        match self.on_bus(message, data) {
            Ok(sent) => {
                let bytes = ipmb::encode(&sent);
                trace(time, message.channel, IPMB, Way::FromController, &bytes)
            }
            Err(data) => {
                let mut bytes = vec![netfn(message.netfn).with_lun(lun(message)), message.cmd];
                bytes.extend(data);
                trace(time, SYSTEM, KCS, Way::ToController, &bytes)
            }
        }
    }

    fn answer(&mut self, time: u64, message: &Message) -> Vec<u8> {
        let mut data = message.answer.clone().unwrap_or_default();
        match self.on_bus(message, vec![]) {
            Ok(sent) => {
                let bytes = ipmb::encode(&sent.respond(data));
                trace(time, message.channel, IPMB, Way::ToController, &bytes)
            }
            Err(_) => {
                let netfn = netfn(message.netfn).response();
                if message.request.is_none() {
                    // An event comes without the completion code of the command that fetched it.
                    data.insert(0, 0);
                }
                let mut bytes = vec![netfn.with_lun(lun(message)), message.cmd];
                bytes.extend(data);
                trace(time, SYSTEM, KCS, Way::FromController, &bytes)
            }
        }
    }

    /// A request to another controller as it goes over the bus; gives `data` back where it is for the BMC.
    fn on_bus(&self, message: &Message, data: Vec<u8>) -> Result<Ipmb, Vec<u8>> {
        let Some(to) = message.target else { return Err(data) };
        Ok(Ipmb {
            to,
            to_lun: lun(message),
            netfn: netfn(message.netfn),
            from: BMC,
            from_lun: Lun::SMS,
            seq: self.seq,
            cmd: message.cmd,
            data,
        })
    }
}

fn netfn(number: u8) -> NetFn {
    NetFn::new(number & 0x3f).expect("six bits are a network function")
}

fn lun(message: &Message) -> Lun {
    Lun::new(message.lun & 3).expect("two bits are a LUN")
}

/// `ipmitool[4711] uid 0, handle 7, answered by the cache`.
fn comment(record: &Record) -> String {
    let Some(who) = &record.who else { return String::new() };
    let by = match record.origin {
        Some(Origin::Shared) => ", answered as another's request was",
        Some(Origin::Cache) => ", answered by the cache",
        Some(Origin::Mux) => ", answered by ipmi-mux",
        Some(Origin::Bmc) | None => "",
    };
    format!("{} uid {}, handle {}{by}", process(record), who.uid, who.handle)
}

/// A trace block: kind and channel, time, protocol, way, length, message.
fn trace(time_us: u64, channel: u8, protocol: u8, way: Way, bytes: &[u8]) -> Vec<u8> {
    let mut block = header(MESSAGE | channel & 0x0f, time_us, protocol, way, bytes.len());
    block.extend(bytes);
    block
}

fn remark(time_us: u64, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(255)];
    let mut block = header(REMARK | SYSTEM, time_us, 0, Way::FromController, text.len());
    block.extend(text);
    block
}

fn header(first: u8, time_us: u64, protocol: u8, way: Way, len: usize) -> Vec<u8> {
    let mut block = vec![first];
    // Until 2106.
    block.extend(((time_us / 1_000_000) as u32).to_le_bytes());
    block.extend(((time_us / 1000 % 1000) as u16).to_le_bytes());
    // A message of 256 bytes and more is whole in the packet; only this field cannot say so.
    block.extend([protocol, way as u8, 0, u8::try_from(len).unwrap_or(u8::MAX)]);
    block
}

/// A block of the file: type, length, body, length again.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 12).unwrap_or(0).to_le_bytes();
    [&kind.to_le_bytes()[..], &len, body, &len].concat()
}

/// Options of a block, padded, with their end.
fn options(all: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = vec![];
    for (code, text) in all {
        bytes.extend(code.to_le_bytes());
        bytes.extend(u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(text.as_bytes());
        pad(&mut bytes);
    }
    bytes.extend([0; 4]);
    bytes
}

/// Blocks and options are multiples of four bytes.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests;
