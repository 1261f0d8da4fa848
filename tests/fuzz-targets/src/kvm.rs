// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes by the bus, by telnet, and from an operator's keyboard.

use kvm_bus::core::escape::{Escape, Found};
use kvm_bus::core::hotkey::{DEFAULT_KEYS, HotKeys, Outcome, Pick};
use kvm_bus::core::lmc::{Action, Lmc};
use kvm_bus::core::rmm::{By, Event, Rmm};
use kvm_bus::core::screen::Screen;
use kvm_bus::telnet::{Telnet, Wish};
use kvm_bus::wire::{
    Addr, Class, ConsoleSettings, Decoder, Frame, FromLmc, Hello, Input as Keys, Kind, MAX_PRESSED,
    Select, Selected, Sources, ToLmc, Welcome, decode, encode, split_console,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Reached;
use crate::input::Input;

/// A line of the bus: frames among whatever else, in two pieces, and the messages in them.
///
/// # Panics
/// Where a frame or message is not written as it was read, or pieces matter.
pub fn kvm_frame(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let (cut, stream) =
        data.split_first().map_or((0, data), |(cut, rest)| (usize::from(*cut), rest));
    let (first, second) = stream.split_at(cut.min(stream.len()));
    let mut decoder = Decoder::default();
    let mut frames = decoder.feed(first);
    frames.extend(decoder.feed(second));
    let mut whole = Decoder::default();
    assert_eq!(whole.feed(stream), frames);
    assert_eq!(whole.errors(), decoder.errors());
    let errors = decoder.errors();
    for (count, name) in [
        (errors.damaged, "damaged"),
        (errors.too_long, "too long"),
        (errors.version, "version"),
        (errors.fields, "fields"),
    ] {
        if count > 0 {
            reached.insert(name);
        }
    }
    for piece in stream.split(|byte| *byte == 0) {
        if let Err(error) = Frame::decode(piece) {
            assert!(error.to_string().starts_with("a frame "));
        }
    }
    for frame in frames {
        reached.insert("frame");
        reached.insert(match frame.dst {
            Addr::ALL => "for all",
            dst if dst.is_rmm() => "for an RMM",
            _ => "for a blade",
        });
        assert!([frame.src, frame.dst].iter().all(|addr| !addr.to_string().is_empty()));
        assert_eq!(Decoder::default().feed(&frame.encode()), std::slice::from_ref(&frame));
        messages(&frame, &mut reached);
    }
    reached
}

fn messages(frame: &Frame, reached: &mut Reached) {
    again::<Hello>(frame, "hello", reached);
    again::<Welcome>(frame, "welcome", reached);
    again::<ToLmc>(frame, "to an LMC", reached);
    again::<FromLmc>(frame, "from an LMC", reached);
    again::<Keys>(frame, "keys", reached);
    again::<Select>(frame, "select", reached);
    again::<Selected>(frame, "selected", reached);
    if let Ok((offset, bytes)) = split_console(&frame.payload) {
        assert!(offset.checked_add(bytes.len() as u64).is_some());
        reached.insert("console");
    }
    let mut screen = Screen::blank(80, 25);
    let applied = screen.apply(&frame.payload);
    assert_eq!(screen.cells.len(), usize::from(screen.columns) * usize::from(screen.rows));
    if applied.is_ok() {
        reached.insert("screen");
        let mut other = Screen::default();
        other.apply(&screen.change_since(None)).expect("our own change");
        assert_eq!(other, screen);
    }
}

fn again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
    frame: &Frame,
    name: &'static str,
    reached: &mut Reached,
) {
    if let Ok(message) = decode::<T>(&frame.payload) {
        reached.insert(name);
        assert_eq!(decode::<T>(&encode(&message)).expect("our own message"), message);
    }
}

