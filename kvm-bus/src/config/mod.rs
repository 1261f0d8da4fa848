// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/kvm-bus-rmm.toml` and `/etc/midplane/kvm-bus-lmc.toml`.

pub mod format;
pub mod lmc;
pub mod rmm;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use daemon_kit::config::{ConfigError, Source, Spanned};
use serde::Deserialize;

use crate::shell::stream::Place;

/// Speed of the bus unless told, bits per second: what every serial line can do.
pub const DEFAULT_BAUD: u32 = 115_200;

/// What helps who would have metrics elsewhere.
const METRICS: &str = "whoever reaches it reads it: listen on loopback, and have what asks for an account in front of it";

/// How the lines of a bus are set.
#[derive(Debug, Clone, Copy)]
struct LineSettings {
    baud: u32,
    rs485: bool,
    insecure: bool,
}

/// Where a line goes: the path of a device, or `tcp:HOST:PORT`, `tcp-listen:HOST:PORT`, `unix:PATH`, `unix-listen:PATH`.
fn place(
    text: Option<&Spanned<String>>,
    settings: LineSettings,
    source: &Source,
) -> Result<Option<Place>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let invalid = |message: String, remedy| source.error_at(text.span(), message, remedy);
    let LineSettings { baud, rs485, insecure } = settings;
    let (kind, rest) = text.get_ref().split_once(':').unwrap_or(("tty", text.get_ref()));
    let place = match kind {
        "tty" if rest.starts_with("/dev/") => Place::Tty { path: rest.into(), baud, rs485 },
        "unix" if rest.starts_with('/') => Place::Unix(rest.into()),
        "unix-listen" if rest.starts_with('/') => Place::UnixListen(rest.into()),
        "tcp" | "tcp-listen"
            if rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
        {
            if !insecure && !is_loopback(rest) {
                let remedy = "bind it to loopback behind a tunnel, or set `insecure = true` on a network where all are trusted";
                return Err(invalid(format!("whoever reaches {rest} has every console"), remedy));
            }
            if kind == "tcp" { Place::Tcp(rest.into()) } else { Place::TcpListen(rest.into()) }
        }
        _ => {
            let remedy = "write a device such as /dev/ttyS1, or tcp:HOST:PORT, tcp-listen:HOST:PORT, unix:PATH, unix-listen:PATH";
            return Err(invalid(format!("`{}` is no line", text.get_ref()), remedy));
        }
    };
    Ok(Some(place))
}

/// Names are not looked up: one that is not an address of this machine is not loopback.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    host == "localhost"
        || address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

/// A listener's address, of loopback.
fn listen(
    text: &Spanned<String>,
    source: &Source,
    why: &'static str,
) -> Result<SocketAddr, ConfigError> {
    let found = text.get_ref().to_socket_addrs().ok().and_then(|mut all| all.next());
    let Some(address) = found else {
        let message = format!("`{}` is no address", text.get_ref());
        return Err(source.error_at(
            text.span(),
            message,
            "write ADDRESS:PORT, such as 127.0.0.1:7422",
        ));
    };
    if !address.ip().is_loopback() {
        return Err(source.error_at(text.span(), format!("{address} is beyond loopback"), why));
    }
    Ok(address)
}

/// `"none"`, or a device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Device {
    /// Not used.
    None,
    /// What there is.
    Auto,
    /// This one.
    Path(PathBuf),
}

impl From<String> for Device {
    fn from(text: String) -> Self {
        match text.as_str() {
            "none" => Self::None,
            "auto" => Self::Auto,
            path => Self::Path(path.into()),
        }
    }
}
