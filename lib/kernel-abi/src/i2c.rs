// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of an I2C adapter behind `/dev/i2c-N`: `linux/i2c.h` and `linux/i2c-dev.h`. Transfers are i2cdev's.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;

/// `I2C_TIMEOUT`: in units of 10 ms.
pub const I2C_TIMEOUT: u32 = 0x0702;
/// `I2C_RETRIES`.
pub const I2C_RETRIES: u32 = 0x0701;
/// `I2C_FUNCS`: the adapter's functions.
pub const I2C_FUNCS: u32 = 0x0705;

/// `I2C_FUNC_SMBUS_PEC`.
pub const I2C_FUNC_SMBUS_PEC: u64 = 0x0000_0008;
/// `I2C_FUNC_SMBUS_READ_BYTE_DATA`.
pub const I2C_FUNC_SMBUS_READ_BYTE_DATA: u64 = 0x0008_0000;
/// `I2C_FUNC_SMBUS_READ_WORD_DATA`.
pub const I2C_FUNC_SMBUS_READ_WORD_DATA: u64 = 0x0020_0000;
/// `I2C_FUNC_SMBUS_READ_BLOCK_DATA`.
pub const I2C_FUNC_SMBUS_READ_BLOCK_DATA: u64 = 0x0100_0000;
/// `I2C_FUNC_SMBUS_READ_I2C_BLOCK`.
pub const I2C_FUNC_SMBUS_READ_I2C_BLOCK: u64 = 0x0400_0000;

/// What an adapter can do, `I2C_FUNC_*`.
///
/// # Errors
/// `ENOTTY` for what is no adapter, `ENODEV` once it is gone.
pub fn functions(device: &impl AsRawFd) -> Result<u64, Errno> {
    let mut functions: libc::c_ulong = 0;
    // SAFETY: `I2C_FUNCS` writes one unsigned long (`i2cdev_ioctl` in drivers/i2c/i2c-dev.c) to the pointer, which is to a
    // live one of ours.
    let rc = unsafe {
        libc::ioctl(device.as_raw_fd(), libc::c_ulong::from(I2C_FUNCS), &raw mut functions)
    };
    #[expect(clippy::useless_conversion, reason = "it has 32 bits on other machines")]
    Errno::result(rc).map(|_| functions.into())
}

/// For how long the adapter's driver may try, in all and for each attempt; it holds for all users of the adapter.
///
/// # Errors
/// `EINVAL` for more than the driver takes.
pub fn set_patience(device: &impl AsRawFd, timeout: Duration, retries: u8) -> Result<(), Errno> {
    let tens = libc::c_ulong::try_from(timeout.as_millis().div_ceil(10)).unwrap_or(100);
    set(device.as_raw_fd(), I2C_TIMEOUT, tens)?;
    set(device.as_raw_fd(), I2C_RETRIES, retries.into())
}

fn set(fd: RawFd, request: u32, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: `I2C_TIMEOUT` and `I2C_RETRIES` take their argument by value (drivers/i2c/i2c-dev.c); no memory is touched.
    let rc = unsafe { libc::ioctl(fd, libc::c_ulong::from(request), value) };
    Errno::result(rc).map(drop)
}
