// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's side of the negotiation: told what came, it says what to send and what to do.
//!
//! proto.md, "Fixed newstyle negotiation", "Requirements on server" in "TLS support", "Option types".

use super::option::{
    Info, InfoRequest, MetaQueries, OptionHeader, encode_context, encode_listed, handshake, info,
    opt, push_reply, rep,
};
use super::{BASE_ALLOCATION, BASE_ALLOCATION_ID, BadMagic, MAX_NAME, MAX_SERVED};

/// Longest body of an option that is read, bytes: a name, and a few queries each as long as one may be.
pub const MAX_OPTION: u32 = 32 << 10;
/// Longest body of an option that is passed over and refused, bytes; the client of a longer one is out of step.
pub const MAX_DRAINED: u32 = 1 << 20;
/// Options one client may send. Clients send about ten, and two more for each export that they ask about.
pub const MAX_OPTIONS: u32 = 4096;

/// Whether a connection may, or must, be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// There is no certificate.
    Off,
    /// As the client likes.
    Offered,
    /// Nothing else is answered before.
    Required,
    /// It is.
    Active,
}

/// Why an export is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is none of that name, or none that this client may know of.
    Unknown,
    /// It is not for this client, or not now; in words.
    Policy(String),
    /// It cannot be opened.
    Platform,
    /// It is being taken away.
    Shutdown,
}

/// What is on offer to one client.
pub trait Offer {
    /// What the shell gets of an export that was chosen.
    type Export;

    /// Names and descriptions of what the client may have.
    fn names(&self) -> Vec<(String, String)>;

    /// Looks an export up, without taking it.
    ///
    /// # Errors
    /// It is not to be had.
    fn describe(&self, name: &str) -> Result<Offered<()>, Refusal>;

    /// Takes an export.
    ///
    /// # Errors
    /// It is not to be had.
    fn open(&self, name: &str) -> Result<Offered<Self::Export>, Refusal>;
}

/// An export as it is described to a client.
#[derive(Debug)]
pub struct Offered<E> {
    /// For the shell.
    pub export: E,
    /// Bytes.
    pub size: u64,
    /// Of [`super::flags`], without `SEND_DF`.
    pub flags: u16,
    /// For people; may be empty.
    pub description: String,
    /// What requests are best, bytes: a power of two from 512 up.
    pub preferred_block: u32,
}

/// What was agreed on.
#[derive(Debug)]
pub struct Agreed<E> {
    /// What the client chose.
    pub export: E,
    /// Of [`super::flags`], as the client knows them.
    pub flags: u16,
    /// Reads are answered in chunks.
    pub structured: bool,
    /// The client may ask for `base:allocation`.
    pub base_allocation: bool,
}

/// What the shell does when it has sent what there was to send.
#[derive(Debug)]
#[must_use]
pub enum Next<E> {
    /// Call again with at least so many bytes.
    Read(usize),
    /// Begin TLS, then `handle_tls`, then call again.
    StartTls,
    /// Serve requests.
    Serve(Agreed<E>),
    /// Close the connection: the client is done.
    Done,
    /// Close the connection.
    Fail(Violation),
}

/// What a client did that leaves no way to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that are no option.
    #[error(transparent)]
    Magic(#[from] BadMagic),
    /// A handshake flag nobody knows: proto.md, "Client flags".
    #[error("the client sets unknown flags {0:#x}")]
    Flags(u32),
    /// An option that is too long even to pass over.
    #[error("an option of {0} bytes")]
    TooLong(u32),
    /// More than [`MAX_OPTIONS`].
    #[error("the client never chooses an export")]
    TooMany,
    /// `EXPORT_NAME` has no way to say no.
    #[error("export `{0}` is not to be had")]
    NoSuchExport(String),
    /// Something was sent in clear behind `STARTTLS`, perhaps by somebody else.
    #[error("plain text behind STARTTLS")]
    Injected,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Flags,
    Options,
    Drain { option: u32, left: usize },
}

/// One client's negotiation.
#[derive(Debug)]
pub struct Negotiation {
    state: State,
    tls: Tls,
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    context_for: Option<String>,
    options: u32,
}

