// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clients: programs of several kinds, with all their bad manners.

use std::collections::VecDeque;

use ipmi_mux::addr::Addr;
use ipmi_mux::devintf::{Message, Send};
use ipmi_mux::mux::{HandleId, MAX_MESSAGES, Owner, Range};
use nix::errno::Errno;

use super::model::{HEADER, Time};
use super::oracle::{Op, Part, Store, Wish};
use super::scripts::{Script, advance, progress};
use super::world::{Event, World};

/// `IPMI_RESPONSE_RECV_TYPE`, `IPMI_ASYNC_EVENT_RECV_TYPE`.
const RESPONSE: i32 = 1;
const EVENT: i32 = 2;
/// Handles a world opens in all.
const MAX_CLIENTS: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads all sensor data records as ipmitool does, again and again.
    Walker,
    /// Clears the event log with a reservation, after some thought.
    Clearer,
    /// Sends as much as it may at once.
    Flooder,
    /// Asks this and that.
    Poller,
    Watchdog,
    Boot,
    Enabler,
    /// Reserves sequence numbers, whose answers another handle gets.
    Ranger,
    /// Changes what others read.
    Changer,
}

pub struct Client {
    pub id: HandleId,
    pub kind: Kind,
    pub is_open: bool,
    pub controller: HandleId,
    pub listens: bool,
    /// Reads its answers at once, and goes on at once.
    pub eager: bool,
    /// When each message of its inbox arrived, and when the back end had been idle last.
    pub arrivals: VecDeque<(Time, Time)>,
    /// Events it is to have.
    pub events: VecDeque<u32>,
    pub next_msgid: i64,
    range: Option<Reserved>,
    pub script: Script,
}

/// A range of sequence numbers, and who gets the answers.
struct Reserved {
    range: Range,
    used: u32,
    client: Option<usize>,
}

pub fn open(world: &mut World) -> usize {
    let kind = *world.rng.pick(&world.plan.kinds.clone());
    let at = open_as(world, kind);
    let first = world.rng.below(world.plan.pause);
    world.after(first, Event::Act(at));
    at
}

pub fn open_as(world: &mut World, kind: Kind) -> usize {
    let node = if world.calm { 0 } else { world.rng.index(3) };
    let owner = Owner { node, uid: 0, gid: 0, pid: 0 };
    let id = world.mux.open(world.instant(), owner).expect("fewer than there may be");
    let at = world.clients.len();
    // Tells the request's sender at the BMC; no real LUN is that large.
    let [low, high] = u16::try_from(at).expect("few").to_le_bytes();
    *world.mux.source(id, 15).expect("it is open") = (low, high + 4);
    let listens = !world.calm && world.rng.permille(200);
    let eager = world.calm || listens || world.rng.permille(700);
    if listens {
        world.mux.set_gets_events(id, true).expect("it is open");
    }
    let script = Script { chunk: *world.rng.pick(&[4, 16, 60]), ..Script::default() };
    world.note(|_| format!("client {at} opens {id:?}: {kind:?}, listens {listens}, eager {eager}"));
    world.clients.push(Client {
        id,
        kind,
        is_open: true,
        controller: id,
        listens,
        eager,
        arrivals: VecDeque::new(),
        events: VecDeque::new(),
        next_msgid: i64::try_from(world.rng.below(3)).expect("small"),
        range: None,
        script,
    });
    at
}

pub fn close(world: &mut World, at: usize) {
    world.note(|w| format!("client {at} closes {:?}", w.clients[at].id));
    let now = world.now;
    world.clients[at].is_open = false;
    world.clients[at].range = None;
    for other in &mut world.clients {
        if let Some(range) = &mut other.range
            && range.client == Some(at)
        {
            range.client = None;
        }
    }
    world.oracle.client_closed(now, at, &world.orders);
    let controller = world.clients[at].controller;
    leave(world, controller);
    world.mux.close(world.instant(), world.clients[at].id);
}

/// With the last handle of a controller goes what it held.
fn leave(world: &mut World, controller: HandleId) {
    if !world.clients.iter().any(|c| c.is_open && c.controller == controller) {
        world.oracle.controller_gone(world.now, controller);
    }
}

