// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members as they run, with real sockets and files, on loopback addresses of their own.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use group::core::records::Change;
use group::core::{Replication, Status, Why};
use group::shell::{Group, Incoming, Options, SendError, StartError};
use group::wire::{Channel, Class, Life, Message, Push, Record, Welcome};
use secure_link::stream::{self, LinkError};
use secure_link::{
    Dial, Endpoints, GroupKey, HandshakeError, Hello, Keyring, Local, Name, Newcomers, NodeKey,
    Refusal, Roster, Session, Store, Versions,
};
use tempfile::TempDir;

/// Waits for a condition.
const LIMIT: Duration = Duration::from_secs(20);

struct Machine {
    folder: TempDir,
    name: Name,
    node: NodeKey,
    address: String,
    port: u16,
    group: Option<(Group, Incoming)>,
}

fn program() -> Name {
    "smbus-monitor".parse().unwrap()
}

/// Machines in a group, each with all others pinned; `net` keeps the addresses of tests apart.
fn machines(net: u8, count: u8) -> Vec<Machine> {
    let key = GroupKey::generate().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let machines: Vec<Machine> = (1..=count)
        .map(|number| Machine {
            folder: tempfile::tempdir().unwrap(),
            name: format!("blade{number}").parse().unwrap(),
            node: NodeKey::generate().unwrap(),
            address: format!("127.{net}.0.{number}"),
            port: free.port(),
            group: None,
        })
        .collect();
    let list: String = machines
        .iter()
        .map(|m| format!("[[member]]\nname = '{}'\naddresses = ['{}']\n", m.name, m.address))
        .collect();
    for machine in &machines {
        let root = machine.folder.path();
        let keyring = Keyring::new("rack".parse().unwrap(), machine.name.clone(), key.clone());
        machine.store().set_keyring(&keyring, &[(program(), None)]).unwrap();
        machine.store().set_roster(&roster(&machines, machine, &keyring)).unwrap();
        std::fs::write(root.join("group.toml"), &list).unwrap();
        std::fs::create_dir(root.join("state")).unwrap();
    }
    machines
}

fn roster(all: &[Machine], own: &Machine, keyring: &Keyring) -> Roster {
    let mut roster = Roster::default();
    for other in all.iter().filter(|other| other.name != own.name) {
        let (name, keys) = (other.name.clone(), keyring.state());
        let hello = Hello { name, addresses: vec![], keys, note: vec![] };
        roster.pin((own.node.public(), &own.name), other.node.public(), &hello).unwrap();
    }
    roster
}

impl Machine {
    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> Store {
        Store::below(self.root())
    }

    fn options(&self) -> Options {
        Options {
            program: program(),
            port: self.port,
            list: self.root().join("group.toml"),
            state: self.root().join("state"),
            store: self.store(),
            node: self.node.clone(),
            replication: Replication::All,
            leads: true,
        }
    }

    async fn start(&mut self) {
        self.group = Some(Group::start(self.options()).await.unwrap());
    }

    fn group(&self) -> &Group {
        &self.group.as_ref().unwrap().0
    }

    fn incoming(&mut self) -> &mut Incoming {
        &mut self.group.as_mut().unwrap().1
    }

    async fn status(&self) -> Status {
        self.group().status().await.unwrap()
    }

    async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) {
        let wait = async {
            while !is(&self.status().await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, wait).await;
        assert!(waited.is_ok(), "{}: {what}: {:#?}", self.name, self.status().await);
    }
}

async fn all_see(machines: &[Machine], count: usize, manager: &str) {
    for machine in machines.iter().filter(|machine| machine.group.is_some()) {
        let manager: Name = manager.parse().unwrap();
        let whole = |s: &Status| s.sees == count && s.manager.as_ref() == Some(&manager);
        machine.until("all are here", whole).await;
    }
}

