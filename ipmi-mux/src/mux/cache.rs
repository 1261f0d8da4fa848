// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers that several clients may have: of a read that is on its way, and of one a moment ago.
//!
//! Only what [`crate::command`] calls a read is shared or kept. Every other command, when it goes to the
//! BMC and again when its answer is there, ends the sharing of the reads on their way and drops what it
//! may have changed: nobody reads something older than the last change made through the mux.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ipmi::{CompletionCode, NetFn};

use super::{Incoming, Token};
use crate::addr::{Addr, Kind};
use crate::command::Keep;
use crate::devintf::Send;

/// Answers kept, at most; some 150 bytes each, so about 600 KiB.
pub const MAX_ENTRIES: usize = 4096;
/// What a controller is changes with its firmware; a day of polling costs nothing at this age.
const IDENTITY_FOR: Duration = Duration::from_secs(10);
/// Inventories have no time stamp of their own; they change when somebody changes boards or writes
/// beside us.
const INVENTORY_FOR: Duration = Duration::from_secs(60);

/// What makes two reads the same: where to, as whom, and what, without the reservation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    addr: Addr,
    source: (u8, u8),
    netfn: u8,
    cmd: u8,
    data: Vec<u8>,
}

impl Key {
    /// `carries_reservation`: the first two bytes are a good one, or one that does not matter; which,
    /// makes no difference.
    pub fn new(send: &Send, source: (u8, u8), carries_reservation: bool) -> Self {
        let mut data = send.data.clone();
        if carries_reservation && data.len() >= 2 {
            data[..2].fill(0xff);
        }
        // The BMC itself does not learn our address.
        let bridged = send.addr.kind() != Kind::SystemInterface;
        let source = if bridged { source } else { (0, 0) };
        Self { addr: send.addr, source, netfn: send.netfn, cmd: send.cmd, data }
    }
}

#[derive(Debug)]
struct Entry {
    reply: Incoming,
    keep: Keep,
    /// When the command was handed to the BMC.
    sent: Instant,
    /// Of the repository the answer is from.
    generation: u64,
}

/// What is kept of an answer.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// The answer, good as it is.
    Fresh(&'a Incoming),
    /// An answer that is good if the repository did not change.
    IfUnchanged(&'a Incoming),
    Nothing,
}

#[derive(Debug)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    /// Reads on their way that others may share.
    shared: HashMap<Key, Token>,
    /// Counts the changes; a read answers what was before those since it was sent.
    epoch: u64,
    sensor_age: Duration,
}

impl Cache {
    pub fn new(sensor_age: Duration) -> Self {
        Self { entries: HashMap::new(), shared: HashMap::new(), epoch: 0, sensor_age }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// An answer for this read.
    pub fn find(&self, now: Instant, key: &Key, generation: u64) -> Found<'_> {
        let Some(entry) = self.entries.get(key) else { return Found::Nothing };
        let age = now.saturating_duration_since(entry.sent);
        let found = match entry.keep {
            Keep::InFlight => return Found::Nothing,
            Keep::Identity => age <= IDENTITY_FOR,
            Keep::Sensor => age <= self.sensor_age && !self.sensor_age.is_zero(),
            Keep::Inventory => age <= INVENTORY_FOR,
            Keep::Repository if entry.generation == generation => {
                return Found::IfUnchanged(&entry.reply);
            }
            Keep::Repository => false,
        };
        if found { Found::Fresh(&entry.reply) } else { Found::Nothing }
    }

    /// The read on its way that this one may share.
    pub fn on_its_way(&self, key: &Key) -> Option<Token> {
        self.shared.get(key).copied()
    }

    /// A read was handed to the BMC.
    pub fn share(&mut self, key: Key, token: Token) {
        self.shared.insert(key, token);
    }

    /// A read is shared no more.
    pub fn unshare(&mut self, key: &Key, token: Token) {
        if self.shared.get(key) == Some(&token) {
            self.shared.remove(key);
        }
    }

    /// Keeps an answer, unless something changed since it was sent.
    pub fn store(
        &mut self,
        key: Key,
        keep: Keep,
        sent: (Instant, u64),
        generation: u64,
        reply: &Incoming,
    ) {
        let (sent, epoch) = sent;
        if keep == Keep::InFlight || epoch != self.epoch || !is_lasting(keep, &reply.data) {
            return;
        }
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&key) {
            let oldest = self.entries.values().map(|e| e.sent).min().unwrap_or(sent);
            // The older half goes; to look for the oldest each time would cost more than to ask again.
            let middle = oldest + sent.saturating_duration_since(oldest) / 2;
            self.entries.retain(|_, e| e.sent > middle);
        }
        if self.entries.len() < MAX_ENTRIES {
            self.entries.insert(key, Entry { reply: reply.clone(), keep, sent, generation });
        }
    }

    /// A command that may change something goes to the BMC or came back from it.
    pub fn disturb(&mut self, send: &Send) {
        let affected: &[Keep] = match (NetFn::new(send.netfn & 0x3f), send.cmd) {
            // Watchdog timer: nothing that is kept.
            (Some(NetFn::APP), 0x22 | 0x24) => &[],
            (Some(NetFn::CHASSIS | NetFn::TRANSPORT), _) => &[Keep::Sensor],
            (Some(NetFn::SENSOR_EVENT), _) => &[Keep::Sensor],
            (Some(NetFn::STORAGE), 0x12) => &[Keep::Inventory],
            (Some(NetFn::STORAGE), 0x24..=0x2c) => &[Keep::Repository],
            (Some(NetFn::STORAGE), 0x44..=0x49) => &[],
            // Resets, firmware, vendors' commands, messages within messages: whatever.
            _ => &[Keep::Identity, Keep::Repository, Keep::Inventory, Keep::Sensor],
        };
        self.shared.clear();
        self.epoch += 1;
        if !affected.is_empty() {
            self.entries.retain(|_, e| !affected.contains(&e.keep));
        }
    }

    /// Forgets the records of a repository.
    pub fn drop_repository(&mut self, addr: Addr) {
        self.entries.retain(|key, e| e.keep != Keep::Repository || key.addr != addr);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.shared.clear();
        self.epoch += 1;
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Reads on their way that others may share.
    pub fn shared(&self) -> usize {
        self.shared.len()
    }
}

