// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CUSE wire format: what a character device served from user space reads from and writes to
//! `/dev/cuse`.
//!
//! Follows `linux/include/uapi/linux/fuse.h` (protocol 7) and `linux/fs/fuse/cuse.c`. All integers are
//! in host byte order. One open file of `/dev/cuse` is one device node; its first request is
//! `CUSE_INIT`, and the reply to that names the node.
//!
//! Device ioctls with pointers inside their argument need `CUSE_UNRESTRICTED_IOCTL`: the server answers
//! the first request with the user memory it wants to see and to write ([`reply_ioctl_retry`]), and the
//! kernel copies it in the caller's own context and asks again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Major version of the protocol, `FUSE_KERNEL_VERSION`.
pub const FUSE_KERNEL_VERSION: u32 = 7;
/// The minor version we speak. From 16 on an ioctl retry carries 64-bit vectors; nothing later concerns CUSE.
pub const MINOR_VERSION: u32 = 31;
/// `CUSE_UNRESTRICTED_IOCTL`: the server may ask for any user memory of an ioctl's caller.
pub const CUSE_UNRESTRICTED_IOCTL: u32 = 1;
/// `FUSE_IOCTL_COMPAT`: the caller is a 32-bit process on a 64-bit kernel.
pub const FUSE_IOCTL_COMPAT: u32 = 1;
/// `FUSE_IOCTL_RETRY`, in a reply: ask again with the named user memory.
pub const FUSE_IOCTL_RETRY: u32 = 1 << 2;
/// `FUSE_POLL_SCHEDULE_NOTIFY`: somebody waits, send a notification when the state changes.
pub const FUSE_POLL_SCHEDULE_NOTIFY: u32 = 1;
/// `FUSE_NOTIFY_POLL`, in the error field of an unsolicited reply.
const FUSE_NOTIFY_POLL: i32 = 1;

/// Smallest read buffer the kernel accepts: `FUSE_MIN_READ_BUFFER`, bytes.
pub const FUSE_MIN_READ_BUFFER: usize = 8192;
/// Longest read or write request we let the kernel make, bytes. The nodes have no use for either.
const MAX_TRANSFER: u32 = 4096;
/// Longest device name, bytes with its key and terminator: `CUSE_INIT_INFO_MAX`.
const CUSE_INIT_INFO_MAX: usize = 4096;

const FUSE_OPEN: u32 = 14;
const FUSE_RELEASE: u32 = 18;
const FUSE_INTERRUPT: u32 = 36;
const FUSE_IOCTL: u32 = 39;
const FUSE_POLL: u32 = 40;
const CUSE_INIT: u32 = 4096;

/// `struct fuse_in_header`: starts every request.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InHeader {
    /// Length of the request with this header, bytes.
    pub len: u32,
    /// What is asked.
    pub opcode: u32,
    /// Names the request in its reply.
    pub unique: u64,
    /// Unused by CUSE.
    pub nodeid: u64,
    /// The caller's file-system user id. Valid at open; do not trust it later.
    pub uid: u32,
    /// The caller's file-system group id; its primary group only.
    pub gid: u32,
    /// The caller's thread id in our pid namespace; 0 in a release.
    pub pid: u32,
    /// Length of extensions in units of 8 bytes (`total_extlen`) and padding.
    pub extlen_padding: u32,
}

/// `struct cuse_init_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CuseInitIn {
    /// The kernel's major version.
    pub major: u32,
    /// The kernel's minor version.
    pub minor: u32,
    /// Unused.
    pub unused: u32,
    /// What the kernel offers, [`CUSE_UNRESTRICTED_IOCTL`].
    pub flags: u32,
}

/// `struct cuse_init_out`; the device name follows it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CuseInitOut {
    /// Our major version.
    pub major: u32,
    /// Our minor version.
    pub minor: u32,
    /// Unused.
    pub unused: u32,
    /// What we want, [`CUSE_UNRESTRICTED_IOCTL`].
    pub flags: u32,
    /// Longest read, bytes.
    pub max_read: u32,
    /// Longest write, bytes.
    pub max_write: u32,
    /// Major number of the node, 0 for one of the kernel's choice.
    pub dev_major: u32,
    /// Minor number of the node.
    pub dev_minor: u32,
    /// Reserved.
    pub spare: [u32; 10],
}

/// `struct fuse_open_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct OpenIn {
    /// Flags of `open(2)`.
    pub flags: u32,
    /// FUSE's own flags.
    pub open_flags: u32,
}

