// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks as functions of their own, at the unit: the open disk is served by the NBD server of `usb-gadget-drive`, one for each lease,
//! to whichever clients come over the lease's connection.
//!
//! When the lease ends, nothing of it may reach the disk any more before the unit says so: [`Disk::end`] waits for that.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use usb_gadget_drive::nbd::negotiation::Refusal;
use usb_gadget_drive::serve::Server;
use usb_gadget_drive::serve::export::Export;
use usb_gadget_drive::serve::exports::{Description, Exports, Opened, Peer};
use usb_gadget_drive::serve::health::Health;
use usb_gadget_drive::source::Source;
use usb_gadget_drive::source::file::FileSource;

use crate::helper::usbip::Identity;
use crate::helper::{Answer, Helper, Request};
use crate::link::Link;
use crate::record::Found;
use crate::streams::pump;
use crate::unit::inventory::line;
use crate::unit::run::Happened;
use crate::wire::{Carried, ToHolder};

/// Between two looks at whether the disk is as it was; a device that is unplugged is known sooner.
const WATCH: Duration = Duration::from_millis(200);
/// A disk that does not let go for so long is told of in the log.
const SLOW: Duration = Duration::from_secs(10);

/// The only export of a lease, under the name that clients mean who name none.
struct Only(Arc<Export>);

impl Exports for Only {
    fn names(&self, _: &Peer) -> Vec<(String, String)> {
        vec![(String::new(), self.0.description().to_owned())]
    }

    fn describe(&self, _: &Peer, name: &str) -> Result<Description, Refusal> {
        if name.is_empty() { Ok(Description::of(&self.0)) } else { Err(Refusal::Unknown) }
    }

    fn open(&self, _: &Peer, name: &str) -> Result<Opened, Refusal> {
        let export = Arc::clone(&self.0);
        if name.is_empty() {
            Ok(Opened { export, grant: Box::new(()) })
        } else {
            Err(Refusal::Unknown)
        }
    }
}

/// An open disk that is served.
struct Disk {
    server: Arc<Server>,
    export: Arc<Export>,
    /// What tells that it is the same still, with the same medium: a file of sysfs, and what it says.
    size: (PathBuf, Option<String>),
}

impl Disk {
    fn new(file: File, read_only: bool, name: &str) -> io::Result<Self> {
        let number = file.metadata()?.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let size = line(&folder, "size");
        let source = FileSource::new(file, !read_only)?;
        Ok(Self::of(Arc::new(source), !read_only, name, (folder, size)))
    }

    fn of(
        source: Arc<dyn Source>,
        writable: bool,
        name: &str,
        size: (PathBuf, Option<String>),
    ) -> Self {
        let export = Export::new(source, writable, name);
        let export = Arc::new(export.with_health(Arc::new(Health::new(name))));
        let server = Server::new(Arc::new(Only(Arc::clone(&export))), None);
        Self { server, export, size }
    }

    /// Returns when the disk is not there any more, or has another medium.
    async fn changes(&self) {
        let (folder, size) = &self.size;
        while line(folder, "size") == *size {
            sleep(WATCH).await;
        }
    }

    /// Cuts all clients, and waits until none of their requests is at the disk, and what they wrote is on it. Blocks.
    fn end(self) {
        // First of all: what waits is not to be begun.
        self.export.cut();
        while !self.server.shut_down(SLOW) {
            let left = self.server.connections();
            tracing::warn!(left, "a disk does not answer; it is free when it does");
        }
        if let Err(error) = self.export.source().flush() {
            tracing::warn!(%error, "a disk is let go, and what was written last may not be on it");
        }
    }
}

/// Which disk is carried, for which lease.
pub struct Task {
    /// The lease.
    pub no: u64,
    /// The device.
    pub found: Found,
    /// The disk, by its node.
    pub node: String,
    /// Whether the lease is for reading alone.
    pub read_only: bool,
}

/// Opens a disk and carries it over a holder's connection until that ends, the disk does, or `stop`. Nothing is at the disk any more
/// when it returns.
pub async fn carry(
    task: Task,
    helper: Helper,
    link: Link,
    happened: mpsc::Sender<Happened>,
    stop: oneshot::Receiver<()>,
) {
    let no = task.no;
    let (disk, carried) = match open(task, &helper).await {
        Ok(opened) => opened,
        // The holder's connection ends with this; why is told over the other.
        Err(why) => return drop(happened.send(Happened::Carries(no, Err(why))).await),
    };
    tokio::select! {
        _ = stop => {}
        () = serve(&disk, link, carried, no, &happened) => {
            let _ = happened.send(Happened::Lost(no)).await;
        }
    }
    // Its own thread: it waits for the disk.
    if let Err(error) = tokio::task::spawn_blocking(|| disk.end()).await {
        tracing::error!(%error, "a disk's server");
    }
}

async fn open(task: Task, helper: &Helper) -> Result<(Disk, Carried), String> {
    let Task { found, node, read_only, .. } = task;
    let name = node.clone();
    let request = Request::Open {
        bus_id: found.path.clone(),
        identity: Identity::of(&found),
        node,
        read_only,
    };
    let (answer, mut fds) = helper.ask_for(request).await.map_err(|error| error.to_string())?;
    let (Answer::Opened { read_only }, Some(fd)) = (answer, fds.pop()) else {
        return Err("the helper answers something else".to_owned());
    };
    let disk =
        Disk::new(fd.into(), read_only, &name).map_err(|error| format!("{name}: {error}"))?;
    let size = disk.export.source().size();
    Ok((disk, Carried::Disk { size, read_only }))
}

