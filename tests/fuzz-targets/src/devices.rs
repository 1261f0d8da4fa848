// SPDX-License-Identifier: MIT OR Apache-2.0
//! What units, managers and holders of devices tell one another, to the decoders, a manager and a unit; and what devices say of
//! themselves.

use std::time::Duration;

use device_manager::hid::{FromDevice, Kind, Layout, ToDevice, kinds};
use device_manager::manager::core::{self as manager, Manager, Scope};
use device_manager::manager::order::{Incoming, Numbered, Taken};
use device_manager::pattern::Pattern;
use device_manager::policy::Policy;
use device_manager::record::{Device, Found};
use device_manager::unit::core::{self as unit, Kept, Unit};
use device_manager::unit::inventory::types;
use device_manager::wire::{Bounded, FromHolder, FromUnit, MAX_MESSAGE, ToHolder, ToUnit};
use group::core::Replication;

use crate::Reached;
use crate::input::Input;

/// Longest message of an input.
const MAX: usize = 600;

fn decoded<M: Bounded + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(M::decode(&message.encode()).as_ref(), Ok(&message), "it is written as it was read");
    Some(message)
}

fn a_unit() -> Unit {
    let options = unit::Options {
        own: "u".parse().expect("a name"),
        epoch: 3,
        secret: [7; 32],
        ttl: Duration::from_secs(30),
        quarantine: Duration::from_secs(1),
        addresses: vec![],
    };
    let mut unit = Unit::new(options, Kept::default(), 1, 0);
    let found = Found {
        key: "k".to_owned(),
        bus: "usb".to_owned(),
        path: "1-1".to_owned(),
        types: vec!["disk".to_owned()],
        vendor: "1d6b".to_owned(),
        product: "0104".to_owned(),
        manufacturer: String::new(),
        model: String::new(),
        serial: String::new(),
        descriptors: 1,
        parts: vec![("serial".to_owned(), "/dev/ttyACM0".to_owned())],
        unavailable: None,
        busy: vec![],
        needs_setup: false,
        instance: 1,
    };
    let name = || "m".parse().expect("a name");
    for event in [
        unit::Event::Inventory(vec![found]),
        unit::Event::Managers(vec![name()]),
        unit::Event::Connected(name(), 1),
        unit::Event::Said(1, ToUnit::Welcome { newest: None, units: 0 }),
    ] {
        drop(unit.handle(1, event));
    }
    unit
}

/// A conversation, one entry after another: a byte for whom it is for and how much time passes, another for its length, and so
/// many bytes.
///
/// # Panics
/// Where something that was read is not written the same, a bound is not kept, or a manager or unit breaks.
pub fn devices(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut input = Input::new(data);
    let name = |text: &str| text.parse().expect("a name");
    let options = manager::Options { own: name("m"), replication: Replication::Own };
    let mut manager = Manager::new(options, Policy::default());
    let (mut unit, mut incoming, mut now) = (a_unit(), Incoming::default(), 1_000_000_u64);
    let find = manager::Event::Find(
        1,
        Pattern::try_from(String::new()).expect("it fits all"),
        Scope::Group,
    );
    let mut events =
        vec![manager::Event::PeerHere(name("p")), manager::Event::UnitCame(1, name("u")), find];
    loop {
        for event in events.drain(..) {
            for action in manager.handle(now, event) {
                let len = match action {
                    manager::Action::ToUnit(_, message) => message.encode().len(),
                    manager::Action::ToPeer(_, message) => message.encode().len(),
                    manager::Action::Publish(device) => {
                        reached.insert("published");
                        device.encode().len()
                    }
                    manager::Action::Tell(..) => {
                        reached.insert("a finder is told");
                        0
                    }
                    manager::Action::Note(manager::Note::GaveUp(..)) => {
                        reached.insert("given up");
                        0
                    }
                    manager::Action::Note(manager::Note::Wrong(_)) => {
                        reached.insert("wrong");
                        0
                    }
                    _ => 0,
                };
                assert!(len <= MAX_MESSAGE);
            }
        }
        if input.rest().is_empty() {
            return reached;
        }
        let head = input.u8();
        now += u64::from(head >> 4) * 300_000;
        let len = usize::from(input.u16()).min(MAX).min(input.rest().len());
        let (bytes, rest) = input.rest().split_at(len);
        input = Input::new(rest);
        match head & 7 {
            0 => events.extend(decoded::<FromUnit>(bytes).map(|message| {
                reached.insert("from a unit");
                manager::Event::Unit(1, message)
            })),
            1 => {
                if let Some(numbered) = decoded::<Numbered>(bytes) {
                    match incoming.take(numbered) {
                        Taken::Message(message) => {
                            reached.insert("from a peer");
                            events.push(manager::Event::Peer(name("p"), *message));
                        }
                        Taken::Gap => drop(reached.insert("a gap")),
                        Taken::Again => events.push(manager::Event::PeerHere(name("p"))),
                        Taken::Nothing => {}
                    }
                }
            }
            2 => {
                let said = decoded::<ToUnit>(bytes).map(|message| unit::Event::Said(1, message));
                for action in said.into_iter().flat_map(|event| unit.handle(now, event)) {
                    if matches!(action, unit::Action::Store(_)) {
                        reached.insert("leased");
                    }
                }
            }
            3 => {
                let came =
                    decoded::<FromHolder>(bytes).map(|said| unit::Event::Came(9, name("h"), said));
                for action in came.into_iter().flat_map(|event| unit.handle(now, event)) {
                    assert!(!matches!(action, unit::Action::Carry { .. }), "without its token");
                    reached.insert("turned away");
                }
            }
            4 => {
                for kind in types(bytes) {
                    reached.insert(if kind == "disk" { "a disk" } else { "a type" });
                }
                // As a report descriptor.
                for kind in kinds(bytes) {
                    reached.insert(if kind == "keyboard" { "keys" } else { "a mouse" });
                }
            }
            5 => {
                let text = String::from_utf8_lossy(bytes);
                if let Ok(pattern) = text.parse::<Pattern>() {
                    reached.insert("a pattern");
                    let again = pattern.to_string().parse::<Pattern>();
                    assert_eq!(again.map(|again| again.names()), Ok(pattern.names()));
                    for device in unit.devices() {
                        if pattern.fits(device) {
                            reached.insert("it fits");
                        }
                    }
                }
            }
            6 => {
                if decoded::<ToHolder>(bytes).is_some() {
                    reached.insert("to a holder");
                }
                if decoded::<FromDevice>(bytes).is_some() {
                    reached.insert("from a HID device");
                }
                if let Some(ToDevice::Output(report)) = decoded(bytes) {
                    let len = report.0.len();
                    let layout = Layout::of(&report.0);
                    let whole = layout.for_hidraw(Kind::Output, report.0);
                    assert!((len..=len + 1).contains(&whole.len()));
                    reached.insert("to a HID device");
                }
            }
            _ => drop(decoded::<Device>(bytes).map(|_| reached.insert("a device"))),
        }
        drop(unit.handle(now, unit::Event::Tick));
        assert!(unit.next() > now && manager.next() > 0, "it would be called again at once");
    }
}
