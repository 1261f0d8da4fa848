// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channels and what concerns sessions on them: IPMI 2.0 sections 22.13 to 22.25.
//!
//! Channel 0 is the IPMB, 1 a LAN channel that nobody serves, 15 the system interface.

use std::time::Duration;

use ipmi::CompletionCode;

use super::{Answer, Bmc};

/// The bus between controllers.
pub const IPMB: u8 = 0x00;
/// The LAN channel.
pub const LAN: u8 = 0x01;
/// The system interface.
pub const SYSTEM: u8 = 0x0f;
/// "The channel this came in on".
const PRESENT: u8 = 0x0e;

/// The channel has no sessions.
const NO_SESSIONS: CompletionCode = CompletionCode(0x82);
/// Close Session: no such session.
const NO_SUCH_SESSION: CompletionCode = CompletionCode(0x87);
/// Sessions that a LAN channel could have.
const POSSIBLE_SESSIONS: u8 = 5;

/// Cipher suites 3 and 17 (section 22.15.1): start, suite, authentication, integrity,
/// confidentiality.
const CIPHER_SUITES: [u8; 10] = [0xc0, 3, 0x01, 0x41, 0x81, 0xc0, 17, 0x03, 0x44, 0x81];
/// The same as a list of algorithms.
const ALGORITHMS: [u8; 5] = [0x01, 0x03, 0x41, 0x44, 0x81];

/// Access of the LAN channel: kept and present values.
#[derive(Debug)]
pub struct Channels {
    /// Access mode and flags in byte 0, privilege limit in byte 1.
    kept: [u8; 2],
    present: [u8; 2],
}

impl Default for Channels {
    fn default() -> Self {
        // Always available, administrator.
        Self { kept: [0x02, 0x04], present: [0x02, 0x04] }
    }
}

/// The channel that a number means.
///
/// # Errors
/// There is no such channel.
pub fn resolve(channel: u8) -> Result<u8, CompletionCode> {
    match channel {
        PRESENT => Ok(SYSTEM),
        IPMB | LAN | SYSTEM => Ok(channel),
        _ => Err(CompletionCode::INVALID_DATA_FIELD),
    }
}

fn with_sessions(channel: u8) -> Result<(), CompletionCode> {
    match resolve(channel)? {
        LAN => Ok(()),
        _ => Err(NO_SESSIONS),
    }
}

/// Channel, medium, protocol, session support, vendor of the protocol (IPMI), two bytes more.
pub fn get_info(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let channel = resolve(data[0] & 0x0f)?;
    let (medium, protocol, sessions, more) = match channel {
        IPMB => (0x01, 0x01, 0x00, [0, 0]),
        LAN => (0x04, 0x01, 0x80, [0, 0]),
        // KCS; no fixed interrupts for messages and events.
        _ => (0x0c, 0x05, 0x00, [0xff, 0xff]),
    };
    Ok(vec![channel, medium, protocol, sessions, 0xf2, 0x1b, 0x00, more[0], more[1]])
}

/// Bits 7:6 of each byte say whether to leave it, or set the kept or the present value.
pub fn set_access(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    with_sessions(data[0] & 0x0f)?;
    for (at, byte) in data[1..].iter().enumerate() {
        match byte >> 6 {
            0 => {}
            1 => bmc.channels.kept[at] = byte & 0x3f,
            2 => bmc.channels.present[at] = byte & 0x3f,
            _ => return Err(CompletionCode::INVALID_DATA_FIELD),
        }
    }
    Ok(vec![])
}

pub fn get_access(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    with_sessions(data[0] & 0x0f)?;
    match data[1] >> 6 {
        1 => Ok(bmc.channels.kept.to_vec()),
        2 => Ok(bmc.channels.present.to_vec()),
        _ => Err(CompletionCode::INVALID_DATA_FIELD),
    }
}

/// MD5 and password; RMCP+ and IPMI 1.5 sessions; named users.
pub fn auth_capabilities(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    with_sessions(data[0] & 0x0f)?;
    Ok(vec![LAN, 0x94, 0x04, 0x03, 0, 0, 0, 0])
}

pub fn close_session(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Err(NO_SUCH_SESSION)
}

/// There are no sessions: handle 0, five possible, none active.
pub fn session_info(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![0, POSSIBLE_SESSIONS, 0])
}

/// Serial over LAN, standard payload types 0 and 1 (section 24.8).
pub fn payload_support(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    with_sessions(data[0] & 0x0f)?;
    Ok(vec![0x03, 0, 0, 0, 0, 0, 0, 0])
}

/// Channel, then the list's 16 bytes with the index asked for.
pub fn cipher_suites(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    with_sessions(data[0] & 0x0f)?;
    let list: &[u8] = if data[2] & 0x80 != 0 { &CIPHER_SUITES } else { &ALGORITHMS };
    let start = usize::from(data[2] & 0x3f) * 16;
    let mut answer = vec![LAN];
    answer.extend(list.iter().skip(start).take(16));
    Ok(answer)
}