/// There is something in the inbox.
pub fn wake(world: &mut World, id: HandleId) {
    let Some(at) = world.clients.iter().position(|c| c.id == id && c.is_open) else { return };
    if world.clients[at].eager {
        read(world, at, usize::MAX);
    }
}

/// Reads so many messages.
pub fn read(world: &mut World, at: usize, most: usize) {
    for _ in 0..most {
        let id = world.clients[at].id;
        // What is answered while we read wakes us again.
        let is_told = !world.clients[at].arrivals.is_empty();
        if !world.clients[at].is_open || !is_told || !world.is_right() {
            return;
        }
        let Ok(message) = world.mux.peek(id).cloned() else { break };
        world.mux.take(id);
        let arrived = world.clients[at].arrivals.pop_front();
        match arrived {
            Some(arrived) => receive(world, at, arrived, &message),
            None => world.fail(format!("client {at} was not told of {message:02x?}")),
        }
    }
}

fn receive(world: &mut World, at: usize, arrived: (Time, Time), message: &Message) {
    let Message { recv_type, msgid, netfn, cmd, ref data, addr } = *message;
    if recv_type == EVENT {
        let expected = world.clients[at].events.pop_front();
        let got = data[..].try_into().ok().map(u32::from_le_bytes);
        world.demand(expected.is_some() && got == expected, || {
            format!("client {at} got event {got:?}, not {expected:?}")
        });
        return;
    }
    let Some(order) = world.oracle.take_expected(at, msgid).filter(|_| recv_type == RESPONSE)
    else {
        return world.fail(format!("client {at} waits for no {message:02x?}"));
    };
    world.note(|_| format!("client {at} reads the answer to order {order}: {data:02x?}"));
    let asked = &world.orders[order];
    let right = (asked.netfn | 1, asked.cmd, asked.addr) == (netfn, cmd, addr);
    world.demand(right, || format!("client {at} gets {message:02x?} for order {order}"));
    if world.is_right() {
        world.check_answer(order, arrived, data);
    }
    if world.clients[at].script.waits_for == Some(msgid) {
        world.clients[at].script.waits_for = None;
        let op = world.orders[order].op.clone();
        progress(world, at, &op, data);
        let client = &world.clients[at];
        // After a walk it pauses: from the cache it could walk on for ever without time passing.
        if client.eager && client.kind == Kind::Walker && client.script.step > 0 {
            advance(world, at);
        }
    }
}

/// Sends a command. Returns its message id if it was accepted.
pub fn send(
    world: &mut World,
    at: usize,
    (netfn, cmd): (u8, u8),
    data: &[u8],
    op: Op,
) -> Option<i64> {
    world.clients[at].next_msgid += 1;
    let msgid = world.clients[at].next_msgid;
    send_as(world, at, msgid, (netfn, cmd), data, op)
}

fn send_as(
    world: &mut World,
    at: usize,
    msgid: i64,
    (netfn, cmd): (u8, u8),
    data: &[u8],
    op: Op,
) -> Option<i64> {
    let receiver = receiver(world, at, msgid);
    let has_room = |world: &World, of| world.oracle.waits_for(of) < MAX_MESSAGES;
    let room = has_room(world, at) && has_room(world, receiver);
    let lun = if op == Op::Echo { world.rng.byte() & 3 } else { 0 };
    let addr = Addr::system_interface(lun);
    let order = world.order((at, receiver), (netfn, cmd, data.to_vec()), addr, msgid, op);
    world.note(|w| {
        format!(
            "client {at} sends order {}: {netfn:02x}/{cmd:02x} {data:02x?}, room {room}",
            w.orders.len()
        )
    });
    if room {
        world.ordered(order);
    }
    let send = Send { addr, msgid, netfn, cmd, data: data.to_vec(), timing: None };
    let (now, id) = (world.instant(), world.clients[at].id);
    match (world.mux.send(now, id, send), room) {
        (Ok(()), true) => Some(msgid),
        (Err(Errno::EBUSY), false) => None,
        (result, room) => {
            world.fail(format!("client {at} has room: {room}, and its send: {result:?}"));
            None
        }
    }
}

