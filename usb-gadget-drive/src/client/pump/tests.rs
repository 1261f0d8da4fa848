// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::Mutex;

use super::*;
use crate::client::proxy::Export;
use crate::nbd::flags;

const EXPORT: Export = Export { size: 1 << 20, flags: flags::HAS_FLAGS | flags::SEND_FLUSH };

/// Hands out the far ends of socket pairs that a test gave it.
#[derive(Debug, Default)]
struct Pairs(Mutex<Vec<UnixStream>>);

impl Connect for Pairs {
    fn connect(&self) -> Result<Connected, ConnectError> {
        let next = self.0.lock().unwrap().pop();
        let stream = next.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Connected { stream: Box::new(stream), export: EXPORT, block: 512, claim: None })
    }
}

/// A pump between these, and what it tells.
fn between(
    host: UnixStream,
    server: UnixStream,
    next: Vec<UnixStream>,
) -> (Handle, Receiver<Event>) {
    let (sender, events) = mpsc::channel();
    let connect = Arc::new(Pairs(Mutex::new(next)));
    let tell = Box::new(move |event| drop(sender.send(event)));
    let link: Option<Box<dyn Stream>> = Some(Box::new(server));
    (start("test", Proxy::connected(EXPORT), host, link, connect, tell).unwrap(), events)
}

fn ask(kernel: &mut UnixStream, command: u16, cookie: u64, data: &[u8], len: u32) {
    let header = Request { flags: 0, command, cookie, offset: 512, len };
    kernel.write_all(&[&header.encode()[..], data].concat()).unwrap();
}

fn request(server: &mut UnixStream) -> (Request, Vec<u8>) {
    let mut header = [0; Request::LEN];
    server.read_exact(&mut header).unwrap();
    let header = Request::decode(&header).unwrap();
    let mut data = vec![0; header.payload() as usize];
    server.read_exact(&mut data).unwrap();
    (header, data)
}

fn reply(server: &mut UnixStream, cookie: u64, data: &[u8]) {
    let header = SimpleReply { error: None, cookie };
    server.write_all(&[&header.encode()[..], data].concat()).unwrap();
}

fn answer(kernel: &mut UnixStream, len: usize) -> (SimpleReply, Vec<u8>) {
    let mut header = [0; SimpleReply::LEN];
    kernel.read_exact(&mut header).unwrap();
    let Ok(Some(ReplyHeader::Simple(header))) = ReplyHeader::decode(&header) else {
        panic!("{header:?}")
    };
    let mut data = vec![0; if header.error.is_none() { len } else { 0 }];
    kernel.read_exact(&mut data).unwrap();
    (header, data)
}

#[test]
fn requests_survive_the_connection() {
    let (ours, mut kernel) = UnixStream::pair().unwrap();
    let (first, mut server) = UnixStream::pair().unwrap();
    let (second, mut restarted) = UnixStream::pair().unwrap();
    let (pump, events) = between(ours, first, vec![second]);
    for socket in [&kernel, &server, &restarted] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }

    let large = vec![9; 300_000];
    ask(&mut kernel, command::WRITE, 77, &large, 300_000);
    let (write, data) = request(&mut server);
    assert!(write.len == 300_000 && data == large);
    reply(&mut server, write.cookie, &[]);
    assert_eq!(answer(&mut kernel, 0).0, SimpleReply { error: None, cookie: 77 });

    ask(&mut kernel, command::READ, 78, &[], 4096);
    request(&mut server);
    drop(server);
    let (again, data) = request(&mut restarted);
    assert!(again.command == command::WRITE && data == large, "what was acknowledged comes first");
    reply(&mut restarted, again.cookie, &[]);
    let (read, _) = request(&mut restarted);
    reply(&mut restarted, read.cookie, &[3; 4096]);
    assert_eq!(answer(&mut kernel, 4096), (SimpleReply { error: None, cookie: 78 }, vec![3; 4096]));

    drop(kernel);
    let told = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(10)).ok());
    assert!(told.into_iter().any(|event| matches!(event, Event::HostGone)));
    let (ours, mut kernel) = UnixStream::pair().unwrap();
    pump.set_host(ours);
    ask(&mut kernel, command::FLUSH, 79, &[], 0);
    let (flush, _) = request(&mut restarted);
    assert_eq!(flush.command, command::FLUSH);
    reply(&mut restarted, flush.cookie, &[]);
    assert_eq!(answer(&mut kernel, 0).0.cookie, 79);
}

#[test]
fn a_server_out_of_step_is_left() {
    let (ours, mut kernel) = UnixStream::pair().unwrap();
    let (first, mut server) = UnixStream::pair().unwrap();
    let (second, mut next) = UnixStream::pair().unwrap();
    let (_pump, _events) = between(ours, first, vec![second]);
    ask(&mut kernel, command::READ, 1, &[], 512);
    let (read, _) = request(&mut server);
    // An answer to what was not asked; data of an answer that is none would follow for ever.
    reply(&mut server, read.cookie + 1, &[1; 512]);
    let (read, _) = request(&mut next);
    reply(&mut next, read.cookie, &[2; 512]);
    assert_eq!(answer(&mut kernel, 512).1, [2; 512]);
    let mut rest = vec![];
    server.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_closed_kernel_socket_does_not_spin() {
    let (ours, kernel) = UnixStream::pair().unwrap();
    let (first, _server) = UnixStream::pair().unwrap();
    let (pump, events) = between(ours, first, vec![]);
    drop(kernel);
    let told = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(10)).ok());
    assert!(told.into_iter().any(|event| matches!(event, Event::HostGone)));
    drop(pump);
    assert!(matches!(events.recv(), Err(mpsc::RecvError)), "it has ended");
}
