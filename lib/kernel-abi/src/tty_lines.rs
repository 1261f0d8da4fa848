// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a serial line can do beside carrying bytes: its modem lines, RS-485, and what waits in it (`linux/serial.h`,
//! `asm-generic/ioctls.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use zerocopy::{FromZeros, Immutable, IntoBytes};

mod ioctl {
    #![allow(missing_docs, reason = "the macro makes a function and passes on no comment")]
    nix::ioctl_read_bad!(outq, libc::TIOCOUTQ, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_rs485, libc::TIOCSRS485, super::SerialRs485);
}

/// The line is RS-485.
pub const SER_RS485_ENABLED: u32 = 1;
/// RTS is set while sending.
pub const SER_RS485_RTS_ON_SEND: u32 = 1 << 1;

/// `struct serial_rs485`.
#[derive(Debug, Clone, Copy, FromZeros, IntoBytes, Immutable)]
#[repr(C)]
pub struct SerialRs485 {
    /// `SER_RS485_*`.
    pub flags: u32,
    /// Milliseconds.
    pub delay_rts_before_send: u32,
    /// Milliseconds.
    pub delay_rts_after_send: u32,
    /// Zero.
    pub padding: [u32; 5],
}

/// Bytes that were written and have not left: of a tty (`TIOCOUTQ`), or of a socket (`SIOCOUTQ`, the same number), where
/// they count until the peer has them.
///
/// # Errors
/// `ENOTTY` for other files.
pub fn unsent(line: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count = 0;
    // SAFETY: the kernel writes one int to the pointer, which is good for the call; the descriptor is borrowed and so open.
    unsafe { ioctl::outq(line.as_raw_fd(), &mut count) }?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Has the driver switch the direction of an RS-485 transceiver by RTS.
///
/// # Errors
/// `ENOTTY` where the driver cannot; many adapters do it by themselves.
pub fn enable_rs485(line: BorrowedFd<'_>) -> io::Result<()> {
    let flags = SER_RS485_ENABLED | SER_RS485_RTS_ON_SEND;
    let settings = SerialRs485 { flags, ..SerialRs485::new_zeroed() };
    // SAFETY: the kernel reads one `struct serial_rs485` from the pointer, which has that layout and is good for the
    // call; the descriptor is borrowed and so open.
    unsafe { ioctl::set_rs485(line.as_raw_fd(), &settings) }?;
    Ok(())
}

/// Sets DTR and RTS, which may drive a multiplexor in hardware.
///
/// # Errors
/// `ENOTTY` for a line without them, such as a pseudo-terminal.
pub fn set_modem_lines(line: BorrowedFd<'_>, dtr: bool, rts: bool) -> io::Result<()> {
    let pick = |dtr, rts| (i32::from(dtr) * libc::TIOCM_DTR) | (i32::from(rts) * libc::TIOCM_RTS);
    ioctl_rs::tiocmbis(line.as_raw_fd(), pick(dtr, rts))?;
    ioctl_rs::tiocmbic(line.as_raw_fd(), pick(!dtr, !rts))
}

/// Whether DTR and RTS are set.
///
/// # Errors
/// See [`set_modem_lines`].
pub fn modem_lines(line: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let bits = ioctl_rs::tiocmget(line.as_raw_fd())?;
    Ok((bits & libc::TIOCM_DTR != 0, bits & libc::TIOCM_RTS != 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_socket_holds_is_counted() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        assert_eq!(unsent(near.as_fd()).unwrap(), 0);
        near.write_all(&[1; 1000]).unwrap();
        assert!(unsent(near.as_fd()).unwrap() >= 1000);
        drop(far);
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(unsent(file.as_fd()).is_err());
        assert!(enable_rs485(file.as_fd()).is_err());
        assert!(set_modem_lines(file.as_fd(), true, false).is_err());
        assert!(modem_lines(file.as_fd()).is_err());
    }
}
