// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members of a group tell one another, to the decoders and to a member.

use ::group::core::{Action, Core, Event, Listed, Options, Replication};
use ::group::settings::change::Change;
use ::group::settings::wire::{Envelope, Request};
use ::group::wire::{
    Beat, Life, MAX_PROGRAM, MAX_VALUE, Message, Push, Record, Welcome, WireError,
};

use crate::Reached;
use crate::input::Input;

/// Longest message of an input.
const MAX_MESSAGE: usize = 300;

/// A conversation with a member, one entry after another: a byte for what it is and how much time passes, another for its
/// length, and so many bytes, which are read as a message, a beat, or a request about settings.
///
/// # Panics
/// Where something that was read is not written the same, a bound is not kept, or the member breaks.
pub fn group(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut input = Input::new(data);
    let name = |name: &str| name.parse().expect("a name");
    let life = Life { epoch: 5, nonce: 1 };
    let options = Options { own: name("b"), life, replication: Replication::All, leads: true };
    let mut now = 1_000_000;
    let mut core = Core::new(options, now, 0);
    let listed = |of: &str, last| Listed { name: name(of), address: [10, 0, 0, last].into() };
    let mut link = 1;
    let mut events =
        vec![Event::List(vec![listed("a", 1), listed("b", 2)]), Event::Linked(name("a"), link)];
    loop {
        for event in events.drain(..) {
            for action in core.handle(now, event) {
                match action {
                    Action::Send(_, _, message) => {
                        assert!(message.encode().len() <= MAX_PROGRAM);
                    }
                    Action::Beat(_, _, beat) => assert!(beat.encode().len() <= 200),
                    Action::Close(..) => {
                        reached.insert("closed");
                    }
                    Action::Persist(epoch) => {
                        reached.insert("set back");
                        assert!(epoch > life.epoch);
                    }
                    _ => {}
                }
            }
        }
        assert!(core.next() > now, "it would be called again at once");
        let status = core.status(now);
        if status.sees == 2 {
            reached.insert("here");
        }
        if status.members.iter().any(|member| member.active) {
            reached.insert("another manager");
        }
        if input.rest().is_empty() {
            return reached;
        }
        let what = input.u8();
        // From a millisecond to 8 s.
        now += 1_000 << (what >> 4).min(13);
        let len = usize::from(input.u8()).min(MAX_MESSAGE);
        let (bytes, rest) = input.rest().split_at(len.min(input.rest().len()));
        input = Input::new(rest);
        match what % 8 {
            0 | 1 => events.extend(message(bytes, link, &mut reached)),
            2 | 3 => {
                if let Ok(beat) = Beat::decode(bytes) {
                    assert_eq!(Beat::decode(&beat.encode()).as_ref(), Ok(&beat));
                    reached.insert("beat");
                    events.push(Event::Beat(name("a"), usize::from(what >> 3) % 5, beat));
                }
            }
            4 => settings(bytes, &mut reached),
            5 => {
                link += 1;
                events.push(Event::Linked(name("a"), link));
            }
            6 => events.push(Event::LinkEnded(name("a"), link)),
            _ => events.push(Event::Tick),
        }
        // Time passes for it also where what came was nothing.
        if events.is_empty() {
            events.push(Event::Tick);
        }
    }
}

fn message(bytes: &[u8], link: u64, reached: &mut Reached) -> Option<Event> {
    let message = match Message::decode(bytes) {
        Ok(message) => message,
        Err(WireError::Kind(_)) => {
            reached.insert("unknown kind");
            return None;
        }
        Err(_) => return None,
    };
    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    reached.insert(match &message {
        Message::Welcome(Welcome { yours: Some(_), .. }) => "welcome again",
        Message::Welcome(_) => "welcome",
        Message::Push(push) => {
            push.set.iter().for_each(|set| record(set, push));
            "push"
        }
        Message::Again => "again",
        Message::Leaving => "leaving",
        Message::Program(_) => "program",
        Message::Call(..) => "call",
        Message::Answer(..) => "answer",
    });
    Some(Event::Message("a".parse().expect("a name"), link, message))
}

/// A record keeps its bounds, takes no more room than it says, and its hash depends on its version.
fn record(record: &Record, push: &Push) {
    assert!(record.value.len() <= MAX_VALUE);
    assert_eq!(record.key.to_string().parse().as_ref(), Ok(&record.key));
    let size = |set| Message::Push(Push { set, gone: vec![], ..push.clone() }).encode().len();
    assert!(size(vec![record.clone()]) - size(vec![]) <= record.weight());
    let later = Record { version: record.version ^ 1, ..record.clone() };
    assert_ne!(record.hash(), later.hash());
}

fn settings(bytes: &[u8], reached: &mut Reached) {
    if let Ok(envelope) = Envelope::decode(bytes) {
        assert_eq!(Envelope::decode(&envelope.encode()).as_ref(), Ok(&envelope));
        let request = envelope.request().and_then(|request| request.check().map(|()| request));
        let leads = request.as_ref().ok().and_then(Request::leader);
        reached.insert(match request {
            Ok(Request::Vote(_)) => "vote",
            Ok(Request::Append(_)) => "entries",
            Ok(Request::Snapshot(_)) => "state",
            Ok(Request::Propose(proposal)) => {
                assert!(leads.is_none(), "who proposes does not lead");
                // It is shown to whoever looks at the log.
                assert!(!proposal.who.to_string().contains(char::is_control));
                "proposal"
            }
            Err(_) => "envelope",
        });
    }
    if let Some((kind, body)) = bytes.split_first()
        && let Ok(change) = Change::decode(u16::from(*kind), body)
    {
        let (kind, body) = change.encode();
        assert_eq!(Change::decode(kind, &body).as_ref(), Ok(&change));
        reached.insert(match change {
            Change::Set(_) => "set",
            Change::Remove(_) => "remove",
            Change::Order(_) => "order",
            Change::OrderDone(done) => {
                assert_eq!(done.id.to_string().len(), 32);
                "order done"
            }
            Change::Admit(_) => "admit",
            Change::Dismiss(_) => "dismiss",
        });
    }
}
