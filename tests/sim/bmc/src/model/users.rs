// SPDX-License-Identifier: MIT OR Apache-2.0
//! Users and passwords of the LAN channel: IPMI 2.0 sections 22.26 to 22.30.

use std::time::Duration;

use ipmi::CompletionCode;

use super::{Answer, Bmc, channels};

/// User numbers are 1 to this.
const MAX_USERS: usize = 10;
/// Set User Password, test: no match.
const WRONG_PASSWORD: CompletionCode = CompletionCode(0x80);
/// Set User Password, test: the other length is stored.
const WRONG_SIZE: CompletionCode = CompletionCode(0x81);
/// Bit 7 of the user number: the password has 20 bytes.
const TWENTY_BYTES: u8 = 0x80;

#[derive(Debug, Clone, Default)]
struct User {
    name: [u8; 16],
    /// 16 or 20 bytes; empty when none was set.
    password: Vec<u8>,
    enabled: bool,
    /// Call-in, link authentication, messaging in bits 6:4; privilege limit in 3:0.
    access: u8,
}

/// The users. Number 1 has no name, as the specification wants it.
#[derive(Debug)]
pub struct Users {
    users: [User; MAX_USERS],
}

impl Default for Users {
    fn default() -> Self {
        // Privilege 0x0f: no access.
        let mut users: [User; MAX_USERS] =
            std::array::from_fn(|_| User { access: 0x0f, ..User::default() });
        users[1].name[..5].copy_from_slice(b"admin");
        users[1].enabled = true;
        users[1].access = 0x34;
        Self { users }
    }
}

impl Users {
    fn user(&mut self, number: u8) -> Result<&mut User, CompletionCode> {
        usize::from(number & 0x3f)
            .checked_sub(1)
            .and_then(|at| self.users.get_mut(at))
            .ok_or(CompletionCode::OUT_OF_RANGE)
    }
}

fn check_channel(channel: u8) -> Result<(), CompletionCode> {
    match channels::resolve(channel)? {
        channels::LAN => Ok(()),
        _ => Err(CompletionCode::INVALID_DATA_FIELD),
    }
}

pub fn set_access(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_channel(data[0] & 0x0f)?;
    let user = bmc.users.user(data[1])?;
    let flags = if data[0] & 0x80 != 0 { data[0] & 0x70 } else { user.access & 0x70 };
    user.access = flags | data[2] & 0x0f;
    Ok(vec![])
}

pub fn get_access(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_channel(data[0] & 0x0f)?;
    let enabled = bmc.users.users.iter().filter(|user| user.enabled).count();
    let user = bmc.users.user(data[1])?;
    let status = if user.enabled { 0x40 } else { 0x80 };
    // One name, the empty one, is fixed. The counts are at most MAX_USERS.
    Ok(vec![MAX_USERS as u8, status | enabled as u8, 1, user.access])
}

pub fn set_name(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    if data[0] & 0x3f == 1 {
        return Err(CompletionCode::INVALID_DATA_FIELD);
    }
    bmc.users.user(data[0])?.name.copy_from_slice(&data[1..]);
    Ok(vec![])
}

pub fn get_name(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    Ok(bmc.users.user(data[0])?.name.to_vec())
}

/// Operations: disable, enable, set, test.
pub fn set_password(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let user = bmc.users.user(data[0])?;
    let password = &data[2..];
    let size = if data[0] & TWENTY_BYTES != 0 { 20 } else { 16 };
    match data[1] & 0x03 {
        0 => user.enabled = false,
        1 => user.enabled = true,
        _ if password.len() != size => return Err(CompletionCode::DATA_LENGTH_INVALID),
        2 => user.password = password.to_vec(),
        _ if user.password.len() != size => return Err(WRONG_SIZE),
        _ if user.password != password => return Err(WRONG_PASSWORD),
        _ => {}
    }
    Ok(vec![])
}
