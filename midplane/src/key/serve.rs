// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers other members: who this machine knows, and steps of a change of the group key.
//!
//! Any member may order such a step: it has the group key, and a change shuts nobody out who takes part in it.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use daemon_kit::notify;
use daemon_kit::signals::{Signal, Signals};
use secure_link::gate::Place;
use secure_link::stream::{Reader, Writer, accept};
use secure_link::{Door, Endpoints, Gate, Peer, Store};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::ask::ROLE;
use super::message::{MAX_MESSAGE, Reply, Request};
use super::{Own, PORT, name, store_keyring};
use crate::args::ServeArgs;

/// A member asks at once, and not much.
const IDLE: Duration = Duration::from_secs(15);
/// Members that are known and talk, at a time: all of a group, twice.
const MAX_SESSIONS: usize = 128;

/// Answers until it is told to stop.
///
/// # Errors
/// It cannot listen.
pub async fn serve(store: &Store, args: &ServeArgs) -> anyhow::Result<()> {
    let mut listeners = vec![];
    for fd in kernel_abi::listen_fds::take()? {
        listeners.push(StdListener::from(fd));
    }
    for address in &args.listen {
        let listener = StdListener::bind(address);
        listeners.push(listener.with_context(|| format!("cannot listen on {address}"))?);
    }
    anyhow::ensure!(
        !listeners.is_empty(),
        "there is nowhere to listen; use --listen, or midplane-key.socket"
    );
    let (sender, mut connections) = mpsc::channel(1);
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        info!(address = %listener.local_addr()?, "answering members");
        tokio::spawn(listen(listener, sender.clone()));
    }
    give_programs_their_part(store)?;
    let mut signals = Signals::new().context("cannot handle signals")?;
    let server = Arc::new(Server { store: store.clone(), gate: Mutex::default() });
    notify::ready("answering");
    loop {
        tokio::select! {
            Some((stream, peer)) = connections.recv() => server.begin(stream, peer),
            signal = signals.next() => if signal == Signal::Stop { break },
        }
    }
    notify::stopping();
    Ok(())
}

/// A program that was installed since the key was stored gets its part, readable by its system group.
fn give_programs_their_part(store: &Store) -> anyhow::Result<()> {
    let _lock = store.lock()?;
    match store.keyring()? {
        Some(keyring) => store_keyring(store, &keyring),
        None => Ok(()),
    }
}

async fn listen(listener: TcpListener, connections: mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                if connections.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "cannot take a connection");
                // No descriptors are left, as a rule: others have to close theirs first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Server {
    store: Store,
    gate: Mutex<GateAndSessions>,
}

#[derive(Default)]
struct GateAndSessions {
    gate: Gate,
    sessions: usize,
}

impl Server {
    fn begin(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        // A roster that cannot be read lets nobody pass for a member; the handshake reports it.
        let roster = self.store.roster().unwrap_or_default();
        let ip = from.ip().to_canonical();
        let known =
            roster.members().any(|m| m.addresses.iter().any(|a| a.ip().to_canonical() == ip));
        let Some(place) = self.lock().gate.enter(Instant::now(), ip, known) else {
            warn!(peer = %from, "too many connections that say nothing: one more was closed");
            return;
        };
        let server = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = server.talk(stream, from, place).await {
                warn!(peer = %from, error = format!("{error:#}"), "a connection came to nothing");
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, GateAndSessions> {
        // Counts are whole at every moment.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn talk(&self, stream: TcpStream, from: SocketAddr, place: Place) -> anyhow::Result<()> {
        let known = self.know(stream, from).await;
        self.lock().gate.leave(place);
        let (stream, session) = known?;
        {
            let mut lock = self.lock();
            anyhow::ensure!(lock.sessions < MAX_SESSIONS, "too many members talk at a time");
            lock.sessions += 1;
        }
        let ended = self.answer_all(stream, session).await;
        self.lock().sessions -= 1;
        ended
    }

    async fn know(
        &self,
        mut stream: TcpStream,
        from: SocketAddr,
    ) -> anyhow::Result<(TcpStream, secure_link::Session)> {
        stream.set_nodelay(true)?;
        let own = Own::load(&self.store)?;
        let roster = self.store.roster()?;
        let endpoints = Some(Endpoints { initiator: from, responder: stream.local_addr()? });
        let door = Door { role: name(ROLE), from: vec![name(ROLE)], endpoints };
        let session = accept(&mut stream, own.local(), door, || roster.clone()).await?;
        let peer = &session.peer;
        own.meet(peer, SocketAddr::new(from.ip().to_canonical(), PORT))?;
        if peer.is_new {
            info!(member = %peer.hello.name, node = %peer.id(), "a new member");
        }
        Ok((stream, session))
    }

    async fn answer_all(
        &self,
        mut stream: TcpStream,
        session: secure_link::Session,
    ) -> anyhow::Result<()> {
        let (read, write) = stream.split();
        let mut reader = Reader::new(read, session.opener, MAX_MESSAGE);
        let mut writer = Writer::new(write, session.sealer);
        loop {
            let next =
                timeout(IDLE, reader.next()).await.context("the member says nothing more")?;
            let Some(message) = next?.map(Zeroizing::new) else { break };
            let request = serde_json::from_slice(&message).context("a request makes no sense")?;
            let reply = self.answer(&session.peer, &request)?;
            let bytes = serde_json::to_vec(&reply).expect("texts can be written as JSON");
            timeout(IDLE, writer.send(&bytes)).await.context("the member does not read")??;
        }
        let _ = timeout(IDLE, writer.end()).await;
        Ok(())
    }

    /// Does what it is told, and says how things are then. It is on the disk when it is said.
    fn answer(&self, peer: &Peer, request: &Request) -> anyhow::Result<Reply> {
        let mut error = None;
        let order = request.to_order().unwrap_or_else(|bad| {
            error = Some(bad.to_string());
            None
        });
        let lock = self.store.lock()?;
        let Own { mut keyring, .. } = Own::load(&self.store)?;
        // It may have been revoked, or the key changed, since it was let in.
        anyhow::ensure!(
            keyring.find(peer.admitted_by).is_some(),
            "the member's group key is not accepted any more"
        );
        let roster = self.store.roster()?;
        let pinned =
            roster.get(peer.id()).is_some_and(|m| m.standing == secure_link::Standing::Member);
        anyhow::ensure!(pinned, "the member is none any more");
        match order.map(|order| keyring.follow(&order)) {
            Some(Ok(true)) => {
                store_keyring(&self.store, &keyring)?;
                let secure_link::KeyState { sends, also } = keyring.state();
                let also = also.map_or_else(|| "-".to_owned(), |id| id.to_string());
                info!(by = %peer.hello.name, %sends, %also, "the group key changes");
            }
            Some(Err(refused)) => {
                warn!(by = %peer.hello.name, error = %refused, "a change of the group key was refused");
                error = Some(refused.to_string());
            }
            Some(Ok(false)) | None => {}
        }
        drop(lock);
        Ok(Reply::new(&keyring, &roster, error))
    }
}
