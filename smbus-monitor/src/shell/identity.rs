// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who this machine is: its chassis, its slot, its kind and serial number, from all that tell it. What the configuration
//! says goes first, then the module's EEPROM, the BMC's inventory, the firmware's tables; where two disagree about the
//! place, that is told, as one of them is wrong and an operator would pull the wrong blade.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use ipmi::fru::Inventory;

use crate::config::IdentityConfig;
use crate::formats::records::{Identity, Told};
use crate::formats::smbios;
use crate::metric::cut;
use crate::sources::ipmi::{Client, node};
use crate::sources::smbus::{SYSFS, find, read_fru};

/// Where the firmware's texts are.
pub const DMI: &str = "/sys/class/dmi/id";
/// Where its table is.
pub const SMBIOS: &str = "/sys/firmware/dmi/tables/DMI";
/// Where the unit puts, below the runtime folder, what root alone may read of both.
pub const GIVEN: &str = "dmi";
/// Most bytes of an inventory.
const MAX_FRU: u64 = 4096;
/// Most bytes of a text.
const MAX_TEXT: usize = 64;
/// What firmware says where nobody has said anything.
const NOTHING: [&str; 12] = [
    "",
    "none",
    "n/a",
    "unknown",
    "default string",
    "not specified",
    "not available",
    "0123456789",
    "empty",
    "to be filled by o.e.m.",
    "system serial number",
    "chassis serial number",
];

fn tell(told: &mut Vec<Told>, by: &str, what: &str, value: &str) {
    let value = cut(value, MAX_TEXT);
    if !NOTHING.contains(&value.to_lowercase().as_str()) {
        told.push(Told { by: by.to_owned(), what: what.to_owned(), value });
    }
}

/// A slot as it is compared: `Slot 07` is `7`.
#[must_use]
pub fn slot(text: &str) -> String {
    let text = text.trim();
    let lower = text.to_lowercase();
    let after = ["slot", "bay", "node"].iter().find_map(|word| lower.strip_prefix(word));
    let rest = after.map_or(text, |rest| &text[text.len() - rest.len()..]);
    let rest = rest.trim_start_matches([' ', ':', '=', '#', '-', '_']).trim();
    match rest.parse::<u32>() {
        Ok(number) => number.to_string(),
        Err(_) => cut(&rest.replace('/', "_"), MAX_TEXT),
    }
}

/// What an inventory tells. The slot is a further field of any area, as `SLOT=3`: the standard has no field for it.
fn inventory(told: &mut Vec<Told>, by: &str, inventory: &Inventory) {
    let Inventory { chassis, board, product } = inventory;
    let mut custom = vec![];
    if let Some(chassis) = chassis {
        tell(told, by, "chassis", &chassis.serial);
        custom.extend(&chassis.custom);
    }
    if let Some(product) = product {
        tell(told, by, "maker", &product.manufacturer);
        tell(told, by, "module", &product.product);
        tell(told, by, "serial", &product.serial);
        custom.extend(&product.custom);
    }
    if let Some(board) = board {
        tell(told, by, "maker", &board.manufacturer);
        tell(told, by, "module", &board.product);
        tell(told, by, "serial", &board.serial);
        custom.extend(&board.custom);
    }
    let is_slot = |text: &&&String| {
        let text = text.to_lowercase();
        text.strip_prefix("slot").is_some_and(|rest| rest.starts_with(['=', ':', ' ']))
    };
    if let Some(text) = custom.iter().find(is_slot) {
        tell(told, by, "slot", &slot(text));
    }
}

