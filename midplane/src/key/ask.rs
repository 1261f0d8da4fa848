// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asks another member's `midplane key serve`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use secure_link::stream::{LinkError, Reader, Writer, connect};
use secure_link::{Dial, Endpoints, HandshakeError, NodeId, Peer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::message::{MAX_MESSAGE, Reply, Request};
use super::{Own, name};

/// As what `midplane key` connects, and what it connects to.
pub(super) const ROLE: &str = "keys";
/// A member that is there answers in milliseconds; one that stores a key waits for its disk.
const LIMIT: Duration = Duration::from_secs(10);
/// A machine that is switched off does not refuse: nothing comes back at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Connects to any of `addresses`, asks, and pins or notes who answers, who must be `expect` if given.
///
/// # Errors
/// Nobody answers there, it is not let in or does not let this machine in, or it did not do what it was told.
pub async fn ask(
    own: &Own,
    addresses: &[SocketAddr],
    expect: Option<NodeId>,
    request: &Request,
) -> anyhow::Result<(Peer, Reply)> {
    let mut last = anyhow!("it is not known where it is");
    for address in addresses {
        match timeout(LIMIT, ask_at(own, *address, expect, request)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error.context(address.to_string()),
            Err(_) => last = anyhow!("{address}: no answer within {} s", LIMIT.as_secs()),
        }
    }
    Err(last)
}

async fn ask_at(
    own: &Own,
    address: SocketAddr,
    expect: Option<NodeId>,
    request: &Request,
) -> anyhow::Result<(Peer, Reply)> {
    let local = own.local();
    let mut dial = Dial { expect, ..Dial::new(&local, name(ROLE), name(ROLE)) };
    loop {
        let connecting = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
        let mut stream = connecting.context("it does not answer")??;
        stream.set_nodelay(true)?;
        let (initiator, responder) = (stream.local_addr()?, stream.peer_addr()?);
        dial.endpoints = Some(Endpoints { initiator, responder });
        let roster = own.store.roster()?;
        let session = connect(&mut stream, local.clone(), dial.clone(), || roster.clone()).await;
        let session = match session {
            Err(LinkError::Handshake(HandshakeError::RefusedThere { refusal, .. })) => {
                dial = dial
                    .again(&local, refusal)
                    .ok_or(HandshakeError::RefusedThere { refusal, proved: false })?;
                continue;
            }
            session => session?,
        };
        own.meet(&session.peer, address)?;
        let (read, write) = stream.split();
        let mut writer = Writer::new(write, session.sealer);
        writer.send(&request.encode()).await?;
        let mut reader = Reader::new(read, session.opener, MAX_MESSAGE);
        let answer = reader.next().await?.context("it ended the connection without an answer")?;
        let _ = writer.end().await;
        let reply: Reply = serde_json::from_slice(&answer).context("its answer makes no sense")?;
        if let Some(error) = reply.error {
            bail!("it says: {}", daemon_kit::table::printable(&error));
        }
        return Ok((session.peer, reply));
    }
}
