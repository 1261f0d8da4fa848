// SPDX-License-Identifier: MIT OR Apache-2.0
//! Couples another blade: first the keys go up at the one before, and only when that is certain the new one is told.

use serde::{Deserialize, Serialize};

use super::{Event, Rmm};
use crate::core::keys::Pressed;
use crate::core::link::DEAD_COUPLED;
use crate::core::{Micros, ms};
use crate::wire::{
    Addr, Class, Frame, Input, Kind, Refusal, Select, Selected, ToLmc, decode, encode,
};

/// Until a choice is told again.
const AGAIN: Micros = ms(150);
/// Whoever an earlier life of this RMM had coupled has let its keys go by itself after so long.
const BY_ITSELF: Micros = DEAD_COUPLED + ms(500);
/// Until it is given up.
const GIVEN_UP: Micros = ms(3000);

/// By which way a choice is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The bus itself, to all blades: the hot key.
    HotKey,
    /// The control bus, by its own line.
    ControlBus,
}

/// One that is under way.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) target: Option<Addr>,
    by: By,
    number: u32,
    step: Step,
    /// When the step is looked at again, if nothing comes before.
    look_at: Micros,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Waits for the one of an earlier life, whichever that was.
    Waiting { until: Micros },
    /// Waits for the one before.
    Releasing { old: Addr, number: u32, up: bool, told: bool },
    /// Tells all.
    Telling { again: Micros, until: Micros },
}

impl Choice {
    pub(super) fn wake(&self) -> Micros {
        self.look_at
    }
}

impl Rmm {
    /// Couples a blade, or none. What comes of it is an event.
    pub fn select(&mut self, now: Micros, target: Option<Addr>, by: By) {
        if self.choice.is_none() && self.coupled.map(|(addr, _)| addr) == target {
            self.events.push(Event::Coupled(target));
            return;
        }
        self.couplings += 1;
        let number = self.couplings;
        let old = self.coupled.take().or_else(|| match self.choice.take()?.step {
            Step::Releasing { old, number, .. } => Some((old, number)),
            Step::Waiting { .. } | Step::Telling { .. } => None,
        });
        self.keys.clear();
        self.pressed = Pressed::default();
        let until = *self.born.get_or_insert(now) + BY_ITSELF;
        let step = match old {
            Some((old, number)) => Step::Releasing { old, number, up: false, told: false },
            None if target.is_some() && now < until => Step::Waiting { until },
            None => Step::Telling { again: now, until: now + GIVEN_UP },
        };
        self.choice = Some(Choice { target, by, number, step, look_at: now });
        match step {
            Step::Waiting { .. } | Step::Releasing { .. } => self.choose(now),
            Step::Telling { .. } => self.tell_all(now),
        }
    }

    /// Takes the next step, if it is time.
    pub(super) fn choose(&mut self, now: Micros) {
        let Some(choice) = &mut self.choice else { return };
        choice.look_at = now + AGAIN;
        match choice.step {
            Step::Waiting { until } if until <= now => self.tell_all(now),
            Step::Waiting { until } => choice.look_at = until,
            Step::Releasing { old, number, up, told } => self.release(now, old, number, up, told),
            Step::Telling { again, until } if again <= now => {
                let (target, number, by) = (choice.target, choice.number, choice.by);
                if now >= until {
                    self.choice = None;
                    if let Some(blade) = target {
                        let why = format!("no answer within {} s", GIVEN_UP / ms(1000));
                        self.events.push(Event::NotCoupled { blade, why });
                    }
                    return;
                }
                if let Some(choice) = &mut self.choice {
                    choice.step = Step::Telling { again: now + AGAIN, until };
                }
                let select = Select { coupling: number, target };
                let addr = self.mux.addr();
                let frame = Frame::new(Class::Control, Kind::Select, addr, Addr::ALL, self.epoch);
                let frame = Frame { payload: encode(&select), ..frame };
                match (&mut self.control, by) {
                    (Some((mux, _)), By::ControlBus) => mux.send(now, frame),
                    _ => self.mux.send(now, frame),
                }
                if target.is_none() {
                    self.choice = None;
                    self.events.push(Event::Coupled(None));
                }
            }
            Step::Telling { .. } => {}
        }
    }