/// Who gets the answer.
fn receiver(world: &World, at: usize, msgid: i64) -> usize {
    let has =
        |r: &&Reserved| (r.range.first..r.range.first + i64::from(r.range.count)).contains(&msgid);
    let ranges = world.clients.iter().filter_map(|c| c.range.as_ref());
    let client = ranges.into_iter().find(has).and_then(|r| r.client);
    client.filter(|to| world.clients[*to].controller == world.clients[at].controller).unwrap_or(at)
}

/// A client's turn.
pub fn act(world: &mut World, at: usize) {
    if world.calm || !world.clients[at].is_open || world.steps_left == 0 {
        return;
    }
    world.steps_left -= 1;
    if !world.clients[at].eager && world.rng.permille(600) {
        let most = world.rng.index(150);
        read(world, at, most);
    }
    if world.rng.permille(world.plan.deaths) {
        close(world, at);
        if world.clients.len() < MAX_CLIENTS {
            open(world);
        }
        return;
    }
    if world.rng.permille(20) && world.clients[at].eager {
        let listens = !world.clients[at].listens;
        world.clients[at].listens = listens;
        world.mux.set_gets_events(world.clients[at].id, listens).expect("it is open");
    }
    do_something(world, at);
    let pause = world.rng.between(1, world.plan.pause);
    world.after(pause, Event::Act(at));
}

fn do_something(world: &mut World, at: usize) {
    match world.clients[at].kind {
        Kind::Walker | Kind::Clearer => advance(world, at),
        Kind::Flooder => {
            for _ in 0..world.rng.between(1, 120) {
                ask_anything(world, at);
            }
        }
        Kind::Poller => ask_anything(world, at),
        Kind::Watchdog => {
            match world.rng.below(3) {
                0 => send(
                    world,
                    at,
                    (0x06, 0x24),
                    &[4, 0, 0, 0, 100, 0],
                    Op::Lease(Part::Watchdog, Wish::Take),
                ),
                1 => send(world, at, (0x06, 0x22), &[], Op::Lease(Part::Watchdog, Wish::Use)),
                _ => send(world, at, (0x06, 0x25), &[], Op::GetWatchdog),
            };
        }
        Kind::Boot => {
            for _ in 0..world.rng.between(1, 3) {
                set_boot_option(world, at);
            }
        }
        Kind::Enabler => use_enables(world, at),
        Kind::Ranger => use_range(world, at),
        Kind::Changer => change(world, at),
    }
}

fn set_boot_option(world: &mut World, at: usize) {
    let (wish, data): (_, &[u8]) = match world.rng.below(4) {
        0 => (Wish::Use, &[5, 0x80, 8, 0, 0, 0]),
        1 => (Wish::GiveBack, &[0, 0]),
        _ => (Wish::Take, &[0, 1]),
    };
    send(world, at, (0x00, 0x08), data, Op::Lease(Part::Boot, wish));
}

/// One at a time: it wants to know what it has set.
fn use_enables(world: &mut World, at: usize) {
    if world.oracle.waits_for(at) > 0 {
        return;
    }
    if world.rng.permille(500) {
        let value = world.rng.byte() & 0x2e;
        send(world, at, (0x06, 0x2e), &[value], Op::SetEnables(value));
    } else {
        send(world, at, (0x06, 0x2f), &[], Op::GetEnables);
    }
}

fn use_range(world: &mut World, at: usize) {
    let draw = world.rng.below(10);
    let id = world.clients[at].id;
    if draw == 0 && world.clients[at].range.is_none() {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&world.rng.next().to_le_bytes());
        let count = u32::try_from(world.rng.between(1, 80)).expect("small");
        let range = world.mux.reserve_sequence(id, count, token).expect("there is room");
        world.note(|_| format!("client {at} reserves {} from {}", range.count, range.first));
        world.clients[at].range = Some(Reserved { range, used: 0, client: None });
    } else if draw == 1 {
        if let Some(Reserved { range, .. }) = world.clients[at].range.take() {
            world.mux.release_sequence(id, range.first).expect("it is its own");
        }
    } else if draw < 4 {
        let free = |(_, c): &(usize, &Client)| c.range.as_ref().is_some_and(|r| r.client.is_none());
        let owner = world.clients.iter().enumerate().find(free).map(|(owner, _)| owner);
        if let Some(owner) = owner.filter(|owner| *owner != at && world.clients[*owner].is_open) {
            attach(world, at, owner);
        }
    } else {
        let msgid = reserved_number(world, at);
        let payload = world.rng.next().to_le_bytes();
        if let Some(msgid) = msgid {
            send_as(world, at, msgid, (0x30, 0x01), &payload, Op::Echo);
        } else {
            ask_anything(world, at);
        }
    }
}