/// `struct fuse_open_out`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct OpenOut {
    fh: u64,
    open_flags: u32,
    padding: u32,
}

/// `struct fuse_release_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReleaseIn {
    /// The handle that ends.
    pub fh: u64,
    /// Flags of `open(2)`.
    pub flags: u32,
    /// FUSE's own flags.
    pub release_flags: u32,
    /// Unused by CUSE.
    pub lock_owner: u64,
}

/// `struct fuse_ioctl_in`; the copied user memory follows it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IoctlIn {
    /// The handle.
    pub fh: u64,
    /// [`FUSE_IOCTL_COMPAT`] and others.
    pub flags: u32,
    /// The ioctl's number.
    pub cmd: u32,
    /// The ioctl's argument as the caller gave it.
    pub arg: u64,
    /// Bytes of user memory that follow.
    pub in_size: u32,
    /// Bytes of user memory that the reply may fill.
    pub out_size: u32,
}

/// `struct fuse_ioctl_iovec`: a piece of the caller's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IoctlIovec {
    /// Address in the caller.
    pub base: u64,
    /// Length, bytes.
    pub len: u64,
}

/// `struct fuse_ioctl_out`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct IoctlOut {
    result: i32,
    flags: u32,
    in_iovs: u32,
    out_iovs: u32,
}

/// `struct fuse_poll_in`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PollIn {
    /// The handle.
    pub fh: u64,
    /// Names the poller in a notification.
    pub kh: u64,
    /// [`FUSE_POLL_SCHEDULE_NOTIFY`].
    pub flags: u32,
    /// What the caller waits for, `POLL*` bits.
    pub events: u32,
}

/// `struct fuse_poll_out`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct PollOut {
    revents: u32,
    padding: u32,
}

/// `struct fuse_out_header`: starts every reply.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct OutHeader {
    len: u32,
    error: i32,
    unique: u64,
}

const _: () = assert!(size_of::<InHeader>() == 40);
const _: () = assert!(size_of::<CuseInitIn>() == 16);
const _: () = assert!(size_of::<CuseInitOut>() == 72);
const _: () = assert!(size_of::<OpenIn>() == 8);
const _: () = assert!(size_of::<OpenOut>() == 16);
const _: () = assert!(size_of::<ReleaseIn>() == 24);
const _: () = assert!(size_of::<IoctlIn>() == 32);
const _: () = assert!(size_of::<IoctlIovec>() == 16);
const _: () = assert!(size_of::<IoctlOut>() == 16);
const _: () = assert!(size_of::<PollIn>() == 24);
const _: () = assert!(size_of::<PollOut>() == 8);
const _: () = assert!(size_of::<OutHeader>() == 16);

/// What the kernel asks.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// The node is to be made; answer with [`reply_init`].
    Init(CuseInitIn),
    /// Somebody opened the node; answer with [`reply_open`] or [`reply_error`].
    Open(OpenIn),
    /// The last descriptor of a handle is closed; answer with [`reply_empty`]. The closer waits for it.
    Release(ReleaseIn),
    /// An ioctl with the user memory that came along.
    Ioctl(IoctlIn, &'a [u8]),
    /// `poll(2)` and its kin; answer with [`reply_poll`].
    Poll(PollIn),
    /// The caller of an earlier request was sent a signal. Takes no reply.
    Interrupt,
    /// Anything else, among it read and write.
    Other,
}

/// A request read from `/dev/cuse`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who asks.
    pub header: InHeader,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// A request that does not have the shape its header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed cuse request: opcode {opcode}, {len} bytes")]
pub struct MalformedRequest {
    /// The opcode, 0 where not even that was there.
    pub opcode: u32,
    /// Bytes read.
    pub len: usize,
}

/// Decodes one request as read from `/dev/cuse`.
///
/// # Errors
/// [`MalformedRequest`] where the bytes are fewer than the opcode needs.
pub fn decode(bytes: &[u8]) -> Result<Request<'_>, MalformedRequest> {
    let short = |opcode| MalformedRequest { opcode, len: bytes.len() };
    let (header, body) = InHeader::read_from_prefix(bytes).map_err(|_| short(0))?;
    if header.len as usize != bytes.len() {
        return Err(short(header.opcode));
    }
    let bad = |_| short(header.opcode);
    let operation = match header.opcode {
        CUSE_INIT => Operation::Init(prefix(body).map_err(bad)?),
        FUSE_OPEN => Operation::Open(prefix(body).map_err(bad)?),
        FUSE_RELEASE => Operation::Release(prefix(body).map_err(bad)?),
        FUSE_POLL => Operation::Poll(prefix(body).map_err(bad)?),
        FUSE_INTERRUPT => Operation::Interrupt,
        FUSE_IOCTL => {
            let (ioctl, data) = IoctlIn::read_from_prefix(body).map_err(|_| short(FUSE_IOCTL))?;
            if data.len() != ioctl.in_size as usize {
                return Err(short(FUSE_IOCTL));
            }
            Operation::Ioctl(ioctl, data)
        }
        _ => Operation::Other,
    };
    Ok(Request { header, operation })
}

