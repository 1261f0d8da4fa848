// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between system software and the other controllers: IPMI 2.0 chapters 6 and 22.
//!
//! Two queues lead to system software: the receive message queue (Get Message) and the event
//! message buffer (Read Event Message Buffer). Where the specification has room for one event, a
//! backlog stands behind it here, so that tests can count that none is lost.

use std::collections::VecDeque;
use std::time::Duration;

use ipmi::ipmb::{self, Ipmb};
use ipmi::{CompletionCode, Lun, Request, sel};

use super::{Action, Answer, Bmc, channels};

/// 8-bit slave address of the BMC.
pub const BMC_ADDRESS: u8 = 0x20;
/// 8-bit slave address of the second controller, on channel 0.
pub const SATELLITE_ADDRESS: u8 = 0x82;

/// Messages that wait for Get Message: far more than the kernel ever leaves waiting.
pub const MAX_RECEIVE: usize = 1_000;
/// Events that wait for Read Event Message Buffer.
pub const MAX_EVENTS: usize = 10_000;
/// Responses of system software that are kept for `bmc-sim ctl responses`.
pub const MAX_RESPONSES: usize = 1_000;
/// How long a message to the second controller and its answer are on the bus: about 20 bytes each
/// way at 100 kHz.
pub const BUS_TIME: Duration = Duration::from_millis(4);

/// No data to return (sections 22.6 and 22.8).
const EMPTY: CompletionCode = CompletionCode(0x80);
/// No acknowledge on the bus (section 22.7).
const NAK_ON_WRITE: CompletionCode = CompletionCode(0x83);

/// Global enables, message flags (section 22.1): receive queue.
const RECEIVE: u8 = 0x01;
/// Event message buffer: interrupt in the enables, filled in the flags.
const EVENT: u8 = 0x02;
/// Event message buffer is in use (enables).
const EVENT_BUFFER: u8 = 0x04;
/// Events are logged (enables).
const LOGGING: u8 = 0x08;
/// Watchdog pre-timeout (flags).
const PRE_TIMEOUT: u8 = 0x08;

/// A response that system software sent to a request of the second controller.
#[derive(Debug, Clone)]
pub struct SeenResponse {
    /// When.
    pub at: Duration,
    /// The message.
    pub message: Ipmb,
}

/// The queues and what announces them.
#[derive(Debug)]
pub struct Messaging {
    enables: u8,
    receive: VecDeque<Vec<u8>>,
    events: VecDeque<[u8; sel::LEN]>,
    pre_timeout: bool,
    /// What the host was last told: attention and whether with an interrupt.
    announced: (bool, bool),
    /// On the bus: when it arrives, and as Get Message will return it.
    on_bus: VecDeque<(Duration, Vec<u8>)>,
    responses: VecDeque<SeenResponse>,
    next_seq: u8,
    /// Messages and events that found their queue full.
    dropped: u64,
}

impl Default for Messaging {
    fn default() -> Self {
        Self {
            enables: LOGGING,
            receive: VecDeque::new(),
            events: VecDeque::new(),
            pre_timeout: false,
            announced: (false, false),
            on_bus: VecDeque::new(),
            responses: VecDeque::new(),
            next_seq: 0,
            dropped: 0,
        }
    }
}

impl Messaging {
    /// Forgets all but what the host was told and what it answered.
    pub fn reset(&mut self) {
        *self = Self {
            announced: self.announced,
            responses: std::mem::take(&mut self.responses),
            next_seq: self.next_seq,
            dropped: self.dropped,
            ..Self::default()
        };
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if !self.receive.is_empty() {
            flags |= RECEIVE;
        }
        if !self.events.is_empty() {
            flags |= EVENT;
        }
        if self.pre_timeout {
            flags |= PRE_TIMEOUT;
        }
        flags
    }

    /// The attention bit, and whether it goes with an interrupt.
    pub fn attention(&self) -> (bool, bool) {
        let flags = self.flags();
        let enabled = self.enables & (RECEIVE | EVENT);
        let urgent = flags & PRE_TIMEOUT != 0 && enabled != 0;
        (flags != 0, flags & enabled != 0 || urgent)
    }

    /// Whether the interface's interrupts are on.
    pub fn interrupts_enabled(&self) -> bool {
        self.enables & (RECEIVE | EVENT) != 0
    }

    /// Whether events go into the event log.
    pub fn logging_enabled(&self) -> bool {
        self.enables & LOGGING != 0
    }

    /// Messages and events lost because a queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Events and messages that wait for system software.
    pub fn waiting(&self) -> (usize, usize) {
        (self.events.len(), self.receive.len())
    }

    /// What system software answered, oldest first.
    pub fn responses(&self) -> impl Iterator<Item = &SeenResponse> {
        self.responses.iter()
    }

    /// The watchdog gives notice by the message flags.
    pub fn set_pre_timeout(&mut self) {
        self.pre_timeout = true;
    }

    /// The watchdog was set anew.
    pub fn clear_pre_timeout(&mut self) {
        self.pre_timeout = false;
    }

