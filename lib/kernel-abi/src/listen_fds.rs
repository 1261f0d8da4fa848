// SPDX-License-Identifier: MIT OR Apache-2.0
//! Listening sockets that whoever started this process has opened for it (`sd_listen_fds(3)`).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first of them (`SD_LISTEN_FDS_START`).
const START: RawFd = 3;
/// Most that are taken. A service has as many as its socket units have addresses.
const MAX: RawFd = 64;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the sockets over; none if there are none for this process, or they have been taken.
///
/// # Errors
/// There are more than 64, or one is not a listening socket.
pub fn take() -> io::Result<Vec<OwnedFd>> {
    let variable = |name| std::env::var(name).ok();
    let for_us =
        variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let count = variable("LISTEN_FDS").and_then(|count| count.parse::<RawFd>().ok()).unwrap_or(0);
    if !for_us || count <= 0 || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(vec![]);
    }
    if count > MAX {
        return Err(io::Error::other(format!("LISTEN_FDS is {count}, and {MAX} are the most")));
    }
    (START..START + count).map(take_one).collect()
}

fn take_one(fd: RawFd) -> io::Result<OwnedFd> {
    let mut listens: libc::c_int = 0;
    let mut len: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `listens` and `len` are live and `len` has the size of `listens`; a number that is no open descriptor
    // is an error of the call.
    let rc = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listens).cast(),
            &raw mut len,
        )
    };
    if rc != 0 || listens == 0 {
        return Err(io::Error::other(format!(
            "descriptor {fd} of LISTEN_FDS is no listening socket"
        )));
    }
    // SAFETY: it is open, as was just seen, and was inherited for us to own: the environment says so to this very
    // process, and `TAKEN` lets that happen once. The program has no listening socket of its own before it calls this.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    nix::fcntl::fcntl(&owned, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(owned)
}
