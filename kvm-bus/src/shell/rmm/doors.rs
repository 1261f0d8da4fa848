// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where viewers come in: the console socket, for our own programs, and telnet on loopback.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemon_kit::control::{Policy, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Request;
use crate::attach::{Attach, Attached, Kind, MAX_DATA, MAX_LINE, Mode, Packets, What, packet};
use crate::shell::hub::{Newcomer, Piece, WAITING};
use crate::telnet::{Telnet, Wish};
use crate::wire::ConsoleSettings;

/// Connections at once: a few more than there may be viewers.
const CONNECTIONS: usize = 272;
/// Time for the first line.
const FIRST: Duration = Duration::from_secs(10);
/// A peer that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Listens on the console socket.
///
/// # Errors
/// It cannot be made.
pub(super) fn listen(path: &Path, door: mpsc::Sender<Request>) -> io::Result<()> {
    // The control socket, made before, has found that no other daemon runs.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    let policy = Arc::new(Policy::system());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Without a place the connection is dropped.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let (door, policy) = (door.clone(), Arc::clone(&policy));
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = serve(stream, &policy, &door).await {
                            tracing::debug!(%error, "a console session ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a console session");
                    sleep(PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

async fn serve(
    mut stream: UnixStream,
    policy: &Policy,
    door: &mpsc::Sender<Request>,
) -> io::Result<()> {
    let role = policy.admit(&stream)?.map(|peer| peer.role);
    let answer = match role {
        Err(uid) => {
            Err(format!("user {uid} may not look here; join group midplane-read or midplane"))
        }
        Ok(role) => match timeout(FIRST, first_line(&mut stream)).await {
            Err(_) => return Ok(()),
            Ok(line) => admit(&line?, role, door).await,
        },
    };
    let (attached, session) = match answer {
        Ok((attached, id, pieces)) => (attached, Some((id, pieces))),
        Err(error) => {
            (Attached { blade: None, writes: false, line: None, error: Some(error) }, None)
        }
    };
    let mut line = serde_json::to_vec(&attached).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let Some((id, mut pieces)) = session else { return Ok(()) };
    let (mut reader, mut writer) = stream.split();
    let read = read_packets(&mut reader, id, door);
    let write = async {
        while let Some(piece) = pieces.recv().await {
            let end = matches!(piece, Piece::End(_));
            write_piece(&mut writer, piece).await?;
            if end {
                break;
            }
        }
        Ok(())
    };
    let done = tokio::select! { done = read => done, done = write => done };
    let _ = door.send(Request::Gone(id)).await;
    done
}

async fn first_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = vec![];
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            _ if line.len() >= MAX_LINE => return Err(io::ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
}

async fn admit(
    line: &[u8],
    role: Role,
    door: &mpsc::Sender<Request>,
) -> Result<(Attached, u64, mpsc::Receiver<Piece>), String> {
    let asked: Attach = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let may_write = role == Role::Changer && !asked.read_only;
    let (out, pieces) = mpsc::channel(WAITING);
    let newcomer = Newcomer {
        blade: None,
        what: asked.what,
        mode: if may_write { asked.mode } else { Mode::Spy },
        may_write,
        who: asked.who,
        commands: true,
        size: asked.size,
        out,
    };
    let (id, attached) = ask(door, newcomer, asked.blade, asked.replay).await?;
    Ok((attached, id, pieces))
}

async fn ask(
    door: &mpsc::Sender<Request>,
    newcomer: Newcomer,
    blade: Option<String>,
    replay: usize,
) -> Result<(u64, Attached), String> {
    let (answer, answered) = oneshot::channel();
    let request = Request::Attach(Box::new(newcomer), blade, replay, answer);
    door.send(request).await.map_err(|_| "the daemon ends")?;
    answered.await.map_err(|_| "the daemon ends")?
}

async fn read_packets(
    reader: &mut (impl AsyncRead + Unpin),
    id: u64,
    door: &mpsc::Sender<Request>,
) -> io::Result<()> {
    let mut packets = Packets::default();
    let mut buffer = [0; MAX_DATA];
    loop {
        while let Some((kind, data)) = packets.take().map_err(io::Error::other)? {
            match (kind, &data[..]) {
                (Kind::Data, _) => typed(id, data, door).await?,
                (Kind::Size, [columns, rows]) => {
                    let _ = door.send(Request::Size(id, *columns, *rows)).await;
                }
                (Kind::End, _) => return Ok(()),
                _ => {}
            }
        }
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            count => packets.push(&buffer[..count]),
        }
    }
}

/// Returns when all was taken: until then nothing more is read.
async fn typed(id: u64, bytes: Vec<u8>, door: &mpsc::Sender<Request>) -> io::Result<()> {
    let (taken, wait) = oneshot::channel();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    door.send(Request::Typed(id, bytes, taken)).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    wait.await.map_err(gone).or(Ok(()))
}

async fn write_piece(writer: &mut (impl AsyncWrite + Unpin), piece: Piece) -> io::Result<()> {
    let bytes = match piece {
        Piece::Data(bytes) => {
            bytes.chunks(MAX_DATA).flat_map(|data| packet(Kind::Data, data)).collect()
        }
        Piece::Notice(text) => packet(Kind::Notice, text.as_bytes()),
        Piece::End(text) => packet(Kind::End, text.as_bytes()),
    };
    timeout(STALLED, writer.write_all(&bytes)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Listens for telnet clients of one blade.
pub(super) fn telnet(at: SocketAddr, blade: String, door: mpsc::Sender<Request>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let listener = match TcpListener::bind(at).await {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!(%at, %error, "no telnet here"),
        };
        tracing::info!(%at, slot = blade, "telnet");
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let (door, blade) = (door.clone(), blade.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                if let Err(error) = serve_telnet(stream, peer, blade, &door).await {
                    tracing::debug!(%error, "a telnet session ended");
                }
            });
        }
    })
}