#[tokio::test]
async fn members_find_one_another_follow_each_others_records_and_replace_the_manager() {
    let mut machines = machines(11, 3);
    for machine in &mut machines {
        machine.start().await;
    }
    all_see(&machines, 3, "blade1").await;

    let set = |text: &str| {
        let key = "fan 1".parse().unwrap();
        vec![Change::Set(key, Class::Dynamic, text.as_bytes().into())]
    };
    machines[2].group().change(set("4200 rpm")).await.unwrap();
    let third: Name = "blade3".parse().unwrap();
    let read = |group: &Group| {
        let (group, owner) = (group.clone(), third.clone());
        async move {
            let value = group.look(move |core, _| {
                let records = core.records(&owner)?;
                let value = records.iter().find(|r| r.key.as_str() == "fan 1")?.value.to_vec();
                Some((records.current, String::from_utf8(value).unwrap()))
            });
            value.await.unwrap()
        }
    };
    for machine in &machines[..2] {
        machine.until("records come", |s| s.members.iter().any(|m| m.records == 2)).await;
        assert_eq!(read(machine.group()).await, Some((true, "4200 rpm".to_owned())));
    }

    let others = |s: &Status| s.members.iter().all(|m| m.sees_whom.len() == 2);
    machines[0].until("each tells whom it sees", others).await;

    // Words of the program, and questions.
    let second: Name = "blade2".parse().unwrap();
    machines[0].group().send(&second, b"hello".to_vec()).await.unwrap();
    assert_eq!(machines[1].incoming().messages.recv().await.unwrap().bytes, b"hello");
    let (asking, asked) = (machines[0].group().clone(), second.clone());
    let call = tokio::spawn(async move { asking.call(&asked, b"how are you".to_vec()).await });
    let question = machines[1].incoming().calls.recv().await.unwrap();
    assert_eq!((question.from.as_str(), &question.bytes[..]), ("blade1", &b"how are you"[..]));
    question.answer(b"well".to_vec()).await;
    assert_eq!(call.await.unwrap(), Ok(b"well".to_vec()));

    // The manager stops, and says so.
    machines[0].group().leave().await;
    machines[0].group = None;
    all_see(&machines, 2, "blade2").await;
    let left = |s: &Status| s.members[0].away == Some(Why::Left);
    machines[1].until("it has said so", left).await;
    let gone = machines[1].group().send(&"blade1".parse().unwrap(), vec![]).await;
    assert!(matches!(gone, Err(SendError::Away(_))), "{gone:?}");
    // It comes back, and is not the manager at once; its epoch is the next one.
    machines[0].start().await;
    all_see(&machines, 3, "blade2").await;
    assert_eq!(machines[0].status().await.life.epoch, 2);

    // Who is gone leaves what was last known of it.
    machines[2].group = None;
    all_see(&machines, 2, "blade2").await;
    assert_eq!(read(machines[1].group()).await, Some((false, "4200 rpm".to_owned())));
}

#[tokio::test]
async fn who_is_shut_out_is_gone_at_once_and_who_has_another_key_never_comes() {
    let mut ours = machines(12, 3);
    let mut stranger = machines(12, 3).remove(2);
    stranger.port = ours[0].port;
    for machine in &mut ours[..2] {
        machine.start().await;
    }
    stranger.start().await;
    all_see(&ours, 2, "blade1").await;
    assert_eq!(stranger.status().await.sees, 1);

    let node = ours[1].node.public().id();
    let mut roster = ours[0].store().roster().unwrap();
    assert!(roster.revoke(node));
    ours[0].store().set_roster(&roster).unwrap();
    ours[0].group().reload().await.unwrap();
    ours[0].until("it is shut out", |s| s.members[0].away == Some(Why::Revoked)).await;
    ours[1].until("it notices", |s| s.sees == 1).await;
    assert_eq!(stranger.status().await.sees, 1);
}

