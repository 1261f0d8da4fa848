// SPDX-License-Identifier: MIT OR Apache-2.0
//! The management module's end.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;
use tokio::io::{AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::lines::LineReader;
use super::message::{FromAgent, ToAgent, encode, from_agent};
use super::{ALIVE_EVERY, PROTOCOL, SILENT_FOR};
use crate::arbiter::BladeName;
use crate::manager::Manager;
use crate::seldom::Seldom;
use crate::serve::tls::name_of;

/// Connections at once, those that have not shown a certificate yet among them: twice the blades of the largest group.
const MAX_CONNECTIONS: usize = 128;
/// After a failed `accept`, which is for want of descriptors or memory.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Takes agents' connections for as long as the runtime lives.
pub async fn accept(listener: TcpListener, tls: Arc<ServerConfig>, manager: Arc<Manager>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let acceptor = TlsAcceptor::from(tls);
    let complaints = Arc::new(Seldom::default());
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take an agent's connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%from, limit = MAX_CONNECTIONS, "too many agents: one is turned away");
            continue;
        };
        let (acceptor, manager) = (acceptor.clone(), Arc::clone(&manager));
        let complaints = Arc::clone(&complaints);
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &acceptor, &manager).await {
                tracing::debug!(%from, %error, "an agent's connection ended");
                // A certificate that is not accepted, or another protocol: somebody has to mend it.
                let is_wrong = error.kind() == io::ErrorKind::InvalidData;
                let text = format!("{} {error}", from.ip());
                if is_wrong && complaints.may(&text, Instant::now()) {
                    tracing::warn!(from = %from.ip(), %error, "an agent is turned away");
                }
            }
            drop(place);
        });
    }
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

async fn serve(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    manager: &Arc<Manager>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(SILENT_FOR, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let name = certificate
        .and_then(|c| name_of(c))
        .ok_or_else(|| invalid("a certificate without a name"))?;
    let blade: BladeName = name.parse().map_err(|error| invalid(format!("{error}")))?;
    let (reader, mut writer) = split(stream);
    let mut lines = LineReader::new(reader);
    let hello = lines.next().await?.ok_or_else(|| invalid("no hello"))?;
    let FromAgent::Hello { protocol, version, udc, drives } =
        from_agent(&hello).map_err(invalid)?
    else {
        return Err(invalid("no hello"));
    };
    if protocol != PROTOCOL {
        let reason = format!(
            "the agent has version {version} and the manager {}: install the same on both",
            env!("CARGO_PKG_VERSION")
        );
        tracing::warn!(%blade, reason, "an agent is turned away");
        return writer.write_all(&encode(&ToAgent::Refused { reason })).await;
    }
    let (connection, mut orders) = manager.agent_arrived(blade, (version, udc, drives));
    let write = async {
        loop {
            let message = match timeout(ALIVE_EVERY, orders.recv()).await {
                Err(_) => ToAgent::Alive,
                Ok(Some(message)) => message,
                // Another connection of this blade has come.
                Ok(None) => return Ok(()),
            };
            timeout(SILENT_FOR, writer.write_all(&encode(&message))).await??;
        }
    };
    let read = async {
        while let Some(line) = lines.next().await? {
            connection.handle(from_agent(&line).map_err(invalid)?);
        }
        Ok(())
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}
