// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::agent::args::AgentArgs;
use crate::arbiter::{BladeName, ShareName};
use crate::link::message::Kind;
use crate::source::place::Place;
use crate::source::uri::UriError;

/// One drive for many blades, and many drives for one blade.
#[derive(Debug, Parser)]
#[command(name = "usb-gadget-drive", version, after_help = "Manual: usb-gadget-drive(8)")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve shares by NBD, and say which blade has which (what the systemd unit runs)
    Serve(ServeArgs),
    /// Present drives to the host at a USB device controller (what the systemd unit runs)
    Agent(AgentArgs),
    /// Check the configuration and say what it means
    Check {
        /// That of an agent, and its certificate [default: /etc/midplane/usb-gadget-drive-agent.toml]
        #[arg(long)]
        agent: bool,
        /// Which.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show shares, blades and drives
    Status {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the shares
    Shares {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Have a blade's host see a share as a drive
    Insert {
        /// The share
        share: ShareName,
        /// The blade
        blade: BladeName,
        /// As what the host sees it [default: as configured]
        #[arg(long = "as", value_name = "KIND")]
        kind: Option<Kind>,
        /// The host may not write
        #[arg(long)]
        read_only: bool,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take a drive away from a blade's host
    Eject {
        /// The share
        share: ShareName,
        /// The blade
        blade: BladeName,
        /// Even if the host uses it
        #[arg(long)]
        force: bool,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Put one share in the place of another
    Swap {
        /// The share that goes
        old: ShareName,
        /// The share that comes
        new: ShareName,
        /// The blade
        blade: BladeName,
        /// Even if the host uses the old one
        #[arg(long)]
        force: bool,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Give an exclusive share to another writer
    Handover {
        /// The share
        share: ShareName,
        /// The blade that is to have it
        to: BladeName,
        /// Only if this blade has it now
        #[arg(long, value_name = "BLADE")]
        from: Option<BladeName>,
        /// Even if the host that has it uses it
        #[arg(long)]
        force: bool,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// What blades wrote to private shares
    Overlay {
        /// What to do with it.
        #[command(subcommand)]
        what: OverlayCommand,
    },
    /// Make the certificates with which servers and blades know one another
    Cert {
        /// Folder of the authority's and the server's certificates
        #[arg(long, value_name = "DIR", default_value = "/etc/midplane/usb-gadget-drive/tls")]
        dir: PathBuf,
        /// For whom.
        #[command(subcommand)]
        whom: CertFor,
    },
}

/// What to do with overlays.
#[derive(Debug, Subcommand)]
pub enum OverlayCommand {
    /// List them
    List {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Write what a blade wrote to the share, for all
    Commit {
        /// The share
        share: ShareName,
        /// The blade
        blade: BladeName,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Forget what a blade wrote
    Discard {
        /// The share
        share: ShareName,
        /// The blade
        blade: BladeName,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Subcommand)]
pub enum CertFor {
    /// Make the authority, which signs all others
    Ca,
    /// Make this server's certificate
    Server {
        /// Name or address at which blades reach it
        name: String,
    },
    /// Make a blade's certificate, in a folder of its name to be copied there
    Client {
        /// Name under which it has rights
        name: String,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigArg {
    /// Configuration file [default: /etc/midplane/usb-gadget-drive.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How to ask the daemon.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Control socket of the daemon
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/midplane/usb-gadget-drive/control.sock"
    )]
    pub socket: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// What to serve, and where.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Serve a file, block device or NBD URI under a name, and nothing else: no configuration, no agents, no leases
    #[arg(long = "share", value_name = "NAME=PLACE[:ro]", value_parser = share, conflicts_with = "config")]
    pub shares: Vec<NamedShare>,
    /// Listen on TCP; beyond loopback this takes --tls
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Listen on a Unix socket
    #[arg(long, value_name = "PATH")]
    pub unix: Vec<PathBuf>,
    /// Serve the one client that is connected to standard input
    #[arg(long, conflicts_with_all = ["listen", "unix"], requires = "shares")]
    pub stdin: bool,
    /// Folder with ca-cert.pem, server-cert.pem and server-key.pem
    #[arg(long, value_name = "DIR")]
    pub tls: Option<PathBuf>,
}

/// A share of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedShare {
    /// Of the export.
    pub name: String,
    /// Where its blocks are.
    pub place: Place,
    /// Whether clients may write.
    pub writable: bool,
}

fn share(text: &str) -> Result<NamedShare, String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=PATH")?;
    let (path, writable) = path.strip_suffix(":ro").map_or((path, true), |path| (path, false));
    let place = match path {
        "" => return Err("the path is missing".to_owned()),
        uri if uri.contains("://") => Place::Nbd(uri.parse().map_err(|e: UriError| e.to_string())?),
        path => Place::File(path.into()),
    };
    Ok(NamedShare { name: name.to_owned(), place, writable })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_share_is_a_name_a_path_and_perhaps_a_mode() {
        let read_only = share("a=/x=y:ro").unwrap();
        assert_eq!(
            read_only,
            NamedShare { name: "a".into(), place: Place::File("/x=y".into()), writable: false }
        );
        assert!(share("=b").unwrap().writable);
        assert!(matches!(share("a=nbd://h/e").unwrap().place, Place::Nbd(_)));
        assert!(share("a=http://h/e").is_err());
        assert!(share("a").is_err() && share("a=").is_err() && share("a=:ro").is_err());
    }
}