fn read_at_most(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn eeprom(told: &mut Vec<Told>, config: &IdentityConfig) {
    let bytes = match (&config.eeprom, &config.eeprom_at) {
        (Some(path), _) => {
            read_at_most(path, MAX_FRU).map_err(|e| format!("{}: {e}", path.display()))
        }
        (None, Some((bus, address))) => match find(bus, Path::new(SYSFS)) {
            Some(number) => read_fru(number, *address).map_err(|error| error.to_string()),
            None => Err(format!("there is no bus {bus:?}")),
        },
        (None, None) => return,
    };
    let read = bytes.and_then(|bytes| Inventory::decode(&bytes).map_err(|error| error.to_string()));
    match read {
        Ok(found) => inventory(told, "eeprom", &found),
        Err(error) => tracing::warn!(error, "the module's EEPROM is not read"),
    }
}

fn dmi(told: &mut Vec<Told>, config: &IdentityConfig, given: &Path) {
    // Of the machine itself, and not of a folder that the configuration names instead.
    let given = |name: &str, is_default: bool| {
        is_default.then(|| read_at_most(&given.join(name), smbios::MAX_TABLE).ok()).flatten()
    };
    if let Some(folder) = &config.dmi {
        let is_default = folder == Path::new(DMI);
        for (file, what) in [
            ("chassis_serial", "chassis"),
            ("sys_vendor", "maker"),
            ("product_name", "module"),
            ("product_serial", "serial"),
            ("board_serial", "serial"),
        ] {
            if let Ok(text) =
                given(file, is_default).map_or_else(|| fs::read(folder.join(file)), Ok)
            {
                tell(told, "dmi", what, &String::from_utf8_lossy(&text));
            }
        }
    }
    if let Some(path) = &config.smbios
        && let Ok(table) = given("smbios", path == Path::new(SMBIOS))
            .map_or_else(|| read_at_most(path, smbios::MAX_TABLE), Ok)
        && let Some(location) = smbios::location_in_chassis(&table)
    {
        tell(told, "dmi", "slot", &slot(&location));
    }
}

/// Asks all sources. It may take as long as a BMC does.
#[must_use]
pub fn read(config: &IdentityConfig, ipmi_device: Option<&Path>, given: &Path) -> Vec<Told> {
    let mut told = vec![];
    for (what, value) in [
        ("chassis", &config.chassis),
        ("slot", &config.slot),
        ("module", &config.module),
        ("serial", &config.serial),
    ] {
        if let Some(value) = value {
            let value = if what == "slot" { slot(value) } else { value.clone() };
            tell(&mut told, "configuration", what, &value);
        }
    }
    eeprom(&mut told, config);
    let bmc = node(ipmi_device);
    if config.ipmi && bmc.exists() {
        match Client::open(&bmc).and_then(|mut client| client.inventory()) {
            Ok(found) => inventory(&mut told, "ipmi", &found),
            Err(error) => tracing::debug!(%error, "the BMC's inventory is not read"),
        }
    }
    dmi(&mut told, config, given);
    told
}

/// The identity that follows: of each, the first that is told.
#[must_use]
pub fn decide(told: Vec<Told>) -> Identity {
    let first = |what: &str| {
        let found = told.iter().find(|one| one.what == what);
        found.map(|one| one.value.clone()).unwrap_or_default()
    };
    Identity {
        chassis: first("chassis"),
        slot: first("slot"),
        module: first("module"),
        maker: first("maker"),
        serial: first("serial"),
        sources: told,
        ..Identity::default()
    }
}

/// Where sources disagree about the place.
#[must_use]
pub fn disagreements(identity: &Identity) -> Vec<String> {
    let mut out = vec![];
    for (what, is) in [("slot", &identity.slot), ("chassis", &identity.chassis)] {
        let of = identity.sources.iter().filter(|one| one.what == what);
        let others: Vec<_> = of.clone().filter(|one| one.value != *is).collect();
        if !others.is_empty() {
            let all: Vec<String> = of.map(|one| format!("{} says {}", one.by, one.value)).collect();
            out.push(format!("sources disagree about the {what}: {}", all.join(", ")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use ipmi::fru::{Chassis, Product};

    use super::*;

    #[test]
    fn slots_are_compared_by_what_they_mean() {
        for (text, is) in [
            ("Slot 07", "7"),
            ("SLOT=3", "3"),
            ("slot: A2", "A2"),
            ("12", "12"),
            ("Bay #4", "4"),
            ("a/b", "a_b"),
        ] {
            assert_eq!(slot(text), is);
        }
    }

    #[test]
    fn two_sources_that_disagree_about_the_slot_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let product =
            Product { product: "Blade".into(), serial: "S1".into(), ..Product::default() };
        let chassis = Chassis {
            kind: 0x1c,
            serial: "C1".into(),
            custom: vec!["SLOT=3".into()],
            part: String::new(),
        };
        let found = Inventory { chassis: Some(chassis), board: None, product: Some(product) };
        let eeprom = folder.path().join("eeprom");
        fs::write(&eeprom, found.encode().unwrap()).unwrap();
        fs::write(folder.path().join("chassis_serial"), "Default string\n").unwrap();
        let config = IdentityConfig {
            eeprom: Some(eeprom.clone()),
            dmi: Some(folder.path().to_owned()),
            ..IdentityConfig::default()
        };
        let identity = decide(read(&config, None, folder.path()));
        let parts = [&identity.chassis, &identity.slot, &identity.module, &identity.serial];
        assert_eq!(parts, ["C1", "3", "Blade", "S1"]);
        assert_eq!(disagreements(&identity), Vec::<String>::new());
        let config = IdentityConfig { slot: Some("4".to_owned()), ..config };
        let identity = decide(read(&config, None, folder.path()));
        assert_eq!(identity.slot, "4");
        let told = disagreements(&identity);
        assert_eq!(told, ["sources disagree about the slot: configuration says 4, eeprom says 3"]);
        fs::write(eeprom, b"garbage").unwrap();
        assert_eq!(decide(read(&config, None, folder.path())).serial, "");
    }
}
