// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ipmi-mux reserve`: runs a program with commands of the BMC for itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::client::{Client, Lines};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::{Granted, ReserveRequest};
use crate::args::ReserveArgs;

/// Tells the program the number of its node.
pub const NODE_VARIABLE: &str = "IPMI_MUX_NODE";
/// Longer than the daemon waits for a node to appear.
const GRANTED_WITHIN: Duration = Duration::from_secs(15);
/// The daemon notices the end at once; nobody waits long for one that is stuck.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// Between looks at a node that is to go.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Exit statuses of a shell for a program that is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Reserves, runs the program to its end, and gives back. Returns the exit status for the verb: the
/// program's, 128 + signal, or 126 and 127 as shells do.
///
/// # Errors
/// What kept it from reserving.
pub async fn run(args: &ReserveArgs) -> anyhow::Result<u8> {
    let request =
        ReserveRequest { commands: args.commands.iter().map(ToString::to_string).collect() };
    // Before the reservation: from there on a signal must not end us before the program.
    let mut signals = Forwarded::new().context("cannot handle signals")?;
    let client = Client::new("ipmi-mux", &args.socket).with_timeout(GRANTED_WITHIN);
    let mut held = client.post_lines("/v1/reserve", &request).await?;
    let first = held.next().await?.context("the daemon ended the reservation at once")?;
    let granted: Granted =
        serde_json::from_str(&first).context("the daemon's answer makes no sense")?;
    // To tell it from another's who gets the number next.
    let device = std::fs::metadata(&granted.node).ok().map(|found| found.rdev());
    let number = granted.number.to_string();
    let (program, words) = args.program.split_first().expect("clap demands a program");
    let spawned = Command::new(program)
        .args(words.iter().map(|word| fill_in(word, &number)))
        .env(NODE_VARIABLE, &number)
        .spawn();
    let status = match spawned {
        Ok(child) => Ok(shell_status(wait(child, &mut held, &mut signals).await?)),
        Err(error) => {
            eprintln!("ipmi-mux: cannot run {}: {error}", Path::new(program).display());
            let missing = error.kind() == io::ErrorKind::NotFound;
            Ok(if missing { NOT_FOUND } else { NOT_EXECUTABLE })
        }
    };
    drop(held);
    // What follows in a script finds the commands free again.
    let gone = async {
        let still = || std::fs::metadata(&granted.node).ok().map(|found| found.rdev()) == device;
        while device.is_some() && still() {
            sleep(LOOK_EVERY).await;
        }
    };
    let _ = timeout(GONE_WITHIN, gone).await;
    status
}

/// Each `{}` becomes the number.
fn fill_in(word: &OsStr, number: &str) -> OsString {
    let mut rest = word.as_bytes();
    let mut filled = vec![];
    while let Some(at) = rest.windows(2).position(|pair| pair == b"{}") {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(number.as_bytes());
        rest = &rest[at + 2..];
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}

/// Signals that are not to end us before the program.
struct Forwarded {
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl Forwarded {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next signal that the program has not had from the terminal already.
    async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Signal::SIGTERM,
                _ = self.hang_up.recv() => return Signal::SIGHUP,
                // From a key: the terminal sends them to the whole process group.
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
            }
        }
    }
}

async fn wait(
    mut child: Child,
    held: &mut Lines,
    signals: &mut Forwarded,
) -> anyhow::Result<ExitStatus> {
    let mut is_held = true;
    loop {
        tokio::select! {
            status = child.wait() => return status.context("cannot wait for the program"),
            signal = signals.next() => {
                // No id once it has been waited for.
                if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
                    let _ = kill(Pid::from_raw(pid), signal);
                }
            }
            line = held.next(), if is_held => {
                if !matches!(line, Ok(Some(_))) {
                    is_held = false;
                    eprintln!("ipmi-mux: the reservation has ended, and the node is gone; see: journalctl -u ipmi-mux");
                }
            }
        }
    }
}

fn shell_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_braces_becomes_the_number() {
        for (word, filled) in [
            ("{}", "12"),
            ("/dev/ipmi/{}", "/dev/ipmi/12"),
            ("{}{}x{", "1212x{"),
            ("-d", "-d"),
            ("", ""),
        ] {
            assert_eq!(fill_in(OsStr::new(word), "12"), OsStr::new(filled), "{word}");
        }
        let odd = OsStr::from_bytes(b"\xff{}");
        assert_eq!(fill_in(odd, "1").as_bytes(), b"\xff1", "text that is no UTF-8 is passed on");
    }

    #[test]
    fn the_status_is_what_a_shell_would_say() {
        assert_eq!(shell_status(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(shell_status(ExitStatus::from_raw(9)), 137);
        assert_eq!(shell_status(ExitStatus::from_raw(0x80 | 11)), 139);
    }
}
