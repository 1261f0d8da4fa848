// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as it is: machines are folders, each with a server on an address of loopback.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_midplane");

/// A machine. Its server ends with it.
struct Machine {
    name: String,
    root: tempfile::TempDir,
    address: String,
    server: Option<Child>,
}

/// What a verb did: status, standard output, standard error.
type Done = (i32, String, String);

impl Machine {
    fn new(number: u16) -> Self {
        // The system knows a port that is free; each machine has an address of its own.
        let host = format!("127.0.0.{}", number + 10);
        let port = TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().port();
        let root = tempfile::tempdir().unwrap();
        Self {
            name: format!("blade-{number}"),
            root,
            address: format!("{host}:{port}"),
            server: None,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["key", "--root"]).arg(self.root.path()).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG");
        command
    }

    fn run(&self, words: &[&str], input: &str) -> Done {
        let mut child = self.command(words).spawn().unwrap();
        // Whoever does not read may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn good(&self, words: &[&str], input: &str) -> String {
        let (code, out, error) = self.run(words, input);
        assert_eq!(code, 0, "{}: {words:?}: {error}", self.name);
        out
    }

    #[track_caller]
    fn bad(&self, words: &[&str], input: &str, code: i32, says: &str) {
        let (found, _, error) = self.run(words, input);
        assert!(found == code && error.contains(says), "{words:?} ends with {found}: {error}");
    }

    fn own(&self) -> [&str; 4] {
        ["--name", &self.name, "--address", &self.address]
    }

    fn create(&self) {
        self.good(&[&["create", "rack-1"][..], &self.own()].concat(), "");
    }

    fn join(&self, other: &Machine) -> Done {
        let words = [&["join", &other.address][..], &self.own()].concat();
        self.run(&words, &other.key())
    }

