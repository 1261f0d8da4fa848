// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking an export away from its clients, and a device that does not answer, through the library.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use common::{Client, LIMIT};
use usb_gadget_drive::fence::{Fence, Fenced};
use usb_gadget_drive::nbd::negotiation::Refusal;
use usb_gadget_drive::nbd::request::command;
use usb_gadget_drive::serve::Server;
use usb_gadget_drive::serve::export::Export;
use usb_gadget_drive::serve::exports::{Description, Exports, Opened, Peer};
use usb_gadget_drive::source::{Abilities, Source, Zeroing};

/// Of the one writer.
const EPOCH: u64 = 3;
/// Offset whose block does not come, and whose write does not end, while the device is stuck.
const STUCK: u64 = 4096;

#[derive(Default)]
struct Device {
    released: Mutex<bool>,
    release: Condvar,
    written: Mutex<Vec<u64>>,
    /// Requests that came to [`STUCK`].
    waiting: Mutex<usize>,
}

impl Device {
    fn wait(&self, offset: u64) {
        let released = self.released.lock().unwrap();
        if offset == STUCK {
            *self.waiting.lock().unwrap() += 1;
            drop(self.release.wait_while(released, |released| !*released).unwrap());
        }
    }

    fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }
}

impl Source for Device {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn abilities(&self) -> Abilities {
        Abilities { write: true, ..Abilities::default() }
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.wait(offset);
        buf.fill(3);
        Ok(())
    }
    fn write_at(&self, _: &[u8], offset: u64, _: bool) -> io::Result<()> {
        self.wait(offset);
        self.written.lock().unwrap().push(offset);
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

struct One(Arc<Export>);

impl Exports for One {
    fn names(&self, _: &Peer) -> Vec<(String, String)> {
        vec![]
    }
    fn describe(&self, _: &Peer, _: &str) -> Result<Description, Refusal> {
        Ok(Description::of(&self.0))
    }

    fn open(&self, _: &Peer, _: &str) -> Result<Opened, Refusal> {
        Ok(Opened { export: Arc::clone(&self.0), grant: Box::new(()) })
    }
}

struct World {
    device: Arc<Device>,
    fence: Arc<Fence>,
    export: Arc<Export>,
    server: Arc<Server>,
    dir: tempfile::TempDir,
}

fn world() -> World {
    let device = Arc::new(Device::default());
    let fence = Fence::new(0);
    let fenced = Fenced::new(Arc::clone(&device) as Arc<dyn Source>, Arc::clone(&fence), EPOCH);
    let export = Arc::new(Export::new(Arc::new(fenced), true, ""));
    let server = Server::new(Arc::new(One(Arc::clone(&export))), None);
    let dir = tempfile::tempdir().unwrap();
    server.listen_unix(&dir.path().join("s")).unwrap();
    World { device, fence, export, server, dir }
}

fn try_client(world: &World) -> io::Result<Client> {
    Client::try_go(UnixStream::connect(world.dir.path().join("s"))?, "", false)
}

fn client(world: &World) -> Client {
    try_client(world).unwrap()
}

#[test]
fn a_request_that_waits_holds_no_other() {
    let world = world();
    let mut c = client(&world);
    c.send(command::READ, 0, STUCK, 512, b"");
    c.send(command::WRITE, 0, STUCK, 3, b"abc");
    assert_eq!(c.read(0, 512), Ok(vec![3; 512]));
    assert_eq!(c.write(8192, &[1; 512], 0), 0);
    assert_eq!(client(&world).read(0, 1), Ok(vec![3]));
    world.device.release();
    let mut last = Client { stream: c.stream, size: 0 };
    let first = last.reply();
    assert_eq!(first, (0, STUCK));
    drop(last);
    assert!(world.export.wait_unused(LIMIT));
}

#[test]
fn after_a_cut_no_late_write_reaches_the_device() {
    let world = world();
    let mut c = client(&world);
    assert_eq!(c.write(0, &[1; 512], 0), 0);
    c.send(command::WRITE, 0, STUCK, 3, b"abc");
    common::wait_for("the write", || *world.device.waiting.lock().unwrap() > 0);
    world.export.cut();
    assert!(c.is_ended());
    assert!(try_client(&world).is_err(), "nobody new gets it");
    thread::scope(|scope| {
        let cut = scope.spawn(|| world.fence.cut(EPOCH));
        assert!(!world.export.wait_unused(Duration::from_millis(20)));
        assert!(!cut.is_finished(), "a write is on its way");
        world.device.release();
    });
    assert!(world.export.wait_unused(LIMIT));
    let late = Fenced::new(Arc::clone(&world.device) as Arc<dyn Source>, world.fence, EPOCH);
    assert_eq!(late.write_at(b"late", 8192, false).unwrap_err().raw_os_error(), Some(1));
    assert_eq!(*world.device.written.lock().unwrap(), [0, STUCK]);
}

#[test]
fn the_end_of_the_server_ends_all_connections() {
    let world = world();
    let mut clients: Vec<_> = (0..5).map(|_| client(&world)).collect();
    assert_eq!(world.export.connections(), 5);
    assert_eq!(world.server.connections(), 5);
    assert!(world.server.shut_down(LIMIT));
    assert!(clients.iter_mut().all(Client::is_ended));
    assert_eq!(world.export.connections(), 0);
    assert!(try_client(&world).is_err());
}
