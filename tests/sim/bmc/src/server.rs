// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets, timers and signals around the engine: one loop.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::args::{Address, Serve};
use crate::control::MAX_LINE;
use crate::engine::{Engine, Output, PeerId};
use crate::journal::Entry;
use crate::model::Config;

/// Events from the connections that wait for the loop; a full queue stops reading.
const MAX_EVENTS: usize = 256;
/// Writes that wait for a connection; a host that does not read is cut off beyond.
const MAX_WRITES: usize = 4_096;
/// Connections at a time on each address; more wait until one ends.
const MAX_CONNECTIONS: usize = 64;
/// Bytes read at a time.
const READ: usize = 4_096;
/// How long `quit` waits until its answer is written.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// What the connections tell the loop.
enum Event {
    Connected(Peer, oneshot::Sender<PeerId>),
    Received(PeerId, Vec<u8>),
    Closed(PeerId),
    Control { line: String, answer: oneshot::Sender<String>, written: oneshot::Receiver<()> },
}

type Events = mpsc::Sender<Event>;

/// The loop's end of a connection. Dropping it ends the connection.
struct Peer {
    writes: mpsc::Sender<Vec<u8>>,
    _open: oneshot::Sender<()>,
}

/// Runs the simulator until it is told to quit or gets SIGINT or SIGTERM.
///
/// # Errors
/// An address that cannot be listened on, or a log file that cannot be written.
pub async fn run(options: Serve) -> anyhow::Result<()> {
    let log = options.log.as_deref().map(open_log).transpose()?;
    let (events, receiver) = mpsc::channel(MAX_EVENTS);
    let mut sockets = Sockets::default();
    for address in &options.vm {
        listen(address, Kind::Vm, events.clone(), &mut sockets).await?;
    }
    for address in &options.control {
        listen(address, Kind::Control, events.clone(), &mut sockets).await?;
    }
    let service_time = Duration::from_millis(u64::from(options.service_time));
    let engine = Engine::new(config(&options), service_time);
    Loop { engine, start: Instant::now(), peers: BTreeMap::new(), next_peer: 1, log, quit: false }
        .run(receiver)
        .await
}

fn config(options: &Serve) -> Config {
    let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Config {
        sensors: options.sensors,
        satellite_sensors: options.satellite_sensors,
        seed: options.seed,
        // The BMC's clock has 32 bits.
        epoch: (epoch.as_secs() & 0xffff_ffff) as u32,
        reset_time: Duration::from_millis(u64::from(options.reset_time)),
        honour_power: options.honour_power,
    }
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open log file {}", path.display()))
}

/// Socket files, removed at the end.
#[derive(Default)]
struct Sockets(Vec<PathBuf>);

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Vm,
    Control,
}

async fn listen(
    address: &Address,
    kind: Kind,
    events: Events,
    sockets: &mut Sockets,
) -> anyhow::Result<()> {
    let cannot = || format!("cannot listen on {address}");
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    match address {
        Address::Unix(path) => {
            remove_stale(path).with_context(cannot)?;
            let listener = UnixListener::bind(path).with_context(cannot)?;
            sockets.0.push(path.clone());
            tracing::info!(%address, "listening");
            tokio::spawn(async move {
                while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                    if let Some((stream, _)) = accepted(listener.accept().await).await {
                        serve(stream, kind, events.clone(), place);
                    }
                }
            });
        }
        Address::Tcp(host) => {
            let listener = TcpListener::bind(host).await.with_context(cannot)?;
            tracing::info!(address = %listener.local_addr()?, "listening");
            tokio::spawn(async move {
                while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                    if let Some((stream, _)) = accepted(listener.accept().await).await {
                        // Small answers must not wait for one another.
                        let _ = stream.set_nodelay(true);
                        serve(stream, kind, events.clone(), place);
                    }
                }
            });
        }
    }
    Ok(())
}

/// A failed accept (out of descriptors, say) is tried again a little later.
async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(_) => Ok(()),
    }
}

