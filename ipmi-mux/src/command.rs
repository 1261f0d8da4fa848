// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each IPMI command does, as far as the mux treats it differently.
//!
//! Of a network function only the low six bits count: the upper two are lost on the way to the BMC,
//! where the byte also carries the LUN, so that 0x46 arrives as 0x06.

mod table;

use ipmi::NetFn;

/// How long an answer may be given to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Only to identical requests that are in flight together with it.
    InFlight,
    /// While the BMC runs: who it is and what its interfaces can do.
    Identity,
    /// While the sensor data records are the same.
    Repository,
    /// While the inventory is the same.
    Inventory,
    /// A moment: readings of sensors and what goes with them.
    Sensor,
}

/// What a command does to the BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Changes nothing.
    Read(Keep),
    /// Touches only what is the handle's own, because the mux keeps it per handle: reservations of
    /// record stores, message flags.
    Private,
    /// May change state; so does every command that is not known.
    Change,
}

/// Privilege a command takes in a session, IPMI 2.0 appendix G.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// Looking.
    User,
    /// Running the machine.
    Operator,
    /// Configuring the BMC.
    Administrator,
}

/// The six bits of a network function that reach the BMC.
#[must_use]
pub const fn on_the_wire(netfn: u8) -> u8 {
    netfn & 0x3f
}

/// What the command does, with these data. Any bytes are valid.
#[must_use]
pub fn effect(netfn: u8, cmd: u8, data: &[u8]) -> Effect {
    let netfn = on_the_wire(netfn);
    match (netfn, cmd, data) {
        // Clear SDR Repository, Clear SEL: 00 asks how far an erasure is (IPMI 2.0 sections 33.16, 31.9).
        (0x0a, 0x27 | 0x47, [_, _, b'C', b'L', b'R', 0]) => Effect::Read(Keep::InFlight),
        // Get IP/UDP/RMCP Statistics: bit 0 clears them (section 23.4); the others are reserved.
        (0x0c, 0x04, [_, options, ..]) if *options != 0 => Effect::Change,
        _ => table::row(netfn, cmd, data).map_or(Effect::Change, |(_, effect, _)| *effect),
    }
}

/// The privilege the command takes; [`Privilege::Administrator`] if it is not known.
#[must_use]
pub fn privilege(netfn: u8, cmd: u8, data: &[u8]) -> Privilege {
    table::row(on_the_wire(netfn), cmd, data).map_or(Privilege::Administrator, |row| row.2)
}

/// Whether the command goes before others: a watchdog that is not reset in time resets the machine, and
/// who switches a machine off does not want to wait.
#[must_use]
pub fn is_urgent(netfn: u8, cmd: u8) -> bool {
    // Reset Watchdog Timer, Chassis Control.
    matches!((on_the_wire(netfn), cmd), (0x06, 0x22) | (0x00, 0x02))
}

