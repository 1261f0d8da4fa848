// SPDX-License-Identifier: MIT OR Apache-2.0
//! The simulated controller: IPMI 2.0, told the time and a request.
//!
//! `now` is the time since the simulator started. Nothing here reads a clock. [`Bmc::handle`]
//! answers one request; [`Bmc::handle_timeout`] lets time pass; both say what the outside has to do.
//! The commands stand in `table`; each module has the state and the commands of one chapter.

mod bank;
mod channels;
mod chassis;
mod config;
mod device;
mod fru;
mod messaging;
pub mod oem;
mod params;
mod records;
mod satellite;
mod sdr;
mod sel;
mod sensors;
mod shape;
mod table;
mod users;
mod watchdog;

use std::time::Duration;

use ipmi::{CompletionCode, NetFn, Request, Response};

pub use bank::{Bank, State};
pub use chassis::{Cause, Chassis};
pub use messaging::{BMC_ADDRESS, MAX_EVENTS, Messaging, SATELLITE_ADDRESS, SeenResponse};
pub use sel::{MAX_ENTRIES, Sel};
pub use watchdog::Watchdog;

/// What a command answers: data after the completion code, or a code other than 0x00.
pub type Answer = Result<Vec<u8>, CompletionCode>;

/// How the controller is made.
#[derive(Debug, Clone)]
pub struct Config {
    /// Sensors of the BMC, 1 to 250.
    pub sensors: u8,
    /// Sensors of the second controller, 0 to 20, also listed in the BMC's repository.
    pub satellite_sensors: u8,
    /// Changes how readings move; the same seed and time give the same readings.
    pub seed: u64,
    /// Seconds since 1970 when `now` is zero.
    pub epoch: u32,
    /// How long a reset keeps the controller silent.
    pub reset_time: Duration,
    /// Whether chassis control and the watchdog may switch the host. Off, they are only logged.
    pub honour_power: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sensors: 100,
            satellite_sensors: 2,
            seed: 1,
            epoch: 1_750_000_000,
            reset_time: Duration::from_secs(2),
            honour_power: false,
        }
    }
}

/// What the host's power is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Off at once.
    Off,
    /// Reset.
    Reset,
    /// On: the virtual machine cannot be started from here.
    On,
    /// A non-maskable interrupt.
    Nmi,
    /// Ask the operating system to shut down.
    SoftOff,
}

/// What the outside must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Set or clear the attention bit, with or without an interrupt.
    Attention {
        /// Set or clear.
        set: bool,
        /// Whether setting it raises an interrupt.
        interrupt: bool,
    },
    /// Switch the interface's interrupts.
    Interrupts(bool),
    /// Switch the host; only with [`Config::honour_power`].
    Power(Power),
}

/// What came of a request, or of time passing.
#[derive(Debug, Default)]
#[must_use]
pub struct Handled {
    /// The response; `None` while the controller is silent.
    pub response: Option<Response>,
    /// How much later than usual the response goes out.
    pub delay: Duration,
    /// What changed, for the journal.
    pub notes: Vec<String>,
    /// What the outside must do, in this order, after the response.
    pub actions: Vec<Action>,
}

/// The simulated controller.
#[derive(Debug)]
pub struct Bmc {
    config: Config,
    clock: Clock,
    device: device::Device,
    messaging: Messaging,
    watchdog: Watchdog,
    chassis: Chassis,
    bank: Bank,
    repository: records::Repository,
    device_sdrs: records::Repository,
    sel: Sel,
    fru: fru::Fru,
    users: users::Users,
    channels: channels::Channels,
    settings: config::Settings,
    satellite: satellite::Satellite,
    oem: oem::Oem,
    silent_until: Duration,
    event_counter: u16,
    /// Address and LUN that events go to: the BMC itself.
    event_receiver: [u8; 2],
    // Filled while a request is handled, taken by `finish`.
    delay: Duration,
    notes: Vec<String>,
    actions: Vec<Action>,
}

