// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use crate::nbd::flags;

const EXPORT: Export =
    Export { size: 1 << 30, flags: flags::HAS_FLAGS | flags::SEND_FLUSH | flags::SEND_FUA };
const SECOND: Duration = Duration::from_secs(1);

/// A core with a clock, and what it asked for.
struct World {
    proxy: Proxy,
    now: Instant,
    cookie: u64,
    sent: Vec<(Tag, u16, u64)>,
    replies: Vec<(u64, Option<ErrorCode>)>,
    dials: usize,
    dialing: bool,
    ended: Vec<Cause>,
    notices: Vec<Notice>,
    whys: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self {
            proxy: Proxy::connected(EXPORT),
            now: Instant::now(),
            cookie: 0,
            sent: vec![],
            replies: vec![],
            dials: 0,
            dialing: false,
            ended: vec![],
            notices: vec![],
            whys: vec![],
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.proxy.next_action() {
            match action {
                Action::Send { tag, command, offset, .. } => self.sent.push((tag, command, offset)),
                Action::Reply { cookie, error, .. } => self.replies.push((cookie, error)),
                Action::Dial => {
                    assert!(!self.dialing, "one attempt at a time");
                    self.dialing = true;
                    self.dials += 1;
                }
                Action::Hangup => {}
                Action::End(cause) => self.ended.push(cause),
                Action::Notice(Notice::Waiting { why }) => self.whys.push(why),
                Action::Notice(notice) => self.notices.push(notice),
            }
        }
    }

    fn ask(&mut self, command: u16, offset: u64, len: usize) -> u64 {
        self.ask_with(command, 0, offset, len)
    }

    fn ask_with(&mut self, command: u16, flags: u16, offset: u64, len: usize) -> u64 {
        self.cookie += 1;
        let data = Arc::new(if command == command::WRITE { vec![7; len] } else { vec![] });
        let len = u32::try_from(len).unwrap();
        let request = Request { cookie: self.cookie, flags, command, offset, len, data };
        self.proxy.handle_request(self.now, request);
        self.act();
        self.cookie
    }

    /// The server answers all it was sent.
    fn serve(&mut self) {
        while !self.sent.is_empty() {
            for (tag, ..) in std::mem::take(&mut self.sent) {
                let data = vec![0; self.proxy.expected(tag).unwrap() as usize];
                self.proxy.handle_reply(self.now, tag, None, data);
            }
            self.act();
        }
    }

    fn answer(&mut self, error: ErrorCode) {
        let (tag, ..) = self.sent.remove(0);
        self.proxy.handle_reply(self.now, tag, Some(error), vec![]);
        self.act();
    }

    fn lose(&mut self) {
        self.sent.clear();
        self.proxy.handle_lost(self.now, "gone".into());
        self.act();
    }

    fn connect(&mut self, export: Export) {
        self.dialing = false;
        self.proxy.handle_connected(self.now, export);
        self.act();
    }

    /// Time passes; attempts to connect fail.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.refuse();
        while let Some(next) = self.proxy.next_time().filter(|next| *next <= end) {
            assert!(next > self.now || self.dials < 100, "it must not spin");
            self.now = self.now.max(next);
            self.proxy.handle_time(self.now);
            self.act();
            self.refuse();
        }
        self.now = end;
        self.proxy.handle_time(self.now);
        self.act();
    }

    fn refuse(&mut self) {
        while std::mem::take(&mut self.dialing) {
            self.proxy.handle_refused(self.now, "refused".into());
            self.act();
        }
    }

    fn errors(&self) -> Vec<u64> {
        self.replies
            .iter()
            .filter(|(_, error)| error.is_some())
            .map(|(cookie, _)| *cookie)
            .collect()
    }
}

#[test]
fn a_short_outage_is_a_delay() {
    let mut world = World::new();
    world.ask(command::READ, 0, 4096);
    world.ask(command::WRITE, 4096, 4096);
    world.lose();
    world.ask(command::FLUSH, 0, 0);
    world.pass(SECOND * 3);
    assert!(world.dials > 3, "{} attempts in 3 s", world.dials);
    assert_eq!(world.whys, ["refused"], "told once");
    assert!(world.replies.is_empty());
    world.connect(EXPORT);
    let commands: Vec<_> = world.sent.iter().map(|(_, command, _)| *command).collect();
    assert_eq!(commands, [command::READ, command::WRITE, command::FLUSH], "in the order they came");
    world.serve();
    assert_eq!(world.replies, [(1, None), (2, None), (3, None)]);
    assert!(
        matches!(world.notices[..], [Notice::Lost { .. }, Notice::Back { away, replayed: 0 }] if away == SECOND * 3)
    );
}