fn attach(world: &mut World, at: usize, owner: usize) {
    let Some(Reserved { range, .. }) = &world.clients[owner].range else { return };
    let (token, id, now) = (range.token, world.clients[at].id, world.instant());
    world.note(|_| format!("client {at} attaches to the range of client {owner}"));
    // Only one that waits for nothing may change its controller.
    let may = world.oracle.waits_for(at) == 0;
    let (before, after) = (world.clients[at].controller, world.clients[owner].controller);
    match world.mux.attach(now, id, &token) {
        Ok(_) => {
            if let Some(reserved) = &mut world.clients[owner].range {
                reserved.client = Some(at);
            }
            world.clients[at].controller = after;
            if before != after {
                leave(world, before);
            }
        }
        Err(Errno::EBUSY) if !may => {}
        Err(errno) => world.fail(format!("client {at} cannot attach to client {owner}: {errno}")),
    }
}

/// A number nobody has used yet, of whichever range.
fn reserved_number(world: &mut World, at: usize) -> Option<i64> {
    let from = world.rng.index(world.clients.len());
    let of = if world.rng.permille(500) { at } else { from };
    let reserved = world.clients[of].range.as_mut()?;
    let number = reserved.range.first + i64::from(reserved.used);
    reserved.used += 1;
    (reserved.used <= reserved.range.count).then_some(number)
}

fn change(world: &mut World, at: usize) {
    let resets = world.plan.faults.reset > 0;
    match world.rng.below(20) {
        0 if resets => send(world, at, (0x06, 0x02), &[], Op::Reset),
        0..10 => send(world, at, (0x04, 0x30), &[1, 0], Op::SetReading),
        _ => send(world, at, (0x30, 0x03), &[], Op::Counter),
    };
}

fn ask_anything(world: &mut World, at: usize) {
    let sensor = world.rng.byte() & 1;
    let id = world.rng.byte() & 7;
    let payload = world.rng.next().to_le_bytes();
    match world.rng.below(12) {
        0 => send(world, at, (0x30, 0x01), &payload, Op::Echo),
        1 => send(world, at, (0x30, 0x03), &[], Op::Counter),
        2..5 => send(world, at, (0x04, 0x2d), &[sensor], Op::Reading),
        5 => send(world, at, (0x06, 0x01), &[], Op::DeviceId),
        6 => send(world, at, (0x0a, 0x20), &[], Op::Info(Store::Sdr)),
        7 => send(world, at, (0x0a, 0x40), &[], Op::Info(Store::Sel)),
        8 => send(world, at, (0x0a, 0x43), &[0, 0, id, 0, 0, 0xff], Op::SelEntry(None)),
        9 => send(world, at, (0x0a, 0x23), &[0, 0, id, 0, 0, HEADER], Op::Sdr(None)),
        // Without a reservation where one is needed.
        10 => send(world, at, (0x0a, 0x23), &[0, 0, id, 0, HEADER, 16], Op::Sdr(None)),
        _ => {
            let cmd = if sensor == 0 { 0x31 } else { 0x30 };
            send(world, at, (0x06, cmd), if cmd == 0x31 { &[] } else { &[1] }, Op::Flags)
        }
    };
}

/// A command at a time that matters, of a client that reads.
pub fn echo(world: &mut World, at: usize) -> usize {
    let payload = world.rng.next().to_le_bytes();
    let order = world.orders.len();
    let sent = send(world, at, (0x30, 0x01), &payload, Op::Echo);
    world.demand(sent.is_some(), || format!("client {at} cannot send"));
    order
}
