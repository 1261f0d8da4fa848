// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD protocol from a client that says anything, and from a server that does.

use std::io;

use usb_gadget_drive::nbd::negotiation::{
    MAX_OPTION, Negotiation, Next, Offer, Offered, Refusal, Tls, Violation,
};
use usb_gadget_drive::nbd::option::{
    Info, InfoRequest, MetaQueries, OptionHeader, OptionReply, decode_context, decode_greeting,
    decode_listed, encode_context, encode_listed, greeting, opt, push_option, push_reply, rep,
};
use usb_gadget_drive::nbd::reply::{
    ChunkHeader, DONE, ReplyHeader, block_status_chunk, chunk, decode_block_status, decode_error,
    error_chunk,
};
use usb_gadget_drive::nbd::request::{Request, command};
use usb_gadget_drive::nbd::{ErrorCode, MAX_NAME, MAX_SERVED};

use crate::Reached;
use crate::input::Input;

struct Drives;

impl Offer for Drives {
    type Export = u64;

    fn names(&self) -> Vec<(String, String)> {
        ["a", "b"].map(|name| (name.to_owned(), String::new())).into()
    }

    fn open(&self, name: &str) -> Result<Offered<u64>, Refusal> {
        let Offered { size, flags, description, preferred_block, .. } = self.describe(name)?;
        Ok(Offered { export: size, size, flags, description, preferred_block })
    }

    fn describe(&self, name: &str) -> Result<Offered<()>, Refusal> {
        assert!(name.len() <= MAX_NAME, "a name of {} bytes", name.len());
        let size = match name {
            "a" => 1 << 30,
            "b" => 0,
            "c" => return Err(Refusal::Policy("taken".to_owned())),
            "d" => return Err(Refusal::Platform),
            "e" => return Err(Refusal::Shutdown),
            _ => return Err(Refusal::Unknown),
        };
        let description = "x".to_owned();
        Ok(Offered { export: (), size, flags: 0x09ff, description, preferred_block: 4096 })
    }
}

/// A negotiation: one byte for TLS, one for the size of the pieces, then what the client sends.
///
/// # Panics
/// Where the pieces make a difference, more is wanted than an option may have, or a reply is malformed.
pub fn nbd_options(data: &[u8]) -> Reached {
    let mut input = Input::new(data);
    let tls = [Tls::Off, Tls::Offered, Tls::Required][usize::from(input.u8() % 3)];
    let piece = usize::from(input.u8()) + 1;
    let (whole, mut reached) = negotiate(tls, input.rest(), usize::MAX);
    let (in_pieces, again) = negotiate(tls, input.rest(), piece);
    // What came together with STARTTLS is an attack, what came later is TLS.
    if !reached.contains("starttls") && !reached.contains("injected") {
        assert!(whole == in_pieces, "pieces of {piece} make a difference");
    }
    reached.extend(again);
    reached
}

/// What the server says to it, if it comes in pieces of so many bytes.
fn negotiate(tls: Tls, sent: &[u8], piece: usize) -> (Vec<u8>, Reached) {
    let mut negotiation = Negotiation::new(tls);
    let mut reached = Reached::new();
    let (mut said, mut at, mut end) = (vec![], 0, piece.min(sent.len()));
    loop {
        let mut out = vec![];
        let (used, next) = negotiation.handle(&sent[at..end], &Drives, &mut out);
        at += used;
        assert!(at <= end);
        said.extend(&out);
        if !matches!(next, Next::Serve(_)) {
            check_replies(&out, &mut reached);
        }
        match next {
            Next::Read(wanted) => {
                assert!(wanted <= OptionHeader::LEN + MAX_OPTION as usize && wanted > 0);
                if end - at >= wanted {
                    continue;
                }
                assert!(used > 0 || !out.is_empty() || end - at < wanted, "no way on");
                if end == sent.len() {
                    return (said, reached);
                }
                end = (end + piece.min(sent.len())).min(sent.len());
            }
            Next::StartTls => {
                reached.insert("starttls");
                negotiation.handle_tls();
            }
            Next::Serve(agreed) => {
                reached.insert(match (agreed.structured, agreed.base_allocation) {
                    (false, context) => {
                        assert!(!context, "a context without structured replies");
                        "serve"
                    }
                    (true, false) => "serve structured",
                    (true, true) => "serve with context",
                });
                return (said, reached);
            }
            Next::Done => {
                reached.insert("done");
                return (said, reached);
            }
            Next::Fail(violation) => {
                reached.insert(match violation {
                    Violation::Magic(_) => "bad magic",
                    Violation::Flags(_) => "bad flags",
                    Violation::TooLong(_) => "too long",
                    Violation::TooMany => "too many",
                    Violation::NoSuchExport(_) => "no such export",
                    Violation::Injected => "injected",
                });
                return (said, reached);
            }
        }
    }
}

/// What the server says must be what a client of ours can read.
fn check_replies(mut out: &[u8], reached: &mut Reached) {
    while let Some((header, rest)) = out.split_first_chunk() {
        let header = OptionReply::decode(header).expect("a reply");
        let (body, behind) = rest.split_at(header.len as usize);
        reached.insert(match header.kind {
            rep::ACK => "ack",
            rep::SERVER => {
                decode_listed(body).expect("an export");
                "listed"
            }
            rep::INFO => {
                assert!(!matches!(Info::decode(body).expect("info"), Info::Other(_)));
                "info"
            }
            rep::META_CONTEXT => {
                decode_context(body).expect("a context");
                "context"
            }
            rep::ERR_UNSUP => "unsupported",
            rep::ERR_POLICY => "policy",
            rep::ERR_INVALID => "invalid",
            rep::ERR_TLS_REQD => "tls required",
            rep::ERR_UNKNOWN => "unknown",
            rep::ERR_PLATFORM => "platform",
            rep::ERR_SHUTDOWN => "shutdown",
            rep::ERR_TOO_BIG => "too big",
            other => panic!("reply {other:#x}"),
        });
        assert!(header.option != opt::EXPORT_NAME, "it has no such reply");
        out = behind;
    }
}

