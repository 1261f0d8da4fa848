// SPDX-License-Identifier: MIT OR Apache-2.0
//! The running program, and requests that are right, wrong and hostile.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;

use common::{Client, Server, image};
use usb_gadget_drive::nbd::MAX_SERVED;
use usb_gadget_drive::nbd::reply::{DONE, chunk};
use usb_gadget_drive::nbd::request::{command, flag};

const MIB: u64 = 1 << 20;

/// A drive of 64 MiB as `d`, and read-only as `r`.
fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "d.img", 64);
    let shares = [format!("d={}", path.display()), format!("r={}:ro", path.display())];
    Server::start(dir, &shares.map(|share| format!("--share={share}")))
}

#[test]
fn what_is_written_is_read_by_all() {
    let server = server();
    let (mut one, mut other) = (server.client("d"), server.client("r"));
    assert_eq!(one.size, 64 * MIB);
    // Small, large and across pages; the last as large as may be.
    for (offset, len) in [(512, 512_usize), (MIB + 100, 3 << 20), (32 * MIB - 1, 32 << 20)] {
        let data: Vec<u8> = (0..=250).cycle().take(len).collect();
        let flags = if len == 512 { flag::FUA } else { 0 };
        assert_eq!(one.write(offset, &data, flags), 0);
        assert!(other.read(offset, len as u32).unwrap() == data, "{len} at {offset}");
    }
    assert_eq!(one.ask(command::FLUSH, 0, 0, 0), 0);
    assert_eq!(one.ask(command::WRITE_ZEROES, flag::NO_HOLE, 4096, 8192), 0);
    assert_eq!(one.ask(command::TRIM, flag::FUA, 16384, 4096), 0);
    assert_eq!(other.read(4096, 8192).unwrap(), [0; 8192]);
    assert_eq!(other.ask(command::FLUSH, 0, 0, 0), 0);
    one.send(command::DISC, 0, 0, 0, b"");
    assert!(one.is_ended());
}

#[test]
fn wrong_requests_get_errors_and_the_next_is_served() {
    let server = server();
    let mut c = server.client("d");
    assert_eq!(c.ask(77, 0, 0, 1), 22, "an unknown command");
    assert_eq!(c.ask(command::FLUSH, 1 << 12, 0, 0), 22, "an unknown flag");
    assert_eq!(c.read(64 * MIB - 1, 2), Err(22), "beyond the end");
    assert_eq!(c.read(u64::MAX, 2), Err(22));
    assert_eq!(c.ask(command::READ, 0, 0, MAX_SERVED + 1), 75);
    assert_eq!(c.ask(command::READ, 0, 0, 0), 22, "nothing");
    assert_eq!(c.write(64 * MIB - 1, &[1, 2], 0), 28);
    assert_eq!(c.write(0, &vec![1; MAX_SERVED as usize + 1], 0), 22, "too long, and passed over");
    assert_eq!(c.ask(command::BLOCK_STATUS, 0, 0, 4096), 22, "not agreed on");
    assert_eq!(c.read(64 * MIB - 1, 1).unwrap().len(), 1);

    let mut r = server.client("r");
    assert_eq!(r.write(0, &[9; 4096], 0), 1);
    assert_eq!(r.ask(command::TRIM, 0, 0, 4096), 1);
    assert_eq!(r.ask(command::WRITE_ZEROES, 0, 0, 4096), 1);
    assert_eq!(r.read(0, 1).unwrap(), c.read(0, 1).unwrap());

    c.send(command::WRITE, 0, 0, u32::MAX, b"");
    assert!(c.is_ended(), "4 GiB are not passed over");
    r.stream.write_all(&[0; 28]).unwrap();
    assert!(r.is_ended(), "no request begins so");
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let server = server();
    let mut c = server.client("d");
    let mut batch = vec![];
    for n in 0..500_u64 {
        let request = usb_gadget_drive::nbd::request::Request {
            flags: if n % 7 == 0 { flag::FUA } else { 0 },
            command: if n % 3 == 0 { command::WRITE } else { command::FLUSH },
            cookie: n,
            offset: if n % 3 == 0 { n * 4096 } else { 0 },
            len: if n % 3 == 0 { 4096 } else { 0 },
        };
        batch.extend(request.encode());
        batch.extend(std::iter::repeat_n(n as u8, request.payload() as usize));
    }
    c.stream.write_all(&batch).unwrap();
    let mut answered: Vec<u64> = (0..500)
        .map(|_| c.reply())
        .map(|(error, n)| {
            assert_eq!(error, 0);
            n ^ 0x55
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..500).collect::<Vec<_>>());
    assert_eq!(c.read(99 * 4096, 1).unwrap(), [99]);
}

#[test]
fn a_large_structured_read_comes_in_chunks_unless_it_must_not() {
    let server = server();
    let stream = UnixStream::connect(server.socket()).unwrap();
    let mut c = Client::go(stream, "d", true);
    let expected = server.client("d").read(5000, 1 << 20).unwrap();
    for (flags, single) in [(0, false), (flag::DF, true)] {
        c.send(command::READ, flags, 5000, 1 << 20, b"");
        let mut data = vec![0; 1 << 20];
        let mut chunks = 0;
        loop {
            let (header, body) = c.chunk();
            assert_eq!(header.kind, chunk::OFFSET_DATA);
            let at = u64::from_be_bytes(body[..8].try_into().unwrap()) as usize - 5000;
            data[at..at + body.len() - 8].copy_from_slice(&body[8..]);
            chunks += 1;
            if header.flags & DONE != 0 {
                break;
            }
        }
        assert!(data == expected);
        assert_eq!(chunks == 1, single);
    }
    c.send(command::READ, 0, u64::MAX, 1, b"");
    assert_eq!(c.chunk().0.kind, chunk::ERROR);
}

#[test]
fn a_file_that_shrinks_gives_errors_and_the_server_lives() {
    let server = server();
    let mut c = server.client("d");
    let file = File::options().write(true).open(server.dir.path().join("d.img")).unwrap();
    file.set_len(MIB).unwrap();
    assert_eq!(c.read(2 * MIB, 4096), Err(5));
    assert_eq!(c.ask(command::FLUSH, 0, 0, 0), 5);
    assert_eq!(c.write(2 * MIB, &[1; 512], 0), 5);
    assert_eq!(c.read(0, 4096).unwrap().len(), 4096);
}

#[test]
fn a_client_that_reads_nothing_holds_nobody() {
    let server = server();
    let mut deaf = server.client("d");
    for n in 0..64 {
        deaf.send(command::READ, 0, n * MIB, 1 << 20, b"");
    }
    let mut c = server.client("d");
    for n in 0..64 {
        assert_eq!(c.read(n * MIB, 4096).unwrap().len(), 4096);
    }
    // And it gets its own when it wants to.
    assert_eq!(deaf.reply(), (0, 0));
}

#[test]
fn a_missing_file_is_refused_until_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("late.img");
    let server = Server::start(dir, &[format!("--share=d={}", path.display())]);
    let stream = UnixStream::connect(server.socket()).unwrap();
    assert!(Client::try_go(stream, "d", false).is_err());
    image(server.dir.path(), "late.img", 1);
    assert_eq!(server.client("d").size, MIB);
}
