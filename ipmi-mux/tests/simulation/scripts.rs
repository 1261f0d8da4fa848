// SPDX-License-Identifier: MIT OR Apache-2.0
//! What takes several commands: reading all sensor data records as ipmitool does, and clearing the event
//! log with a reservation.

use super::clients::{Kind, send};
use super::model::HEADER;
use super::oracle::{Op, Store};
use super::world::World;

/// Where a walker or a clearer stands.
#[derive(Debug, Default)]
pub struct Script {
    pub step: u8,
    pub waits_for: Option<i64>,
    pub reservation: Option<usize>,
    pub id: [u8; 2],
    pub record: u16,
    pub next: u16,
    pub offset: u8,
    pub len: u8,
    pub chunk: u8,
    pub version: u8,
    pub failures: u8,
}

/// Sends what comes next in the script, if the last answer is there.
pub fn advance(world: &mut World, at: usize) {
    if world.clients[at].script.waits_for.is_some() {
        return;
    }
    let Script { step, reservation, id: [low, high], record, offset, len, chunk, .. } =
        world.clients[at].script;
    let is_walker = world.clients[at].kind == Kind::Walker;
    let [r0, r1] = record.to_le_bytes();
    let sent = match (is_walker, step, reservation) {
        (true, 1, Some(res)) => {
            send(world, at, (0x0a, 0x23), &[low, high, r0, r1, 0, HEADER], Op::Sdr(Some(res)))
        }
        (true, 2, Some(res)) => {
            let count = chunk.min(len - offset);
            send(world, at, (0x0a, 0x23), &[low, high, r0, r1, offset, count], Op::Sdr(Some(res)))
        }
        (false, 1, Some(res)) => {
            let operation = world.rng.below(10);
            let clear = |last: u8| [low, high, b'C', b'L', b'R', last];
            match operation {
                0 => send(world, at, (0x0a, 0x47), &clear(0), Op::ClearStatus(res)),
                1 => {
                    let data = [low, high, 0, 0, 0, 0xff];
                    send(world, at, (0x0a, 0x43), &data, Op::SelEntry(Some(res)))
                }
                _ => send(world, at, (0x0a, 0x47), &clear(0xaa), Op::Clear(res)),
            }
        }
        _ => {
            let store = if is_walker { Store::Sdr } else { Store::Sel };
            // Where the send is refused, the order does not exist, and nobody misses the reservation.
            let controller = world.clients[at].controller;
            let res = world.oracle.reserve(world.now, controller, store);
            world.clients[at].script.step = 0;
            send(world, at, (0x0a, if is_walker { 0x22 } else { 0x42 }), &[], Op::Reserve(res))
        }
    };
    world.clients[at].script.waits_for = sent;
}

/// The answer a script has waited for.
pub fn progress(world: &mut World, at: usize, op: &Op, data: &[u8]) {
    let again = world.rng.permille(300);
    if let (Op::Sdr(_), [0, _, _, piece @ ..], script) = (op, data, &world.clients[at].script) {
        let mixed = script.step == 2 && piece.first() != Some(&script.version);
        world.mixed_records += u64::from(mixed);
    }
    let script = &mut world.clients[at].script;
    let failed = data[0] != 0;
    script.failures = if failed { script.failures + 1 } else { 0 };
    if data[0] == 0xc5 || script.failures > 3 || data[0] == 0xcb {
        script.step = 0;
        return;
    }
    match (op, data) {
        (Op::Reserve(res), [0, low, high]) => {
            script.reservation = Some(*res);
            script.id = [*low, *high];
            script.record = 0;
            script.step = 1;
        }
        (Op::Sdr(_), [0, n0, n1, piece @ ..]) => {
            if script.step == 1 && piece.len() == usize::from(HEADER) {
                script.next = u16::from_le_bytes([*n0, *n1]);
                script.offset = HEADER;
                script.len = HEADER + piece[4];
                script.version = piece[2];
                script.step = 2;
            } else {
                script.offset += u8::try_from(piece.len()).expect("short");
            }
            if script.offset >= script.len && script.step == 2 {
                script.record = script.next;
                script.step = if script.next == 0xffff { 0 } else { 1 };
            }
        }
        // It may clear again with the same reservation, which is then no longer good.
        (Op::Clear(_), [0, ..]) if !again => script.step = 0,
        _ => {}
    }
}