/// Commands that may keep a BMC busy for many seconds. IPMI wants every answer within 5 s (IPMI 2.0 section
/// 9.12), so these are those known to break that: resets and self test, erasing, firmware.
#[must_use]
pub fn takes_long(netfn: u8, cmd: u8) -> bool {
    match NetFn::new(on_the_wire(netfn)) {
        // Cold reset, warm reset, get self test results.
        Some(NetFn::APP) => matches!(cmd, 0x02..=0x04),
        // Clear SDR repository, run initialization agent, clear SEL.
        Some(NetFn::STORAGE) => matches!(cmd, 0x27 | 0x2c | 0x47),
        Some(NetFn::FIRMWARE) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Appendix G asks no more than `User` for these, though they change something.
    const USER_CHANGES: &[(u8, u8)] = &[
        (0x02, 0x0c), // Send ICMB Connection ID
        (0x04, 0x17), // PET Acknowledge
        (0x06, 0x34), // Send Message: the message inside is what matters
        (0x06, 0x39), // Get Session Challenge, and what belongs to sessions:
        (0x06, 0x3a),
        (0x06, 0x3b),
        (0x06, 0x3c),
        (0x06, 0x48), // Activate Payload and Deactivate Payload
        (0x06, 0x49),
        (0x06, 0x55), // Suspend/Resume Payload Encryption
    ];

    #[test]
    fn every_standard_command_stands_in_the_table() {
        for (netfn, cmd, name) in ipmi::names::all() {
            let row = table::row(netfn, cmd, &[]);
            assert_eq!(row.map(|row| row.0), Some(cmd), "{netfn:02x}/{cmd:02x} {name}");
        }
    }

    #[test]
    fn only_standard_commands_leave_the_state_alone() {
        for (netfn, cmd) in (0..=0xff).flat_map(|n| (0..=0xff).map(move |c| (n, c))) {
            let standard = ipmi::names::name(netfn & 0x3f, cmd).is_some();
            for data in [&[][..], &[0], &[0; 6], &[0xff; 8]] {
                let known = effect(netfn, cmd, data) != Effect::Change;
                assert!(!known || standard, "{netfn:02x}/{cmd:02x} {data:02x?}");
                let user = privilege(netfn, cmd, data) != Privilege::Administrator;
                assert!(!user || standard, "{netfn:02x}/{cmd:02x} {data:02x?}");
            }
        }
    }

    #[test]
    fn names_and_effects_agree() {
        for (netfn, cmd, name) in ipmi::names::all() {
            let effect = effect(netfn, cmd, &[]);
            let what = format!("{netfn:02x}/{cmd:02x} {name}: {effect:?}");
            let verbs = ["Set", "Clear", "Add", "Delete", "Write", "Activate", "Arm", "Send"];
            // The message flags are the handle's own.
            if verbs.iter().any(|verb| name.starts_with(verb)) && (netfn, cmd) != (0x06, 0x30) {
                assert_eq!(effect, Effect::Change, "{what}");
            }
            if effect == Effect::Private {
                assert!(name.starts_with("Reserve") || name.ends_with("Message Flags"), "{what}");
            } else if effect != Effect::Change {
                assert!(name.starts_with("Get") || name == "Read FRU Data", "{what}");
            }
            if privilege(netfn, cmd, &[]) == Privilege::User {
                let excepted = USER_CHANGES.contains(&(netfn, cmd));
                assert_eq!(effect == Effect::Change, excepted, "{what}");
            }
        }
    }

    /// Those that begin with "Get" and yet take something away or begin something.
    #[test]
    fn what_pops_or_opens_is_a_change() {
        for (netfn, cmd) in [(6, 0x33), (6, 0x35), (6, 0x39), (6, 0x52), (6, 0x34), (0x0c, 0x17)] {
            assert_eq!(effect(netfn, cmd, &[]), Effect::Change, "{netfn:02x}/{cmd:02x}");
        }
    }

    #[test]
    fn data_decide_where_they_must() {
        let read = Effect::Read(Keep::InFlight);
        for cmd in [0x27, 0x47] {
            assert_eq!(effect(0x0a, cmd, b"\x01\x00CLR\x00"), read);
            for data in
                [&b"\x01\x00CLR\xaa"[..], b"\x01\x00CLR\x01", b"\x01\x00CLR", b"\0\0\0\0\0\0"]
            {
                assert_eq!(effect(0x0a, cmd, data), Effect::Change, "{data:02x?}");
            }
        }
        assert_eq!(effect(0x0c, 0x04, &[1, 0]), read);
        assert_eq!(effect(0x0c, 0x04, &[1, 1]), Effect::Change);
        // DCMI: Get Power Reading, Set Power Limit; another body; none.
        assert_eq!(effect(0x2c, 0x02, &[0xdc, 1, 0, 0]), read);
        assert_eq!(effect(0x2c, 0x04, &[0xdc, 0]), Effect::Change);
        assert_eq!(effect(0x2c, 0x02, &[0x00, 1, 0, 0]), Effect::Change);
        assert_eq!(effect(0x2c, 0x02, &[]), Effect::Change);
        assert_eq!(privilege(0x2c, 0x02, &[0xdc]), Privilege::User);
        assert_eq!(privilege(0x2c, 0x02, &[0x00]), Privilege::Administrator);
    }

    #[test]
    fn what_matters_to_the_cache() {
        for (netfn, cmd, keep) in [
            (0x06, 0x01, Keep::Identity),
            (0x06, 0x37, Keep::Identity),
            (0x0a, 0x23, Keep::Repository),
            (0x04, 0x21, Keep::Repository),
            (0x0a, 0x11, Keep::Inventory),
            (0x04, 0x2d, Keep::Sensor),
            (0x0a, 0x43, Keep::InFlight),
            (0x00, 0x01, Keep::InFlight),
        ] {
            assert_eq!(effect(netfn, cmd, &[]), Effect::Read(keep), "{netfn:02x}/{cmd:02x}");
        }
        assert!(is_urgent(0x40, 0x02) && is_urgent(0x06, 0x22) && !is_urgent(0x06, 0x24));
        assert!(takes_long(0x4a, 0x47) && takes_long(0x08, 0xff) && !takes_long(0x0b, 0x47));
    }

    proptest! {
        #[test]
        fn the_upper_bits_of_a_network_function_do_not_matter(
            netfn: u8, cmd: u8, data in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            prop_assert_eq!(effect(netfn, cmd, &data), effect(netfn ^ 0xc0, cmd, &data));
            prop_assert_eq!(privilege(netfn, cmd, &data), privilege(netfn ^ 0x40, cmd, &data));
            prop_assert_eq!(is_urgent(netfn, cmd), is_urgent(netfn & 0x3f, cmd));
            prop_assert_eq!(takes_long(netfn, cmd), takes_long(netfn & 0x3f, cmd));
            if netfn & 1 != 0 {
                prop_assert_eq!(effect(netfn, cmd, &data), Effect::Change);
            }
        }
    }
}
