// SPDX-License-Identifier: MIT OR Apache-2.0
//! What agents and managers tell each other, and what people call exports and drives.

use usb_gadget_drive::agent::spec::{MAX_SPEC, Spec};
use usb_gadget_drive::arbiter::Claim;
use usb_gadget_drive::link::export_name::{ExportName, claim_of, describe_grant};
use usb_gadget_drive::link::lines::Lines;
use usb_gadget_drive::link::message::{
    BadMessage, FromAgent, MAX_DRIVES, MAX_REASON, ToAgent, encode, from_agent, to_agent,
};
use usb_gadget_drive::link::{MAX_MESSAGE, message};

use crate::Reached;
use crate::input::Input;

/// Bytes for one of the input, so that lines reach their limit.
const STRETCH: usize = 64;

/// A stream of lines: a byte for the size of the pieces, another that is there [`STRETCH`] times wherever it comes, then
/// the stream. Each line is read as whatever a line or a name may be.
///
/// # Panics
/// Where the pieces make a difference, a bound is not kept, or what was read is not written the same.
pub fn drive_link(data: &[u8]) -> Reached {
    let mut input = Input::new(data);
    let (piece, long) = (usize::from(input.u8()) + 1, input.u8());
    let is_long = |byte| byte == long && byte != b'\n';
    let stretched = |byte: &u8| vec![*byte; if is_long(*byte) { STRETCH } else { 1 }];
    let stream: Vec<u8> = input.rest().iter().flat_map(stretched).collect();
    let (lines, is_refused) = split(&stream, piece);
    assert!(
        (&lines, is_refused) == (&split(&stream, usize::MAX).0, is_refused),
        "pieces of {piece}"
    );
    let mut reached = Reached::new();
    if is_refused {
        reached.insert("too long");
    }
    for line in lines {
        assert!(line.len() < MAX_MESSAGE && !line.contains(&b'\n'));
        reached.extend([agent(&line), manager(&line)].into_iter().flatten());
        if let Ok(text) = std::str::from_utf8(&line) {
            reached.extend(names(text));
        }
    }
    reached
}

/// The lines of a stream that comes in such pieces, and whether one is too long.
fn split(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut lines, mut found) = (Lines::default(), vec![]);
    for piece in stream.chunks(piece) {
        lines.push(piece);
        loop {
            match lines.next() {
                Ok(Some(line)) => found.push(line),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// What is kept of what an agent says, and shown to people.
fn assert_told(text: &str) {
    assert!(text.len() <= MAX_REASON, "{} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "{text:?} steers the terminal");
}

fn agent(line: &[u8]) -> Option<&'static str> {
    let message = match from_agent(line) {
        Ok(message) => message,
        Err(BadMessage::Drives(count)) => {
            assert!(count > MAX_DRIVES);
            return Some("too many drives");
        }
        Err(BadMessage::Json(_)) => return None,
    };
    let reached = match &message {
        FromAgent::Hello { version, udc, drives, .. } => {
            assert_told(version);
            assert_told(udc);
            assert_drives(drives);
            "hello"
        }
        FromAgent::Drives { drives } => {
            assert_drives(drives);
            "drives"
        }
        FromAgent::Done { failure, .. } => {
            let Some(failure) = failure else { return Some("done") };
            assert_told(&failure.reason);
            "failure"
        }
        FromAgent::Alive => "alive",
    };
    assert_eq!(from_agent(without_end(&encode(&message))).expect("our own"), message);
    Some(reached)
}

fn assert_drives(drives: &[message::Drive]) {
    assert!(drives.len() <= MAX_DRIVES);
    for drive in drives {
        assert_told(&drive.name);
        drive.reason.iter().for_each(|reason| assert_told(reason));
    }
}

fn manager(line: &[u8]) -> Option<&'static str> {
    let message = to_agent(line).ok()?;
    let reached = match &message {
        ToAgent::Welcome { version, .. } => {
            assert_told(version);
            "welcome"
        }
        ToAgent::Refused { reason } => {
            assert_told(reason);
            "refused"
        }
        ToAgent::Order { what: message::Order::Insert { .. }, .. } => "insert",
        ToAgent::Order { what: message::Order::Eject { .. }, .. } => "eject",
        ToAgent::Alive => "alive",
    };
    assert_eq!(to_agent(without_end(&encode(&message))).expect("our own"), message);
    Some(reached)
}

fn without_end(line: &[u8]) -> &[u8] {
    assert!(line.len() <= MAX_MESSAGE);
    line.strip_suffix(b"\n").expect("a whole line")
}

fn names(text: &str) -> Reached {
    let mut reached = Reached::new();
    if let Ok(name) = text.parse::<ExportName>() {
        assert_eq!(name.to_string().parse(), Ok(name.clone()));
        assert!(name.to_string().len() <= MAX_SPEC);
        reached.insert(match name.claim {
            Claim::Any if name.access.is_none() => "export",
            Claim::Any => "export with access",
            Claim::New => "export anew",
            Claim::Epoch(_) => "export in an epoch",
            Claim::Generation(_) => "export of a generation",
        });
    }
    match claim_of(text) {
        Some(Claim::Epoch(epoch)) => {
            let told = describe_grant(Some(epoch), 1);
            assert_eq!(claim_of(&told), Some(Claim::Epoch(epoch)));
            reached.insert("grant to write");
        }
        Some(Claim::Generation(generation)) => {
            let told = describe_grant(None, generation);
            assert_eq!(claim_of(&told), Some(Claim::Generation(generation)));
            reached.insert("grant to read");
        }
        other => assert_eq!(other, None),
    }
    match text.parse::<Spec>() {
        Ok(spec) => {
            assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
            reached.insert("drive");
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
    reached
}