#[tokio::test]
async fn a_member_that_the_list_does_not_name_takes_no_part() {
    let mut machines = machines(13, 2);
    for machine in &mut machines {
        machine.start().await;
    }
    all_see(&machines, 2, "blade1").await;
    let short = "[[member]]\nname = 'blade1'\naddresses = ['127.13.0.1']\n";
    std::fs::write(machines[0].root().join("group.toml"), short).unwrap();
    machines[0].group().reload().await.unwrap();
    machines[0].until("the list is read again", |s| s.of == 1 && s.sees == 1).await;
    machines[1].until("the other is alone", |s| s.sees == 1).await;

    machines[1].group = None;
    std::fs::write(machines[1].root().join("group.toml"), short).unwrap();
    let error = Group::start(machines[1].options()).await.unwrap_err();
    assert!(matches!(error, StartError::NotListed { .. }), "{error}");
    std::fs::remove_file(machines[1].root().join("etc/midplane/keys/smbus-monitor.key")).unwrap();
    let error = Group::start(machines[1].options()).await.unwrap_err();
    assert!(matches!(error, StartError::NoKey(_)), "{error}");
}

#[tokio::test]
async fn a_member_that_is_new_is_pinned_for_good_if_the_list_names_it() {
    let mut machines = machines(15, 3);
    for machine in &mut machines {
        machine.store().set_roster(&Roster::default()).unwrap();
        machine.start().await;
    }
    all_see(&machines, 3, "blade1").await;
    // Another machine with the group key and the name of one that is away.
    machines[2].group().leave().await;
    machines[2].node = NodeKey::generate().unwrap();
    machines[2].start().await;
    all_see(&machines[..2], 2, "blade1").await;
    assert_eq!(machines[2].status().await.sees, 1);
    // The old one is forgotten: the new one takes its place.
    for machine in &machines[..2] {
        let met = secure_link::Met::new(&machine.root().join("state"));
        let mut roster = met.load().unwrap();
        let id = roster.by_name(&"blade3".parse().unwrap()).unwrap().key.id();
        roster.forget(id);
        met.store(&roster).unwrap();
        machine.group().reload().await.unwrap();
    }
    all_see(&machines, 3, "blade1").await;
}

#[tokio::test]
async fn a_disk_that_was_set_back_is_noticed() {
    let mut machines = machines(14, 2);
    for _ in 0..3 {
        machines[1].start().await;
        machines[1].group = None;
    }
    for machine in &mut machines {
        machine.start().await;
    }
    all_see(&machines, 2, "blade1").await;
    assert_eq!(machines[1].status().await.life.epoch, 4);
    machines[1].group().leave().await;
    std::fs::write(machines[1].root().join("state/epoch"), "1\n").unwrap();
    machines[1].start().await;
    machines[1].until("a later epoch is taken", |s| s.life.epoch == 5).await;
    all_see(&machines, 2, "blade1").await;
    assert_eq!(std::fs::read_to_string(machines[1].root().join("state/epoch")).unwrap(), "5\n");
}

#[tokio::test]
async fn an_epoch_that_the_disk_does_not_take_is_told_when_it_does() {
    let mut machines = machines(16, 2);
    let list = machines[1].root().join("group.toml");
    let both = std::fs::read_to_string(&list).unwrap();
    for _ in 0..3 {
        machines[1].start().await;
        machines[1].group = None;
    }
    for machine in &mut machines {
        machine.start().await;
    }
    all_see(&machines, 2, "blade1").await;
    machines[1].group().leave().await;
    std::fs::write(machines[1].root().join("state/epoch"), "1\n").unwrap();
    // It starts by itself, and its disk is full when it hears of its later life.
    std::fs::write(&list, "[[member]]\nname = 'blade2'\naddresses = ['127.16.0.2']\n").unwrap();
    machines[1].start().await;
    let new = machines[1].root().join("state/epoch.new");
    std::fs::create_dir(&new).unwrap();
    std::fs::write(&list, both).unwrap();
    machines[1].group().reload().await.unwrap();
    machines[0].until("an old life is told", |s| s.counters.stale > 0).await;
    for machine in &machines {
        let status = machine.status().await;
        assert!(status.sees == 1 && status.life.epoch <= 2, "{status:#?}");
    }
    std::fs::remove_dir(&new).unwrap();
    all_see(&machines, 2, "blade1").await;
    assert_eq!(machines[1].status().await.life.epoch, 5);
    assert_eq!(std::fs::read_to_string(machines[1].root().join("state/epoch")).unwrap(), "5\n");
}

