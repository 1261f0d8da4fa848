// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of our own, made for tests of what stands between a client and its BMC.

use std::time::Duration;

use super::{Answer, Bmc};

/// Their network function, for all LUNs.
pub const NETFN: u8 = 0x30;
/// Answers with the data of the request.
pub const ECHO: u8 = 0x01;
/// Takes milliseconds (two bytes, little endian) and answers with the rest of the data, that much
/// later. Other requests are served meanwhile.
pub const SLEEP: u8 = 0x02;
/// Answers with a number (eight bytes, little endian) that no other answer had, then the data.
/// Logged as a change, so that tests see each one that arrived.
pub const COUNTER: u8 = 0x03;

/// State of these commands.
#[derive(Debug, Default)]
pub struct Oem {
    counter: u64,
}

pub(super) fn echo(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    Ok(data.to_vec())
}

pub(super) fn sleep(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    bmc.delay = Duration::from_millis(u64::from(u16::from_le_bytes([data[0], data[1]])));
    Ok(data[2..].to_vec())
}

pub(super) fn counter(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    bmc.oem.counter += 1;
    let counter = bmc.oem.counter;
    bmc.note(format!("counter {counter}"));
    let mut answer = counter.to_le_bytes().to_vec();
    // Room for the counter is taken from the end of long data.
    answer.extend(data.iter().take(ipmi::MAX_MESSAGE_LEN - 8));
    Ok(answer)
}
