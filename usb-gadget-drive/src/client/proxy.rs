// SPDX-License-Identifier: MIT OR Apache-2.0
//! One remote drive between the kernel, which asks, and a server, which may go away: the core. It is told what came
//! and the time, and says what to send.
//!
//! The rules, and why:
//!
//! * A request is answered within [`HOLD`], whatever the server does. The host's USB driver resets a device whose
//!   single thread is stuck for 8 to 10 s, and all drives of the device are lost.
//! * While the server is away requests wait, and go out again over the next connection in the order they came, after
//!   the [`ReplayLog`]. The wait is at most [`HOLD`] for an *outage*, counted from the first request that had to
//!   wait; from then on each is answered with an error at once until the server is back.
//! * A failed write or flush *ends* the session: the blade's page cache then holds what the server does not, and it
//!   must not be served. The drive is ejected, all else is answered with errors, and a new session is begun by
//!   whoever listens to [`Action::End`].
//! * An export whose size or flags have changed is another medium: that ends the session, too.
//! * Of writes that the server acknowledged nothing is lost by its restart: see [`ReplayLog`]. An acknowledged
//!   request is never sent again otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::types::{Action, Cause, Export, Notice, Request, Tag};
use super::replay::{Payload, ReplayLog};
use crate::nbd::request::{command, flag};
use crate::nbd::{ErrorCode, MAX_PAYLOAD};

/// How long a request may wait; the kernel's own limit is a second longer ([`super::attach`]).
pub const HOLD: Duration = Duration::from_secs(5);
/// Requests with us at a time. The kernel has 128 tags for a device.
pub const MAX_PENDING: usize = 128;
/// Bytes of requests with us at a time from which on no further one is read.
pub const MAX_PENDING_BYTES: usize = 16 << 20;
/// Pause before the second attempt to connect; it doubles up to [`MAX_PAUSE`]. The first comes at once.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Purpose {
    /// Asked by the kernel; without a cookie if that has forgotten it.
    Host { request: Request, answer: bool },
    /// A piece of the log.
    Replay,
    /// Our own flush, so that the log does not grow.
    Flush,
}

#[derive(Debug)]
struct Entry {
    purpose: Purpose,
    arrived: Instant,
    /// It is with the server, since then.
    sent: Option<Instant>,
    /// What a flush will have made stable.
    mark: u64,
}

#[derive(Debug)]
enum Link {
    Up,
    /// Up, but first the log: so many pieces are unacknowledged.
    Replaying {
        left: usize,
        bytes: usize,
    },
    /// The next attempt to connect; none while one is made.
    Down {
        next: Option<Instant>,
    },
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    why: String,
    /// The first request that had to wait came then.
    held: Option<Instant>,
    failing: bool,
}

/// One session: from the insertion of a drive to its ejection.
#[derive(Debug)]
pub struct Proxy {
    export: Export,
    link: Link,
    outage: Option<Outage>,
    ended: bool,
    entries: BTreeMap<Tag, Entry>,
    bytes: usize,
    next_tag: Tag,
    own_flush: bool,
    log: ReplayLog,
    pause: Duration,
    hold: Duration,
    actions: VecDeque<Action>,
}

impl Proxy {
    /// A session with a connection.
    #[must_use]
    pub fn connected(export: Export) -> Self {
        Self {
            export,
            link: Link::Up,
            outage: None,
            ended: false,
            entries: BTreeMap::new(),
            bytes: 0,
            next_tag: 1,
            own_flush: false,
            log: ReplayLog::default(),
            pause: MIN_PAUSE,
            hold: HOLD,
            actions: VecDeque::new(),
        }
    }

    /// The same with another limit than [`HOLD`].
    #[must_use]
    pub fn with_hold(self, hold: Duration) -> Self {
        Self { hold, ..self }
    }

    /// A session taken over from another process, whose connection is gone.
    #[must_use]
    pub fn disconnected(now: Instant, export: Export) -> Self {
        let mut proxy = Self::connected(export);
        let why = "the agent was restarted".to_owned();
        proxy.link = Link::Down { next: Some(now) };
        proxy.outage = Some(Outage { since: now, why, held: None, failing: false });
        proxy.handle_time(now);
        proxy
    }

