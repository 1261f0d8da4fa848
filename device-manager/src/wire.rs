// SPDX-License-Identifier: MIT OR Apache-2.0
//! What units, managers and holders tell one another, over links of `secure-link` and of `group`. Who speaks is known by
//! the link; no message names another speaker.
//!
//! A byte for the version, and the message in postcard's encoding, whose order is never changed: a later version
//! appends. What is not known is skipped by the receiver, as adjacent releases live together.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hid;
use crate::pattern::Pattern;
use crate::record::{Device, DeviceId, Holder, MAX_EPOCH, MAX_FUNCTIONS, MAX_TEXT, Machine, Stamp};

/// Spoken by this release.
pub const VERSION: u8 = 1;
/// Most bytes of one message: a device with all its functions leased by members of many groups is below it.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most addresses at which a unit says it is reached.
pub const MAX_ADDRESSES: usize = 8;
/// Most units in one [`Peer::Seen`]: a group has 64 machines.
pub const MAX_SEEN: usize = 128;
/// Most devices of one [`Peer::Has`]: its ids are told as text.
pub const MAX_HITS: usize = 3000;
/// Most finders of one manager, and most requests.
pub const MAX_MINE: usize = 1024;
/// Bytes of a lease's token.
pub const TOKEN: usize = 16;

/// A secret that only the holder of a lease and its unit know.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub [u8; TOKEN]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Bytes that mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Of another version than [`VERSION`].
    #[error("version {0} is not spoken here")]
    Version(u8),
    /// It is none, or one of a later release.
    #[error("malformed, or of a later release")]
    Malformed,
    /// More than there may be.
    #[error("too long")]
    Long,
}

/// A message with bounds of its own.
pub trait Bounded: Serialize + DeserializeOwned {
    /// Whether it keeps to them.
    fn is_bounded(&self) -> bool;

    /// As bytes.
    #[must_use]
    fn encode(&self) -> Vec<u8> {
        let bytes = postcard::to_extend(self, vec![VERSION]);
        bytes.expect("a vector takes whatever is written to it")
    }

    /// From bytes; nothing may stand behind it.
    ///
    /// # Errors
    /// See [`WireError`].
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(WireError::Long);
        }
        let body = match bytes {
            [VERSION, body @ ..] => body,
            [version, ..] => return Err(WireError::Version(*version)),
            [] => return Err(WireError::Malformed),
        };
        match postcard::take_from_bytes::<Self>(body) {
            Ok((value, [])) if value.is_bounded() => Ok(value),
            Ok((_, [])) => Err(WireError::Long),
            _ => Err(WireError::Malformed),
        }
    }
}

/// What is wanted of a unit, or of the manager that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which device.
    pub device: DeviceId,
    /// Which time that it is plugged in: not the one that came after it.
    pub gen_no: u64,
    /// All of it, or a part.
    pub function: u8,
    /// For whom.
    pub holder: Holder,
    /// Whether to wait if somebody has it.
    pub queue: bool,
    /// For how long at most, in seconds; none for as long as policy allows.
    pub limit_s: Option<u32>,
    /// Since when it is wanted, by the group's clock, milliseconds: a request that is made again keeps its place.
    pub since_ms: u64,
}

/// A lease, for its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its number.
    pub no: u64,
    /// The device as it was when it was granted.
    pub device: Device,
    /// All of it, or a part.
    pub function: u8,
    /// Shown to the unit by who comes for it.
    pub token: Token,
    /// Where the unit is reached.
    pub addresses: Vec<SocketAddr>,
    /// It ends if it is not renewed for so long, milliseconds.
    pub ttl_ms: u32,
}

/// Why there is no lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Somebody else has it, or a part of it.
    #[error("it is leased to {0}")]
    Leased(Holder),
    /// The unit does not give it away now.
    #[error("{0}")]
    Unavailable(String),
    /// Policy does not allow it.
    #[error("policy: {0}")]
    Denied(String),
    /// It is not there, or was plugged in again since.
    #[error("there is no such device any more")]
    NoDevice,
    /// Its unit is not reached.
    #[error("its unit is not reached")]
    NoUnit,
    /// Too much is asked at a time.
    #[error("too many requests wait already")]
    Full,
}