/// Whether an answer will be the same next time: success, and errors that say how things are.
fn is_lasting(keep: Keep, data: &[u8]) -> bool {
    let Some(code) = data.first().map(|code| CompletionCode(*code)) else { return false };
    let absent = [
        CompletionCode::INVALID_COMMAND,
        CompletionCode::NOT_PRESENT,
        CompletionCode::INVALID_DATA_FIELD,
        CompletionCode::ILLEGAL_FOR_SENSOR,
    ];
    code.is_ok() || keep != Keep::Repository && absent.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(netfn: u8, cmd: u8, data: &[u8]) -> Send {
        let addr = Addr::system_interface(0);
        Send { addr, msgid: 0, netfn, cmd, data: data.to_vec(), timing: None }
    }

    fn reply(data: &[u8]) -> Incoming {
        Incoming { addr: Addr::system_interface(0), netfn: 5, cmd: 0x2d, data: data.to_vec() }
    }

    fn cache() -> Cache {
        Cache::new(Duration::from_secs(1))
    }

    const START: fn() -> Instant = Instant::now;

    #[test]
    fn a_reading_ages() {
        let (mut cache, now) = (cache(), START());
        let key = Key::new(&send(4, 0x2d, &[7]), (0x20, 2), false);
        cache.store(key.clone(), Keep::Sensor, (now, 0), 0, &reply(&[0, 55]));
        let later = |ms| now + Duration::from_millis(ms);
        assert!(matches!(cache.find(later(1000), &key, 0), Found::Fresh(_)));
        assert!(matches!(cache.find(later(1001), &key, 0), Found::Nothing));
    }

    #[test]
    fn a_change_drops_what_it_may_have_changed_and_what_was_asked_before_it() {
        let (mut cache, now) = (cache(), START());
        let reading = Key::new(&send(4, 0x2d, &[7]), (0, 0), false);
        let record = Key::new(&send(10, 0x23, &[1, 0, 1, 0, 0, 5]), (0, 0), true);
        cache.store(record.clone(), Keep::Repository, (now, 0), 3, &reply(&[0, 1]));
        cache.share(reading.clone(), Token(1));
        let asked_at = cache.epoch();
        cache.disturb(&send(4, 0x26, &[7]));
        assert_eq!(cache.on_its_way(&reading), None);
        cache.store(reading.clone(), Keep::Sensor, (now, asked_at), 0, &reply(&[0, 1]));
        assert!(matches!(cache.find(now, &reading, 0), Found::Nothing));
        assert!(matches!(cache.find(now, &record, 3), Found::IfUnchanged(_)));
        assert!(matches!(cache.find(now, &record, 4), Found::Nothing), "another generation");
        cache.disturb(&send(0x30, 0x01, &[]));
        assert!(matches!(cache.find(now, &record, 3), Found::Nothing), "a vendor's command");
    }

    #[test]
    fn the_reservation_makes_no_difference() {
        let one = Key::new(&send(10, 0x23, &[1, 2, 1, 0, 0, 5]), (0, 0), true);
        let two = Key::new(&send(10, 0x23, &[3, 4, 1, 0, 0, 5]), (0, 0), true);
        assert_eq!(one, two);
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let (mut cache, now) = (cache(), START());
        for at in 0..3 * MAX_ENTRIES as u32 {
            let key = Key::new(&send(10, 0x11, &at.to_le_bytes()), (0, 0), false);
            let sent = now + Duration::from_micros(at.into());
            cache.store(key.clone(), Keep::Inventory, (sent, 0), 0, &reply(&[0]));
            assert!(matches!(cache.find(sent, &key, 0), Found::Fresh(_)));
            assert!(cache.len() <= MAX_ENTRIES);
        }
    }

    #[test]
    fn failures_are_not_kept() {
        let (mut cache, now) = (cache(), START());
        let key = Key::new(&send(4, 0x2d, &[7]), (0, 0), false);
        for (code, kept) in [(0xc0, false), (0xc3, false), (0xff, false), (0xcb, true)] {
            cache.clear();
            let sent = (now, cache.epoch());
            cache.store(key.clone(), Keep::Sensor, sent, 0, &reply(&[code]));
            assert_eq!(matches!(cache.find(now, &key, 0), Found::Fresh(_)), kept, "{code:02x}");
        }
    }
}
