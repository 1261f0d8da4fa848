// SPDX-License-Identifier: MIT OR Apache-2.0
//! Effect and privilege of the standard commands; what is not in here changes state.
//!
//! Privileges are those of IPMI 2.0 appendix G. A command that needs none there, or the callback level,
//! is `User` here; one that only the system interface may send is `Administrator` where it changes
//! state. The commands of a controller's own sensor records, which appendix G keeps to the local
//! interfaces, are `User` as those of the repository.

use super::Effect::{self, Change, Private, Read};
use super::Keep::{Identity, InFlight, Inventory, Repository, Sensor};
use super::Privilege::{self, Administrator, Operator, User};

/// What the mux knows of one command.
pub(super) type Row = (u8, Effect, Privilege);

const CHASSIS: &[Row] = &[
    (0x00, Read(InFlight), User),
    (0x01, Read(InFlight), User),
    (0x02, Change, Operator),
    (0x03, Change, Operator),
    (0x04, Change, Operator),
    (0x05, Change, Administrator),
    (0x06, Change, Operator),
    (0x07, Read(InFlight), User),
    (0x08, Change, Operator),
    (0x09, Read(InFlight), Operator),
    (0x0a, Change, Administrator),
    (0x0b, Change, Administrator),
    (0x0f, Read(InFlight), User),
];

const BRIDGE: &[Row] = &[
    (0x00, Read(InFlight), User),
    (0x01, Change, Operator),
    (0x02, Read(InFlight), User),
    (0x03, Change, Operator),
    (0x04, Change, Operator),
    (0x05, Read(InFlight), User),
    (0x06, Read(InFlight), User),
    (0x08, Change, Operator),
    (0x09, Read(InFlight), User),
    (0x0a, Read(InFlight), User),
    (0x0b, Read(InFlight), User),
    (0x0c, Change, User),
    (0x10, Change, Operator),
    (0x11, Read(InFlight), User),
    (0x12, Change, Operator),
    (0x13, Read(InFlight), User),
    (0x14, Change, Operator),
    (0x20, Change, Operator),
    (0x21, Change, Operator),
    (0x30, Read(InFlight), User),
    (0x31, Change, Operator),
    (0x32, Change, Operator),
    (0x33, Change, Operator),
    (0x34, Read(InFlight), User),
    (0x35, Read(InFlight), User),
    (0xff, Change, Administrator),
];

const SENSOR_EVENT: &[Row] = &[
    (0x00, Change, Administrator),
    (0x01, Read(InFlight), User),
    (0x02, Change, Operator),
    (0x10, Read(InFlight), User),
    (0x11, Change, Administrator),
    (0x12, Change, Administrator),
    (0x13, Read(InFlight), Operator),
    (0x14, Change, Administrator),
    (0x15, Read(InFlight), Administrator),
    (0x16, Change, Administrator),
    (0x17, Change, User),
    (0x20, Read(Repository), User),
    (0x21, Read(Repository), User),
    (0x22, Private, User),
    (0x23, Read(Sensor), User),
    (0x24, Change, Operator),
    (0x25, Read(Sensor), User),
    (0x26, Change, Operator),
    (0x27, Read(Sensor), User),
    (0x28, Change, Operator),
    (0x29, Read(Sensor), User),
    (0x2a, Change, Operator),
    (0x2b, Read(Sensor), User),
    (0x2d, Read(Sensor), User),
    (0x2e, Change, Operator),
    (0x2f, Read(Sensor), User),
    (0x30, Change, Operator),
];

const APP: &[Row] = &[
    (0x01, Read(Identity), User),
    (0x02, Change, Administrator),
    (0x03, Change, Administrator),
    (0x04, Read(InFlight), User),
    (0x05, Change, Administrator),
    (0x06, Change, Administrator),
    (0x07, Read(InFlight), User),
    (0x08, Read(Identity), User),
    (0x09, Read(InFlight), User),
    (0x0a, Read(InFlight), User),
    (0x0b, Read(InFlight), User),
    (0x0c, Read(InFlight), User),
    (0x0d, Read(InFlight), User),
    (0x22, Change, Operator),
    (0x24, Change, Operator),
    (0x25, Read(InFlight), User),
    (0x2e, Change, Administrator),
    (0x2f, Read(InFlight), User),
    (0x30, Private, User),
    (0x31, Private, User),
    (0x32, Change, Administrator),
    // Get Message and Read Event Message Buffer take what they show out of its queue.
    (0x33, Change, Administrator),
    (0x34, Change, User),
    (0x35, Change, Administrator),
    (0x36, Read(Identity), User),
    (0x37, Read(Identity), User),
    // Shows which kinds of user are set up, which may change.
    (0x38, Read(InFlight), User),
    // A challenge occupies one of the few sessions that may be about to begin.
    (0x39, Change, User),
    (0x3a, Change, User),
    (0x3b, Change, User),
    (0x3c, Change, User),
    (0x3d, Read(InFlight), User),
    (0x3f, Read(InFlight), Operator),
    (0x40, Change, Administrator),
    (0x41, Read(InFlight), User),
    // Not Identity: it counts the sessions that are active on the channel.
    (0x42, Read(InFlight), User),
    (0x43, Change, Administrator),
    (0x44, Read(InFlight), Operator),
    (0x45, Change, Administrator),
    (0x46, Read(InFlight), Operator),
    (0x47, Change, Administrator),
    (0x48, Change, User),
    (0x49, Change, User),
    (0x4a, Read(InFlight), User),
    (0x4b, Read(InFlight), User),
    (0x4c, Change, Administrator),
    (0x4d, Read(InFlight), Operator),
    (0x4e, Read(InFlight), User),
    (0x4f, Read(InFlight), User),
    (0x50, Read(InFlight), User),
    (0x52, Change, Operator),
    (0x54, Read(Identity), User),
    (0x55, Change, User),
    // Its operation 0 shows a key, or whether one is locked.
    (0x56, Change, Administrator),
    (0x57, Read(Identity), User),
    (0x58, Change, Administrator),
    (0x59, Read(InFlight), User),
    (0x60, Change, Administrator),
    (0x61, Read(InFlight), User),
    (0x62, Change, Administrator),
    (0x63, Read(InFlight), User),
    (0x64, Read(InFlight), User),
];