    /// What is to be done; call until there is nothing.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Another request may be read from the kernel.
    #[must_use]
    pub fn wants_requests(&self) -> bool {
        let refusing = self.ended || self.outage.as_ref().is_some_and(|o| o.failing);
        let room = self.entries.len() < MAX_PENDING && self.bytes < MAX_PENDING_BYTES;
        refusing || (room && !self.log.is_full())
    }

    /// How many bytes of data a reply without an error to `tag` carries; none for a tag that is not with the server.
    #[must_use]
    pub fn expected(&self, tag: Tag) -> Option<u32> {
        let entry = self.entries.get(&tag).filter(|e| e.sent.is_some())?;
        Some(match &entry.purpose {
            Purpose::Host { request, .. } if request.command == command::READ => request.len,
            _ => 0,
        })
    }

    /// When `handle_time` must be called at the latest.
    #[must_use]
    pub fn next_time(&self) -> Option<Instant> {
        let dial = match &self.link {
            Link::Down { next } => *next,
            _ => None,
        };
        let oldest = self.entries.values().filter_map(|e| e.sent).min().map(|at| at + self.hold);
        [dial, oldest, self.give_up_at()].into_iter().flatten().min()
    }

    fn give_up_at(&self) -> Option<Instant> {
        let outage = self.outage.as_ref().filter(|o| !o.failing)?;
        outage.held.map(|at| at + self.hold)
    }

    /// The kernel asks.
    pub fn handle_request(&mut self, now: Instant, request: Request) {
        let end = request.offset.saturating_add(request.len.into());
        let bad = match request.command {
            _ if self.ended => Some(ErrorCode::Io),
            command::WRITE if self.export.is_read_only() => Some(ErrorCode::Perm),
            command::READ | command::WRITE if request.len > MAX_PAYLOAD => {
                Some(ErrorCode::Overflow)
            }
            command::READ | command::WRITE if end > self.export.size => Some(ErrorCode::Inval),
            command::READ | command::WRITE | command::FLUSH => None,
            _ => Some(ErrorCode::Inval),
        };
        if bad.is_some() {
            return self.answer(&request, bad, Payload::default());
        }
        if let Some(outage) = &mut self.outage {
            if outage.failing {
                let why = outage.why.clone();
                return self.give_up(&request, why);
            }
            outage.held.get_or_insert(now);
        }
        let tag = self.tag();
        self.bytes += request.len as usize;
        let purpose = Purpose::Host { request, answer: true };
        self.entries.insert(tag, Entry { purpose, arrived: now, sent: None, mark: 0 });
        if matches!(self.link, Link::Up) {
            self.send(now, tag);
        }
    }

    /// The kernel's socket ended. It asks again for what was not answered, over the next one.
    pub fn handle_host_gone(&mut self) {
        self.actions.retain(|action| !matches!(action, Action::Reply { .. }));
        for entry in self.entries.values_mut() {
            if let Purpose::Host { answer, .. } = &mut entry.purpose {
                *answer = false;
            }
        }
    }