/// A unit to its manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromUnit {
    /// First of all, after [`ToUnit::Welcome`]. `stamp.seq` orders the unit's connections too.
    Hello {
        /// Of this connection.
        stamp: Stamp,
        /// Where holders reach it.
        addresses: Vec<SocketAddr>,
    },
    /// A device is there, or is different now.
    Device(Box<Device>),
    /// A device is gone.
    Gone(DeviceId, Stamp),
    /// All devices have been told.
    Complete,
    /// What became of a request.
    Answer(u64, Result<Box<Grant>, Refusal>),
    /// It lives. When it was sent by its clock, and what it answers, microseconds: the beat that came last, when it
    /// arrived.
    Beat(Beat),
}

/// A beat with what is needed to compare clocks: when it was sent, and the last one of the other side, when it was
/// sent and when it came. Each by the clock of who did it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// When it was sent.
    pub sent: u64,
    /// The other's last one: when it was sent, and when it came.
    pub echo: Option<(u64, u64)>,
    /// The sender's group clock minus its own, and how far that may be off; none if it has no such clock.
    pub group: Option<(i64, u64)>,
}

/// A manager to a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToUnit {
    /// First of all.
    Welcome {
        /// The newest stamp of the unit's that the manager knows of. A unit whose own epoch is lower has had its
        /// disk set back.
        newest: Option<(u64, u64)>,
        /// How many units it has already.
        units: u32,
    },
    /// A lease is wanted.
    Lease(u64, Wanted, LeaseTerms),
    /// A lease is to end.
    Revoke(u64, String),
    /// See [`Beat`].
    Beat(Beat),
    /// The unit is with another manager, by what it said later.
    Elsewhere,
}

/// What policy says of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// It ends after so long at the latest, seconds; none for as long as it is renewed.
    pub limit_s: Option<u32>,
    /// Nothing may be written, as only a disk by itself can be held to.
    pub read_only: bool,
}

/// Names a request among those of the manager that made it.
pub type RequestNo = u64;
/// Names a finder among those of the manager that has it.
pub type FinderNo = u64;

/// A manager to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    /// The sender has this unit, as of this stamp.
    Owner(Machine, Stamp),
    /// The sender has it no more.
    Lost(Machine, Stamp),
    /// A finder of the sender's, which holds no lists of others.
    Find(FinderNo, Pattern),
    /// It ended.
    Unfind(FinderNo),
    /// A device of the sender's fits a finder of the receiver's, or is different.
    Hit(FinderNo, Box<Device>),
    /// One that fitted is gone, or fits no more.
    Miss(FinderNo, DeviceId),
    /// The sender's user wants a lease of a device that the receiver has.
    Want(RequestNo, Wanted),
    /// The user wants it no more.
    Cancel(RequestNo),
    /// The request waits, at this place from 1.
    Queued(RequestNo, u32),
    /// What became of it.
    Answer(RequestNo, Result<Box<Grant>, Refusal>),
    /// End a lease of this unit's, on behalf of its holder, or of who may do so.
    End {
        /// The unit.
        unit: Machine,
        /// The lease.
        no: u64,
        /// Whose machine and user ask.
        by: Holder,
        /// Whether it is somebody who may end others' leases, by the sender's word. Only its own holder's machine is believed.
        force: bool,
    },
    /// The newest stamps of units that the sender knows of, as epoch and sequence; at most [`MAX_SEEN`].
    Seen(Vec<(Machine, (u64, u64))>),
    /// First of all that the sender tells: what else it told before is over.
    Begin {
        /// All units that it has; at most [`MAX_SEEN`].
        units: Vec<(Machine, Stamp)>,
        /// All its finders that the receiver has as well; at most [`MAX_MINE`].
        finders: Vec<FinderNo>,
        /// All its requests to the receiver, likewise.
        requests: Vec<RequestNo>,
    },
    /// All devices that fit a finder of the receiver's, whose hits follow: what else was told of before is gone.
    Has(FinderNo, Vec<DeviceId>),
}

/// A holder to a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHolder {
    /// The link over which a lease is renewed and ended.
    Open {
        /// The lease.
        no: u64,
        /// Its token.
        token: Token,
    },
    /// The connection that is to carry data. Nothing is sent behind it before [`ToHolder::Go`].
    Data {
        /// The lease.
        no: u64,
        /// Its token.
        token: Token,
    },
    /// It is needed still.
    Renew,
    /// It is needed no more.
    Release,
    /// As [`FromHolder::Data`], of a holder whose kernel has no TLS.
    Framed {
        /// The lease.
        no: u64,
        /// Its token.
        token: Token,
    },
}