struct TooShort;

fn prefix<T: FromBytes>(bytes: &[u8]) -> Result<T, TooShort> {
    T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| TooShort)
}

/// A whole reply, ready for one `write(2)` to `/dev/cuse`.
pub type Reply = Vec<u8>;

fn reply(unique: u64, error: i32, parts: &[&[u8]]) -> Reply {
    let len = size_of::<OutHeader>() + parts.iter().map(|p| p.len()).sum::<usize>();
    let header = OutHeader {
        len: u32::try_from(len).expect("replies are bounded by a few pages"),
        error,
        unique,
    };
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(header.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Refuses a request: the caller's system call fails with `errno`.
#[must_use]
pub fn reply_error(unique: u64, errno: Errno) -> Reply {
    reply(unique, -(errno as i32), &[])
}

/// Confirms a request that has no result.
#[must_use]
pub fn reply_empty(unique: u64) -> Reply {
    reply(unique, 0, &[])
}

/// Why a node cannot be made as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// The kernel speaks another major version or cannot do unrestricted ioctls.
    #[error(
        "the kernel's cuse speaks {major}.{minor} without what is needed (7.11 and unrestricted ioctls)"
    )]
    Kernel {
        /// The kernel's major version.
        major: u32,
        /// The kernel's minor version.
        minor: u32,
    },
    /// The name is empty, too long or holds a NUL.
    #[error("a device name has 1 to 4000 bytes and no NUL")]
    Name,
}

/// Answers `CUSE_INIT`: makes the node `/dev/NAME` with the given numbers; `major` 0 lets the kernel choose.
///
/// # Errors
/// [`InitError`] where the kernel or the name will not do.
pub fn reply_init(
    unique: u64,
    init: CuseInitIn,
    name: &str,
    major: u32,
    minor: u32,
) -> Result<Reply, InitError> {
    let unrestricted = init.flags & CUSE_UNRESTRICTED_IOCTL != 0;
    if init.major != FUSE_KERNEL_VERSION || init.minor < 16 || !unrestricted {
        return Err(InitError::Kernel { major: init.major, minor: init.minor });
    }
    let info = format!("DEVNAME={name}\0");
    if name.is_empty() || name.contains('\0') || info.len() > CUSE_INIT_INFO_MAX - 64 {
        return Err(InitError::Name);
    }
    let out = CuseInitOut {
        major: FUSE_KERNEL_VERSION,
        minor: MINOR_VERSION.min(init.minor),
        unused: 0,
        flags: CUSE_UNRESTRICTED_IOCTL,
        max_read: MAX_TRANSFER,
        max_write: MAX_TRANSFER,
        dev_major: major,
        dev_minor: minor,
        spare: [0; 10],
    };
    Ok(reply(unique, 0, &[out.as_bytes(), info.as_bytes()]))
}

/// Answers an open with the handle that later requests will carry.
#[must_use]
pub fn reply_open(unique: u64, fh: u64) -> Reply {
    let out = OpenOut { fh, open_flags: 0, padding: 0 };
    reply(unique, 0, &[out.as_bytes()])
}

/// Answers a poll with the ready events, `POLL*` bits.
#[must_use]
pub fn reply_poll(unique: u64, revents: u32) -> Reply {
    let out = PollOut { revents, padding: 0 };
    reply(unique, 0, &[out.as_bytes()])
}

/// Wakes whoever polls the handle that `kh` names; they poll again.
#[must_use]
pub fn notify_poll(kh: u64) -> Reply {
    reply(0, FUSE_NOTIFY_POLL, &[kh.as_bytes()])
}

/// Ends an ioctl: `data` is copied to the caller's memory as the last retry laid it out, then the call
/// returns `result`, or fails with it where negative. A failed copy makes it fail with `EFAULT`.
#[must_use]
pub fn reply_ioctl(unique: u64, result: Result<i32, Errno>, data: &[u8]) -> Reply {
    let result = result.unwrap_or_else(|errno| -(errno as i32));
    let out = IoctlOut { result, flags: 0, in_iovs: 0, out_iovs: 0 };
    reply(unique, 0, &[out.as_bytes(), data])
}