#[test]
fn nothing_waits_longer_than_the_host_bears() {
    let mut world = World::new();
    world.ask(command::READ, 0, 4096);
    world.pass(SECOND * 2);
    world.lose();
    world.pass(SECOND * 2);
    world.ask(command::READ, 4096, 4096);
    world.pass(SECOND / 2);
    assert!(world.replies.is_empty());
    world.pass(SECOND / 2);
    assert_eq!(world.errors(), [1, 2], "5 s after the first came, however young the second is");
    world.pass(SECOND * 60);
    world.ask(command::READ, 0, 4096);
    assert_eq!(world.errors(), [1, 2, 3], "at once");
    assert!(world.ended.is_empty(), "a read that failed spoils no cache");
    world.connect(EXPORT);
    world.ask(command::READ, 0, 4096);
    world.serve();
    assert_eq!(world.replies.last(), Some(&(4, None)));
}

#[test]
fn an_outage_nobody_saw_is_not_counted() {
    let mut world = World::new();
    world.lose();
    world.pass(SECOND * 60);
    world.ask(command::READ, 0, 4096);
    world.pass(SECOND * 4);
    assert!(world.replies.is_empty(), "the first to ask may still wait");
    world.connect(EXPORT);
    world.serve();
    assert_eq!(world.replies, [(1, None)]);
    world.lose();
    world.pass(SECOND * 60);
    world.ask(command::READ, 0, 4096);
    world.pass(HOLD);
    assert_eq!(world.errors(), [2], "but not for ever");
}

#[test]
fn a_server_that_says_nothing_is_left() {
    let mut world = World::new();
    world.ask(command::READ, 0, 4096);
    world.pass(HOLD);
    assert_eq!(world.errors(), [1]);
    assert!(matches!(&world.notices[0], Notice::Lost { why } if why.contains("no answer")));
    assert_eq!(world.proxy.expected(world.sent[0].0), None, "what comes late is for nobody");
}

#[test]
fn a_write_that_cannot_be_done_ends_the_session() {
    for command in [command::WRITE, command::FLUSH] {
        let mut world = World::new();
        world.ask(command, 0, 0);
        world.ask(command::READ, 0, 512);
        world.lose();
        world.pass(HOLD);
        assert_eq!(world.errors(), [1, 2]);
        assert!(
            matches!(&world.ended[..], [Cause::Outage { why, .. }] if why == "refused"),
            "{:?}",
            world.ended
        );
        // The server is back, but what was refused must not be followed by what is accepted.
        world.connect(EXPORT);
        world.ask(command::WRITE, 0, 512);
        assert_eq!(world.errors(), [1, 2, 3]);
        assert_eq!(world.ended.len(), 1);
        assert!(world.proxy.next_time().is_none());
    }
}

#[test]
fn a_refused_write_ends_the_session_and_a_refused_read_does_not() {
    let mut world = World::new();
    world.ask(command::READ, 0, 512);
    world.answer(ErrorCode::Io);
    assert!(world.ended.is_empty());
    world.ask(command::WRITE, 0, 512);
    world.answer(ErrorCode::NoSpc);
    assert_eq!(world.replies[1], (2, Some(ErrorCode::NoSpc)), "the real error");
    assert_eq!(world.ended, [Cause::Refused { what: "write", code: ErrorCode::NoSpc }]);
}

#[test]
fn a_server_that_shuts_down_keeps_nobody_from_waiting() {
    let mut world = World::new();
    world.ask(command::WRITE, 0, 512);
    world.answer(ErrorCode::Shutdown);
    assert!(world.replies.is_empty() && world.ended.is_empty());
    world.connect(EXPORT);
    world.serve();
    assert_eq!(world.replies, [(1, None)]);
}

#[test]
fn what_was_acknowledged_is_written_again_before_all_else() {
    let mut world = World::new();
    world.ask(command::WRITE, 0, 4096);
    world.ask(command::WRITE, 1 << 20, 4096);
    world.serve();
    world.ask(command::READ, 0, 4096);
    world.lose();
    world.connect(EXPORT);
    let sent: Vec<_> = world.sent.iter().map(|(_, command, offset)| (*command, *offset)).collect();
    assert_eq!(
        sent,
        [(command::WRITE, 0), (command::WRITE, 1 << 20)],
        "and no read before they are done"
    );
    let (first, ..) = world.sent.remove(0);
    world.proxy.handle_reply(world.now, first, None, vec![]);
    world.act();
    // Lost again in the middle: all of it once more.
    world.lose();
    world.connect(EXPORT);
    assert_eq!(world.sent.len(), 2);
    world.serve();
    assert_eq!(world.replies, [(1, None), (2, None), (3, None)], "each is answered once");
    world.ask(command::FLUSH, 0, 0);
    world.serve();
    world.lose();
    world.connect(EXPORT);
    assert!(world.sent.is_empty(), "a flush makes it the server's");
}