/// A unit to a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHolder {
    /// The lease is the holder's for so many milliseconds from when this was asked for.
    Good(u32),
    /// The connection is the device's from here on.
    Go(Carried),
    /// There is no such lease, or it has ended: why.
    Ended(String),
}

/// How a function is carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carried {
    /// The kernel's USB/IP, beginning with commands.
    Usbip {
        /// `busnum << 16 | devnum` at the unit.
        devid: u32,
        /// As `enum usb_device_speed` counts.
        speed: u32,
        /// Sealed by the kernel's TLS with keys of this session; else in clear.
        sealed: bool,
    },
    /// Bytes of a serial line, in sealed frames of this session.
    Serial,
    /// A disk by NBD: each of its clients is one of [`crate::streams`], sealed likewise.
    Disk {
        /// Bytes.
        size: u64,
        /// Whether it is only read.
        read_only: bool,
    },
    /// A HID device by its reports, in sealed frames of this session.
    Hid(hid::About),
    /// A BMC by the VM serial protocol: each of its clients is one of [`crate::streams`], sealed likewise.
    Ipmi,
    /// The kernel's USB/IP as [`Carried::Usbip`], in sealed frames of this session: see [`crate::frames`].
    Framed {
        /// As [`Carried::Usbip`].
        devid: u32,
        /// Likewise.
        speed: u32,
    },
}

fn texts(texts: &[&str]) -> bool {
    texts.iter().all(|text| text.len() <= MAX_TEXT)
}

fn holder(holder: &Holder) -> bool {
    holder.groups.len() <= Holder::MAX_GROUPS && holder.groups.iter().all(|group| group.len() <= 64)
}

fn device(device: &Device) -> bool {
    let f = &device.found;
    let all =
        [&f.key, &f.bus, &f.path, &f.vendor, &f.product, &f.manufacturer, &f.model, &f.serial];
    let functions = device.functions.iter().all(|function| {
        let lease = function.lease.as_ref().is_none_or(|lease| holder(&lease.holder));
        let node = function.node.as_deref().unwrap_or_default();
        let why = function.unavailable.as_deref().unwrap_or_default();
        lease && texts(&[&function.kind, node, why])
    });
    let parts =
        f.parts.len() < MAX_FUNCTIONS && f.parts.iter().all(|(kind, node)| texts(&[kind, node]));
    let count =
        (1..=MAX_FUNCTIONS).contains(&device.functions.len()) && f.types.len() <= MAX_FUNCTIONS;
    let types = f.types.iter().all(|kind| texts(&[kind]));
    let stamp = device.stamp.is_bounded();
    stamp && count && functions && parts && types && texts(&all.map(String::as_str))
}

fn refusal(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Leased(by) => holder(by),
        Refusal::Unavailable(text) | Refusal::Denied(text) => texts(&[text]),
        _ => true,
    }
}

fn answer(answer: &Result<Box<Grant>, Refusal>) -> bool {
    match answer {
        Ok(grant) => device(&grant.device) && grant.addresses.len() <= MAX_ADDRESSES,
        Err(why) => refusal(why),
    }
}

impl Bounded for Device {
    fn is_bounded(&self) -> bool {
        device(self)
    }
}

impl Bounded for FromUnit {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Hello { addresses, stamp } => {
                addresses.len() <= MAX_ADDRESSES && stamp.is_bounded()
            }
            Self::Device(told) => device(told),
            Self::Answer(_, told) => answer(told),
            Self::Gone(_, stamp) => stamp.is_bounded(),
            Self::Complete | Self::Beat(_) => true,
        }
    }
}

impl Bounded for ToUnit {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Lease(_, wanted, _) => holder(&wanted.holder),
            Self::Revoke(_, why) => texts(&[why]),
            Self::Welcome { newest, .. } => newest.is_none_or(|newest| newest.0 <= MAX_EPOCH),
            Self::Beat(_) | Self::Elsewhere => true,
        }
    }
}

