// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages.

use serde::{Deserialize, Serialize};

use super::MAX_MESSAGE;
use crate::arbiter::{BladeName, ShareName};

/// Drives of one blade that are reported at most: two functions with 8 LUNs for each of four UDCs.
pub const MAX_DRIVES: usize = 64;
/// Bytes of a reason; more is cut off. A refusal that names a long path and its remedy has 400.
pub const MAX_REASON: usize = 480;

/// From an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// The first.
    Hello {
        /// [`super::PROTOCOL`].
        protocol: u32,
        /// Of the program.
        version: String,
        /// The USB device controller.
        udc: String,
        /// All drives, its own as well.
        drives: Vec<Drive>,
    },
    /// An order is done, or not.
    Done {
        /// Its number.
        order: u64,
        /// Why not.
        failure: Option<Failure>,
    },
    /// All drives, whenever something of them has changed.
    Drives {
        /// They.
        drives: Vec<Drive>,
    },
    /// Nothing else was to be said.
    Alive,
}

/// To an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    /// The answer to a hello.
    Welcome {
        /// Of the program.
        version: String,
        /// What the agent's certificate says.
        blade: BladeName,
    },
    /// Nothing will come of this connection.
    Refused {
        /// Why.
        reason: String,
    },
    /// To be done, and answered.
    Order {
        /// Named in the answer.
        order: u64,
        /// What.
        what: Order,
    },
    /// Nothing else was to be said.
    Alive,
}

/// What an agent is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Have the host see this share. That it does already, in the same way, is fine.
    Insert {
        /// Which.
        share: ShareName,
        /// As what.
        kind: Kind,
        /// Whether the host may write.
        writable: bool,
        /// What to say of the past when it attaches.
        claim: Claim,
        /// Where: the place of a drive that was ejected just before; any if it is taken.
        lun: Option<u8>,
    },
    /// Have it see that no more, after all writes and a flush. That it does not is fine.
    Eject {
        /// Which.
        share: ShareName,
        /// Whatever the host says.
        forced: bool,
    },
}

/// What an agent says of the past when it attaches to a share: [`crate::arbiter::Claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// It has none.
    New,
    /// It goes on in this epoch.
    Epoch(u64),
}

/// What a drive looks like to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A disk.
    Disk,
    /// A CD-ROM drive with its disc.
    Cd,
}

/// A drive of a blade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// The share; of the blade's own drives their name.
    pub name: String,
    /// It is the blade's own.
    pub local: bool,
    /// As what the host sees it.
    pub kind: Kind,
    /// Whether the host may write.
    pub writable: bool,
    /// Its number on the gadget: 8 times the function's, and the LUN.
    pub lun: u8,
    /// What it is doing.
    pub state: DriveState,
    /// The real cause, where there is one.
    pub reason: Option<String>,
}

/// What a drive is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveState {
    /// The host sees it.
    Inserted,
    /// The host sees it, and waits for its source.
    Held,
    /// It was ejected, as its source was away for too long or said no; it comes back by itself.
    Away,
    /// The host ejected it. It stays so until it is inserted again.
    Ejected,
}

/// Why an order was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// The host uses the drive: it can be done by force, or when it does no more.
    pub is_busy: bool,
    /// In words, with the remedy.
    pub reason: String,
}

/// Not a message.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// Longer than [`MAX_MESSAGE`], or not what the other end may say.
    #[error("not a message of this protocol")]
    Json(#[from] serde_json::Error),
    /// More drives than [`MAX_DRIVES`].
    #[error("it reports {0} drives, over {MAX_DRIVES}")]
    Drives(usize),
}

/// A message as a line, its end included.
///
/// # Panics
/// Never: what is too long for a line was shortened where it was made.
#[must_use]
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("names and numbers only");
    line.push(b'\n');
    debug_assert!(line.len() <= MAX_MESSAGE, "{} bytes", line.len());
    line
}

