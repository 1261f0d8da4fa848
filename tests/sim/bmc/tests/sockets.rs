// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real program over real sockets.
#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ipmi::vm::{Capabilities, Control, Decoder, Frame, VmRequest, VmResponse};
use ipmi::{NetFn, Request, Response};
use serde_json::Value;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bmc-sim"))
}

struct Sim {
    child: Child,
    folder: tempfile::TempDir,
    tcp: String,
}

impl Sim {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| format!("unix:{}", folder.path().join(name).display());
        let mut child = program()
            .args(["serve", "--vm", &at("vm"), "--vm", "tcp:127.0.0.1:0", "--control", &at("ctl")])
            .args(options)
            .env_remove("RUST_LOG")
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.by_ref().map(Result::unwrap).filter(|l| l.contains("listening"));
        let listening: Vec<_> = listening.take(3).collect();
        let (_, tcp) = listening[1].split_once("address=").unwrap();
        let tcp = tcp.to_owned();
        // The rest is read away, so that the program never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, folder, tcp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connect(&self) -> Host<UnixStream> {
        let stream = UnixStream::connect(self.path("vm")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Host::new(stream)
    }

    fn ctl(&self, words: &[&str]) -> Output {
        program().arg("ctl").arg("--to").arg(self.path("ctl")).args(words).output().unwrap()
    }