impl Bounded for Peer {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Hit(_, told) => device(told),
            Self::Want(_, wanted) => holder(&wanted.holder),
            Self::Answer(_, told) => answer(told),
            Self::End { by, .. } => holder(by),
            Self::Owner(_, stamp) | Self::Lost(_, stamp) => stamp.is_bounded(),
            Self::Seen(seen) => {
                seen.len() <= MAX_SEEN && seen.iter().all(|(_, newest)| newest.0 <= MAX_EPOCH)
            }
            Self::Begin { units, finders, requests } => {
                units.len() <= MAX_SEEN
                    && units.iter().all(|(_, stamp)| stamp.is_bounded())
                    && finders.len().max(requests.len()) <= MAX_MINE
            }
            Self::Has(_, ids) => ids.len() <= MAX_HITS,
            _ => true,
        }
    }
}

impl Bounded for FromHolder {
    fn is_bounded(&self) -> bool {
        true
    }
}

impl Bounded for ToHolder {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Ended(why) => why.len() <= MAX_TEXT,
            Self::Go(Carried::Hid(about)) => about.is_bounded(),
            Self::Go(_) | Self::Good(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::device;

    fn wanted() -> Wanted {
        Wanted {
            device: DeviceId([1; 8]),
            gen_no: 2,
            function: 0,
            holder: Holder { machine: "a".parse().unwrap(), uid: 3, groups: vec!["g".into()] },
            queue: true,
            limit_s: None,
            since_ms: 4,
        }
    }

    /// Other releases read these bytes: they are never changed.
    #[test]
    fn golden_bytes() {
        let want = Peer::Want(5, wanted()).encode();
        let id = *b"0101010101010101";
        let expected = [&[1, 6, 5, 16][..], &id, &[2, 0, 1, b'a', 3, 1, 1, b'g', 1, 0, 4]].concat();
        assert_eq!(want, expected);
        let open = FromHolder::Open { no: 300, token: Token([9; 16]) }.encode();
        assert_eq!(open, [&[1, 0, 0xac, 2][..], &[9; 16]].concat());
        assert_eq!(ToHolder::Good(30_000).encode(), [1, 0, 0xb0, 0xea, 1]);
        assert_eq!(ToHolder::Go(Carried::Ipmi).encode(), [1, 1, 4]);
        let framed = FromHolder::Framed { no: 300, token: Token([9; 16]) }.encode();
        assert_eq!(framed, [&[1, 4, 0xac, 2][..], &[9; 16]].concat());
        assert_eq!(ToHolder::Go(Carried::Framed { devid: 2, speed: 3 }).encode(), [1, 1, 5, 2, 3]);
        assert_eq!(ToUnit::Elsewhere.encode(), [1, 4]);
        let gone = FromUnit::Gone(DeviceId([1; 8]), Stamp { epoch: 1, seq: 2, at: -3 });
        assert_eq!(gone.encode(), [&[1, 2, 16][..], &id, &[1, 2, 5]].concat());
    }

    #[test]
    fn what_is_too_much_or_cut_is_refused() {
        let good = FromUnit::Device(Box::new(device("a", "b")));
        let bytes = good.encode();
        assert_eq!(FromUnit::decode(&bytes), Ok(good));
        for cut in 0..bytes.len() {
            assert!(FromUnit::decode(&bytes[..cut]).is_err());
        }
        assert!(FromUnit::decode(&[&bytes[..], &[0]].concat()).is_err());
        let mut long = device("a", "b");
        long.found.model = "x".repeat(MAX_TEXT + 1);
        assert_eq!(
            FromUnit::decode(&FromUnit::Device(Box::new(long)).encode()),
            Err(WireError::Long)
        );
        let mut none = device("a", "b");
        none.functions.clear();
        assert_eq!(
            FromUnit::decode(&FromUnit::Device(Box::new(none)).encode()),
            Err(WireError::Long)
        );
        let mut many = wanted();
        many.holder.groups = vec![String::new(); Holder::MAX_GROUPS + 1];
        assert_eq!(Peer::decode(&Peer::Want(1, many).encode()), Err(WireError::Long));
        assert_eq!(Peer::decode(&[2, 0]), Err(WireError::Version(2)));
        assert_eq!(Peer::decode(&vec![1; MAX_MESSAGE + 1]), Err(WireError::Long));
    }
}
