// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a block device can do that a file cannot (`linux/fs.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

mod ioctl {
    #![allow(missing_docs, reason = "the macro makes a function and passes on no comment")]
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// Gives the space of a range back (`BLKDISCARD`). It may read as anything afterwards.
///
/// `offset` and `len` are in bytes and multiples of the device's logical block.
///
/// # Errors
/// `EOPNOTSUPP` where the device cannot, `EINVAL` for a range it does not have, `EBADF` where it is not open for writing.
pub fn discard(device: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: the kernel reads two u64 from the pointer, which is good for the call and has just that layout;
    // the descriptor is borrowed and so open.
    unsafe { ioctl::blkdiscard(device.as_raw_fd(), &range) }?;
    Ok(())
}