    fn key(&self) -> String {
        fs::read_to_string(self.path("etc/midplane/group.key")).unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn serve(&mut self) {
        let mut command = self.command(&["serve", "--listen", &self.address]);
        self.server = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait(|| TcpStream::connect(&self.address).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    fn status(&self, words: &[&str]) -> Value {
        let out = self.good(&[&["status", "--json"], words].concat(), "");
        serde_json::from_str(&out).unwrap()
    }

    /// Names of members, and whether each answers.
    fn members(&self) -> Vec<(String, Option<bool>)> {
        let status = self.status(&[]);
        let members = status["members"].as_array().unwrap();
        members
            .iter()
            .map(|m| (m["name"].as_str().unwrap().to_owned(), m["answers"].as_bool()))
            .collect()
    }

    fn sends(&self) -> String {
        self.status(&["--offline"])["keys"]["sends"].as_str().unwrap().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

#[track_caller]
fn wait(mut until: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn group<const N: usize>() -> [Machine; N] {
    let mut machines: [Machine; N] =
        std::array::from_fn(|at| Machine::new(u16::try_from(at).unwrap()));
    machines[0].create();
    machines[0].serve();
    for at in 1..N {
        // To any member: all get to know each other.
        let (code, _, error) = machines[at].join(&machines[at / 2]);
        assert_eq!((code, error.as_str()), (0, ""), "blade-{at}");
        machines[at].serve();
    }
    machines
}

#[test]
fn machines_join_and_know_one_another() {
    let machines: [Machine; 4] = group();
    for machine in &machines {
        let mut all: Vec<_> = machine.members();
        all.push((machine.name.clone(), Some(true)));
        all.sort();
        let expected: Vec<_> = machines.iter().map(|m| (m.name.clone(), Some(true))).collect();
        assert_eq!(all, expected, "{}", machine.name);
    }
    let mode = |path: &str| machines[1].path(path).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("etc/midplane/group.key"), mode("etc/midplane/node.key")), (0o600, 0o600));
    let text = machines[1].good(&["status"], "");
    assert!(text.starts_with("group rack-1, key ") && text.contains("blade-3"), "{text}");
    // Secrets are nowhere but in their files.
    let key = machines[0].key();
    let secret = key.lines().find_map(|line| line.strip_prefix("send ")).unwrap();
    let shown = format!("{text}{}", machines[1].good(&["status", "--json"], ""));
    assert!(secret.len() == 64 && !shown.contains(&secret[..16]));
}

#[test]
fn the_key_changes_while_one_is_away_and_comes_back() {
    let mut machines: [Machine; 4] = group();
    let old = machines[0].sends();
    // With all there.
    let out = machines[2].good(&["rotate"], "");
    let new = machines[0].sends();
    assert!(new != old && out.contains(&new), "{out}");
    assert!(machines.iter().all(|machine| machine.sends() == new));
    assert!(machines.iter().all(|machine| !machine.key().contains("last")));

    // One is away: nothing changes, and it is said who.
    machines[3].stop();
    machines[0].bad(&["rotate"], "", 75, "blade-3");
    assert_eq!(machines[0].sends(), new);
    // It comes back in the middle of a change, begun by another that breaks off.
    machines[3].serve();
    let next = "next ".to_owned() + &"5a".repeat(32);
    let half = machines[1].key() + &next + "\n";
    fs::write(machines[1].path("etc/midplane/group.key"), &half).unwrap();
    machines[0].stop();
    machines[1].bad(&["rotate"], "", 75, "blade-0");
    machines[0].serve();
    let text = machines[1].good(&["status"], "");
    assert!(text.contains("BEING CHANGED"), "{text}");
    machines[1].good(&["rotate"], "");
    let newest = machines[1].sends();
    assert!(newest != new && machines.iter().all(|machine| machine.sends() == newest));
    assert!(machines[2].members().iter().all(|(_, answers)| *answers == Some(true)));

    // Another began a change and left it: that is ended, and then the key is changed.
    let half = machines[3].key() + &next + "\n";
    fs::write(machines[3].path("etc/midplane/group.key"), half).unwrap();
    machines[0].good(&["rotate"], "");
    let last = machines[0].sends();
    assert!(last != newest && machines.iter().all(|machine| machine.sends() == last));
}

#[test]
fn who_is_left_out_is_out() {
    let machines: [Machine; 3] = group();
    let stolen = machines[2].key();
    machines[0].good(&["revoke", "blade-2"], "");
    machines[0].bad(&["revoke", "blade-2"], "", 1, "blade-2 is revoked already");
    // It is turned away there at once.
    let refused = machines[2].status(&[]);
    let row = refused["members"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["name"] == "blade-0")
        .unwrap()
        .clone();
    assert!(row["error"].as_str().unwrap().contains("revoked"), "{row}");
    // The others still let it in, until the key is another.
    machines[0].good(&["rotate"], "");
    assert_eq!(machines[0].sends(), machines[1].sends());
    let refused = machines[2].members();
    assert!(refused.iter().all(|(_, answers)| *answers == Some(false)), "{refused:?}");
    let thief = Machine::new(7);
    let words = [&["join", &machines[1].address][..], &thief.own()].concat();
    thief.bad(&words, &stolen, 1, "group key");
    assert!(!thief.path("etc/midplane/group.key").exists());
}

#[test]
fn a_change_can_be_given_up_until_somebody_sends_the_new_key() {
    let machines: [Machine; 2] = group();
    machines[0].bad(&["rotate", "--abandon"], "", 1, "no change of the group key is under way");
    let half = machines[0].key() + "next " + &"5a".repeat(32) + "\n";
    fs::write(machines[0].path("etc/midplane/group.key"), half).unwrap();
    let before = machines[0].sends();
    machines[0].good(&["rotate", "--abandon"], "");
    assert!(machines[0].sends() == before && !machines[0].key().contains("next"));
}

#[test]
fn what_is_wrong_is_said() {
    let machines: [Machine; 2] = group();
    let other = Machine::new(8);
    other.bad(&["status"], "", 1, "in no group");
    other.bad(&["create"], "", 2, "Usage");
    other.bad(&["join", "--offline"], "nonsense", 1, "standard input is no group key");
    machines[0].bad(&["create", "x"], "", 1, "in group rack-1 already");
    // Another machine by a member's name.
    let words = ["join", &machines[0].address, "--name", "blade-1"];
    other.bad(&words, &machines[0].key(), 1, "the name belongs to another member");
    // Another group's key.
    let wrong = "group rack-1\nname x\nsend ".to_owned() + &"ab".repeat(32);
    let words = [&["join", &machines[0].address][..], &other.own()].concat();
    other.bad(&words, &wrong, 1, "another group key");
    let nobody = Machine::new(9);
    other.bad(&["join", &nobody.address], &machines[0].key(), 1, "refused");
    assert!(!other.path("etc/midplane/group.key").exists());
    // The machine that took blade-1's place, once that is forgotten.
    machines[0].good(&["forget", "blade-1"], "");
    let words = ["join", &machines[0].address, "--name", "blade-1"];
    other.good(&words, &machines[0].key());
}

/// Connections that say nothing, or something else, keep no member out.
#[test]
fn a_flood_keeps_nobody_out() {
    let machines: [Machine; 2] = group();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let address = machines[0].address.parse().unwrap();
    let mut flood = vec![];
    for at in 0..400 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let stream = runtime.block_on(async {
            // Members connect from 127.0.0.1, as the system chooses.
            socket.bind("127.0.0.200:0".parse().unwrap()).unwrap();
            socket.connect(address).await
        });
        let mut stream = stream.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        if at % 2 == 0 {
            let _ = stream.write_all(b"\0\x10GET / HTTP/1.1\r\n");
        }
        flood.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(machines[1].members(), [("blade-0".to_owned(), Some(true))]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // They are all closed, not kept.
    for mut stream in flood {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(
            !matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        );
    }
}