    /// Puts an event into the buffer, if it is switched on.
    pub fn push_event(&mut self, event: [u8; sel::LEN]) {
        if self.enables & EVENT_BUFFER == 0 {
            return;
        }
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.dropped += 1;
        }
    }

    /// A message from the bus for system software, due later.
    fn send_to_software(&mut self, due: Duration, message: &Ipmb) {
        // Get Message gives the channel in place of the receiver's address (section 22.6).
        let mut bytes = ipmb::encode(message);
        bytes[0] = channels::IPMB;
        if self.on_bus.len() + self.receive.len() < MAX_RECEIVE {
            self.on_bus.push_back((due, bytes));
        } else {
            self.dropped += 1;
        }
    }

    /// When the next message arrives from the bus.
    pub fn next_delivery(&self) -> Option<Duration> {
        self.on_bus.front().map(|(due, _)| *due)
    }

    /// Moves what has arrived into the receive queue.
    pub fn deliver(&mut self, now: Duration) {
        while self.on_bus.front().is_some_and(|(due, _)| *due <= now) {
            self.receive.extend(self.on_bus.pop_front().map(|(_, bytes)| bytes));
        }
    }
}

impl Bmc {
    /// Tells the host when attention or its interrupt changed.
    pub(super) fn update_attention(&mut self) {
        let (set, interrupt) = self.messaging.attention();
        if (set, interrupt) != self.messaging.announced {
            self.messaging.announced = (set, interrupt);
            self.actions.push(Action::Attention { set, interrupt });
        }
    }

    /// Sends a request of the second controller to system software (LUN 2). Returns its sequence
    /// number.
    pub fn incoming(&mut self, now: Duration, request: &Request) -> u8 {
        let seq = self.messaging.next_seq;
        self.messaging.next_seq = (seq + 1) % 64;
        let message = Ipmb {
            to: BMC_ADDRESS,
            to_lun: Lun::SMS,
            netfn: request.netfn,
            from: SATELLITE_ADDRESS,
            from_lun: Lun::BMC,
            seq,
            cmd: request.cmd,
            data: request.data.clone(),
        };
        self.messaging.send_to_software(now, &message);
        self.messaging.deliver(now);
        self.note(format!("incoming request {} seq {seq}", request.command()));
        seq
    }

    /// The queues, for looking.
    pub fn messaging(&self) -> &Messaging {
        &self.messaging
    }
}

pub fn set_enables(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let before = bmc.messaging.interrupts_enabled();
    bmc.messaging.enables = data[0];
    let after = bmc.messaging.interrupts_enabled();
    if before != after {
        bmc.actions.push(Action::Interrupts(after));
    }
    bmc.note(format!("global enables 0x{:02x}", data[0]));
    Ok(vec![])
}

pub fn get_enables(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![bmc.messaging.enables])
}

pub fn clear_flags(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    if data[0] & RECEIVE != 0 {
        bmc.messaging.receive.clear();
    }
    if data[0] & EVENT != 0 {
        bmc.messaging.events.clear();
    }
    if data[0] & PRE_TIMEOUT != 0 {
        bmc.messaging.pre_timeout = false;
    }
    Ok(vec![])
}

pub fn get_flags(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![bmc.messaging.flags()])
}

/// Every channel that has messages always receives them.
pub fn enable_receive(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let channel = channels::resolve(data[0] & 0x0f)?;
    match data[1] & 0x03 {
        1 | 2 => Ok(vec![channel, 0x01]),
        _ => Err(CompletionCode::INVALID_DATA_FIELD),
    }
}

pub fn get_message(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    bmc.messaging.receive.pop_front().ok_or(EMPTY)
}

pub fn read_event(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    bmc.messaging.events.pop_front().map(|event| event.to_vec()).ok_or(EMPTY)
}

/// Section 22.7. The answer of the other controller comes by Get Message, with and without
/// tracking: to the system interface there is no other way (section 6.13.2). Without tracking it is
/// the requester's LUN in the message that leads it there; a message that names LUN 0 has its
/// answer go to the BMC itself, which drops it.
pub fn send_message(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let (channel, bytes) = (data[0] & 0x0f, &data[1..]);
    let tracked = match data[0] >> 6 {
        0 | 2 => false,
        1 => true,
        _ => return Err(CompletionCode::INVALID_DATA_FIELD),
    };
    if channel != channels::IPMB {
        return Err(CompletionCode::INVALID_DATA_FIELD);
    }
    // A broadcast is a message behind a zero byte.
    let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    let message = ipmb::decode(bytes).map_err(|_| CompletionCode::INVALID_DATA_FIELD)?;
    if message.to != SATELLITE_ADDRESS {
        return Err(NAK_ON_WRITE);
    }
    if message.netfn.is_response() {
        bmc.note(format!(
            "response to incoming request {:02x}/{:02x} seq {}",
            message.netfn.request().get(),
            message.cmd,
            message.seq
        ));
        if bmc.messaging.responses.len() == MAX_RESPONSES {
            bmc.messaging.responses.pop_front();
        }
        bmc.messaging.responses.push_back(SeenResponse { at: now, message });
        return Ok(vec![]);
    }
    let (response, changed) = bmc.satellite.handle(now, &message);
    let command = ipmi::Command::new(message.netfn, message.cmd);
    bmc.note(format!("bridged {command}"));
    if changed {
        let name = command.name().unwrap_or("OEM command");
        bmc.note(match name.starts_with("Reserve") {
            true => format!("satellite: {name}, a new reservation"),
            false => format!("satellite: {name}"),
        });
    }
    if tracked || message.from_lun == Lun::SMS {
        bmc.messaging.send_to_software(now + BUS_TIME, &message.respond(response));
    }
    Ok(vec![])
}