/// A telnet client, whose bytes come in two pieces.
///
/// # Panics
/// Where pieces matter, or an answer is longer than its question allows.
pub fn kvm_telnet(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let (cut, stream) =
        data.split_first().map_or((0, data), |(cut, rest)| (usize::from(*cut), rest));
    let (first, second) = stream.split_at(cut.min(stream.len()));
    let feed = |pieces: &[&[u8]]| {
        let (mut telnet, _) = Telnet::new(ConsoleSettings::default());
        let (mut typed, mut others, mut answer) = (vec![], vec![], vec![]);
        for piece in pieces {
            let (wishes, said) = telnet.feed(piece)?;
            answer.extend(said);
            for wish in wishes {
                match wish {
                    Wish::Data(bytes) => typed.extend(bytes),
                    other => others.push(other),
                }
            }
        }
        Some((typed, others, answer))
    };
    let whole = feed(&[stream]);
    assert_eq!(whole, feed(&[first, second]));
    let Some((typed, others, answer)) = whole else {
        reached.insert("for ever");
        return reached;
    };
    assert!(typed.len() <= stream.len());
    assert!(answer.len() <= 12 * stream.len(), "a small question has a small answer");
    if !typed.is_empty() {
        reached.insert("data");
    }
    if !answer.is_empty() {
        reached.insert("answer");
    }
    for wish in others {
        match wish {
            Wish::Break => reached.insert("break"),
            Wish::Set(settings) => {
                assert!(
                    (5..=8).contains(&settings.data_bits) && (1..=2).contains(&settings.stop_bits)
                );
                assert!(settings.baud > 0);
                reached.insert("set")
            }
            Wish::Data(_) => false,
        };
    }
    reached
}

/// Keys and times, three bytes each (the second: down, and whether it is said again), to the hot keys; and the same bytes to
/// the commands of a console.
///
/// # Panics
/// Where a key stays down at the blade because only its release was swallowed, or pieces of a console's input matter.
pub fn kvm_hotkey(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut keys = HotKeys::new(&DEFAULT_KEYS);
    let mut now = 0;
    let mut down_at_operator = std::collections::BTreeSet::new();
    let mut down_at_blade = std::collections::BTreeSet::new();
    for entry in data.chunks_exact(3) {
        let [code, state, after] = [entry[0], entry[1], entry[2]];
        let (code, down) = (u16::from(code & 0x7f), state & 1 == 1);
        let was_down = down_at_operator.contains(&code);
        // A key is said to be down again only by who repeats it.
        let again = down && was_down && state & 2 == 2;
        if was_down == down && !again {
            continue;
        }
        if down {
            down_at_operator.insert(code);
        } else {
            down_at_operator.remove(&code);
        }
        if again {
            reached.insert("said again");
        }
        now += u64::from(after) * 10_000;
        let in_command = keys.is_command();
        match keys.key(now, code, down) {
            Outcome::Pass if down => {
                reached.insert("passed");
                down_at_blade.insert(code);
            }
            Outcome::Pass => {
                down_at_blade.remove(&code);
            }
            Outcome::Swallow => {
                reached.insert("swallowed");
            }
            Outcome::Pick(pick) => {
                reached.insert(match pick {
                    Pick::Named(_) => "named",
                    Pick::Next => "next",
                    Pick::Previous => "previous",
                });
            }
        }
        if in_command && !keys.is_command() {
            reached.insert("command ended");
        }
        assert!(down_at_blade.is_subset(&down_at_operator), "stuck: {down_at_blade:?}");
    }
    let plain = |found: Vec<Found>| -> Vec<u8> {
        let bytes = found
            .into_iter()
            .filter_map(|f| if let Found::Bytes(bytes) = f { Some(bytes) } else { None });
        bytes.flatten().collect()
    };
    let found = Escape::default().feed(data);
    if found.iter().any(|found| matches!(found, Found::Command(_))) {
        reached.insert("command");
    }
    let mut escape = Escape::default();
    let bytewise: Vec<_> = data.iter().flat_map(|byte| escape.feed(&[*byte])).collect();
    assert_eq!(plain(found), plain(bytewise));
    reached
}

