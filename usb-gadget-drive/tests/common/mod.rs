// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as a process, and a client that says what no other one would.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use usb_gadget_drive::nbd::option::{InfoRequest, OptionReply, opt, push_option, rep};
use usb_gadget_drive::nbd::reply::{ChunkHeader, ReplyHeader};
use usb_gadget_drive::nbd::request::Request;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_usb-gadget-drive");
/// For everything that must come.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Fails unless a client is installed.
pub fn need(program: &str) {
    let found = Command::new(program).arg("--version").output().is_ok();
    assert!(found, "{program} is not installed: run tests/lab/setup");
}

/// A server that ends with its test.
pub struct Server {
    child: Child,
    pub dir: tempfile::TempDir,
}

impl Server {
    /// Serves what `arguments` say on a Unix socket, and on whatever else they say.
    pub fn start(dir: tempfile::TempDir, arguments: &[String]) -> Self {
        let socket = dir.path().join("sock");
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("--unix").arg(&socket).args(arguments);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let server = Self { child, dir };
        wait_for("the socket", || UnixStream::connect(&socket).is_ok());
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    pub fn client(&self, export: &str) -> Client {
        Client::go(UnixStream::connect(self.socket()).unwrap(), export, false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The standard output of what must succeed.
pub fn good(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}

/// A file of so many MiB, with something different in each block.
pub fn image(dir: &Path, name: &str, mib: usize) -> PathBuf {
    let path = dir.join(name);
    let blocks: Vec<_> = (0..mib * 256).map(|n| [(n % 251) as u8 + 1; 4096]).collect();
    std::fs::write(&path, blocks.as_flattened()).unwrap();
    path
}

/// A client without TLS that has chosen an export.
pub struct Client {
    pub stream: UnixStream,
    pub size: u64,
}

impl Client {
    pub fn go(stream: UnixStream, export: &str, structured: bool) -> Self {
        Self::try_go(stream, export, structured).unwrap()
    }

    /// Fails where the connection ends, and where the export is refused.
    pub fn try_go(mut stream: UnixStream, export: &str, structured: bool) -> io::Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        let mut out = vec![0, 0, 0, 3];
        if structured {
            push_option(&mut out, opt::STRUCTURED_REPLY, b"");
        }
        push_option(&mut out, opt::GO, &InfoRequest { name: export, infos: vec![] }.encode());
        stream.write_all(&out)?;
        let mut size = 0;
        loop {
            let mut header = [0; OptionReply::LEN];
            stream.read_exact(&mut header)?;
            let header = OptionReply::decode(&header).unwrap();
            let mut body = vec![0; header.len as usize];
            stream.read_exact(&mut body)?;
            match (header.option, header.kind) {
                (_, rep::INFO) => size = u64::from_be_bytes(body[2..10].try_into().unwrap()),
                (opt::GO, rep::ACK) => return Ok(Self { stream, size }),
                (opt::STRUCTURED_REPLY, rep::ACK) => {}
                refused => return Err(io::Error::other(format!("{refused:x?}"))),
            }
        }
    }

    pub fn send(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) {
        let request = Request { flags, command, cookie: offset ^ 0x55, offset, len };
        self.stream.write_all(&[&request.encode()[..], payload].concat()).unwrap();
    }

    /// The error of the next simple reply, 0 for none, and the offset of its request.
    pub fn reply(&mut self) -> (u32, u64) {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        match ReplyHeader::decode(&header).unwrap() {
            Some(ReplyHeader::Simple(reply)) => {
                (reply.error.map_or(0, |code| code as u32), reply.cookie ^ 0x55)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Asks for something without data, and returns its error.
    pub fn ask(&mut self, command: u16, flags: u16, offset: u64, len: u32) -> u32 {
        self.send(command, flags, offset, len, b"");
        self.reply().0
    }

    pub fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, u32> {
        self.send(0, 0, offset, len, b"");
        match self.reply().0 {
            0 => {
                let mut data = vec![0; len as usize];
                self.stream.read_exact(&mut data).unwrap();
                Ok(data)
            }
            error => Err(error),
        }
    }

    pub fn write(&mut self, offset: u64, data: &[u8], flags: u16) -> u32 {
        self.send(1, flags, offset, data.len() as u32, data);
        self.reply().0
    }

    /// The next chunk of a structured reply.
    pub fn chunk(&mut self) -> (ChunkHeader, Vec<u8>) {
        let mut header = [0; ChunkHeader::LEN];
        self.stream.read_exact(&mut header).unwrap();
        let Some(ReplyHeader::Chunk(header)) = ReplyHeader::decode(&header).unwrap() else {
            panic!("no chunk");
        };
        let mut body = vec![0; header.len as usize];
        self.stream.read_exact(&mut body).unwrap();
        (header, body)
    }

    /// Whether the server has ended the connection.
    pub fn is_ended(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}
