// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use crate::core::link::Link;
use crate::wire::Input;

const EPOCH: u32 = 7;
const LIFE: u32 = 0x5000_0000;

/// RMMs at one end of a line, which say what they like.
struct Bench {
    lmc: Lmc,
    links: Vec<Link>,
}

impl Bench {
    fn new(rmms: u8) -> Self {
        let me = Addr::blade(3).unwrap();
        let mut bench = Self { lmc: Lmc::new(me, "blade3", LIFE), links: vec![] };
        for number in 0..rmms {
            let rmm = Addr::rmm(number).unwrap();
            bench.came(&Frame::new(Class::Control, Kind::Beat, rmm, Addr::ALL, EPOCH));
            let session = 100 + u32::from(number);
            let welcome = Welcome { epoch: LIFE | (u32::from(number) + 1) };
            let frame = Frame::new(Class::Control, Kind::Welcome, rmm, me, session);
            bench.came(&Frame { payload: encode(&welcome), ..frame });
            bench.links.push(Link::new(0, rmm, me, session));
        }
        assert_eq!(bench.lmc.rmms().len(), usize::from(rmms));
        bench
    }

    fn came(&mut self, frame: &Frame) {
        self.lmc.receive(1, 0, &frame.encode());
    }

    fn select(&mut self, rmm: u8, coupling: u32, slot: u8) {
        let select = Select { coupling, target: Addr::blade(slot) };
        let _ = self.lmc.select(1, Addr::rmm(rmm).unwrap(), EPOCH, select);
    }

    /// The keys that go down and up after an RMM says that one is down.
    fn key(&mut self, rmm: u8, coupling: u32, code: u16) -> Vec<Pressed> {
        let mut out = vec![];
        let keys = encode(&Input::Keys { coupling, pressed: vec![code] });
        let sent = self.links[usize::from(rmm)].send(1, Class::Input, keys, &mut out);
        assert!(sent.is_ok() && !out.is_empty());
        for frame in out {
            self.came(&frame);
        }
        let keys = |action| match action {
            Action::Keys(keys) => Some(keys),
            _ => None,
        };
        self.lmc.actions().into_iter().filter_map(keys).collect()
    }
}

#[test]
fn keys_of_an_old_choice_or_of_another_rmm_are_void() {
    let mut bench = Bench::new(2);
    bench.select(0, 1, 3);
    assert_eq!(bench.key(0, 1, 30), [Pressed::from_codes(&[30])]);
    assert_eq!(bench.key(1, 1, 31), [], "it is the other's");
    bench.select(0, 2, 4);
    assert_eq!(bench.key(0, 2, 30), [Pressed::default()], "they went up as it was left");
    assert_eq!(bench.key(0, 1, 32), []);
    bench.select(0, 3, 3);
    assert_eq!(bench.key(0, 1, 33), [], "of the choice before");
    assert_eq!(bench.key(0, 3, 34), [Pressed::from_codes(&[34])]);
}