#[test]
fn a_flush_that_was_under_way_covers_only_what_was_before_it() {
    let mut world = World::new();
    world.ask(command::WRITE, 0, 512);
    world.serve();
    world.ask(command::FLUSH, 0, 0);
    let flush = world.sent.remove(0).0;
    world.ask(command::WRITE, 4096, 512);
    world.serve();
    world.proxy.handle_reply(world.now, flush, None, vec![]);
    world.act();
    world.lose();
    world.connect(EXPORT);
    assert_eq!(world.sent.iter().map(|(.., offset)| *offset).collect::<Vec<_>>(), [4096]);
}

#[test]
fn a_stable_write_needs_no_log() {
    let mut world = World::new();
    world.ask(command::WRITE, 0, 8192);
    world.serve();
    world.ask_with(command::WRITE, flag::FUA, 0, 4096);
    world.serve();
    world.lose();
    world.connect(EXPORT);
    assert_eq!(world.sent.iter().map(|(.., offset)| *offset).collect::<Vec<_>>(), [4096]);
}

#[test]
fn the_log_is_flushed_before_it_is_full() {
    let mut world = World::new();
    let mut flushes = 0;
    for n in 0..200_u64 {
        assert!(world.proxy.wants_requests());
        world.ask(command::WRITE, n << 18, 1 << 18);
        let (tag, ..) = world.sent.remove(0);
        world.proxy.handle_reply(world.now, tag, None, vec![]);
        world.act();
        flushes += world.sent.iter().filter(|(_, command, _)| *command == command::FLUSH).count();
        world.serve();
    }
    assert!((5..10).contains(&flushes), "{flushes} flushes for 50 MiB");
}

#[test]
fn a_full_log_holds_writers_back_until_it_is_flushed() {
    let mut world = World::new();
    let mut flush = None;
    for n in 0..64_u64 {
        world.ask(command::WRITE, n << 18, 1 << 18);
        for (tag, command, _) in std::mem::take(&mut world.sent) {
            if command == command::FLUSH {
                assert_eq!(flush.replace(tag), None, "one at a time");
            } else {
                world.proxy.handle_reply(world.now, tag, None, vec![]);
                world.act();
                flush = world.sent.pop().map(|(tag, ..)| tag).or(flush);
            }
        }
    }
    assert!(!world.proxy.wants_requests());
    world.proxy.handle_reply(world.now, flush.unwrap(), None, vec![]);
    assert!(world.proxy.wants_requests());
}

#[test]
fn another_export_ends_the_session() {
    let mut world = World::new();
    world.ask(command::READ, 0, 512);
    world.lose();
    let is = Export { size: 512, ..EXPORT };
    world.connect(is);
    assert_eq!(world.errors(), [1]);
    assert_eq!(world.ended, [Cause::Changed { was: EXPORT, is }]);
}

#[test]
fn requests_that_make_no_sense_are_refused_here() {
    let mut world = World::new();
    world.ask(command::READ, 1 << 30, 512);
    world.ask(command::READ, u64::MAX, 512);
    world.ask(command::TRIM, 0, 512);
    world.ask(99, 0, 0);
    assert!(world.sent.is_empty() && world.ended.is_empty());
    assert!(world.replies.iter().all(|(_, error)| *error == Some(ErrorCode::Inval)));
    world.proxy = Proxy::connected(Export { flags: flags::HAS_FLAGS | flags::READ_ONLY, ..EXPORT });
    world.ask(command::WRITE, 0, 512);
    assert_eq!(world.replies.last().unwrap().1, Some(ErrorCode::Perm));
    assert!(world.ended.is_empty());
}

#[test]
fn a_kernel_that_begins_anew_gets_no_old_answers() {
    let mut world = World::new();
    world.ask(command::READ, 0, 512);
    world.proxy.handle_host_gone();
    world.ask(command::READ, 0, 512);
    world.serve();
    assert_eq!(world.replies, [(2, None)]);
}

