// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watchdog timer: IPMI 2.0 chapter 27.

use std::time::Duration;

use ipmi::CompletionCode;
use ipmi::sel::Event;

use super::{Action, Answer, Bmc, Power, bank};

/// The timer counts in these.
const TICK: Duration = Duration::from_millis(100);
/// Reset Watchdog Timer before any Set Watchdog Timer (section 27.5).
const NOT_INITIALIZED: CompletionCode = CompletionCode(0x80);

const USE_MASK: u8 = 0x07;
const RUNNING: u8 = 0x40;
const DONT_LOG: u8 = 0x80;
/// In Set: a running timer is not stopped.
const DONT_STOP: u8 = 0x40;
/// Offset of the pre-timeout event (table 42-3, sensor type 23h).
const TIMER_INTERRUPT: u8 = 0x08;

/// The timer.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// As last set; `None` before the first Set Watchdog Timer.
    settings: Option<Settings>,
    /// Which uses have expired, one bit each.
    expired: u8,
    /// When it expires; `None` when it is stopped.
    deadline: Option<Duration>,
    /// The count it was stopped at.
    stopped_at: u16,
    /// The pre-timeout has fired in this countdown.
    warned: bool,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    /// What it guards (bits 2:0) and whether expiry is logged (bit 7).
    timer_use: u8,
    /// Pre-timeout interrupt in bits 6:4, action in 2:0.
    actions: u8,
    /// Seconds before the end.
    pre_timeout: u8,
    /// In ticks.
    initial: u16,
}

impl Settings {
    fn interrupt(self) -> u8 {
        self.actions >> 4 & 0x07
    }

    /// How long before the end the pre-timeout fires, if it is in use.
    fn warning(self) -> Option<Duration> {
        (self.interrupt() != 0).then(|| Duration::from_secs(u64::from(self.pre_timeout)))
    }
}

impl Watchdog {
    /// When something happens next.
    pub fn next_timeout(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        let warning = self.settings.and_then(Settings::warning).filter(|_| !self.warned);
        Some(warning.map_or(deadline, |before| deadline.saturating_sub(before)))
    }

    fn present(&self, now: Duration) -> u16 {
        match self.deadline {
            // The deadline is at most 0xffff ticks away.
            Some(deadline) => (deadline.saturating_sub(now).as_millis() / TICK.as_millis()) as u16,
            None => self.stopped_at,
        }
    }

    fn start(&mut self, now: Duration, initial: u16) {
        self.deadline = Some(now + TICK * u32::from(initial));
        self.warned = false;
    }

    /// State for `bmc-sim ctl watchdog`: running, present and initial count in ticks, expired uses.
    pub fn state(&self, now: Duration) -> (bool, u16, u16, u8) {
        let initial = self.settings.map_or(0, |settings| settings.initial);
        (self.deadline.is_some(), self.present(now), initial, self.expired)
    }
}

impl Bmc {
    /// Pre-timeout and expiry.
    pub(super) fn pass_watchdog(&mut self, now: Duration) {
        let (Some(deadline), Some(settings)) = (self.watchdog.deadline, self.watchdog.settings)
        else {
            return;
        };
        if let Some(before) = settings.warning()
            && !self.watchdog.warned
            && now >= deadline.saturating_sub(before)
        {
            self.watchdog.warned = true;
            self.warn(now, settings);
        }
        if now >= deadline {
            self.expire(now, settings);
        }
    }

    fn warn(&mut self, now: Duration, settings: Settings) {
        self.note("watchdog pre-timeout");
        match settings.interrupt() {
            2 if self.config.honour_power => self.actions.push(Action::Power(Power::Nmi)),
            3 => self.messaging.set_pre_timeout(),
            _ => {}
        }
        self.watchdog_event(now, settings, TIMER_INTERRUPT);
    }

