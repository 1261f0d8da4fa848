// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links over pipes in memory, and what comes of connections that lie, stop or end.

use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::keys::GroupKey;
use crate::{HandshakeError, Name, Newcomers, NodeKey, ProgramKeyring, Refusal, Versions};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn local(which: u8) -> Arc<Local> {
    let group = GroupKey::new(Secret::new(&[200; 32]));
    Arc::new(Local {
        node: NodeKey::new(Secret::new(&[which; 32])),
        keys: ProgramKeyring { send: group.program(&name("monitor")), also: None },
        group: name("rack-1"),
        program: name("monitor"),
        versions: Versions::SPOKEN,
        name: name(&format!("blade-{which}")),
        addresses: vec![],
        note: vec![],
        newcomers: Newcomers::Admit,
    })
}

fn dial() -> Dial {
    Dial::new(&local(1), name("member"), name("member"))
}

fn door() -> Door {
    Door { role: name("member"), from: vec![name("member")], endpoints: None }
}

async fn linked(room: usize) -> [(DuplexStream, Session); 2] {
    let (mut one, mut two) = duplex(room);
    let (first, second) = tokio::join!(
        connect(&mut one, local(1), dial(), Roster::default),
        accept(&mut two, local(2), door(), Roster::default)
    );
    [(one, first.unwrap()), (two, second.unwrap())]
}

#[tokio::test]
async fn messages_come_whole_and_the_end_is_told() {
    // Little room, so that all comes in pieces.
    let [(one, first), (two, second)] = linked(100).await;
    let (_, mut writer) = messages(one, first.opener, first.sealer);
    let (mut reader, _writer) = messages(two, second.opener, second.sealer);
    let sent: Vec<Vec<u8>> = [0, 1, 100, 70_000, 200_000].map(|len| vec![len as u8; len]).into();
    let expected = sent.clone();
    let sending = async move {
        for message in &sent {
            writer.send(message).await.unwrap();
        }
        writer.end().await.unwrap();
    };
    let receiving = async {
        for message in expected {
            assert!(reader.next().await.unwrap() == Some(message));
        }
        assert_eq!(reader.next().await.unwrap(), None);
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_link() {
    let [(one, first), (two, second)] = linked(1 << 20).await;
    let mut writer = Writer::new(one, first.sealer);
    let mut reader = Reader::new(two, second.opener, 100_000);
    writer.send(&[1; 100_000]).await.unwrap();
    writer.send(&[1; 100_001]).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().len(), 100_000);
    assert!(matches!(reader.next().await, Err(LinkError::Long(100_000))));
}

#[tokio::test]
async fn a_connection_that_is_cut_is_no_end() {
    for after in [0, 1, 50] {
        let [(mut one, mut first), (two, second)] = linked(1 << 20).await;
        let mut bytes = vec![];
        first.sealer.seal_message(&[1; 200], &mut bytes);
        one.write_all(&bytes[..after]).await.unwrap();
        drop(one);
        let mut reader = Reader::new(two, second.opener, MAX_MESSAGE);
        assert!(matches!(reader.next().await, Err(LinkError::Cut)), "after {after} bytes");
    }
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let [(one, first), (two, second)] = linked(100).await;
    let mut one = ByteStream::new(one, first.opener, first.sealer);
    let mut two = ByteStream::new(two, second.opener, second.sealer);
    let text: Vec<u8> = (0..150_000u32).map(|at| (at % 253) as u8).collect();
    let asking = async {
        one.write_all(&text).await.unwrap();
        one.shutdown().await.unwrap();
        let mut back = vec![];
        one.read_to_end(&mut back).await.unwrap();
        assert!(back == text);
    };
    let answering = async {
        let mut all = vec![];
        two.read_to_end(&mut all).await.unwrap();
        two.write_all(&all).await.unwrap();
        two.shutdown().await.unwrap();
    };
    tokio::join!(asking, answering);

    let [(one, first), (two, second)] = linked(100).await;
    let mut one = ByteStream::new(one, first.opener, first.sealer);
    one.write_all(b"half").await.unwrap();
    one.flush().await.unwrap();
    drop(one);
    let mut two = ByteStream::new(two, second.opener, second.sealer);
    let error = two.read_to_end(&mut vec![]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// Somebody connects and says nothing, or one byte now and then.
#[tokio::test(start_paused = true)]
async fn who_is_slow_is_given_up() {
    let begun = tokio::time::Instant::now();
    let (mut one, mut two) = duplex(100);
    let slow = async {
        for byte in [0, 200, 1] {
            one.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
    };
    let (ended, ()) = tokio::join!(accept(&mut two, local(2), door(), Roster::default), slow);
    assert!(matches!(ended, Err(LinkError::Late)), "{ended:?}");
    assert!(begun.elapsed() < 3 * HANDSHAKE_LIMIT);
}

#[tokio::test]
async fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
    let (mut one, mut two) = duplex(100);
    one.write_all(&[0xff, 0xff]).await.unwrap();
    let ended = accept(&mut two, local(2), door(), Roster::default).await;
    let long = HandshakeError::Malformed(DecodeError::Long);
    assert!(matches!(ended, Err(LinkError::Handshake(error)) if error == long));
}

#[tokio::test]
async fn why_there_is_no_link_is_told_to_both() {
    let (mut one, mut two) = duplex(1000);
    let mut other = Local::clone(&local(2));
    other.group = name("rack-2");
    let (first, second) = tokio::join!(
        connect(&mut one, local(1), dial(), Roster::default),
        accept(&mut two, Arc::new(other), door(), Roster::default)
    );
    let refusal = Refusal::OtherGroup;
    let there = HandshakeError::RefusedThere { refusal, proved: false };
    assert!(matches!(first, Err(LinkError::Handshake(error)) if error == there));
    let here = HandshakeError::Refused(refusal);
    assert!(matches!(second, Err(LinkError::Handshake(error)) if error == here));
}