/// Asks for an ioctl again with the user memory of `input` copied in, and room to write to `output`.
///
/// The kernel takes at most 256 vectors and 128 KiB; what it cannot read makes the call fail with `EFAULT`.
#[must_use]
pub fn reply_ioctl_retry(unique: u64, input: &[IoctlIovec], output: &[IoctlIovec]) -> Reply {
    let count = |v: &[IoctlIovec]| u32::try_from(v.len()).expect("a handful of vectors");
    let out = IoctlOut {
        result: 0,
        flags: FUSE_IOCTL_RETRY,
        in_iovs: count(input),
        out_iovs: count(output),
    };
    reply(unique, 0, &[out.as_bytes(), input.as_bytes(), output.as_bytes()])
}

/// Opens a session, from which one node can be made: `/dev/cuse`, non-blocking.
///
/// # Errors
/// The error of `open(2)`: `ENOENT` or `ENODEV` where the `cuse` module is not loaded, `EACCES` without
/// permission.
pub fn open_session() -> io::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    Ok(nix::fcntl::open("/dev/cuse", flags, nix::sys::stat::Mode::empty())?)
}

/// Reads one request into `buffer`, which must hold [`FUSE_MIN_READ_BUFFER`] bytes; returns its length.
///
/// # Errors
/// `EAGAIN` where none waits, `ENODEV` where the node is gone (its making failed, or it was aborted).
pub fn read_request(session: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match nix::unistd::read(session.as_fd(), buffer) {
            // The caller of a queued request went away while it was copied: there may be another one.
            Err(Errno::ENOENT | Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Writes one reply. A caller that went away in the meantime is no error.
///
/// # Errors
/// The error of `write(2)`: `ENODEV` where the node is gone, `EINVAL` where the reply does not fit its request.
pub fn write_reply(session: impl AsFd, reply: &[u8]) -> Result<(), Errno> {
    match nix::unistd::write(session, reply) {
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let header = InHeader {
            len: u32::try_from(40 + body.len()).unwrap(),
            opcode,
            unique: 7,
            nodeid: 0,
            uid: 1000,
            gid: 1000,
            pid: 42,
            extlen_padding: 0,
        };
        [header.as_bytes(), body].concat()
    }

    #[test]
    fn an_ioctl_must_carry_the_bytes_it_announces() {
        let ioctl = IoctlIn { fh: 3, flags: 2, cmd: 0x8028_690d, arg: 16, in_size: 4, out_size: 0 };
        let whole = request(FUSE_IOCTL, &[ioctl.as_bytes(), &[1, 2, 3, 4]].concat());
        let decoded = decode(&whole).unwrap();
        assert!(matches!(decoded.operation, Operation::Ioctl(i, [1, 2, 3, 4]) if i.fh == 3));
        assert_eq!(decoded.header.pid, 42);

        let short = request(FUSE_IOCTL, &[ioctl.as_bytes(), &[1, 2, 3]].concat());
        assert_eq!(decode(&short).unwrap_err(), MalformedRequest { opcode: FUSE_IOCTL, len: 75 });
        assert!(
            decode(&whole[..60]).is_err(),
            "a length that differs from the header's is refused"
        );
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn the_init_reply_names_the_node() {
        let init = CuseInitIn { major: 7, minor: 37, unused: 0, flags: 1 };
        let reply = reply_init(1, init, "ipmi/1", 240, 5).unwrap();
        assert!(reply.ends_with(b"DEVNAME=ipmi/1\0"));
        assert_eq!(reply.len(), 16 + 72 + 15);
        assert_eq!(&reply[16 + 24..16 + 32], &[240, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(reply_init(1, init, "a\0b", 0, 0), Err(InitError::Name));
        let old = CuseInitIn { minor: 10, ..init };
        assert!(matches!(reply_init(1, old, "x", 0, 0), Err(InitError::Kernel { .. })));
    }

    #[test]
    fn a_failed_ioctl_may_still_carry_data() {
        let reply = reply_ioctl(9, Err(Errno::EMSGSIZE), b"abc");
        assert_eq!(reply.len(), 16 + 16 + 3);
        assert_eq!(&reply[4..8], &[0; 4], "the header tells of success, or the data is not copied");
        assert_eq!(&reply[16..20], &(-90i32).to_ne_bytes());
    }
}