impl Bmc {
    /// A controller as after its first power-up.
    pub fn new(config: Config) -> Self {
        let bank = Bank::bmc(config.sensors, config.seed);
        let satellite = satellite::Satellite::new(config.satellite_sensors, config.seed);
        Self {
            clock: Clock { offset: i64::from(config.epoch) },
            device: device::Device::new(config.seed),
            messaging: Messaging::default(),
            watchdog: Watchdog::default(),
            chassis: Chassis::default(),
            repository: sdr::main_repository(&bank, satellite.bank(), config.epoch),
            device_sdrs: sdr::device_repository(&bank, config.epoch),
            bank,
            sel: Sel::new(config.epoch),
            fru: fru::Fru::new(),
            users: users::Users::default(),
            channels: channels::Channels::default(),
            settings: config::Settings::new(),
            satellite,
            oem: oem::Oem::default(),
            silent_until: Duration::ZERO,
            event_counter: 0,
            event_receiver: [BMC_ADDRESS, 0],
            delay: Duration::ZERO,
            notes: Vec::new(),
            actions: Vec::new(),
            config,
        }
    }

    /// Serves one request.
    pub fn handle(&mut self, now: Duration, request: &Request) -> Handled {
        self.pass_time(now);
        let response = (now >= self.silent_until).then(|| match self.run(now, request) {
            Ok(data) => request.respond(CompletionCode::OK, data),
            Err(ccode) => request.respond(ccode, []),
        });
        self.finish(response)
    }

    fn run(&mut self, now: Duration, request: &Request) -> Answer {
        let row =
            table::find(request.netfn.get(), request.cmd).ok_or(CompletionCode::INVALID_COMMAND)?;
        if request.lun.get() != 0 && request.netfn != NetFn::OEM {
            return Err(CompletionCode::INVALID_FOR_LUN);
        }
        if !row.len.contains(&request.data.len()) {
            return Err(CompletionCode::DATA_LENGTH_INVALID);
        }
        let notes = self.notes.len();
        let answer = (row.run)(self, now, &request.data);
        if row.changes && answer.is_ok() && self.notes.len() == notes {
            self.note(request.command().name().unwrap_or("OEM command"));
        }
        answer
    }

    /// Lets time pass: watchdog, sensors, messages on the bus.
    pub fn handle_timeout(&mut self, now: Duration) -> Handled {
        self.pass_time(now);
        self.finish(None)
    }

    /// When [`Bmc::handle_timeout`] has something to do.
    pub fn next_timeout(&self, now: Duration) -> Duration {
        let sensors = Duration::from_secs(now.as_secs() + 1);
        [self.watchdog.next_timeout(), self.messaging.next_delivery()]
            .into_iter()
            .flatten()
            .fold(sensors, Duration::min)
    }

    fn pass_time(&mut self, now: Duration) {
        self.pass_watchdog(now);
        self.messaging.deliver(now);
        for event in self.bank.evaluate(now) {
            self.post_event(now, event);
        }
    }

    fn finish(&mut self, response: Option<Response>) -> Handled {
        self.update_attention();
        Handled {
            response,
            delay: std::mem::take(&mut self.delay),
            notes: std::mem::take(&mut self.notes),
            actions: std::mem::take(&mut self.actions),
        }
    }

    /// Runs `change` from outside the message interface (control commands), as a request would.
    pub fn outside<T>(
        &mut self,
        now: Duration,
        change: impl FnOnce(&mut Self) -> T,
    ) -> (T, Handled) {
        self.pass_time(now);
        let value = change(self);
        (value, self.finish(None))
    }

    /// Says what changed, for the journal.
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The controller's time of day, seconds since 1970.
    fn time(&self, now: Duration) -> u32 {
        self.clock.read(now)
    }

    /// Resets the controller: silent for a while, volatile state gone.
    pub fn reset(&mut self, now: Duration, silent: Duration) {
        self.silent_until = now + silent;
        self.repository.cancel_reservation();
        self.device_sdrs.cancel_reservation();
        self.satellite.cancel_reservations();
        self.sel.cancel_reservation();
        self.messaging.reset();
        self.watchdog = Watchdog::default();
        self.actions.push(Action::Interrupts(false));
        self.note(format!("controller reset, silent for {} ms", silent.as_millis()));
    }

    /// What a host that just connected, or was reset, has to be told.
    pub fn interface_state(&self) -> [Action; 2] {
        let (set, interrupt) = self.messaging.attention();
        [
            Action::Interrupts(self.messaging.interrupts_enabled()),
            Action::Attention { set, interrupt },
        ]
    }
}

/// Time of day, kept as the distance to the simulator's time.
#[derive(Debug)]
struct Clock {
    offset: i64,
}

impl Clock {
    fn read(&self, now: Duration) -> u32 {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_add(self.offset);
        // A clock of 32 bits wraps.
        (seconds & 0xffff_ffff) as u32
    }

    fn set(&mut self, now: Duration, time: u32) {
        self.offset = i64::from(time) - i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    }
}

#[cfg(test)]
mod tests;