    fn release(&mut self, now: Micros, old: Addr, number: u32, up: bool, told: bool) {
        let blade = self.blades.get_mut(&old);
        let silent = blade.as_ref().map_or(0, |blade| blade.silent_since);
        match blade.and_then(|blade| blade.link.as_mut()) {
            Some(link) if !told => {
                let mut out = vec![];
                // Control goes before input: the end is told when the last keys were taken, so that none is overtaken.
                if !up && link.room(Class::Input) > 0 {
                    let none = Input::Keys { coupling: number, pressed: vec![] };
                    let _ = link.send(now, Class::Input, encode(&none), &mut out);
                    self.step(|step_up, _| *step_up = true);
                } else if up && link.is_idle(Class::Input) && link.room(Class::Control) > 0 {
                    let release = encode(&ToLmc::Release { coupling: number });
                    let _ = link.send(now, Class::Control, release, &mut out);
                    self.step(|_, step_told| *step_told = true);
                }
                for frame in out {
                    self.mux.send(now, frame);
                }
            }
            Some(_) => {}
            // It does not answer. When it has heard nothing of us for long enough it has let its keys go by itself.
            None if now >= silent + 2 * DEAD_COUPLED + ms(500) => self.tell_all(now),
            None => {}
        }
    }

    fn step(&mut self, change: impl FnOnce(&mut bool, &mut bool)) {
        if let Some(Choice { step: Step::Releasing { up, told, .. }, .. }) = &mut self.choice {
            change(up, told);
        }
    }

    fn tell_all(&mut self, now: Micros) {
        let Some(choice) = &mut self.choice else { return };
        choice.step = Step::Telling { again: now, until: now + GIVEN_UP };
        // Not when it is coupled: the new screen may be here before the word of that.
        if let Some(target) = choice.target {
            self.forget_screen(target);
        }
        self.choose(now);
    }

    pub(super) fn is_released(&mut self, now: Micros, from: Addr, number: u32) {
        if let Some(Choice { step: Step::Releasing { old, number: wanted, .. }, .. }) = &self.choice
            && (*old, *wanted) == (from, number)
        {
            if let Some(link) = self.blades.get_mut(&from).and_then(|blade| blade.link.as_mut()) {
                link.uncouple();
            }
            self.forget_screen(from);
            self.tell_all(now);
        }
    }

    pub(super) fn is_coupled(&mut self, now: Micros, from: Addr, number: u32) {
        let Some(choice) = self.choice.as_ref().filter(|choice| choice.number == number) else {
            // Nobody waits for it any more.
            self.tell(now, from, &ToLmc::Release { coupling: number });
            return;
        };
        if choice.target != Some(from) {
            return;
        }
        self.choice = None;
        self.coupled = Some((from, number));
        if let Some(link) = self.blades.get_mut(&from).and_then(|blade| blade.link.as_mut()) {
            link.couple(now);
        }
        self.events.push(Event::Coupled(Some(from)));
        // Keys that went down meanwhile.
        if !self.pressed.is_empty() {
            self.queue_keys();
        }
    }

    pub(super) fn is_refused(&mut self, from: Addr, number: u32, why: Refusal) {
        if self.choice.as_ref().is_some_and(|c| c.number == number && c.target == Some(from)) {
            self.choice = None;
            let why = match why {
                Refusal::Taken { by } => format!("{by} has it"),
                Refusal::NoSession => "it has no session with this RMM".to_owned(),
            };
            self.events.push(Event::NotCoupled { blade: from, why });
        }
    }

    /// The control slave's answer. That the blade is coupled it says itself.
    pub(super) fn selected(&mut self, frame: &Frame) {
        if let Ok(Selected { coupling, refused: Some(why) }) = decode(&frame.payload)
            && frame.session == self.epoch
        {
            self.is_refused(frame.src, coupling, why);
        }
    }

    /// A session with a blade has ended, and so has its coupling.
    pub(super) fn uncoupled(&mut self, addr: Addr) {
        if self.coupled.is_some_and(|(coupled, _)| coupled == addr) {
            // It may still believe that it is coupled: the next choice waits for it.
            let number = self.coupled.take().map_or(0, |(_, number)| number);
            self.couplings += 1;
            self.keys.clear();
            self.pressed = Pressed::default();
            self.events.push(Event::Coupled(None));
            self.choice = Some(Choice {
                target: None,
                by: By::HotKey,
                number: self.couplings,
                step: Step::Releasing { old: addr, number, up: false, told: false },
                look_at: 0,
            });
        }
    }
}