async fn serve(
    disk: &Disk,
    mut link: Link,
    carried: Carried,
    no: u64,
    happened: &mpsc::Sender<Happened>,
) {
    if let Err(error) = link.keep_alive() {
        tracing::debug!(%error, "keep-alive");
    }
    if link.outbox.send(&ToHolder::Go(carried.clone())).await.is_err() {
        return;
    }
    let _ = happened.send(Happened::Carries(no, Ok(carried))).await;
    let begin = |socket| disk.server.begin(socket);
    tokio::select! {
        ended = pump::serve(link, &begin) => {
            tracing::debug!(?ended, lease = no, "a disk's connection is over");
        }
        () = disk.changes() => tracing::info!(lease = no, "a disk, or its medium, is gone"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tokio::net::{UnixListener, UnixStream};
    use usb_gadget_drive::source::remote::RemoteSource;
    use usb_gadget_drive::source::uri::NbdUri;
    use usb_gadget_drive::source::{Abilities, Zeroing};

    use super::*;

    const SIZE: u64 = 4 << 20;

    fn remote(path: &std::path::Path, writable: bool) -> RemoteSource {
        let uri: NbdUri = format!("nbd+unix:///?socket={}", path.display()).parse().unwrap();
        RemoteSource::open("disk", uri.connect().unwrap(), writable).unwrap()
    }

    fn links() -> (Link, Link) {
        let (one, two) = UnixStream::pair().unwrap();
        let name = || "a".parse().unwrap();
        (Link::local(name(), one).unwrap(), Link::local(name(), two).unwrap())
    }

    /// From the socket at the holder to the file at the unit and back, as NBD clients do it.
    #[tokio::test]
    async fn a_disk_is_read_and_written_by_nbd_at_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, vec![0x5a; SIZE as usize]).unwrap();
        let open = |write| File::options().read(true).write(write).open(&image).unwrap();
        for read_only in [true, false] {
            let disk = Disk::new(open(!read_only), read_only, "disk").unwrap();
            let path = folder.path().join(format!("socket{read_only}"));
            let listener = UnixListener::bind(&path).unwrap();
            let (holder, unit) = links();
            let begin = |socket: OwnedFd| disk.server.begin(socket);
            let client = tokio::task::spawn_blocking(move || {
                let clients: Vec<_> = (0..4).map(|_| remote(&path, !read_only)).collect();
                for (at, client) in clients.iter().enumerate() {
                    assert_eq!(client.size(), SIZE);
                    let (mut block, offset) = (vec![0; 1 << 20], (at as u64) << 20);
                    client.read_at(&mut block, offset).unwrap();
                    assert!(block.iter().all(|byte| *byte == 0x5a));
                    let written = client.write_at(&[at as u8; 1 << 20], offset, true);
                    assert_eq!(written.is_ok(), !read_only, "{written:?}");
                }
            });
            tokio::select! {
                ended = pump::listen(&listener, holder) => panic!("{ended:?}"),
                ended = pump::serve(unit, &begin) => panic!("{ended:?}"),
                done = client => done.unwrap(),
            }
            tokio::task::spawn_blocking(|| disk.end()).await.unwrap();
        }
        let bytes = std::fs::read(&image).unwrap();
        assert!(
            (0..4).all(|at| bytes[at << 20..][..1 << 20].iter().all(|b| usize::from(*b) == at))
        );
    }

    /// A disk whose writes take as long as they like.
    struct Slow {
        begun: Sender<()>,
        go: Mutex<Receiver<()>>,
        written: AtomicBool,
    }

    impl Source for Slow {
        fn size(&self) -> u64 {
            SIZE
        }
        fn abilities(&self) -> Abilities {
            Abilities { write: true, ..Abilities::default() }
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64, _: bool) -> io::Result<()> {
            self.begun.send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
            self.written.store(true, Ordering::SeqCst);
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn trim(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
            Ok(())
        }
        fn zero(&self, _: u64, _: u64, _: Zeroing, _: bool) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_end_waits_for_what_is_at_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let ((begun, begins), (go, wait)) = (channel(), channel());
        let slow = Arc::new(Slow { begun, go: Mutex::new(wait), written: AtomicBool::new(false) });
        let disk =
            Disk::of(Arc::clone(&slow) as Arc<dyn Source>, true, "slow", (path.clone(), None));
        disk.server.listen_unix(&path).unwrap();
        let writing = std::thread::spawn(move || remote(&path, true).write_at(&[1; 4096], 0, true));
        begins.recv().unwrap();
        let (export, seen) = (Arc::clone(&disk.export), Arc::clone(&slow));
        let ending = std::thread::spawn(move || {
            disk.end();
            seen.written.load(Ordering::SeqCst)
        });
        while export.check_read().is_ok() {
            std::thread::yield_now();
        }
        // Its time is over, and only now its last write is done.
        go.send(()).unwrap();
        assert!(ending.join().unwrap(), "a write came after the end");
        let _ = writing.join();
    }

    /// The helper is not there: the lease is not left without an answer, and its connection ends.
    #[tokio::test]
    async fn what_cannot_be_opened_is_said() {
        let found = crate::record::tests::device("u", "1").found;
        let task = Task { no: 7, found, node: "/dev/sdx".to_owned(), read_only: false };
        let (happened, mut happens) = mpsc::channel(1);
        let ((mut holder, unit), (_stop, stopped)) = (links(), oneshot::channel());
        carry(task, Helper::at("/nowhere".into()), unit, happened, stopped).await;
        let Some(Happened::Carries(7, Err(why))) = happens.recv().await else { panic!("no word") };
        assert!(why.contains("helper"), "{why}");
        assert_eq!(holder.inbox.next::<ToHolder>().await.unwrap(), None);
    }
}
