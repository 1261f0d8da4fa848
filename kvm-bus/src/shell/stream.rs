// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries a segment of the bus: a tty, TCP, or a Unix socket.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kernel_abi::tty_lines;
use nix::fcntl::OFlag;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt, SerialStream};

/// Speed that sockets are taken to have, bits per second.
pub const SOCKET_BAUD: u32 = 10_000_000;
/// Bytes in a socket's buffer until the next frame: its peer may be some milliseconds away.
const SOCKET_AHEAD: usize = 8 << 10;

/// Where a segment goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A serial line.
    Tty {
        /// Its device.
        path: PathBuf,
        /// Bits per second.
        baud: u32,
        /// Whether the driver is to switch a transceiver.
        rs485: bool,
    },
    /// `HOST:PORT`, to which we connect.
    Tcp(String),
    /// `HOST:PORT`, at which we wait for the other end.
    TcpListen(String),
    /// A Unix socket to which we connect.
    Unix(PathBuf),
    /// A Unix socket at which we wait for the other end.
    UnixListen(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tty { path, .. } => write!(f, "{}", path.display()),
            Self::Tcp(place) => write!(f, "tcp:{place}"),
            Self::TcpListen(place) => write!(f, "tcp-listen:{place}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixListen(path) => write!(f, "unix-listen:{}", path.display()),
        }
    }
}

/// An open one.
#[derive(Debug)]
pub enum Stream {
    /// A tty, its speed, and what keeps its RS-485 settings.
    Tty(Box<SerialStream>, u32, #[allow(dead_code, reason = "kept open")] Option<File>),
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Opens it; of those that wait, when the other end comes.
    ///
    /// # Errors
    /// In words, with the remedy.
    pub async fn open(place: &Place) -> Result<Self, String> {
        let plain = |error: io::Error| error.to_string();
        match place {
            Place::Tty { path, baud, rs485 } => open_tty(path, *baud, *rs485),
            Place::Tcp(to) => Self::tcp(TcpStream::connect(to).await.map_err(plain)?),
            Place::TcpListen(at) => {
                let listener = TcpListener::bind(at).await.map_err(plain)?;
                Self::tcp(listener.accept().await.map_err(plain)?.0)
            }
            Place::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await.map_err(plain)?)),
            Place::UnixListen(path) => {
                // One that a former life of ours left.
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path).map_err(plain)?;
                Ok(Self::Unix(listener.accept().await.map_err(plain)?.0))
            }
        }
    }

    fn tcp(stream: TcpStream) -> Result<Self, String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self::Tcp(stream))
    }

    /// Bits per second.
    #[must_use]
    pub fn baud(&self) -> u32 {
        match self {
            Self::Tty(_, baud, _) => *baud,
            Self::Tcp(_) | Self::Unix(_) => SOCKET_BAUD,
        }
    }

    /// Reads what is there; none at the end. Cancel safe.
    ///
    /// # Errors
    /// The line is gone.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tty(tty, ..) => tty.read(buffer).await,
            Self::Tcp(tcp) => tcp.read(buffer).await,
            Self::Unix(unix) => unix.read(buffer).await,
        }
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// The line is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wrote = match self {
            Self::Tty(tty, ..) => tty.try_write(bytes),
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Unix(unix) => unix.try_write(bytes),
        };
        match wrote {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            wrote => wrote,
        }
    }

    /// Whether the next frame may be written: the last has left but for what takes a millisecond.
    ///
    /// # Errors
    /// The line is gone.
    pub fn is_free(&self) -> io::Result<bool> {
        Ok(match self {
            Self::Tty(tty, baud, _) => tty.bytes_to_write()? <= baud / 10_000,
            Self::Tcp(tcp) => tty_lines::unsent(tcp.as_fd())? <= SOCKET_AHEAD,
            Self::Unix(unix) => tty_lines::unsent(unix.as_fd())? <= SOCKET_AHEAD,
        })
    }
}

impl Drop for Stream {
    /// The kernel would wait for half a minute for what nobody takes.
    fn drop(&mut self) {
        if let Self::Tty(tty, ..) = self {
            let _ = tty.clear(ClearBuffer::Output);
        }
    }
}

fn open_tty(path: &Path, baud: u32, rs485: bool) -> Result<Stream, String> {
    let kept = rs485.then(|| set_rs485(path)).transpose()?;
    let name = path.to_str().ok_or("its name is not UTF-8")?;
    // Takes the lock of flock(2) as well: TIOCEXCL alone does not keep root's programs apart.
    let tty = tokio_serial::new(name, baud).open_native_async().map_err(|error| {
        format!("{error}; is it there, is the user in the group of the device, and does nothing else use it?")
    })?;
    let real = tty.baud_rate().map_err(|error| error.to_string())?;
    // Drivers take what they cannot do, and do something else.
    if real != baud {
        return Err(format!(
            "it runs at {real} baud, not at {baud}; set `baud = {real}` at both ends"
        ));
    }
    Ok(Stream::Tty(Box::new(tty), baud, kept))
}

/// Sets DTR and RTS of a line that nobody reads.
///
/// # Errors
/// It has none.
pub fn set_modem_lines(path: &Path, dtr: bool, rts: bool) -> io::Result<()> {
    let flags = (OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    tty_lines::set_modem_lines(file.as_fd(), dtr, rts)
}

fn set_rs485(path: &Path) -> Result<File, String> {
    let flags = (OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| error.to_string())?;
    tty_lines::enable_rs485(file.as_fd()).map_err(|error| {
        format!("its driver cannot switch RS-485 ({error}); take `rs485` out if the adapter does it by itself")
    })?;
    Ok(file)
}
