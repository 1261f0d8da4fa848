// SPDX-License-Identifier: MIT OR Apache-2.0
//! `SO_PEERGROUPS` (`linux/include/uapi/asm-generic/socket.h`, Linux 4.13): the supplementary groups
//! that the peer of a Unix socket had when it connected.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Groups the kernel allows one process (`NGROUPS_MAX`, `linux/limits.h`).
const NGROUPS_MAX: usize = 65536;

/// The supplementary group ids of the process at the other end of a connected Unix socket.
///
/// # Errors
/// The error of `getsockopt(2)`: `ENODATA` where the peer has no credentials, `ENOTSOCK` where `socket` is no socket.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 32];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * size_of::<u32>())
            .expect("NGROUPS_MAX times four fits a socklen_t");
        // SAFETY: `groups` is a live buffer of `bytes` bytes and `bytes` is a live socklen_t; the kernel
        // writes at most that many bytes, and sets `bytes` to the length it wrote or would need (ERANGE).
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if rc == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let err = io::Error::last_os_error();
        if err.raw_os_error() != Some(libc::ERANGE) || count > NGROUPS_MAX || count <= groups.len()
        {
            return Err(err);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_pair_has_our_own_groups() {
        let (a, _b) = UnixStream::pair().unwrap();
        let mut seen = peer_groups(a.as_fd()).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = line.split_whitespace().map(|g| g.parse().unwrap()).collect();
        seen.sort_unstable();
        own.sort_unstable();
        assert_eq!(seen, own);
    }

    #[test]
    fn a_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(peer_groups(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