    /// The server answers; `data` has as many bytes as [`Self::expected`] said, or none with an error.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        tag: Tag,
        error: Option<ErrorCode>,
        data: Vec<u8>,
    ) {
        let Some(entry) = self.entries.remove(&tag) else { return };
        if error == Some(ErrorCode::Shutdown) {
            self.entries.insert(tag, entry);
            return self.lose(now, "the server shuts down".into());
        }
        match entry.purpose {
            Purpose::Host { request, answer } => {
                self.bytes -= request.len as usize;
                self.settle(now, &request, answer, entry.mark, error, data);
            }
            Purpose::Flush => {
                self.own_flush = false;
                match error {
                    None => self.log.flushed(entry.mark),
                    Some(code) => self.end(Cause::Refused { what: "flush", code }),
                }
            }
            Purpose::Replay => self.replayed(now, error),
        }
    }

    fn settle(
        &mut self,
        now: Instant,
        request: &Request,
        answer: bool,
        mark: u64,
        error: Option<ErrorCode>,
        data: Vec<u8>,
    ) {
        match (request.command, error) {
            (command::WRITE, None) if !self.export.can_flush() => {}
            (command::WRITE, None) if request.flags & flag::FUA != 0 => {
                self.log.remove(request.offset, request.len.into());
            }
            (command::WRITE, None) => {
                self.log.insert(request.offset, &request.data);
                self.flush_if_large(now);
            }
            (command::FLUSH, None) => self.log.flushed(mark),
            _ => {}
        }
        if answer {
            self.answer(request, error, Arc::new(data));
        }
        if let (Some(code), Some(what)) = (error, changes(request.command)) {
            self.end(Cause::Refused { what, code });
        }
    }

    fn replayed(&mut self, now: Instant, error: Option<ErrorCode>) {
        if let Some(code) = error {
            return self.end(Cause::Refused { what: "replay of what it had acknowledged", code });
        }
        let Link::Replaying { left, bytes } = &mut self.link else { return };
        *left -= 1;
        if *left == 0 {
            let replayed = *bytes;
            self.resume(now, replayed);
        }
    }

    /// A connection was made.
    pub fn handle_connected(&mut self, now: Instant, export: Export) {
        if self.ended {
            return self.actions.push_back(Action::Hangup);
        }
        if export != self.export {
            self.actions.push_back(Action::Hangup);
            return self.end(Cause::Changed { was: self.export, is: export });
        }
        let pieces: Vec<_> = self.log.pieces().collect();
        self.link = Link::Replaying { left: pieces.len(), bytes: self.log.bytes() };
        if pieces.is_empty() {
            return self.resume(now, 0);
        }
        for (offset, data) in pieces {
            let tag = self.tag();
            let entry = Entry { purpose: Purpose::Replay, arrived: now, sent: Some(now), mark: 0 };
            self.entries.insert(tag, entry);
            let len = u32::try_from(data.len()).expect("a piece is at most one request");
            self.actions.push_back(Action::Send {
                tag,
                flags: 0,
                command: command::WRITE,
                offset,
                len,
                data,
            });
        }
    }

    fn resume(&mut self, now: Instant, replayed: usize) {
        self.link = Link::Up;
        self.pause = MIN_PAUSE;
        let waiting: Vec<_> =
            self.entries.iter().filter(|(_, e)| e.sent.is_none()).map(|(tag, _)| *tag).collect();
        for tag in waiting {
            self.send(now, tag);
        }
        if let Some(outage) = self.outage.take() {
            let away = now.saturating_duration_since(outage.since);
            self.actions.push_back(Action::Notice(Notice::Back { away, replayed }));
        }
        self.flush_if_large(now);
    }

    /// An attempt to connect failed.
    pub fn handle_refused(&mut self, now: Instant, why: String) {
        if let Link::Down { next } = &mut self.link {
            *next = Some(now + self.pause);
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
        if let Some(outage) = &mut self.outage
            && outage.why != why
        {
            outage.why.clone_from(&why);
            self.actions.push_back(Action::Notice(Notice::Waiting { why }));
        }
        self.handle_time(now);
    }

    /// The connection ended.
    pub fn handle_lost(&mut self, now: Instant, why: String) {
        if !matches!(self.link, Link::Down { .. }) {
            self.lose(now, why);
        }
    }

    fn lose(&mut self, now: Instant, why: String) {
        self.actions.retain(|action| !matches!(action, Action::Send { .. }));
        self.actions.push_back(Action::Hangup);
        self.link = Link::Down { next: (!self.ended).then_some(now) };
        if self.ended {
            return;
        }
        self.own_flush = false;
        self.entries.retain(|_, entry| matches!(entry.purpose, Purpose::Host { .. }));
        self.entries.values_mut().for_each(|entry| entry.sent = None);
        let held = self.entries.values().map(|entry| entry.arrived).min();
        match &mut self.outage {
            // It was lost again before all was as before.
            Some(outage) => outage.why = why,
            None => {
                self.actions.push_back(Action::Notice(Notice::Lost { why: why.clone() }));
                self.outage = Some(Outage { since: now, why, held, failing: false });
            }
        }
        self.handle_time(now);
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Instant) {
        let stuck = self.entries.values().filter_map(|e| e.sent).any(|at| at + self.hold <= now);
        if stuck && !matches!(self.link, Link::Down { .. }) {
            return self.lose(now, format!("no answer for {} s", self.hold.as_secs()));
        }
        if self.give_up_at().is_some_and(|at| at <= now) {
            self.fail_all();
        }
        if let Link::Down { next } = &mut self.link
            && next.is_some_and(|at| at <= now)
            && !self.ended
        {
            *next = None;
            self.actions.push_back(Action::Dial);
        }
    }

    fn fail_all(&mut self) {
        let Some(outage) = &mut self.outage else { return };
        outage.failing = true;
        let why = outage.why.clone();
        self.actions.push_back(Action::Notice(Notice::Failing { why: why.clone() }));
        let (hosts, rest) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|(_, entry)| matches!(entry.purpose, Purpose::Host { .. }));
        self.entries = rest;
        self.bytes = 0;
        for (_, entry) in BTreeMap::<Tag, Entry>::into_iter(hosts) {
            // What the kernel has forgotten it will ask for again.
            if let Purpose::Host { request, answer: true } = entry.purpose {
                self.give_up(&request, why.clone());
            }
        }
    }

    fn give_up(&mut self, request: &Request, why: String) {
        self.answer(request, Some(ErrorCode::Io), Payload::default());
        if let Some(what) = changes(request.command) {
            self.end(Cause::Outage { what, held: self.hold, why });
        }
    }

    fn end(&mut self, cause: Cause) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.actions.retain(|action| !matches!(action, Action::Send { .. }));
        for (_, entry) in std::mem::take(&mut self.entries) {
            if let Purpose::Host { request, answer: true } = entry.purpose {
                self.answer(&request, Some(ErrorCode::Io), Payload::default());
            }
        }
        self.bytes = 0;
        self.log = ReplayLog::default();
        self.outage = None;
        self.link = Link::Down { next: None };
        self.actions.push_back(Action::Hangup);
        self.actions.push_back(Action::End(cause));
    }

    fn flush_if_large(&mut self, now: Instant) {
        if !self.log.wants_flush() || self.own_flush || !matches!(self.link, Link::Up) || self.ended
        {
            return;
        }
        self.own_flush = true;
        let tag = self.tag();
        let entry =
            Entry { purpose: Purpose::Flush, arrived: now, sent: Some(now), mark: self.log.mark() };
        self.entries.insert(tag, entry);
        let (command, data) = (command::FLUSH, Payload::default());
        self.actions.push_back(Action::Send { tag, flags: 0, command, offset: 0, len: 0, data });
    }

    fn send(&mut self, now: Instant, tag: Tag) {
        let mark = self.log.mark();
        let Some(entry) = self.entries.get_mut(&tag) else { return };
        let Purpose::Host { request, .. } = &entry.purpose else { return };
        // Its deadline counts from its arrival, not from its last sending.
        entry.sent = Some(entry.arrived.min(now));
        entry.mark = mark;
        self.actions.push_back(Action::Send {
            tag,
            flags: request.flags & flag::FUA,
            command: request.command,
            offset: request.offset,
            len: request.len,
            data: Arc::clone(&request.data),
        });
    }

    fn answer(&mut self, request: &Request, error: Option<ErrorCode>, data: Payload) {
        self.actions.push_back(Action::Reply { cookie: request.cookie, error, data });
    }

    fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        self.next_tag
    }
}

/// Requests after whose failure the blade's cache is not what the server has.
fn changes(command: u16) -> Option<&'static str> {
    match command {
        command::WRITE => Some("write"),
        command::FLUSH => Some("flush"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
mod types;