/// Serves a connection, which keeps its place until it ends.
fn serve<S>(stream: S, kind: Kind, events: Events, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    tokio::spawn(async move {
        match kind {
            Kind::Vm => serve_vm(reader, writer, events).await,
            Kind::Control => serve_control(reader, writer, events).await,
        }
        drop(place);
    });
}

async fn serve_vm<R, W>(mut reader: R, mut writer: W, events: Events)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (writes, mut waiting) = mpsc::channel::<Vec<u8>>(MAX_WRITES);
    let (open, mut dropped) = oneshot::channel();
    let (answer, peer) = oneshot::channel();
    if events.send(Event::Connected(Peer { writes, _open: open }, answer)).await.is_err() {
        return;
    }
    let Ok(peer) = peer.await else { return };
    let mut writing = tokio::spawn(async move {
        while let Some(bytes) = waiting.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; READ];
    loop {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(len) => {
                    if events.send(Event::Received(peer, buffer[..len].to_vec())).await.is_err() {
                        break;
                    }
                }
            },
            _ = &mut writing => break,
            _ = &mut dropped => break,
        }
    }
    writing.abort();
    let _ = events.send(Event::Closed(peer)).await;
}

async fn serve_control<R, W>(reader: R, mut writer: W, events: Events)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        // One byte more than the bound tells a long line from one that fits.
        let mut bounded = (&mut reader).take(MAX_LINE as u64 + 1);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if line.len() > MAX_LINE => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let (answer, answered) = oneshot::channel();
        let (done, written) = oneshot::channel();
        if events.send(Event::Control { line, answer, written }).await.is_err() {
            return;
        }
        let Ok(mut answer) = answered.await else { return };
        answer.push('\n');
        if writer.write_all(answer.as_bytes()).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        let _ = done.send(());
    }
}

struct Loop {
    engine: Engine,
    start: Instant,
    peers: BTreeMap<PeerId, Peer>,
    next_peer: u64,
    log: Option<File>,
    quit: bool,
}

impl Loop {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
        while !self.quit {
            let wake = self.start + self.engine.next_timeout(self.start.elapsed());
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => break,
                },
                () = tokio::time::sleep_until(wake) => {
                    let outputs = self.engine.handle_timeout(self.start.elapsed());
                    self.carry_out(outputs);
                }
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        Ok(())
    }

    async fn handle(&mut self, event: Event) {
        let now = self.start.elapsed();
        match event {
            Event::Connected(connection, answer) => {
                let peer = PeerId(self.next_peer);
                self.next_peer += 1;
                tracing::info!(peer = peer.0, "host connected");
                self.peers.insert(peer, connection);
                let _ = answer.send(peer);
                let outputs = self.engine.connected(now, peer);
                self.carry_out(outputs);
            }
            Event::Received(peer, bytes) => {
                let outputs = self.engine.received(now, peer, &bytes);
                self.carry_out(outputs);
            }
            Event::Closed(peer) => {
                tracing::info!(peer = peer.0, "host gone");
                self.drop_peer(peer);
            }
            Event::Control { line, answer, written } => {
                let (text, outputs) = self.engine.control(now, &line);
                let _ = answer.send(text);
                self.carry_out(outputs);
                if self.quit {
                    let _ = tokio::time::timeout(LAST_ANSWER, written).await;
                }
            }
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { peer, bytes } => {
                    if self.peers.get(&peer).is_some_and(|p| p.writes.try_send(bytes).is_err()) {
                        tracing::warn!(peer = peer.0, "host does not read and is cut off");
                        self.drop_peer(peer);
                    }
                }
                Output::Log(entry) => self.write_log(&entry),
                Output::Quit => self.quit = true,
            }
        }
    }

    fn drop_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.engine.disconnected(peer);
    }

    /// A log that cannot be written is given up with a warning; the BMC goes on.
    fn write_log(&mut self, entry: &Entry) {
        let Some(log) = &mut self.log else { return };
        let mut line = serde_json::to_vec(entry).expect("an entry has string keys only");
        line.push(b'\n');
        if let Err(error) = log.write_all(&line) {
            tracing::warn!(%error, "log file cannot be written and is given up");
            self.log = None;
        }
    }
}