impl Negotiation {
    /// The shell sends [`super::option::greeting`] first.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self {
            state: State::Flags,
            tls,
            no_zeroes: false,
            structured: false,
            context_for: None,
            options: 0,
        }
    }

    /// TLS has begun.
    pub fn handle_tls(&mut self) {
        self.tls = Tls::Active;
        // What was agreed on in clear may have been somebody else's wish.
        self.structured = false;
        self.context_for = None;
    }

    /// Looks at what came; says how much of it is done with, and what is next. What is to be sent before is appended
    /// to `out`.
    pub fn handle<O: Offer>(
        &mut self,
        input: &[u8],
        offer: &O,
        out: &mut Vec<u8>,
    ) -> (usize, Next<O::Export>) {
        match self.state {
            State::Flags => match input.first_chunk() {
                None => (0, Next::Read(4)),
                Some(flags) => (4, self.client_flags(u32::from_be_bytes(*flags))),
            },
            State::Drain { option, left } => {
                let here = left.min(input.len());
                if here < left {
                    self.state = State::Drain { option, left: left - here };
                    return (here, Next::Read(1));
                }
                self.state = State::Options;
                push_reply(out, option, rep::ERR_TOO_BIG, b"the option is too long");
                (here, Next::Read(OptionHeader::LEN))
            }
            State::Options => self.one_option(input, offer, out),
        }
    }

    fn client_flags<E>(&mut self, flags: u32) -> Next<E> {
        let known = u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        if flags & !known != 0 {
            return Next::Fail(Violation::Flags(flags));
        }
        self.no_zeroes = flags & u32::from(handshake::NO_ZEROES) != 0;
        self.state = State::Options;
        Next::Read(OptionHeader::LEN)
    }

    fn one_option<O: Offer>(
        &mut self,
        input: &[u8],
        offer: &O,
        out: &mut Vec<u8>,
    ) -> (usize, Next<O::Export>) {
        let Some((header, rest)) = input.split_first_chunk() else {
            return (0, Next::Read(OptionHeader::LEN));
        };
        let header = match OptionHeader::decode(header) {
            Ok(header) => header,
            Err(bad) => return (0, Next::Fail(bad.into())),
        };
        let len = header.len as usize;
        if header.len > MAX_DRAINED || header.len > MAX_OPTION && header.option == opt::EXPORT_NAME
        {
            return (0, Next::Fail(Violation::TooLong(header.len)));
        }
        if header.len <= MAX_OPTION && rest.len() < len {
            return (0, Next::Read(OptionHeader::LEN + len));
        }
        self.options += 1;
        if self.options > MAX_OPTIONS {
            return (0, Next::Fail(Violation::TooMany));
        }
        if header.len > MAX_OPTION {
            self.state = State::Drain { option: header.option, left: len };
            return (OptionHeader::LEN, Next::Read(1));
        }
        let used = OptionHeader::LEN + len;
        let next = self.answer(header.option, &rest[..len], offer, out);
        if matches!(next, Next::StartTls) && input.len() > used {
            return (used, Next::Fail(Violation::Injected));
        }
        (used, next)
    }

    fn answer<O: Offer>(
        &mut self,
        option: u32,
        body: &[u8],
        offer: &O,
        out: &mut Vec<u8>,
    ) -> Next<O::Export> {
        let mut refuse = |kind, text: &str| {
            push_reply(out, option, kind, text.as_bytes());
            Next::Read(OptionHeader::LEN)
        };
        match option {
            opt::ABORT => {
                push_reply(out, option, rep::ACK, b"");
                Next::Done
            }
            opt::STARTTLS => match self.tls {
                Tls::Off => refuse(rep::ERR_UNSUP, "the server has no certificate"),
                Tls::Active => refuse(rep::ERR_INVALID, "TLS is active"),
                _ if !body.is_empty() => refuse(rep::ERR_INVALID, "STARTTLS has no body"),
                Tls::Offered | Tls::Required => {
                    push_reply(out, option, rep::ACK, b"");
                    Next::StartTls
                }
            },
            opt::EXPORT_NAME if self.tls == Tls::Required => {
                Next::Fail(Violation::NoSuchExport(String::new()))
            }
            _ if self.tls == Tls::Required => refuse(rep::ERR_TLS_REQD, "this server wants TLS"),
            opt::EXPORT_NAME => self.export_name(body, offer, out),
            opt::GO | opt::INFO => self.info(option, body, offer, out),
            opt::LIST if !body.is_empty() => refuse(rep::ERR_INVALID, "LIST has no body"),
            opt::LIST => {
                for (name, description) in offer.names() {
                    let listed = encode_listed(&name, &description);
                    push_reply(out, option, rep::SERVER, &listed);
                }
                push_reply(out, option, rep::ACK, b"");
                Next::Read(OptionHeader::LEN)
            }
            opt::STRUCTURED_REPLY if !body.is_empty() => {
                refuse(rep::ERR_INVALID, "STRUCTURED_REPLY has no body")
            }
            opt::STRUCTURED_REPLY => {
                self.structured = true;
                refuse(rep::ACK, "")
            }
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => {
                self.contexts(option, body, offer, out);
                Next::Read(OptionHeader::LEN)
            }
            _ => refuse(rep::ERR_UNSUP, "this option is not known here"),
        }
    }

    fn agree<E>(&self, name: &str, export: E, flags: u16) -> Agreed<E> {
        let base_allocation = self.context_for.as_deref() == Some(name);
        Agreed { export, flags, structured: self.structured, base_allocation }
    }

    fn flags<E>(&self, offered: &Offered<E>) -> u16 {
        let df = if self.structured { super::flags::SEND_DF } else { 0 };
        offered.flags | super::flags::HAS_FLAGS | df
    }

    /// proto.md, "`NBD_OPT_EXPORT_NAME`": the body is the name; the answer has no header.
    fn export_name<O: Offer>(&self, body: &[u8], offer: &O, out: &mut Vec<u8>) -> Next<O::Export> {
        let name = std::str::from_utf8(body).ok().filter(|name| name.len() <= MAX_NAME);
        let offered = name.and_then(|name| Some((name, offer.open(name).ok()?)));
        let Some((name, offered)) = offered else {
            let name = String::from_utf8_lossy(&body[..body.len().min(MAX_NAME)]).into_owned();
            return Next::Fail(Violation::NoSuchExport(name));
        };
        out.extend(offered.size.to_be_bytes());
        out.extend(self.flags(&offered).to_be_bytes());
        if !self.no_zeroes {
            out.extend([0; 124]);
        }
        let flags = self.flags(&offered);
        Next::Serve(self.agree(name, offered.export, flags))
    }

    fn info<O: Offer>(
        &self,
        option: u32,
        body: &[u8],
        offer: &O,
        out: &mut Vec<u8>,
    ) -> Next<O::Export> {
        let more = Next::Read(OptionHeader::LEN);
        let Some(request) = InfoRequest::decode(body) else {
            push_reply(out, option, rep::ERR_INVALID, b"the option is malformed");
            return more;
        };
        let taken = if option == opt::GO {
            offer.open(request.name).map(|offered| {
                let Offered { export, size, flags, description, preferred_block } = offered;
                (Some(export), Offered { export: (), size, flags, description, preferred_block })
            })
        } else {
            offer.describe(request.name).map(|offered| (None, offered))
        };
        let (export, offered) = match taken {
            Ok(taken) => taken,
            Err(refusal) => {
                push_refusal(out, option, refusal);
                return more;
            }
        };
        let mut push = |info: Info| push_reply(out, option, rep::INFO, &info.encode());
        push(Info::Export { size: offered.size, flags: self.flags(&offered) });
        if request.infos.contains(&info::NAME) {
            push(Info::Name(request.name.to_owned()));
        }
        if request.infos.contains(&info::DESCRIPTION) && !offered.description.is_empty() {
            push(Info::Description(offered.description.clone()));
        }
        if request.infos.contains(&info::BLOCK_SIZE) {
            let preferred = offered.preferred_block;
            push(Info::BlockSize { min: 1, preferred, max: MAX_SERVED });
        }
        push_reply(out, option, rep::ACK, b"");
        let flags = self.flags(&offered);
        export.map_or(more, |export| Next::Serve(self.agree(request.name, export, flags)))
    }

    fn contexts<O: Offer>(&mut self, option: u32, body: &[u8], offer: &O, out: &mut Vec<u8>) {
        let set = option == opt::SET_META_CONTEXT;
        if set {
            // Whatever comes of it, an earlier choice is void.
            self.context_for = None;
        }
        let request = MetaQueries::decode(body).filter(|_| self.structured);
        let Some(request) = request else {
            let text = b"malformed, or before STRUCTURED_REPLY";
            return push_reply(out, option, rep::ERR_INVALID, text);
        };
        if let Err(refusal) = offer.describe(request.name) {
            return push_refusal(out, option, refusal);
        }
        let named = request.queries.contains(&BASE_ALLOCATION);
        let listed = !set && (request.queries.is_empty() || request.queries.contains(&"base:"));
        if named || listed {
            let id = if set { BASE_ALLOCATION_ID } else { 0 };
            let context = encode_context(id, BASE_ALLOCATION);
            push_reply(out, option, rep::META_CONTEXT, &context);
        }
        if set && named {
            self.context_for = Some(request.name.to_owned());
        }
        push_reply(out, option, rep::ACK, b"");
    }
}

fn push_refusal(out: &mut Vec<u8>, option: u32, refusal: Refusal) {
    let (kind, text) = match &refusal {
        Refusal::Unknown => (rep::ERR_UNKNOWN, "there is no such export"),
        Refusal::Policy(reason) => (rep::ERR_POLICY, reason.as_str()),
        Refusal::Platform => (rep::ERR_PLATFORM, "this export cannot be opened"),
        Refusal::Shutdown => (rep::ERR_SHUTDOWN, "this export is being taken away"),
    };
    push_reply(out, option, kind, text.as_bytes());
}

#[cfg(test)]
mod tests;