    fn expire(&mut self, now: Duration, settings: Settings) {
        self.watchdog.deadline = None;
        self.watchdog.stopped_at = 0;
        self.watchdog.expired |= 1 << (settings.timer_use & USE_MASK);
        let action = settings.actions & 0x07;
        let (name, power) = match action {
            0 => ("no action", None),
            1 => ("hard reset", Some(Power::Reset)),
            2 => ("power down", Some(Power::Off)),
            3 => ("power cycle", Some(Power::Reset)),
            _ => ("reserved action", None),
        };
        self.note(format!("watchdog expired: {name}"));
        if let Some(power) = power {
            self.switch_power(power, super::chassis::Cause::Watchdog);
        }
        self.watchdog_event(now, settings, action.min(3));
    }

    fn watchdog_event(&mut self, now: Duration, settings: Settings, offset: u8) {
        self.bank.set_state(bank::WATCHDOG_SENSOR, 1 << offset);
        if settings.timer_use & DONT_LOG != 0 {
            return;
        }
        let details = settings.interrupt() << 4 | settings.timer_use & USE_MASK;
        self.post_event(
            now,
            Event {
                generator: [super::messaging::BMC_ADDRESS, 0],
                revision: 0x04,
                sensor_type: 0x23,
                sensor: bank::WATCHDOG_SENSOR,
                deassertion: false,
                event_type: 0x6f,
                // 0xc0: byte 2 has details of the sensor type.
                data: [0xc0 | offset, details, 0xff],
            },
        );
    }

    /// The timer, for looking.
    pub fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }
}

pub fn reset_timer(bmc: &mut Bmc, now: Duration, _: &[u8]) -> Answer {
    let settings = bmc.watchdog.settings.ok_or(NOT_INITIALIZED)?;
    bmc.watchdog.start(now, settings.initial);
    bmc.bank.set_state(bank::WATCHDOG_SENSOR, 0);
    bmc.note(format!("watchdog started: {} ms", u32::from(settings.initial) * 100));
    // A countdown of zero expires at once (section 27.6).
    bmc.pass_watchdog(now);
    Ok(vec![])
}

pub fn set_timer(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let settings = Settings {
        timer_use: data[0],
        actions: data[1],
        pre_timeout: data[2],
        initial: u16::from_le_bytes([data[4], data[5]]),
    };
    let too_early = settings.warning().is_some_and(|w| w > TICK * u32::from(settings.initial));
    if matches!(data[0] & USE_MASK, 0 | 6 | 7) || data[1] & 0x07 > 3 || too_early {
        return Err(CompletionCode::INVALID_DATA_FIELD);
    }
    let watchdog = &mut bmc.watchdog;
    watchdog.settings = Some(settings);
    watchdog.expired &= !data[3];
    let running = watchdog.deadline.is_some() && data[0] & DONT_STOP != 0;
    if running {
        watchdog.start(now, settings.initial);
    } else {
        watchdog.deadline = None;
        watchdog.stopped_at = settings.initial;
    }
    bmc.messaging.clear_pre_timeout();
    bmc.note(format!(
        "watchdog set: use {} action {} {} ms, {}",
        data[0] & USE_MASK,
        data[1] & 0x07,
        u32::from(settings.initial) * 100,
        if running { "running" } else { "stopped" }
    ));
    Ok(vec![])
}

pub fn get_timer(bmc: &mut Bmc, now: Duration, _: &[u8]) -> Answer {
    let watchdog = &bmc.watchdog;
    let settings = watchdog.settings.unwrap_or(Settings {
        timer_use: 0,
        actions: 0,
        pre_timeout: 0,
        initial: 0,
    });
    let running = if watchdog.deadline.is_some() { RUNNING } else { 0 };
    let mut data = vec![settings.timer_use & (DONT_LOG | USE_MASK) | running, settings.actions];
    data.extend([settings.pre_timeout, watchdog.expired]);
    data.extend(settings.initial.to_le_bytes());
    data.extend(watchdog.present(now).to_le_bytes());
    Ok(data)
}
