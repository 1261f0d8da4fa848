// SPDX-License-Identifier: MIT OR Apache-2.0
//! Streams between Unix sockets of this machine and the connection of a lease: at the holder each client is one, at the unit each is
//! handed to a server. A task for each; none but the one that writes waits for the network.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::{Bytes, Event, Frame, MAX_DATA, StreamNo, Streams};
use crate::link::{Inbox, Link, write_all};

/// Frames that wait to be sent, of all streams together: enough that the writer always has one.
const MAX_OUT: usize = 8;

/// At the holder: each client of a socket is a stream, until the connection ends.
///
/// # Errors
/// Why it ended.
pub async fn listen(listener: &UnixListener, link: Link) -> io::Result<()> {
    run(link, Side::Holder(listener)).await
}

/// At the unit: each stream is a connection for a server, which `begin` gives it to, until the connection ends.
///
/// # Errors
/// Why it ended.
pub async fn serve(
    link: Link,
    begin: &(dyn Fn(OwnedFd) -> io::Result<()> + Send + Sync),
) -> io::Result<()> {
    run(link, Side::Unit(begin)).await
}

#[derive(Clone, Copy)]
enum Side<'a> {
    Holder(&'a UnixListener),
    Unit(&'a (dyn Fn(OwnedFd) -> io::Result<()> + Send + Sync)),
}

impl Side<'_> {
    fn is_holder(self) -> bool {
        matches!(self, Self::Holder(_))
    }

    /// The next client; none ever comes to a unit.
    async fn accept(self) -> io::Result<UnixStream> {
        match self {
            Self::Holder(listener) => listener.accept().await.map(|(client, _)| client),
            Self::Unit(_) => std::future::pending().await,
        }
    }
}

async fn run(link: Link, side: Side<'_>) -> io::Result<()> {
    let Link { mut inbox, outbox, .. } = link;
    let (out, messages) = mpsc::channel(MAX_OUT);
    let writing = write_all(outbox, messages);
    tokio::pin!(writing);
    let mut pump = Pump::new(side, out.clone());
    // Accepted, and not told of yet.
    let mut client = None;
    loop {
        let may_accept = client.is_none() && pump.has_place();
        tokio::select! {
            frame = next(&mut inbox) => match frame? {
                Some(frame) => pump.handle(frame)?,
                None => return Ok(()),
            },
            () = &mut writing => return Err(io::ErrorKind::BrokenPipe.into()),
            accepted = side.accept(), if may_accept => match accepted {
                Ok(accepted) => client = Some(accepted),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(crate::link::PAUSE).await;
                }
            },
            // In the order of their numbers: hence not by their own tasks.
            permit = out.reserve(), if client.is_some() => {
                let permit = permit.map_err(|_| io::ErrorKind::BrokenPipe)?;
                if let Some((no, client)) = pump.open().zip(client.take()) {
                    permit.send(Frame::Open(no));
                    pump.begin(no, client);
                }
            }
            Some(ended) = pump.tasks.join_next() => if let Ok(no) = ended {
                pump.ends.remove(&no);
            },
        }
    }
}

async fn next(inbox: &mut Inbox) -> io::Result<Option<Frame>> {
    inbox.next::<Frame>().await.map_err(io::Error::other)
}

struct Pump<'a> {
    side: Side<'a>,
    streams: Arc<Mutex<Streams>>,
    ends: BTreeMap<StreamNo, Arc<End>>,
    out: mpsc::Sender<Frame>,
    /// They end with this.
    tasks: JoinSet<StreamNo>,
}

/// What the loop tells a stream's task.
#[derive(Default)]
struct End {
    incoming: Mutex<Incoming>,
    came: Notify,
    room: Notify,
}

/// At most a window of it.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    is_over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Pump<'a> {
    fn new(side: Side<'a>, out: mpsc::Sender<Frame>) -> Self {
        let streams = Arc::new(Mutex::new(Streams::new(side.is_holder())));
        Self { side, streams, ends: BTreeMap::new(), out, tasks: JoinSet::new() }
    }

    fn has_place(&self) -> bool {
        lock(&self.streams).len() < super::MAX_STREAMS
    }

    fn open(&self) -> Option<StreamNo> {
        lock(&self.streams).open()
    }

    fn handle(&mut self, frame: Frame) -> io::Result<()> {
        let event = lock(&self.streams).handle(frame).map_err(io::Error::other)?;
        match event {
            Some(Event::Opened(no)) => match self.side {
                Side::Unit(begin) => {
                    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                    ours.set_nonblocking(true)?;
                    if let Err(error) = begin(theirs.into()) {
                        tracing::warn!(%error, "a client is not served");
                    }
                    self.begin(no, UnixStream::from_std(ours)?);
                }
                Side::Holder(_) => {}
            },
            Some(Event::Data(no, bytes)) => self.tell(no, |incoming| incoming.bytes.extend(bytes)),
            Some(Event::Closed(no)) => self.tell(no, |incoming| incoming.is_over = true),
            Some(Event::Room(no)) => {
                if let Some(end) = self.ends.get(&no) {
                    end.room.notify_one();
                }
            }
            None => {}
        }
        Ok(())
    }

    fn tell(&self, no: StreamNo, what: impl FnOnce(&mut Incoming)) {
        if let Some(end) = self.ends.get(&no) {
            what(&mut lock(&end.incoming));
            end.came.notify_one();
        }
    }

    fn begin(&mut self, no: StreamNo, socket: UnixStream) {
        let end = Arc::new(End::default());
        self.ends.insert(no, Arc::clone(&end));
        let (streams, out) = (Arc::clone(&self.streams), self.out.clone());
        let way = Way { no, end, streams, out, is_holder: self.side.is_holder() };
        self.tasks.spawn(async move {
            let (read, write) = socket.into_split();
            tokio::join!(way.send(read), way.deliver(write));
            way.no
        });
    }
}

