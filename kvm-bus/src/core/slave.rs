// SPDX-License-Identifier: MIT OR Apache-2.0
//! The slave on a control bus of its own line: hears which blade is to be coupled, signals the multiplexor, and answers.

use super::Micros;
use super::lmc::Lmc;
use super::mux::{Mux, Port};
use crate::wire::{Addr, Class, Decoder, Frame, Kind, Select, Selected, decode, encode};

/// A control slave; its line may go on to the next blade's.
#[derive(Debug)]
pub struct Slave {
    mux: Mux,
    decoders: [Decoder; super::mux::PORTS],
}

impl Slave {
    /// The slave of the LMC with this address.
    #[must_use]
    pub fn new(addr: Addr) -> Self {
        Self { mux: Mux::new(addr), decoders: Default::default() }
    }

    /// Bytes came by the control bus; the multiplexor is that of `lmc`.
    pub fn receive(&mut self, now: Micros, port: Port, bytes: &[u8], lmc: &mut Lmc) {
        for frame in self.decoders[port].feed(bytes) {
            let (from, epoch) = (frame.src, frame.session);
            let Some(frame) = self.mux.receive(now, port, frame) else { continue };
            if frame.kind != Kind::Select || !from.is_rmm() {
                continue;
            }
            let Ok(select) = decode::<Select>(&frame.payload) else { continue };
            let answer = lmc.select(now, from, epoch, select);
            if let Some(refused) = answer.filter(|_| select.target == Some(self.mux.addr())) {
                let selected = Selected { coupling: select.coupling, refused };
                let frame =
                    Frame::new(Class::Control, Kind::Selected, self.mux.addr(), from, epoch);
                self.mux.send(now, Frame { payload: encode(&selected), ..frame });
            }
        }
    }

    /// The multiplexor of the control bus.
    pub fn mux(&mut self) -> &mut Mux {
        &mut self.mux
    }
}
