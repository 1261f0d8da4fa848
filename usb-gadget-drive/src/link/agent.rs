// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blade's end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::lines::LineReader;
use super::message::{Drive, Failure, FromAgent, Order, ToAgent, encode, to_agent};
use super::{ALIVE_EVERY, MAX_WAITING, PROTOCOL, SILENT_FOR};

/// Between attempts to connect.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where the manager is and how it is known.
#[derive(Debug, Clone)]
pub struct Manager {
    /// `HOST:PORT`.
    pub address: String,
    /// The name in its certificate.
    pub name: ServerName<'static>,
    /// With the agent's certificate.
    pub tls: Arc<ClientConfig>,
}

/// An order, and where its result goes.
#[derive(Debug)]
pub struct Ordered {
    /// What to do.
    pub what: Order,
    /// To be answered; that nobody listens any more is fine.
    pub answer: Answer,
}

/// Answers one order.
#[derive(Debug)]
pub struct Answer {
    order: u64,
    sender: mpsc::Sender<FromAgent>,
}

impl Answer {
    /// Tells how it went.
    pub fn send(self, result: Result<(), Failure>) {
        let failure = result.err();
        // A link that is so far behind is about to be cut; what there is is told with the next hello.
        let _ = self.sender.try_send(FromAgent::Done { order: self.order, failure });
    }
}

/// Keeps a link to the manager: hands its orders on, tells it of the drives as they change. Ends when nobody takes
/// orders any more.
pub async fn keep(
    manager: Manager,
    udc: String,
    mut drives: watch::Receiver<Vec<Drive>>,
    orders: mpsc::Sender<Ordered>,
) {
    let mut told = String::new();
    while !orders.is_closed() {
        let ended = match run(&manager, &udc, &mut drives, &orders).await {
            Ok(()) => "it ended the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        // Once, not each second.
        if ended != told {
            tracing::warn!(
                manager = manager.address,
                reason = ended,
                "not connected; trying again"
            );
            told = ended;
        }
        sleep(AGAIN_AFTER).await;
    }
}

async fn run(
    manager: &Manager,
    udc: &str,
    drives: &mut watch::Receiver<Vec<Drive>>,
    orders: &mpsc::Sender<Ordered>,
) -> io::Result<()> {
    let stream = timeout(SILENT_FOR, TcpStream::connect(&manager.address)).await??;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(&manager.tls));
    let stream = timeout(SILENT_FOR, connector.connect(manager.name.clone(), stream)).await??;
    let (reader, mut writer) = split(stream);
    let mut lines = LineReader::new(reader);
    let (sender, mut answers) = mpsc::channel(MAX_WAITING);
    let hello = FromAgent::Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        udc: udc.to_owned(),
        drives: drives.borrow_and_update().clone(),
    };
    let write = async {
        timeout(SILENT_FOR, writer.write_all(&encode(&hello))).await??;
        loop {
            let message = tokio::select! {
                Some(answer) = answers.recv() => answer,
                Ok(()) = drives.changed() => {
                    FromAgent::Drives { drives: drives.borrow_and_update().clone() }
                }
                () = sleep(ALIVE_EVERY) => FromAgent::Alive,
            };
            timeout(SILENT_FOR, writer.write_all(&encode(&message))).await??;
        }
    };
    let read = async {
        while let Some(line) = lines.next().await? {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            match to_agent(&line).map_err(invalid)? {
                ToAgent::Welcome { version, blade } => {
                    tracing::info!(manager = manager.address, version, %blade, "connected");
                }
                ToAgent::Refused { reason } => return Err(io::Error::other(reason)),
                ToAgent::Order { order, what } => {
                    let answer = Answer { order, sender: sender.clone() };
                    if orders.send(Ordered { what, answer }).await.is_err() {
                        return Ok(());
                    }
                }
                ToAgent::Alive => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}