/// One stream's.
struct Way {
    no: StreamNo,
    end: Arc<End>,
    streams: Arc<Mutex<Streams>>,
    out: mpsc::Sender<Frame>,
    is_holder: bool,
}

impl Way {
    /// From the socket to the other machine, as far as there is room.
    async fn send(&self, mut read: OwnedReadHalf) {
        let mut buffer = vec![0; MAX_DATA];
        loop {
            let room = self.room().await;
            match read.read(&mut buffer[..room]).await {
                Ok(0) | Err(_) => break,
                Ok(len) => {
                    lock(&self.streams).sent(self.no, len);
                    let data = Frame::Data(self.no, Bytes(buffer[..len].to_vec()));
                    if self.out.send(data).await.is_err() {
                        return;
                    }
                }
            }
        }
        let close = lock(&self.streams).close(self.no);
        self.tell(close).await;
    }

    async fn room(&self) -> usize {
        loop {
            let room = lock(&self.streams).room(self.no);
            if room > 0 {
                return room;
            }
            self.end.room.notified().await;
        }
    }

    async fn tell(&self, frame: Option<Frame>) {
        if let Some(frame) = frame {
            // It fails when all is over.
            let _ = self.out.send(frame).await;
        }
    }

    /// From the other machine to the socket; what nobody reads any more is thrown away.
    async fn deliver(&self, mut write: OwnedWriteHalf) {
        let mut is_broken = false;
        loop {
            let (bytes, is_over) = {
                let mut incoming = lock(&self.end.incoming);
                (std::mem::take(&mut incoming.bytes), incoming.is_over)
            };
            if bytes.is_empty() {
                if is_over {
                    break;
                }
                self.end.came.notified().await;
                continue;
            }
            is_broken = is_broken || write.write_all(&bytes).await.is_err();
            let credit = lock(&self.streams).taken(self.no, bytes.len());
            self.tell(credit).await;
        }
        // A client whose server has ended is to end as well; a server may have something to say still.
        let how = if self.is_holder { Shutdown::Both } else { Shutdown::Write };
        let _ = shutdown(write.as_ref(), how);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::Machine;

    fn links() -> (Link, Link) {
        let (one, two) = UnixStream::pair().unwrap();
        let name = || "a".parse::<Machine>().unwrap();
        (Link::local(name(), one).unwrap(), Link::local(name(), two).unwrap())
    }

    /// Says back what it hears, in a thread, as servers do; until the end.
    fn echo(socket: OwnedFd) -> io::Result<()> {
        use std::io::{Read, Write};
        std::thread::spawn(move || {
            let mut socket = std::os::unix::net::UnixStream::from(socket);
            let mut bytes = vec![];
            while let Ok(len @ 1..) = socket.read({
                bytes.resize(100_000, 0);
                &mut bytes
            }) {
                if socket.write_all(&bytes[..len]).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    async fn says(client: &mut UnixStream, len: usize) {
        let (mut read, mut write) = client.split();
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let mut back = vec![0; len];
        let (written, read) = tokio::join!(write.write_all(&bytes), read.read_exact(&mut back));
        written.unwrap();
        read.unwrap();
        assert!(back == bytes, "it is told as it was said");
    }

    #[tokio::test]
    async fn clients_are_served_beside_one_that_reads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (holder, unit) = links();
        let trial = async {
            let mut stuck = UnixStream::connect(&path).await.unwrap();
            let more = vec![1; 8 << 20];
            let full = stuck.write_all(&more);
            assert!(tokio::time::timeout(Duration::from_millis(300), full).await.is_err());
            for _ in 0..super::super::MAX_STREAMS + 3 {
                let mut client = UnixStream::connect(&path).await.unwrap();
                says(&mut client, 2 << 20).await;
            }
            let mut four = vec![];
            for _ in 0..4 {
                four.push(UnixStream::connect(&path).await.unwrap());
            }
            for client in &mut four {
                says(client, 10_000).await;
            }
            // What is said last arrives, and the end with it.
            let mut last = UnixStream::connect(&path).await.unwrap();
            last.write_all(b"last").await.unwrap();
            last.shutdown().await.unwrap();
            let mut bytes = vec![];
            last.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, b"last");
        };
        tokio::select! {
            ended = listen(&listener, holder) => panic!("{ended:?}"),
            ended = serve(unit, &echo) => panic!("{ended:?}"),
            () = trial => {}
        }
    }

    #[tokio::test]
    async fn clients_end_with_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (holder, unit) = links();
        let mut client = UnixStream::connect(&path).await.unwrap();
        {
            let serving = serve(unit, &echo);
            tokio::select! {
                ended = listen(&listener, holder) => panic!("{ended:?}"),
                ended = serving => panic!("{ended:?}"),
                () = says(&mut client, 1) => {}
            }
        }
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