/// Requests to a server, and replies to a client, in each of their decoders.
///
/// # Panics
/// Where a decoder and its encoder disagree, or a request is let through that leaves the drive.
pub fn nbd_requests(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut input = Input::new(data);
    let (flags, size) = (input.u16(), input.u64());
    let mut rest = input.rest();
    while let Some((header, behind)) = rest.split_first_chunk() {
        match Request::decode(header) {
            Ok(request) => {
                assert_eq!(request.encode(), *header);
                let carries = request.command == command::WRITE;
                assert_eq!(request.payload(), if carries { request.len } else { 0 });
                reached.insert(check(&request, flags, size));
            }
            Err(_) => {
                reached.insert("no request");
            }
        }
        rest = behind;
    }
    reached.extend(replies(input.rest()));
    reached
}

fn check(request: &Request, flags: u16, size: u64) -> &'static str {
    match request.check(flags, flags & 1 != 0, size) {
        Ok(()) => {
            let end = request.offset.checked_add(request.len.into()).expect("within the drive");
            assert!(end <= size, "{request:?} leaves a drive of {size}");
            let moves = matches!(request.command, command::READ | command::WRITE);
            assert!(!moves || request.len <= MAX_SERVED);
            assert_eq!(request.flags & !0x1f, 0, "nobody knows these flags");
            match request.command {
                command::READ => "read",
                command::WRITE => "write",
                command::FLUSH => "flush",
                command::TRIM => "trim",
                command::WRITE_ZEROES => "zero",
                command::BLOCK_STATUS => "status",
                other => panic!("command {other} is let through"),
            }
        }
        Err(code) => match code as u32 {
            1 => "EPERM",
            22 => "EINVAL",
            28 => "ENOSPC",
            75 => "EOVERFLOW",
            other => panic!("error {other}"),
        },
    }
}

fn chunk_body(header: ChunkHeader, body: &[u8]) -> Option<&'static str> {
    if let Some((context, runs)) = decode_block_status(body) {
        let again = block_status_chunk(header.cookie, context, &runs);
        assert_eq!(again[ChunkHeader::LEN..], *body);
        return Some("runs");
    }
    if let (chunk::OFFSET_DATA, Some(offset), Some(len)) =
        (header.kind, body.first_chunk(), header.len.checked_sub(8))
    {
        let is_last = header.flags == DONE;
        let again = ChunkHeader::data(header.cookie, u64::from_be_bytes(*offset), len, is_last);
        let flags = if is_last { DONE } else { 0 };
        let same = ChunkHeader { flags, ..header };
        assert_eq!(again[..], [&same.encode()[..], offset].concat());
        return Some("data");
    }
    let (code, text) = decode_error(body)?;
    assert!(text.len() + 6 <= body.len());
    let again = error_chunk(header.cookie, code);
    assert_eq!(decode_error(&again[ChunkHeader::LEN..]), Some((code, "")));
    Some("error")
}

/// The decoders of a client.
fn replies(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    match ReplyHeader::decode(data) {
        Ok(Some(ReplyHeader::Simple(reply))) => {
            if let Some(code) = reply.error {
                let error = io::Error::from(code);
                // What is too long for another server is an error of the device here.
                let wanted = if code == ErrorCode::Overflow { ErrorCode::Io } else { code };
                assert_eq!(ErrorCode::from(&error), wanted);
                reached.insert("failed");
            } else {
                assert_eq!(reply.encode()[..], data[..16]);
                reached.insert("simple");
            }
        }
        Ok(Some(ReplyHeader::Chunk(header))) => {
            assert_eq!(header.encode()[..], data[..ChunkHeader::LEN]);
            reached.insert("chunk");
            reached.extend(chunk_body(header, &data[ChunkHeader::LEN..]));
        }
        Ok(None) | Err(_) => {}
    }
    if let Some(info) = Info::decode(data) {
        assert!(matches!(info, Info::Other(_)) || info.encode() == data);
        reached.insert("info");
    }
    if let Some(request) = InfoRequest::decode(data) {
        assert_eq!(request.encode(), data);
        reached.insert("info request");
    }
    if let Some(queries) = MetaQueries::decode(data) {
        assert_eq!(queries.encode(), data);
        reached.insert("queries");
    }
    if let Some((name, text)) = decode_listed(data) {
        assert_eq!(encode_listed(name, text), data);
        reached.insert("listed");
    }
    if let Some((id, context)) = decode_context(data) {
        assert_eq!(encode_context(id, context), data);
        reached.insert("context");
    }
    if let Some(Ok(flags)) = data.first_chunk().map(decode_greeting) {
        assert_eq!(greeting()[..16], data[..16]);
        assert!(flags != 3 || greeting()[..] == data[..18]);
        reached.insert("greeting");
    }
    if let Some(Ok(option)) = data.first_chunk().map(OptionHeader::decode) {
        let mut again = vec![];
        push_option(&mut again, option.option, &[]);
        assert_eq!(again[..12], data[..12]);
        reached.insert("option");
    }
    if let Some(Ok(reply)) = data.first_chunk().map(OptionReply::decode) {
        let mut again = vec![];
        push_reply(&mut again, reply.option, reply.kind, &[]);
        assert_eq!(again[..16], data[..16]);
        reached.insert("option reply");
    }
    reached
}