async fn serve_telnet(
    mut stream: tokio::net::TcpStream,
    peer: SocketAddr,
    blade: String,
    door: &mpsc::Sender<Request>,
) -> io::Result<()> {
    let (out, mut pieces) = mpsc::channel(WAITING);
    let newcomer = Newcomer {
        blade: None,
        what: What::Console,
        mode: Mode::Write,
        may_write: true,
        who: format!("telnet {peer}"),
        // A program may send any bytes.
        commands: false,
        size: (0, 0),
        out,
    };
    let (id, line) = match ask(door, newcomer, Some(blade), 0).await {
        Ok((id, Attached { writes: true, line, .. })) => (id, line.unwrap_or_default()),
        Ok((id, _)) => {
            let _ = door.send(Request::Gone(id)).await;
            return stream.write_all(b"Port already in use\r\n").await;
        }
        Err(why) => return stream.write_all(format!("{why}\r\n").as_bytes()).await,
    };
    let done = relay_telnet(&mut stream, id, line, &mut pieces, door).await;
    let _ = door.send(Request::Gone(id)).await;
    done
}

async fn relay_telnet(
    stream: &mut tokio::net::TcpStream,
    id: u64,
    line: ConsoleSettings,
    pieces: &mut mpsc::Receiver<Piece>,
    door: &mpsc::Sender<Request>,
) -> io::Result<()> {
    let (mut telnet, first) = Telnet::new(line);
    stream.write_all(&first).await?;
    let mut buffer = [0; MAX_DATA];
    loop {
        let out = tokio::select! {
            count = stream.read(&mut buffer) => {
                let bytes = match count? {
                    0 => return Ok(()),
                    count => &buffer[..count],
                };
                let Some((wishes, answer)) = telnet.feed(bytes) else {
                    return stream.write_all(b"\r\nthis end negotiates for ever\r\n").await;
                };
                for wish in wishes {
                    match wish {
                        Wish::Data(bytes) => typed(id, bytes, door).await?,
                        Wish::Break => drop(door.send(Request::Break(id)).await),
                        Wish::Set(settings) => drop(door.send(Request::Line(id, settings)).await),
                    }
                }
                answer
            }
            piece = pieces.recv() => match piece {
                Some(Piece::Data(bytes)) => Telnet::encode(&bytes),
                // Programs read what the console said, and nothing else.
                Some(Piece::Notice(_)) => vec![],
                Some(Piece::End(_)) | None => return Ok(()),
            }
        };
        let written = timeout(STALLED, stream.write_all(&out)).await;
        written.map_err(|_| io::ErrorKind::TimedOut)??;
    }
}