/// A line, without its end, from an agent.
///
/// # Errors
/// It is no message.
pub fn from_agent(line: &[u8]) -> Result<FromAgent, BadMessage> {
    let mut message = serde_json::from_slice(line)?;
    if let FromAgent::Hello { version, udc, .. } = &mut message {
        *version = short(version);
        *udc = short(udc);
    }
    if let FromAgent::Hello { drives, .. } | FromAgent::Drives { drives } = &mut message {
        if drives.len() > MAX_DRIVES {
            return Err(BadMessage::Drives(drives.len()));
        }
        for drive in drives {
            drive.name = short(&drive.name);
            drive.reason = drive.reason.as_deref().map(short);
        }
    }
    if let FromAgent::Done { failure: Some(failure), .. } = &mut message {
        failure.reason = short(&failure.reason);
    }
    Ok(message)
}

/// A line, without its end, from the manager.
///
/// # Errors
/// It is no message.
pub fn to_agent(line: &[u8]) -> Result<ToAgent, BadMessage> {
    let mut message = serde_json::from_slice(line)?;
    if let ToAgent::Welcome { version: text, .. } | ToAgent::Refused { reason: text } = &mut message
    {
        *text = short(text);
    }
    Ok(message)
}

/// A text that came from elsewhere, as it is kept and shown: at most [`MAX_REASON`] bytes, and as many in a message.
/// Nothing in it has to be escaped there, and nothing steers the operator's terminal.
#[must_use]
pub fn short(text: &str) -> String {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let plain = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    text[..end].chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(at: usize) -> Drive {
        Drive {
            name: format!("{at:064}"),
            local: false,
            kind: Kind::Disk,
            writable: true,
            lun: 7,
            state: DriveState::Away,
            // Each would take two bytes.
            reason: Some(short(&"\"".repeat(MAX_REASON))),
        }
    }

    #[test]
    fn messages_are_lines_and_come_back() {
        let what = Order::Insert {
            share: "debian".parse().unwrap(),
            kind: Kind::Cd,
            writable: false,
            claim: Claim::Epoch(7),
            lun: None,
        };
        let order = ToAgent::Order { order: 3, what };
        let line = encode(&order);
        assert_eq!(
            std::str::from_utf8(&line).unwrap(),
            "{\"type\":\"order\",\"order\":3,\"what\":{\"do\":\"insert\",\"share\":\"debian\",\"kind\":\"cd\",\
             \"writable\":false,\"claim\":{\"epoch\":7},\"lun\":null}}\n"
        );
        assert_eq!(to_agent(&line).unwrap(), order);
        let done = FromAgent::Done { order: 3, failure: None };
        assert_eq!(from_agent(&encode(&done)).unwrap(), done);
    }

    #[test]
    fn the_longest_report_has_room() {
        let drives = FromAgent::Drives { drives: (0..MAX_DRIVES).map(drive).collect() };
        let line = encode(&drives);
        assert!(line.len() <= MAX_MESSAGE, "{} bytes", line.len());
        assert_eq!(from_agent(&line).unwrap(), drives);
        let more = FromAgent::Drives { drives: (0..=MAX_DRIVES).map(drive).collect() };
        assert!(matches!(
            from_agent(&serde_json::to_vec(&more).unwrap()),
            Err(BadMessage::Drives(65))
        ));
    }

    #[test]
    fn what_an_agent_says_is_bounded() {
        assert_eq!(short("\"a\\\n\u{7f}"), "'a/  ");
        let mut told = drive(1);
        told.reason = Some("ä".repeat(MAX_REASON));
        let line = serde_json::to_vec(&FromAgent::Drives { drives: vec![told] }).unwrap();
        let Ok(FromAgent::Drives { drives }) = from_agent(&line) else { panic!("no message") };
        assert_eq!(drives[0].reason.as_ref().unwrap().len(), MAX_REASON);
        let hello =
            br#"{"type":"hello","protocol":1,"version":"\u001b[2J","udc":"a\u009b","drives":[]}"#;
        let Ok(FromAgent::Hello { version, udc, .. }) = from_agent(hello) else {
            panic!("no hello")
        };
        assert_eq!((&version[..], &udc[..]), (" [2J", "a "));
        for bad in ["", "{}", "[]", "{\"type\":\"order\"}", "{\"type\":\"done\",\"order\":-1}"] {
            assert!(from_agent(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
