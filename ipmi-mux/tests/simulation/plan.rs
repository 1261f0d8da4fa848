// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a world is like: all of it drawn from the seed.

use std::time::Duration;

use ipmi_mux::mux::Limits;

use seeds::Rng;

use super::clients::Kind;
use super::model::{Habits, MS, SECOND, Time};

/// How often what goes wrong, in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The answer never comes.
    pub lost: u64,
    /// It comes seconds later.
    pub late: u64,
    /// It comes, and comes again.
    pub twice: u64,
    /// The BMC answers C0 (busy).
    pub busy: u64,
    /// The BMC answers C3 (time-out), and may have done it all the same.
    pub timed_out: u64,
    /// The back end says `EAGAIN` or `EBUSY`.
    pub again: u64,
    /// The back end says `EINVAL`.
    pub refused: u64,
    /// Of what happens by itself: the BMC hangs.
    pub hang: u64,
    /// Of what happens by itself: the BMC is reset. Clients may reset it, too.
    pub reset: u64,
}

impl Faults {
    pub fn any(&self) -> bool {
        let Self { lost, late, twice: _, busy, timed_out, again: _, refused, hang, reset } = *self;
        lost + late + busy + timed_out + refused + hang + reset > 0
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub limits: Limits,
    /// The back end is the kernel's driver, which answers everything at last.
    pub driver: bool,
    pub habits: Habits,
    pub records: u16,
    pub entries: u16,
    /// Clients at the beginning, and what they are.
    pub clients: u64,
    pub kinds: Vec<Kind>,
    /// Steps of all clients together.
    pub steps: u64,
    /// Of a thousand steps, those after which a client is closed.
    pub deaths: u64,
    /// Longest pause between two steps of a client.
    pub pause: Time,
    /// The BMC's time for a command.
    pub service: (Time, Time),
    /// From the BMC back to us.
    pub latency: Time,
    /// Between two things that happen by themselves, at most; and of a thousand of them: somebody
    /// beside us reserves, an entry is logged, a record is added, an event is sent.
    pub ambient: Time,
    pub outsiders: u64,
    pub entries_added: u64,
    pub records_added: u64,
    pub events: u64,
    pub faults: Faults,
}

const KINDS: [Kind; 9] = [
    Kind::Walker,
    Kind::Clearer,
    Kind::Flooder,
    Kind::Poller,
    Kind::Watchdog,
    Kind::Boot,
    Kind::Enabler,
    Kind::Ranger,
    Kind::Changer,
];

impl Plan {
    pub fn draw(rng: &mut Rng) -> Self {
        let driver = rng.permille(500);
        let sensor_age = *rng.pick(&[0, 200, 1000]);
        let limits = Limits {
            deadline: Duration::from_secs(5),
            long_deadline: Duration::from_secs(60),
            window: if driver { 2 } else { 8 },
            abandoned_for: Duration::from_secs(if driver { 60 } else { 0 }),
            sensor_age: Duration::from_millis(sensor_age),
            reserved_code: ipmi::CompletionCode::INSUFFICIENT_PRIVILEGE,
        };
        let habits = Habits {
            strict: rng.permille(500),
            clear_cancels: rng.permille(700),
            info: rng.permille(900),
            first_reservation: u16::try_from(rng.below(0x1_0000)).expect("a word"),
        };
        let slowest = *rng.pick(&[1, 5, 30]) * MS;
        // Few kinds in a world, so that they meet.
        let kinds = (0..rng.between(1, 4)).map(|_| *rng.pick(&KINDS)).collect();
        let often = *rng.pick(&[0, 100, 400]);
        let some = |rng: &mut Rng| if rng.permille(600) { rng.below(often + 1) } else { 0 };
        Self {
            limits,
            driver,
            habits,
            records: u16::try_from(rng.between(1, 8)).expect("few"),
            entries: u16::try_from(rng.between(0, 5)).expect("few"),
            clients: rng.between(2, 9),
            kinds,
            steps: rng.between(30, 250),
            deaths: *rng.pick(&[0, 10, 60]),
            pause: *rng.pick(&[5, 50, 400, 2000]) * MS,
            service: (100, slowest),
            latency: *rng.pick(&[0, 0, 200, 2000]),
            ambient: *rng.pick(&[5, 50, 500, 3000]) * MS,
            outsiders: some(rng),
            entries_added: some(rng),
            records_added: some(rng),
            events: some(rng),
            faults: Self::faults(rng, driver),
        }
    }

    fn faults(rng: &mut Rng, driver: bool) -> Faults {
        let often = *rng.pick(&[0, 0, 20, 100]);
        let mut some = |share: u64| {
            if rng.permille(500) { rng.below(often * share / 100 + 1) } else { 0 }
        };
        Faults {
            // The driver loses nothing: at last it answers by itself.
            lost: if driver { some(10) } else { some(60) },
            late: some(100),
            twice: some(100),
            busy: some(100),
            timed_out: some(100),
            again: some(300),
            refused: some(50),
            hang: some(100),
            reset: some(100),
        }
    }

    /// How long an answer that is late stays away: some come when its deadline has passed.
    pub fn delay(&self, rng: &mut Rng) -> Time {
        let longest = if self.driver { 20 * SECOND } else { 8 * SECOND };
        rng.between(MS, longest)
    }
}
