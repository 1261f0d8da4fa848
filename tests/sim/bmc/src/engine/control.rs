// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control commands, carried out on the engine.

use std::time::Duration;

use ipmi::CompletionCode;
use ipmi::sdr::Body;
use serde_json::{Value, json};

use super::{Engine, Output};
use crate::control::{Command, ControlError, parse, split_tag};
use crate::fault::{Fault, MAX_FAULTS};
use crate::journal::{hex, millis};
use crate::model::{Bmc, Cause, State};

impl Engine {
    /// Carries out one line of the control language; the answer is one line of JSON without its
    /// end.
    pub fn control(&mut self, now: Duration, line: &str) -> (String, Vec<Output>) {
        let (tag, words) = split_tag(line);
        let result = parse(words).and_then(|command| self.execute(now, command));
        let mut answer = match result {
            Ok(Value::Object(members)) => members,
            Ok(other) => [("value".to_owned(), other)].into_iter().collect(),
            Err(error) => [("error".to_owned(), json!(error.to_string()))].into_iter().collect(),
        };
        let ok = !answer.contains_key("error");
        answer.insert("ok".to_owned(), json!(ok));
        if let Some(tag) = tag {
            answer.insert("tag".to_owned(), json!(tag));
        }
        (Value::Object(answer).to_string(), self.advance(now))
    }

    fn execute(&mut self, now: Duration, command: Command) -> Result<Value, ControlError> {
        Ok(match command {
            Command::Stats { clear } => self.stats(clear),
            Command::Log { last, clear } => {
                let log = self.journal.log(last);
                if clear {
                    self.journal.clear_log();
                }
                log
            }
            Command::ServiceTime(time) => {
                self.service_time = time;
                // A controller that was as good as hung comes back with what it had begun.
                self.done = self.done.map(|done| done.min(now + time));
                json!({"service_time_ms": millis(time)})
            }
            Command::Fault(fault) => {
                if !self.faults.add(fault) {
                    return Err(ControlError::TooManyFaults(MAX_FAULTS));
                }
                self.faults_json()
            }
            Command::FaultClear => {
                self.faults.clear();
                self.faults_json()
            }
            Command::Faults => self.faults_json(),
            Command::Reset(silent) => {
                let silent = silent.unwrap_or(self.reset_time);
                self.change(now, |bmc| bmc.reset(now, silent));
                json!({"silent_ms": millis(silent)})
            }
            Command::Events { count, sensor } => {
                if let Some(number) = sensor
                    && self.bmc.bank().get(number).is_none()
                {
                    return Err(ControlError::NoSensor(number));
                }
                let (made, first) = self.change(now, |bmc| bmc.make_events(now, sensor, count));
                json!({"made": made, "first": first})
            }
            Command::Sensor { number, value } => {
                if !self.change(now, |bmc| bmc.force_sensor(now, number, value)) {
                    return Err(ControlError::NoSensor(number));
                }
                json!({"sensor": number, "value": value})
            }
            Command::ChangeSdr(gets) => {
                self.change(now, |bmc| bmc.change_sdr(now, gets));
                json!({"after": gets})
            }
            Command::Incoming(request) => {
                let seq = self.change(now, |bmc| bmc.incoming(now, &request));
                json!({"seq": seq})
            }
            Command::Responses => self.responses(),
            Command::Watchdog => self.watchdog(now),
            Command::Sensors => self.sensors(now),
            Command::Power => self.power(),
            Command::Messages => {
                let (events, messages) = self.bmc.messaging().waiting();
                json!({"events": events, "messages": messages, "sel": self.bmc.sel().len()})
            }
            Command::Version => json!({"version": env!("CARGO_PKG_VERSION")}),
            Command::Quit => {
                self.outputs.push(Output::Quit);
                json!({})
            }
        })
    }

    /// Runs a change on the model and carries out what follows.
    fn change<T>(&mut self, now: Duration, change: impl FnOnce(&mut Bmc) -> T) -> T {
        let (value, handled) = self.bmc.outside(now, change);
        self.carry_out(now, None, handled);
        value
    }

    fn stats(&mut self, clear: bool) -> Value {
        let mut stats = self.journal.stats();
        stats["connections"] = json!(self.peers.len());
        stats["queued"] = json!(self.queue.len());
        stats["bad_frames"] = json!(self.bad_frames);
        stats["overflows"] = json!(self.overflows);
        stats["messages_dropped"] = json!(self.bmc.messaging().dropped());
        stats["service_time_ms"] = json!(millis(self.service_time));
        if clear {
            self.journal.clear_stats();
            self.bad_frames = 0;
            self.overflows = 0;
        }
        stats
    }

    fn faults_json(&self) -> Value {
        let one = |fault: &Fault| {
            json!({
                "kind": fault.kind.to_string(),
                "left": fault.left,
                "command": fault.filter.map(|filter| filter.to_string()),
                "by_ms": millis(fault.by),
            })
        };
        json!({"faults": self.faults.list().iter().map(one).collect::<Vec<_>>()})
    }

    fn responses(&self) -> Value {
        let responses: Vec<_> = self
            .bmc
            .messaging()
            .responses()
            .map(|seen| {
                let message = &seen.message;
                let (ccode, data) = message.data.split_first().unwrap_or((&0xff, &[]));
                json!({
                    "at_ms": millis(seen.at),
                    "seq": message.seq,
                    "command": format!("{:02x}/{:02x}", message.netfn.request().get(), message.cmd),
                    "ccode": format!("{ccode:02x}"),
                    "meaning": CompletionCode(*ccode).text(),
                    "data": hex(data),
                })
            })
            .collect();
        json!({"responses": responses})
    }

    fn watchdog(&self, now: Duration) -> Value {
        let (running, present, initial, expired) = self.bmc.watchdog().state(now);
        json!({
            "running": running,
            "present_ms": u32::from(present) * 100,
            "initial_ms": u32::from(initial) * 100,
            "expired_uses": format!("{expired:02x}"),
        })
    }

    fn sensors(&self, now: Duration) -> Value {
        let bank = self.bmc.bank();
        let one = |sensor: &State| {
            let raw = sensor.reading(now, bank.seed());
            let value = match &sensor.record {
                Body::Full(full) => full.value(raw),
                _ => None,
            };
            json!({
                "number": sensor.number,
                "name": sensor.name(),
                "raw": raw,
                "value": value,
                "states": format!("{:04x}", sensor.states()),
                "asserted": format!("{:04x}", sensor.asserted),
            })
        };
        json!({"sensors": bank.sensors().iter().map(one).collect::<Vec<_>>()})
    }

    fn power(&self) -> Value {
        let chassis = self.bmc.chassis();
        let ignored: Vec<_> = chassis
            .ignored()
            .iter()
            .map(|(power, cause)| {
                let cause = match cause {
                    Cause::Command => "command",
                    Cause::Watchdog => "watchdog",
                };
                json!({"power": format!("{power:?}").to_lowercase(), "cause": cause})
            })
            .collect();
        json!({"on": chassis.is_on(), "not_honoured": ignored})
    }
}