#[test]
fn pending_requests_are_bounded() {
    let mut world = World::new();
    for _ in 0..MAX_PENDING {
        assert!(world.proxy.wants_requests());
        world.ask(command::READ, 0, 512);
    }
    assert!(!world.proxy.wants_requests());
    world.lose();
    assert!(!world.proxy.wants_requests());
    world.pass(HOLD);
    assert!(world.proxy.wants_requests(), "they are answered, if with errors");
}

#[test]
fn a_session_taken_over_connects_first() {
    let now = Instant::now();
    let mut world = World::new();
    world.proxy = Proxy::disconnected(now, EXPORT);
    world.act();
    assert_eq!(world.dials, 1);
    world.ask(command::READ, 0, 512);
    world.connect(EXPORT);
    world.serve();
    assert_eq!(world.replies, [(1, None)]);
}

/// A server that forgets what was not flushed when it is restarted, and a host that checks all it reads.
#[test]
fn no_byte_is_lost_over_any_number_of_restarts() {
    for seed in 1..200_u64 {
        let mut state = seed;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut stable, mut volatile, mut expected) = ([0_u8; 16], [0_u8; 16], [0_u8; 16]);
        let export = Export { size: 16, ..EXPORT };
        let mut proxy = Proxy::connected(export);
        let now = Instant::now();
        let mut queue = vec![];
        let mut asked = BTreeMap::new();
        for step in 0..400_u64 {
            match random(10) {
                // One request in flight for each place, as the page cache does it.
                0..4 if asked.is_empty() || random(2) == 0 => {
                    let offset = random(16);
                    let len = 1 + random(4.min(16 - offset));
                    let here = offset..offset + len;
                    let busy = asked.values().any(|r: &Request| {
                        r.offset < here.end && r.offset + u64::from(r.len) > here.start
                    });
                    if !busy {
                        let write = random(3) > 0;
                        let command = if write { command::WRITE } else { command::READ };
                        let byte = u8::try_from(step % 250).unwrap() + 1;
                        let data = Arc::new(if write {
                            vec![byte; usize::try_from(len).unwrap()]
                        } else {
                            vec![]
                        });
                        let flags = if write && random(4) == 0 { flag::FUA } else { 0 };
                        let len = u32::try_from(len).unwrap();
                        let request = Request { cookie: step, flags, command, offset, len, data };
                        asked.insert(step, request.clone());
                        proxy.handle_request(now, request);
                    }
                }
                4 => proxy.handle_request(
                    now,
                    Request {
                        cookie: 1000,
                        flags: 0,
                        command: command::FLUSH,
                        offset: 0,
                        len: 0,
                        data: Payload::default(),
                    },
                ),
                5 => {
                    // Restarted: anything may have been written behind, or not.
                    for (old, new) in stable.iter_mut().zip(volatile) {
                        if random(2) == 0 {
                            *old = new;
                        }
                    }
                    volatile = stable;
                    queue.clear();
                    proxy.handle_lost(now, String::new());
                    proxy.handle_connected(now, export);
                }
                _ if !queue.is_empty() => {
                    let at = usize::try_from(random(queue.len() as u64)).unwrap();
                    let (tag, flags, command, offset, len, data): (
                        Tag,
                        u16,
                        u16,
                        usize,
                        usize,
                        Payload,
                    ) = queue.remove(at);
                    let mut read = vec![];
                    match command {
                        command::WRITE => {
                            volatile[offset..offset + len].copy_from_slice(&data);
                            if flags & flag::FUA != 0 {
                                stable[offset..offset + len].copy_from_slice(&data);
                            }
                        }
                        command::FLUSH => stable = volatile,
                        _ => read = volatile[offset..offset + len].to_vec(),
                    }
                    proxy.handle_reply(now, tag, None, read);
                }
                _ => {}
            }
            while let Some(action) = proxy.next_action() {
                match action {
                    Action::Send { tag, flags, command, offset, len, data } => {
                        queue.push((
                            tag,
                            flags,
                            command,
                            usize::try_from(offset).unwrap(),
                            len as usize,
                            data,
                        ));
                    }
                    Action::Hangup => queue.clear(),
                    Action::Reply { cookie, error, data } => {
                        assert_eq!(error, None);
                        let Some(request) = asked.remove(&cookie) else { continue };
                        let at = usize::try_from(request.offset).unwrap();
                        let range = at..at + request.len as usize;
                        if request.command == command::WRITE {
                            expected[range].copy_from_slice(&request.data);
                        } else {
                            assert_eq!(&expected[range], &data[..], "seed {seed}, step {step}");
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