const STORAGE: &[Row] = &[
    (0x10, Read(Inventory), User),
    (0x11, Read(Inventory), User),
    (0x12, Change, Operator),
    (0x20, Read(Repository), User),
    (0x21, Read(Repository), User),
    (0x22, Private, User),
    (0x23, Read(Repository), User),
    (0x24, Change, Operator),
    (0x25, Change, Operator),
    (0x26, Change, Operator),
    (0x27, Change, Operator),
    (0x28, Read(InFlight), User),
    (0x29, Change, Operator),
    (0x2a, Change, Operator),
    (0x2b, Change, Operator),
    (0x2c, Change, Operator),
    (0x40, Read(InFlight), User),
    (0x41, Read(InFlight), User),
    (0x42, Private, User),
    (0x43, Read(InFlight), User),
    (0x44, Change, Operator),
    (0x45, Change, Operator),
    (0x46, Change, Operator),
    (0x47, Change, Operator),
    (0x48, Read(InFlight), User),
    (0x49, Change, Operator),
    (0x5a, Read(InFlight), User),
    (0x5b, Change, Administrator),
    (0x5c, Read(InFlight), User),
    (0x5d, Change, Operator),
];

const TRANSPORT: &[Row] = &[
    (0x01, Change, Administrator),
    (0x02, Read(InFlight), Operator),
    (0x03, Change, Administrator),
    (0x04, Read(InFlight), User),
    (0x10, Change, Administrator),
    (0x11, Read(InFlight), Operator),
    (0x12, Change, Operator),
    (0x13, Read(InFlight), User),
    (0x14, Change, Administrator),
    (0x15, Read(InFlight), Administrator),
    (0x16, Change, Administrator),
    // May take what it shows out of the buffer.
    (0x17, Change, Administrator),
    (0x18, Change, Administrator),
    (0x19, Change, Administrator),
    (0x1a, Change, Administrator),
    (0x1b, Read(InFlight), User),
    (0x1c, Change, Administrator),
    (0x20, Change, Administrator),
    (0x21, Change, Administrator),
    (0x22, Read(InFlight), User),
    (0x30, Change, Administrator),
    (0x31, Change, Administrator),
    (0x32, Read(InFlight), User),
    (0x33, Change, Administrator),
];

/// DCMI, by the command alone; IPMI 2.0 section 5.1 and table 5-1 make it a group extension.
const DCMI: &[Row] = &[
    (0x01, Read(InFlight), User),
    (0x02, Read(InFlight), User),
    (0x03, Read(InFlight), User),
    (0x04, Change, Operator),
    (0x05, Change, Operator),
    (0x06, Read(InFlight), User),
    (0x07, Read(InFlight), Operator),
    (0x08, Change, Operator),
    (0x09, Read(InFlight), User),
    (0x0a, Change, Administrator),
    (0x0b, Change, Operator),
    (0x0c, Read(InFlight), User),
    (0x10, Read(InFlight), User),
    (0x12, Change, Administrator),
    (0x13, Read(InFlight), User),
];

/// The defining body of DCMI, the first data byte of its messages.
pub(super) const DCMI_BODY: u8 = 0xdc;

/// The row of a request; `netfn` has six bits.
pub(super) fn row(netfn: u8, cmd: u8, data: &[u8]) -> Option<&'static Row> {
    let rows = match netfn {
        0x00 => CHASSIS,
        0x02 => BRIDGE,
        0x04 => SENSOR_EVENT,
        0x06 => APP,
        0x0a => STORAGE,
        0x0c => TRANSPORT,
        0x2c if data.first() == Some(&DCMI_BODY) => DCMI,
        _ => return None,
    };
    rows.binary_search_by_key(&cmd, |row| row.0).ok().map(|at| &rows[at])
}
