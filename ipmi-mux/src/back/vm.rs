// SPDX-License-Identifier: MIT OR Apache-2.0
//! A BMC simulator over the VM serial protocol: no kernel driver in between. Lost connections are made again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use super::vm_link::VmLink;
use super::{BackEvent, Events};
use crate::config::BmcAddress;
use crate::mux::{Outgoing, Token};

/// Requests with the simulator at a time: one whose reply is lost must not stop the others until its
/// deadline.
pub const WINDOW: usize = 8;
/// Between attempts to connect.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// The way to a simulator; [`Vm::run`] does the work.
#[derive(Debug)]
pub struct Vm {
    shared: Arc<Shared>,
    /// There is no driver to keep it.
    pub(super) maintenance_mode: i32,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The connection, while there is one.
    link: Option<VmLink>,
    events: bool,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Vm {
    /// A way that is not connected yet.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::default(), maintenance_mode: 0 }
    }

    pub(super) fn send(&mut self, out: &Outgoing) -> Result<(), Errno> {
        let sent = self.shared.with(|s| match &mut s.link {
            Some(link) => link.send(out),
            None => Err(Errno::EAGAIN),
        });
        self.shared.wake.notify_one();
        sent
    }

    pub(super) fn forget(&mut self, token: Token) {
        self.shared.with(|s| {
            if let Some(link) = &mut s.link {
                link.forget(token);
            }
        });
    }

    pub(super) fn set_gets_events(&mut self, on: bool) -> Result<(), Errno> {
        self.shared.with(|s| {
            s.events = on;
            if let Some(link) = &mut s.link {
                link.set_events(on);
            }
        });
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Connects, carries bytes both ways, connects again; for ever.
    pub fn run(&self, address: BmcAddress, events: Events) -> impl Future<Output = ()> + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                let ended = match &address {
                    BmcAddress::Tcp(to) => match TcpStream::connect(to).await {
                        Ok(stream) => {
                            let _ = stream.set_nodelay(true);
                            carry(stream, &shared, &events).await
                        }
                        Err(error) => Err(error),
                    },
                    BmcAddress::Unix(path) => match UnixStream::connect(path).await {
                        Ok(stream) => carry(stream, &shared, &events).await,
                        Err(error) => Err(error),
                    },
                    BmcAddress::Device(_) => return,
                };
                if let Err(error) = ended {
                    tracing::debug!(bmc = %address, %error, "no connection to the BMC");
                }
                if shared.with(|s| s.link.take()).is_some() {
                    let _ = events.send(BackEvent::Reachable(false)).await;
                }
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self::new()
    }
}

async fn carry(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Shared,
    events: &Events,
) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    shared.with(|s| s.link = Some(VmLink::new(s.events)));
    let _ = events.send(BackEvent::Reachable(true)).await;
    let mut input = [0u8; 1024];
    loop {
        let output = shared.with(|s| s.link.as_mut().map(|l| std::mem::take(&mut l.output)));
        if let Some(bytes) = output.filter(|bytes| !bytes.is_empty()) {
            writer.write_all(&bytes).await?;
            continue;
        }
        let len = tokio::select! {
            read = reader.read(&mut input) => read?,
            () = shared.wake.notified() => continue,
        };
        if len == 0 {
            return Ok(());
        }
        let reports = shared.with(|s| {
            let link = s.link.as_mut()?;
            link.handle_input(&input[..len]);
            Some(std::mem::take(&mut link.reports))
        });
        for report in reports.unwrap_or_default() {
            if events.send(report).await.is_err() {
                return Ok(());
            }
        }
    }
}