/// Connects as a release that speaks these versions does.
async fn release(
    one: &Machine,
    to: &Machine,
    versions: Versions,
) -> Result<(tokio::net::TcpStream, Session), LinkError> {
    let file = one.store().program(&program()).unwrap().unwrap();
    let local = Arc::new(Local {
        node: one.node.clone(),
        keys: file.keys,
        group: file.group,
        program: program(),
        versions,
        name: one.name.clone(),
        addresses: vec![],
        note: vec![],
        newcomers: Newcomers::Admit,
    });
    let mut dial = Dial::new(&local, program(), program());
    let roster = one.store().roster().unwrap();
    loop {
        let from = tokio::net::TcpSocket::new_v4().unwrap();
        from.bind(format!("{}:0", one.address).parse().unwrap()).unwrap();
        let responder = format!("{}:{}", to.address, to.port).parse().unwrap();
        let mut stream = from.connect(responder).await.unwrap();
        let initiator = stream.local_addr().unwrap();
        dial.endpoints = Some(Endpoints { initiator, responder });
        let known = || roster.clone();
        match stream::connect(&mut stream, Arc::clone(&local), dial.clone(), known).await {
            Ok(session) => return Ok((stream, session)),
            Err(LinkError::Handshake(HandshakeError::RefusedThere { refusal, proved })) => {
                // In the older one's version, if this release speaks that.
                let refused = HandshakeError::RefusedThere { refusal, proved };
                dial = dial.again(&local, refusal).ok_or(LinkError::Handshake(refused))?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A group is brought to the next release one member after the other.
#[tokio::test]
async fn the_next_release_is_understood_and_a_later_one_is_told_why_not() {
    let mut machines = machines(17, 2);
    machines[1].start().await;
    let later = Versions { oldest: 2, newest: 3 };
    let refused = release(&machines[0], &machines[1], later).await.unwrap_err();
    let own = Refusal::Version(Versions::SPOKEN);
    let is_own = matches!(&refused, LinkError::Handshake(HandshakeError::RefusedThere { refusal, .. }) if *refusal == own);
    assert!(is_own, "{refused}");

    let next = Versions { oldest: 1, newest: 2 };
    let (stream, session) = release(&machines[0], &machines[1], next).await.unwrap();
    let (mut reader, mut writer) = stream::messages(stream, session.opener, session.sealer);
    let life = Life { epoch: 1, nonce: 7 };
    let first = Welcome { life, yours: None, have: None, wants: true, manager: None, part: 1 };
    writer.send(&Message::Welcome(first).encode()).await.unwrap();
    let welcome = tokio::time::timeout(LIMIT, reader.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(Message::decode(&welcome), Ok(Message::Welcome(_))));
    // Kinds that only the next release knows, before and after one that both do.
    let unknown = [Message::Again.encode()[0], 200, 1, 2, 3];
    writer.send(&unknown).await.unwrap();
    let key: group::wire::Key = "fan 1".parse().unwrap();
    let value = b"4200 rpm"[..].into();
    let record = Record { key, version: 1, class: Class::Dynamic, at: 1, value };
    let set = vec![record];
    let push = Push { life, from: 0, to: 1, last: true, set, gone: vec![] };
    writer.send(&Message::Push(push).encode()).await.unwrap();
    writer.send(&unknown).await.unwrap();
    let mut elsewhere = Message::Call(9, Channel::Program, vec![]).encode();
    let last = elsewhere.len() - 2;
    elsewhere[last] = 2;
    writer.send(&elsewhere).await.unwrap();
    let asked = b"how are you".to_vec();
    writer.send(&Message::Call(1, Channel::Program, asked).encode()).await.unwrap();
    let question = tokio::time::timeout(LIMIT, machines[1].incoming().calls.recv()).await;
    question.unwrap().unwrap().answer(b"well".to_vec()).await;
    let answered = async {
        loop {
            let message = reader.next().await.unwrap().unwrap();
            if let Ok(Message::Answer(1, bytes)) = Message::decode(&message) {
                return bytes;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, answered).await.unwrap(), b"well");
    machines[1].until("its record is there", |s| s.members[0].records == 1).await;
}
