// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bmc-sim ctl`: one command to a running simulator, over its control socket or a serial port.
//!
//! In a guest the way to the simulator is a virtio port, a character device that one process may
//! have open at a time; others wait their turn. What a killed predecessor left unread in it is told
//! apart by the tag of each answer.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use thiserror::Error;

use crate::args::Ctl;

/// The virtio port of a guest whose simulator runs on the host.
pub const VIRTIO_PORT: &str = "/dev/virtio-ports/org.midplane.bmc";
/// The control socket of a simulator on this machine.
pub const SOCKET: &str = "/run/bmc-sim.sock";

/// How often a port in use is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum CtlError {
    /// No such socket, or nobody behind it.
    #[error("cannot reach the simulator at {path}; is `bmc-sim serve` running with this control?")]
    Reach {
        /// Socket or port.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process keeps the port.
    #[error("{path} stayed in use by another process")]
    InUse {
        /// The port.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the connection to the simulator at {path} broke")]
    Broken {
        /// Socket or port.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// Nothing came in time.
    #[error("no answer from the simulator at {path} within {seconds} s")]
    Silent {
        /// Socket or port.
        path: PathBuf,
        /// How long we waited.
        seconds: u32,
    },
}

/// Sends the command and returns the answer: a JSON object with `ok`.
///
/// # Errors
/// No simulator, or no answer in time. A refused command is an answer.
pub fn run(options: &Ctl) -> Result<Value, CtlError> {
    let path = options.to.clone().unwrap_or_else(default_path);
    let deadline = Instant::now() + Duration::from_secs(u64::from(options.timeout));
    let stream = open(&path, deadline)?;
    let tag = tag();
    let line = format!("@{tag} {}\n", options.words.join(" "));
    let (sender, receiver) = mpsc::channel();
    // A virtio port has no read timeout; a thread that is left behind ends with the process.
    std::thread::spawn(move || sender.send(exchange(stream, &line, &tag)));
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(answer) => answer.map_err(|source| CtlError::Broken { path, source }),
        Err(_) => Err(CtlError::Silent { path, seconds: options.timeout }),
    }
}

fn default_path() -> PathBuf {
    let port = Path::new(VIRTIO_PORT);
    let is_port = std::fs::metadata(port).is_ok_and(|meta| meta.file_type().is_char_device());
    if is_port { port.into() } else { SOCKET.into() }
}

/// Unlike any tag of another process, now or before.
fn tag() -> String {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), time.as_nanos())
}

/// Socket or port.
enum Stream {
    Socket(UnixStream),
    Port(File),
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => (&*socket).read(buffer),
            Stream::Port(port) => (&*port).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => (&*socket).write(bytes),
            Stream::Port(port) => (&*port).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path, deadline: Instant) -> Result<Stream, CtlError> {
    let reach = |source| CtlError::Reach { path: path.to_owned(), source };
    let kind = std::fs::metadata(path).map_err(reach)?.file_type();
    if kind.is_socket() {
        return UnixStream::connect(path).map(Stream::Socket).map_err(reach);
    }
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(port) => return Ok(Stream::Port(port)),
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(reach(error)),
            Err(_) if Instant::now() >= deadline => {
                return Err(CtlError::InUse { path: path.to_owned() });
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

/// Sends the line and reads answers until the one with our tag.
fn exchange(stream: Stream, line: &str, tag: &str) -> io::Result<Value> {
    (&stream).write_all(line.as_bytes())?;
    let mut reader = BufReader::new(&stream);
    loop {
        let mut answer = String::new();
        if reader.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The end of an answer that a predecessor had begun to read is no JSON.
        let Ok(Value::Object(mut members)) = serde_json::from_str(&answer) else { continue };
        if members.get("tag").is_some_and(|found| found == tag) {
            members.remove("tag");
            return Ok(Value::Object(members));
        }
    }
}
