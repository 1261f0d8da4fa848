// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a daemon tells systemd (sd_notify(3)); without systemd all of it does nothing.
//!
//! A message that cannot be sent is logged and forgotten: systemd has its own timeouts.

use std::time::Duration;

use sd_notify::NotifyState;

/// Start-up is done; `status` is the line that `systemctl status` shows.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Changes the line that `systemctl status` shows.
pub fn status(status: &str) {
    send(&[NotifyState::Status(&one_line(status))]);
}

/// A reload begins; [`ready`] ends it. Carries the time that `Type=notify-reload` asks for.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(err) => tracing::warn!(%err, "cannot read the monotonic clock"),
    }
}

/// An orderly stop begins.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The watchdog that `WatchdogSec=` of the unit asks for. The daemon's main loop kicks it, so
/// that a loop that is stuck is found; a task or thread of its own would hide that.
#[derive(Debug, Clone, Copy)]
pub struct Watchdog {
    interval: Duration,
}

impl Watchdog {
    /// The watchdog, if systemd set one for this process.
    pub fn from_env() -> Option<Self> {
        sd_notify::watchdog_enabled().map(|limit| Self { interval: limit / 2 })
    }

    /// How often to [`kick`](Self::kick): half of the time after which systemd acts.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Tells systemd that the loop turns.
    pub fn kick(&self) {
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(states) {
        tracing::warn!(%err, "cannot notify systemd");
    }
}

/// A line break in a status would begin another assignment of the protocol.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    /// Runs in a process of its own, because changing the environment of this one is unsafe.
    #[test]
    #[ignore = "run by messages_reach_systemd"]
    fn child() {
        ready("up\nWATCHDOG=1");
        reloading();
        status("x");
        stopping();
        let watchdog = Watchdog::from_env().unwrap();
        assert_eq!(watchdog.interval(), Duration::from_secs(1));
        watchdog.kick();
    }

    #[test]
    fn messages_reach_systemd() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "notify::tests::child", "--ignored"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "2000000")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let next = || {
            let mut buffer = [0; 256];
            let length = systemd.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(next(), "READY=1\nSTATUS=up WATCHDOG=1\n");
        assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(next(), "STATUS=x\n");
        assert_eq!(next(), "STOPPING=1\n");
        assert_eq!(next(), "WATCHDOG=1\n");
    }

    #[test]
    fn without_systemd_nothing_happens() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            ready("up");
            assert!(Watchdog::from_env().is_none());
        }
    }
}
