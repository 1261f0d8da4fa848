// SPDX-License-Identifier: MIT OR Apache-2.0
//! One negotiation for each way it can go, and one request or reply of each kind.

use fuzz_targets::{nbd_options, nbd_requests};
use usb_gadget_drive::nbd::negotiation::MAX_OPTION;
use usb_gadget_drive::nbd::option::{
    Info, InfoRequest, MetaQueries, encode_context, encode_listed, greeting, opt, push_option,
    push_reply, rep,
};
use usb_gadget_drive::nbd::reply::{ChunkHeader, SimpleReply, block_status_chunk, error_chunk};
use usb_gadget_drive::nbd::request::{Request, command};
use usb_gadget_drive::nbd::{BASE_ALLOCATION, ErrorCode, MAX_SERVED, flags};

use crate::seed;

pub fn write() {
    options();
    requests();
}

/// TLS off, offered or required; pieces of so many bytes; the client's flags and options.
fn session(tls: u8, options: &[(u32, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![tls, 6, 0, 0, 0, 3];
    options.iter().for_each(|(option, body)| push_option(&mut bytes, *option, body));
    bytes
}

fn options() {
    let go = |name| InfoRequest { name, infos: vec![1, 2, 3] }.encode();
    let context = |name, query| MetaQueries { name, queries: vec![query] }.encode();
    let (a, b, c, none) = (go("a"), go("b"), go("c"), go("none"));
    let chosen = context("a", BASE_ALLOCATION);
    let long = vec![0; MAX_OPTION as usize + 1];
    let mut magic = session(0, &[]);
    magic.extend([0; 16]);
    let mut huge = session(0, &[(opt::GO, b"")]);
    let at = huge.len() - 4;
    huge[at..].fill(0xff);
    let (d, e) = (go("d"), go("e"));
    let cases: [(&str, &str, Vec<u8>); 22] = [
        ("go", "serve", session(0, &[(opt::GO, &a)])),
        ("export-name", "serve", session(0, &[(opt::EXPORT_NAME, b"a")])),
        ("no-export", "no such export", session(0, &[(opt::EXPORT_NAME, b"x")])),
        (
            "structured",
            "serve structured",
            session(0, &[(opt::STRUCTURED_REPLY, b""), (opt::GO, &b)]),
        ),
        (
            "context",
            "serve with context",
            session(
                0,
                &[(opt::STRUCTURED_REPLY, b""), (opt::SET_META_CONTEXT, &chosen), (opt::GO, &a)],
            ),
        ),
        (
            "contexts",
            "context",
            session(
                0,
                &[(opt::STRUCTURED_REPLY, b""), (opt::LIST_META_CONTEXT, &context("a", "base:"))],
            ),
        ),
        ("list", "listed", session(0, &[(opt::LIST, b"")])),
        ("info", "info", session(0, &[(opt::INFO, &a)])),
        ("abort", "done", session(0, &[(opt::ABORT, b"")])),
        ("unsupported", "unsupported", session(0, &[(4711, b"x")])),
        ("policy", "policy", session(0, &[(opt::GO, &c)])),
        ("platform", "platform", session(0, &[(opt::GO, &d)])),
        ("shutdown", "shutdown", session(0, &[(opt::INFO, &e)])),
        ("unknown", "unknown", session(0, &[(opt::GO, &none)])),
        ("invalid", "invalid", session(0, &[(opt::GO, b"")])),
        ("starttls", "starttls", session(1, &[(opt::STARTTLS, b"")])),
        ("injected", "injected", session(1, &[(opt::STARTTLS, b""), (opt::LIST, b"")])),
        ("required", "tls required", session(2, &[(opt::LIST, b""), (opt::GO, &a)])),
        ("too-big", "too big", session(0, &[(opt::GO, &long), (opt::ABORT, b"")])),
        ("huge", "too long", huge),
        ("magic", "bad magic", magic),
        ("flags", "bad flags", vec![0, 0, 0, 0, 0, 4]),
    ];
    for (name, wanted, bytes) in cases {
        seed(nbd_options, "nbd_options", name, wanted, &bytes);
    }
    let many = session(0, &vec![(opt::LIST, &b"x"[..]); 4097]);
    assert!(nbd_options(&many).contains("too many"), "it is too long to keep");
}

fn requests() {
    let all = 0x0fff & !flags::READ_ONLY;
    let drive = |flags: u16, rest: &[u8]| {
        [&flags.to_le_bytes()[..], &(1_u64 << 30).to_le_bytes(), rest].concat()
    };
    let ask = |command, offset, len| Request { flags: 0, command, cookie: 7, offset, len }.encode();
    let cases = [
        ("read", "read", all, ask(command::READ, 0, 4096)),
        ("write", "write", all, ask(command::WRITE, 0, 4096)),
        ("flush", "flush", all, ask(command::FLUSH, 0, 0)),
        ("trim", "trim", all, ask(command::TRIM, 0, 1 << 30)),
        ("zero", "zero", all, ask(command::WRITE_ZEROES, 0, 4096)),
        ("status", "status", all, ask(command::BLOCK_STATUS, 0, 4096)),
        ("read-only", "EPERM", all | flags::READ_ONLY, ask(command::WRITE, 0, 1)),
        ("beyond", "EINVAL", all, ask(command::READ, u64::MAX, 2)),
        ("full", "ENOSPC", all, ask(command::WRITE, 1 << 30, 1)),
        ("long", "EOVERFLOW", all, ask(command::READ, 0, MAX_SERVED + 1)),
        ("none", "no request", all, [1; 28]),
    ];
    for (name, wanted, flags, request) in cases {
        seed(nbd_requests, "nbd_requests", name, wanted, &drive(flags, &request));
    }
    let error = [&error_chunk(7, ErrorCode::Io)[..], b""].concat();
    let info = InfoRequest { name: "a", infos: vec![1] }.encode();
    let queries = MetaQueries { name: "a", queries: vec![BASE_ALLOCATION] }.encode();
    let (mut reply, mut option) = (vec![], vec![]);
    push_option(&mut option, opt::GO, b"");
    push_reply(&mut reply, opt::GO, rep::ACK, b"");
    let cases = [
        ("simple", "simple", SimpleReply { error: None, cookie: 7 }.encode().to_vec()),
        (
            "failed",
            "failed",
            SimpleReply { error: Some(ErrorCode::Io), cookie: 7 }.encode().to_vec(),
        ),
        ("chunk", "chunk", block_status_chunk(7, 1, &[(4096, 3)])),
        ("runs", "runs", block_status_chunk(7, 1, &[(4096, 3), (8192, 0)])),
        ("error", "error", error),
        ("info", "info", Info::Export { size: 1, flags: 1 }.encode()),
        ("info-request", "info request", info),
        ("queries", "queries", queries),
        ("listed", "listed", encode_listed("a", "b")),
        ("context", "context", encode_context(1, BASE_ALLOCATION)),
        ("greeting", "greeting", greeting().to_vec()),
        ("option", "option", option),
        ("data", "data", ChunkHeader::data(7, 512, 4096, true).to_vec()),
        ("option-reply", "option reply", reply),
    ];
    for (name, wanted, bytes) in cases {
        seed(nbd_requests, "nbd_requests", name, wanted, &drive(all, &bytes));
    }
}
