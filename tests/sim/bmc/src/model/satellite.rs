// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second controller, at 0x82 on the IPMB: a few sensors behind Send Message.

use std::time::Duration;

use ipmi::CompletionCode;
use ipmi::ipmb::Ipmb;

use super::bank::Bank;
use super::records::Repository;
use super::{Answer, device, sensors};

/// The controller.
#[derive(Debug)]
pub struct Satellite {
    bank: Bank,
    device_sdrs: Repository,
}

impl Satellite {
    /// A controller with `count` sensors.
    pub fn new(count: u8, seed: u64) -> Self {
        let bank = Bank::satellite(count, seed);
        Self { device_sdrs: Repository::new(bank.records(), 0), bank }
    }

    /// Its sensors.
    pub fn bank(&self) -> &Bank {
        &self.bank
    }

    /// As after a reset.
    pub fn cancel_reservations(&mut self) {
        self.device_sdrs.cancel_reservation();
    }

    /// Completion code and data for a request from the bus, and whether it changed anything.
    pub fn handle(&mut self, now: Duration, request: &Ipmb) -> (Vec<u8>, bool) {
        let answer = if request.to_lun.get() == 0 {
            self.run(now, request)
        } else {
            Err(CompletionCode::INVALID_FOR_LUN)
        };
        match answer {
            Ok(data) => ([&[0], &data[..]].concat(), changes(request)),
            Err(ccode) => (vec![ccode.0], false),
        }
    }

    fn run(&mut self, now: Duration, request: &Ipmb) -> Answer {
        let data = &request.data[..];
        let check = |len: usize| match data.len() == len {
            true => Ok(()),
            false => Err(CompletionCode::DATA_LENGTH_INVALID),
        };
        match (request.netfn.get(), request.cmd) {
            (0x04, 0x20) => Ok(vec![u8::try_from(self.bank.len()).unwrap_or(u8::MAX), 0x01]),
            (0x04, 0x21) => check(6).and_then(|()| self.device_sdrs.get(data, 0)),
            (0x04, 0x22) => Ok(self.device_sdrs.reserve().to_le_bytes().to_vec()),
            (0x04, 0x23) => check(2).and_then(|()| sensors::factors(&self.bank, data)),
            (0x04, 0x24) => check(4).and_then(|()| sensors::set_hysteresis(&mut self.bank, data)),
            (0x04, 0x25) => check(2).and_then(|()| sensors::hysteresis(&self.bank, data)),
            (0x04, 0x26) => check(8).and_then(|()| sensors::set_thresholds(&mut self.bank, data)),
            (0x04, 0x27) => check(1).and_then(|()| sensors::thresholds(&self.bank, data)),
            (0x04, 0x29) => check(1).and_then(|()| sensors::event_enable(&self.bank, data)),
            (0x04, 0x2b) => check(1).and_then(|()| sensors::event_status(&self.bank, data)),
            (0x04, 0x2d) => check(1).and_then(|()| sensors::reading(&self.bank, now, data)),
            (0x06, 0x01) => check(0).map(|()| device_id()),
            (0x06, 0x02 | 0x03) => {
                self.cancel_reservations();
                Ok(vec![])
            }
            (0x06, 0x04) => check(0).map(|()| vec![0x55, 0x00]),
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }
}

/// The commands above that change something: reservation, settings of sensors, resets.
fn changes(request: &Ipmb) -> bool {
    matches!((request.netfn.get(), request.cmd), (0x04, 0x22 | 0x24 | 0x26) | (0x06, 0x02 | 0x03))
}

/// Device id 0x21, revision 1 with device SDRs, firmware 1.00, IPMI 2.0, sensors alone.
fn device_id() -> Vec<u8> {
    let mut data = vec![0x21, 0x81, 0x01, 0x00, 0x02, 0x01];
    data.extend(device::MANUFACTURER);
    data.extend([0x02, 0x00]);
    data
}