    fn control(&self, words: &[&str]) -> Value {
        let output = self.ctl(words);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn ended(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Host<S> {
    stream: S,
    decoder: Decoder,
    bytes: Vec<u8>,
}

impl<S: Read + Write> Host<S> {
    fn new(stream: S) -> Self {
        let mut host = Self { stream, decoder: Decoder::new(), bytes: Vec::new() };
        assert_eq!(host.frame(), Frame::Control(Control::Version(1)));
        host
    }

    fn frame(&mut self) -> Frame {
        loop {
            let mut input = &self.bytes[..];
            let frame = self.decoder.next_frame(&mut input);
            let left = input.len();
            self.bytes.drain(..self.bytes.len() - left);
            if let Some(frame) = frame {
                return frame.unwrap();
            }
            let mut buffer = [0; 512];
            let len = self.stream.read(&mut buffer).unwrap();
            assert_ne!(len, 0, "the simulator closed the connection");
            self.bytes.extend_from_slice(&buffer[..len]);
        }
    }

    fn send(&mut self, seq: u8, netfn: NetFn, cmd: u8, data: &[u8]) {
        let request = VmRequest { seq, request: Request::new(netfn, cmd, data) };
        self.stream.write_all(&request.encode().unwrap()).unwrap();
    }

    fn reply(&mut self) -> (u8, Response) {
        let Frame::Message(body) = self.frame() else { panic!("a control came first") };
        let VmResponse { seq, response } = VmResponse::parse(&body).unwrap();
        (seq, response)
    }

    fn ask(&mut self, seq: u8, netfn: NetFn, cmd: u8, data: &[u8]) -> Response {
        self.send(seq, netfn, cmd, data);
        let (found, response) = self.reply();
        assert_eq!(found, seq);
        response
    }
}

#[test]
fn hosts_come_and_go_and_share_one_bmc() {
    let sim = Sim::start(&["--service-time", "0"]);
    let mut first = sim.connect();
    assert_eq!(first.ask(9, NetFn::APP, 0x01, &[]).data[0], 0x20);
    let mut second = sim.connect();
    let a = first.ask(1, NetFn::STORAGE, 0x22, &[]).data;
    let b = second.ask(1, NetFn::STORAGE, 0x22, &[]).data;
    assert_ne!(a, b);
    let stale = first.ask(2, NetFn::STORAGE, 0x23, &[a[0], a[1], 1, 0, 5, 4]);
    assert_eq!(stale.ccode.0, 0xc5);
    drop(first);
    let stream = TcpStream::connect(&sim.tcp).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut third = Host::new(stream);
    let good = third.ask(3, NetFn::STORAGE, 0x23, &[b[0], b[1], 1, 0, 5, 4]);
    assert_eq!(good.data.len(), 6);
    let mut fourth = sim.connect();
    assert_eq!(fourth.ask(4, NetFn::APP, 0x01, &[]).data[0], 0x20);
}

#[test]
fn attention_is_raised_for_events() {
    let sim = Sim::start(&["--service-time", "0"]);
    let mut host = sim.connect();
    host.stream.write_all(&Control::Capabilities(Capabilities(0x1f)).encode()).unwrap();
    assert_eq!(host.frame(), Frame::Control(Control::DisableInterrupt));
    assert_eq!(host.frame(), Frame::Control(Control::ClearAttention));
    host.ask(1, NetFn::APP, 0x2e, &[0x0f]);
    assert_eq!(host.frame(), Frame::Control(Control::EnableInterrupt));
    assert_eq!(sim.control(&["event", "2"])["made"], 1);
    assert_eq!(host.frame(), Frame::Control(Control::AttentionInterrupt));
    assert_eq!(host.ask(2, NetFn::APP, 0x35, &[]).data.len(), 16);
    assert_eq!(host.frame(), Frame::Control(Control::ClearAttention));
}

#[test]
fn garbage_and_a_host_that_does_not_read_harm_nobody() {
    let sim = Sim::start(&["--service-time", "0"]);
    let mut deaf = UnixStream::connect(sim.path("vm")).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = VmRequest { seq: 1, request: Request::new(NetFn::OEM, 0x01, vec![0; 200]) };
    let wire = request.encode().unwrap();
    let start = Instant::now();
    // It is cut off once its answers fill the bounds.
    while deaf.write_all(&wire).is_ok() && start.elapsed() < LIMIT {}
    assert!(start.elapsed() < LIMIT);
    let mut noisy = sim.connect();
    noisy.stream.write_all(&[0xa5; 100_000]).unwrap();
    noisy.stream.write_all(&[0xa0]).unwrap();
    assert_eq!(noisy.ask(5, NetFn::APP, 0x01, &[]).data[0], 0x20);
    assert_eq!(sim.control(&["stats"])["bad_frames"], 1);
}

#[test]
fn faults_and_service_time_are_set_from_outside() {
    let sim = Sim::start(&[]);
    let mut host = sim.connect();
    assert_eq!(sim.control(&["stats"])["service_time_ms"], 3);
    sim.control(&["service-time", "0"]);
    sim.control(&["fault", "busy", "1", "06/01"]);
    assert_eq!(host.ask(1, NetFn::APP, 0x01, &[]).ccode.0, 0xc0);
    sim.control(&["fault", "late", "1", "06/01", "100ms"]);
    let start = Instant::now();
    host.send(2, NetFn::APP, 0x01, &[]);
    host.send(3, NetFn::OEM, 0x01, &[1]);
    assert_eq!(host.reply().0, 3);
    assert_eq!(host.reply().0, 2);
    assert!(start.elapsed() >= Duration::from_millis(100));
    let refused = sim.ctl(&["fault", "flood"]);
    assert_eq!(refused.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    assert!(answer["error"].as_str().unwrap().starts_with("usage: fault KIND"));
}

#[test]
fn changes_are_logged_and_quit_cleans_up() {
    let mut sim = Sim::start(&["--service-time", "0", "--log", "changes.log"]);
    let mut host = sim.connect();
    host.ask(1, NetFn::OEM, 0x03, &[0xab]);
    host.ask(2, NetFn::APP, 0x01, &[]);
    let log = sim.control(&["log"]);
    assert_eq!(log["entries"][0]["command"], "30/03");
    assert_eq!(log["entries"][0]["data"], "ab");
    assert_eq!(sim.control(&["quit"])["ok"], true);
    assert!(sim.ended());
    assert!(!sim.path("vm").exists() && !sim.path("ctl").exists());
    let file = std::fs::read_to_string(sim.path("changes.log")).unwrap();
    let lines: Vec<Value> = file.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]), (1, &log["entries"][0]));
    let gone = sim.ctl(&["version"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8(gone.stderr).unwrap().contains("cannot reach the simulator"));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let sim = Sim::start(&[]);
    let serve = |path: &Path| {
        let address = format!("unix:{}", path.display());
        program().args(["serve", "--vm", &address]).stderr(Stdio::piped()).spawn().unwrap()
    };
    let second = serve(&sim.path("vm")).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("another program listens"));
    sim.connect();
    // A listener that is gone without a trace of orderly leaving.
    let stale = sim.path("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let mut third = serve(&stale);
    let mut line = String::new();
    BufReader::new(third.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    third.kill().unwrap();
    third.wait().unwrap();
}

#[test]
fn control_lines_are_answered_in_turn_and_too_long_ones_end_the_connection() {
    let sim = Sim::start(&[]);
    let mut stream = UnixStream::connect(sim.path("ctl")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"version\n@7 faults\nnonsense\n").unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut answer = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(answer()["ok"], true);
    assert_eq!(answer()["tag"], "7");
    assert_eq!(answer()["ok"], false);
    let _ = stream.write_all(&[b'x'; 10_000]);
    stream.shutdown(Shutdown::Write).ok();
    assert!(lines.next().is_none_or(|line| line.is_err()));
    assert_eq!(sim.control(&["version"])["ok"], true);
}
