// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives each console its slot and name. Where consoles had TCP ports, as many as can keep theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Console, Found, MAX_CONSOLES};

/// Longest name of a blade, characters, as kvm-bus-lmc.toml(5) has it.
const LONGEST_NAME: usize = 16;

/// Where a console goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// 1 to 239.
    pub slot: u8,
    /// Good as a blade's name, and no other's.
    pub name: String,
    /// The console.
    pub console: Console,
}

/// Places all consoles, by slot, and gives the port of slot 0 if any had one. What changes is told.
#[must_use]
pub fn place(found: &mut Found) -> (Vec<Placed>, Option<u16>) {
    let consoles = one_for_each_device(found);
    let base = base_of(&consoles);
    let wish = |console: &Console| {
        let slot = console.port?.checked_sub(base?)?;
        u8::try_from(slot).ok().filter(|slot| (1..=MAX_CONSOLES).contains(&usize::from(*slot)))
    };
    let mut taken = BTreeSet::new();
    let mut slots = vec![];
    for console in &consoles {
        slots.push(wish(console).filter(|slot| taken.insert(*slot)));
    }
    let mut names = BTreeSet::new();
    let mut placed = vec![];
    for (console, slot) in consoles.into_iter().zip(slots) {
        let free = (1..=u8::MAX).find(|slot| !taken.contains(slot));
        let Some(slot) = slot.or(free) else { continue };
        taken.insert(slot);
        let now = base.and_then(|base| base.checked_add(slot.into()));
        if console.port.is_some() && console.port != now {
            let was = console.port.unwrap_or_default();
            let now = now.map_or("has none".to_owned(), |port| format!("is at port {port}"));
            found.warn(
                &console.at,
                format!("was at port {was} and {now} here: ports are one after the other, by slot"),
            );
        }
        let name = name_of(&console.name, &mut names);
        if name != console.name {
            found.warn(&console.at, format!("is called {name} here: a name has up to {LONGEST_NAME} letters, digits, hyphens, dots, and is nobody else's"));
        }
        placed.push(Placed { slot, name, console });
    }
    placed.sort_by_key(|placed| placed.slot);
    (placed, base)
}

/// A line has one user. ser2net may have a port for each of its speeds, of which one is open at a time.
fn one_for_each_device(found: &mut Found) -> Vec<Console> {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    let mut kept = vec![];
    for console in std::mem::take(&mut found.consoles) {
        if let Some(other) = first.get(&console.device) {
            let text = format!(
                "{} is {other}'s already; this one is left out. RFC 2217 sets the speed",
                console.device
            );
            found.warn(&console.at, text);
            continue;
        }
        first.insert(console.device.clone(), console.name.clone());
        kept.push(console);
    }
    kept
}

/// The port before the one from which most ports are within reach of a slot.
fn base_of(consoles: &[Console]) -> Option<u16> {
    let ports: BTreeSet<u16> = consoles.iter().filter_map(|console| console.port).collect();
    let reached = |first: u16| {
        let last = first.saturating_add(u16::try_from(MAX_CONSOLES - 1).unwrap_or(u16::MAX));
        ports.range(first..=last).count()
    };
    let best = ports.iter().rev().max_by_key(|first| reached(**first))?;
    best.checked_sub(1)
}

fn name_of(name: &str, names: &mut BTreeSet<String>) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let mut plain: String = name.chars().map(good).take(LONGEST_NAME).collect();
    // Neither hidden, nor an option.
    if plain.starts_with(['.', '-']) || plain.is_empty() {
        plain = format!("c{}", &plain[..plain.len().min(LONGEST_NAME - 1)]);
    }
    let mut unique = plain.clone();
    for number in 2.. {
        if names.insert(unique.clone()) {
            break;
        }
        let end = format!("-{number}");
        unique = format!("{}{end}", &plain[..plain.len().min(LONGEST_NAME - end.len())]);
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::At;

    fn placed(
        consoles: &[(&str, &str, Option<u16>)],
    ) -> (Vec<(u8, String)>, Option<u16>, Vec<String>) {
        let mut found = Found::default();
        for (line, (name, device, port)) in consoles.iter().enumerate() {
            let at = At { file: "f".into(), line: line + 1 };
            let (name, device) = ((*name).to_owned(), (*device).to_owned());
            let console = Console {
                at,
                name,
                device,
                settings: Default::default(),
                flow: Default::default(),
                port: *port,
            };
            found.consoles.push(console);
        }
        let (placed, base) = place(&mut found);
        let placed = placed.into_iter().map(|placed| (placed.slot, placed.name)).collect();
        (placed, base, found.warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn most_ports_are_kept() {
        let (found, base, told) = placed(&[
            ("a", "/1", Some(2000)),
            ("b", "/2", Some(2001)),
            ("c", "/3", Some(3001)),
            ("d", "/4", Some(3005)),
            ("e", "/5", Some(3239)),
            ("f", "/6", None),
            ("g", "/7", Some(3005)),
        ]);
        assert_eq!(base, Some(3000));
        let wanted = [(1, "c"), (2, "a"), (3, "b"), (4, "f"), (5, "d"), (6, "g"), (239, "e")];
        assert_eq!(found, wanted.map(|(slot, name)| (slot, name.to_owned())));
        assert_eq!(told.len(), 3);
        assert!(told[0].starts_with("f:1: was at port 2000 and is at port 3002 here"), "{told:?}");
        assert_eq!(placed(&[("a", "/1", None)]).1, None);
        assert_eq!(placed(&[("a", "/1", Some(65_535)), ("b", "/2", None)]).1, Some(65_534));
    }

    #[test]
    fn names_are_made_good_and_unique() {
        let (found, _, told) = placed(&[
            ("web1.conserver.com", "/1", None),
            ("web1.conserver.co.uk", "/2", None),
            (".x", "/3", None),
            ("", "/4", None),
            ("a b", "/5", None),
            ("ok", "/6", None),
            ("--config=/etc/shadow", "/7", None),
        ]);
        let names: Vec<_> = found.iter().map(|(_, name)| name.as_str()).collect();
        let wanted =
            ["web1.conserver.c", "web1.conserver-2", "c.x", "c", "a-b", "ok", "c--config--etc-s"];
        assert_eq!(names, wanted);
        assert_eq!(told.len(), 6);
    }

    #[test]
    fn a_line_has_one_user() {
        let (found, _, told) = placed(&[("a", "/1", Some(2000)), ("b", "/1", Some(3000))]);
        assert_eq!(found.len(), 1);
        assert!(told[0].starts_with("f:2: /1 is a's already"), "{told:?}");
    }
}