/// Frames to both ends of a bus, which answer one another: a byte for whom, a byte for the time, kind and class, a session that
/// is theirs or not, and a payload.
///
/// # Panics
/// Where keys are down at a blade that is not coupled, or something is told that cannot be.
pub fn kvm_control(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let (rmm_addr, lmc_addr) = (Addr::rmm(0).expect("one"), Addr::blade(1).expect("one"));
    let mut rmm = Rmm::new(rmm_addr, 100, 7, false);
    let mut lmc = Lmc::new(lmc_addr, "b1", 1 << 20);
    lmc.set_sources(Sources::default(), Some(ConsoleSettings::default()));
    lmc.console_takes(0, 100);
    let mut input = Input::new(data);
    // The RMM is there for so long that it waits for nobody of an earlier life.
    rmm.tick(0);
    let mut now = 10_000_000;
    let (mut keys, mut room) = (0, 100_usize);
    while !input.rest().is_empty() {
        let what = input.u8();
        now += u64::from(input.u8()) * 10_000;
        let detail = input.u8();
        match what & 7 {
            0..=2 => {}
            3 => rmm.select(now, (detail & 1 == 1).then_some(lmc_addr), By::HotKey),
            4 => drop(rmm.key(now, u16::from(detail >> 1), detail & 1 == 1)),
            5 => drop(rmm.console_input(now, lmc_addr, &[detail; 9])),
            6 => lmc.console_said(now, &vec![detail; 70_000 >> (detail & 7)]),
            _ => {
                let session = if detail & 0x80 == 0 { 8 } else { u32::from(detail) };
                let count = usize::from(input.u8());
                let kinds = [
                    Kind::Beat,
                    Kind::Hello,
                    Kind::Welcome,
                    Kind::Reset,
                    Kind::Data,
                    Kind::Ack,
                    Kind::Select,
                    Kind::Selected,
                ];
                let classes = [Class::Control, Class::Input, Class::Console, Class::Screen];
                let to_lmc = what & 8 == 0;
                let (src, dst) = if to_lmc { (rmm_addr, lmc_addr) } else { (lmc_addr, rmm_addr) };
                let (class, kind) =
                    (classes[usize::from((detail >> 3) & 3)], kinds[usize::from(detail & 7)]);
                let dst = if what & 16 == 0 { dst } else { Addr::ALL };
                let frame = Frame::new(
                    class,
                    kind,
                    src,
                    dst,
                    if kind == Kind::Hello { 100 } else { session },
                );
                let seq = u16::from(what >> 5);
                let frame = Frame { seq, payload: input.bytes(count).to_vec(), ..frame }.encode();
                if to_lmc { lmc.receive(now, 0, &frame) } else { rmm.receive(now, 0, &frame) }
            }
        }
        lmc.tick(now);
        rmm.tick(now);
        // They hear one another unless the input says that they do not.
        for _ in 0..40 {
            let (down, up) = (rmm.mux().next(0), lmc.mux().next(0));
            if down.is_none() && up.is_none() {
                break;
            }
            if what & 64 == 0 {
                down.into_iter().for_each(|bytes| lmc.receive(now, 0, &bytes));
                up.into_iter().for_each(|bytes| rmm.receive(now, 0, &bytes));
            }
        }
        for action in lmc.actions() {
            match action {
                Action::Console(bytes) => {
                    reached.insert("typed");
                    room = room.checked_sub(bytes.len()).expect("no more than it takes");
                }
                Action::Keys(pressed) => {
                    keys = pressed.codes().len();
                    assert!(keys <= MAX_PRESSED);
                    reached.insert("keys");
                }
                Action::Coupled(by) => {
                    reached.insert(if by.is_some() { "coupled" } else { "uncoupled" });
                }
                Action::Break => drop(reached.insert("break")),
                Action::Line(_) => drop(reached.insert("line")),
                Action::Pointer(_) => drop(reached.insert("pointer")),
                Action::Power { .. } => drop(reached.insert("power")),
                Action::Session { .. } => drop(reached.insert("session")),
            }
        }
        assert!(
            keys == 0 || lmc.coupled_by().is_some(),
            "keys are down at a blade that nobody has"
        );
        if detail & 3 == 0 {
            room = 100;
            lmc.console_takes(now, room);
        }
        for event in rmm.events() {
            match event {
                Event::Up(_) => drop(reached.insert("up")),
                Event::Down(_) => drop(reached.insert("down")),
                Event::Console { bytes, .. } => {
                    assert!(!bytes.is_empty());
                    reached.insert("console");
                }
                Event::Gap { .. } => drop(reached.insert("gap")),
                Event::NotCoupled { .. } => drop(reached.insert("not coupled")),
                _ => {}
            }
        }
        assert!(rmm.wake() > now.saturating_sub(1_000_000));
    }
    reached
}
