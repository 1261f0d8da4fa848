// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's TLS on a connected TCP socket (`Documentation/networking/tls.rst`), with keys that the handshake of the link has
//! made: records of TLS 1.3 without its handshake. Whatever is handed the socket then, the kernel's USB/IP too, speaks in clear.
//!
//! There is no change of keys: ChaCha20-Poly1305 bears 2^62 records of one key (RFC 8446, section 5.5, where it says that
//! the sequence number would wrap first), and each session has its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use secure_link::Secret;

use crate::link::DataKeys;

/// What is sent and not acknowledged for so long ends a connection that carries data, milliseconds.
const SILENCE: u32 = 2_500;

/// Whether this kernel has TLS. Asked of a socket that is not connected: where there is one, it refuses that (`tls_init`).
#[must_use]
pub fn is_there() -> bool {
    let kind = (AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    socket(kind.0, kind.1, kind.2, kind.3)
        .is_ok_and(|fd| setsockopt(&fd, sockopt::TcpUlp::default(), b"tls") != Err(Errno::ENOENT))
}

/// Seals what is sent and opens what comes, from here on. In a thread of its own: the first time the kernel tries its ciphers out.
///
/// # Errors
/// `ENOENT` where the kernel has no module `tls`; those of the socket.
pub async fn seal(socket: OwnedFd, keys: DataKeys) -> io::Result<OwnedFd> {
    let set = tokio::task::spawn_blocking(move || set(&socket, &keys).map(|()| socket));
    set.await.map_err(io::Error::other)?
}

fn set(socket: &OwnedFd, keys: &DataKeys) -> io::Result<()> {
    let (ours, theirs) = match keys.is_initiator {
        true => (&keys.initiator, &keys.responder),
        false => (&keys.responder, &keys.initiator),
    };
    setsockopt(socket, sockopt::TcpUlp::default(), b"tls")?;
    setsockopt(socket, sockopt::TcpTlsTx, &info(ours))?;
    setsockopt(socket, sockopt::TcpTlsRx, &info(theirs))?;
    Ok(())
}

fn info(key: &Secret) -> sockopt::TlsCryptoInfo {
    let iv = key.derive("iv", b"");
    sockopt::TlsCryptoInfo::Chacha20Poly1305(libc::tls12_crypto_info_chacha20_poly1305 {
        info: libc::tls_crypto_info {
            version: libc::TLS_1_3_VERSION,
            cipher_type: libc::TLS_CIPHER_CHACHA20_POLY1305,
        },
        iv: std::array::from_fn(|i| iv.expose()[i]),
        key: *key.derive("key", b"").expose(),
        salt: [],
        rec_seq: [0; 8],
    })
}

/// What makes a dead connection be noticed by the kernel itself, at both ends, when nobody of us has it any more: within 3 to 4 s. What is on
/// its way counts from when it is first sent again: with 3 s a slow machine was seen to take 4.8.
///
/// # Errors
/// Those of the socket.
pub fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    use rustix::net::sockopt;
    use std::time::Duration;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(socket, 3)?;
    sockopt::set_tcp_user_timeout(socket, SILENCE)?;
    sockopt::set_tcp_nodelay(socket, true)?;
    Ok(())
}
