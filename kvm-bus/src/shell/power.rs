// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders to the blade's BMC: Get Chassis Status and Chassis Control (IPMI 2.0, 28.2 and 28.3) through a node of ipmi-mux,
//! or the kernel's own.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use kernel_abi::ipmi_devintf::{self as abi, IpmiTimingParms, Outgoing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::wire::Power;

/// A BMC that does not answer in this time is said not to.
const LIMIT_MS: u16 = 6000;
const CHASSIS: u8 = 0;
/// `linux/ipmi.h`.
const IPMI_SYSTEM_INTERFACE_ADDR_TYPE: i32 = 0x0c;
const IPMI_BMC_CHANNEL: i16 = 0x0f;
const STATUS: u8 = 1;
const CONTROL: u8 = 2;

/// The first node that there is.
#[must_use]
pub fn find() -> Option<PathBuf> {
    ["/dev/ipmi/1", "/dev/ipmi0"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

/// Carries an order out; gives back whether the blade is on, as the BMC says then.
///
/// # Errors
/// In words.
pub fn order(path: &Path, action: Power) -> Result<bool, String> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
    let control = match action {
        Power::Status => None,
        Power::Off => Some(0),
        Power::On => Some(1),
        Power::Cycle => Some(2),
        Power::Reset => Some(3),
    };
    if let Some(control) = control {
        ask(&file, CONTROL, &[control])?;
    }
    let status = ask(&file, STATUS, &[])?;
    status
        .first()
        .map(|state| state & 1 == 1)
        .ok_or_else(|| "the BMC's answer is too short".to_owned())
}

/// Asks, and gives the answer's data back.
fn ask(file: &File, command: u8, data: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: nix::errno::Errno| format!("the BMC's driver says {}", error.desc());
    // `struct ipmi_system_interface_addr`: type, channel and LUN.
    let addr = [
        &IPMI_SYSTEM_INTERFACE_ADDR_TYPE.to_ne_bytes()[..],
        &IPMI_BMC_CHANNEL.to_ne_bytes(),
        &[0, 0],
    ]
    .concat();
    let timing = IpmiTimingParms { retries: -1, retry_time_ms: 0 };
    let message = Outgoing {
        addr: &addr,
        msgid: i64::from(command),
        netfn: CHASSIS,
        cmd: command,
        data,
        timing,
    };
    abi::send(file, message).map_err(failed)?;
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(LIMIT_MS)).map_err(failed)? == 0 {
        return Err("the BMC does not answer".to_owned());
    }
    let answer = abi::receive(file).map_err(failed)?;
    match answer.data.split_first() {
        Some((0, data)) => Ok(data.to_vec()),
        Some((code, _)) => Err(format!("the BMC refuses, completion code {code:02x}")),
        None => Err("the BMC's answer is too short".to_owned()),
    }
}
