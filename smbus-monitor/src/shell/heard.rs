// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is made of what another member tells.

use std::collections::BTreeMap;

use secure_link::Name;

use super::monitor::{GROUP, Inner, MIDPLANE, Monitor, place_of};
use super::publish::News;
use crate::core::alerts::{Alert, Kind};
use crate::sources::{Whose, now};

/// What another member tells.
pub fn take(monitor: &Monitor, name: &Name, news: News) {
    let mut inner = monitor.lock();
    let own_place = inner.place.clone();
    let taken = inner.others.iter().any(|(other, o)| {
        *other != name.as_str()
            && o.here
            && news.identity.as_ref().is_some_and(|i| o.place == i.slot)
    });
    let other = inner.others.entry(name.to_string()).or_default();
    let mut moved = None;
    if let Some(identity) = news.identity {
        let mut place = place_of(&identity, name.as_str());
        // Two in one slot: the second is shown by its name, and told of.
        if taken || place == own_place {
            place = name.to_string();
        }
        if other.identity.serial != identity.serial && !identity.serial.is_empty() {
            moved = Some((place.clone(), other.identity.serial.clone(), identity.serial.clone()));
        }
        other.place = place;
        other.identity = identity;
    }
    let place = if other.place.is_empty() { name.to_string() } else { other.place.clone() };
    if let Some((place, old, new)) = moved {
        let before =
            inner.serials.insert(place.clone(), new.clone()).filter(|before| *before != new);
        let before = before.or(Some(old).filter(|old| !old.is_empty()));
        let text = match before {
            Some(before) => format!("module {before} was replaced by {new}, member {name}"),
            None => format!("module {new}, member {name}"),
        };
        monitor.note(&mut inner, Kind::Module, &place, None, &text);
    }
    let from_manager = inner.manager.as_deref() == Some(name.as_str());
    for (whose, batch) in news.batches {
        let at = match whose {
            Whose::Own => place.clone(),
            // Of what belongs to the chassis the manager alone has the word.
            Whose::Midplane if from_manager && batch.source == GROUP => batch.source.clone(),
            Whose::Midplane if from_manager => MIDPLANE.to_owned(),
            Whose::Midplane => continue,
        };
        let happened = inner.core.batch(now(), &at, false, &batch);
        monitor.happened(&mut inner, happened);
    }
    if let Some(acted) = news.acted.filter(|_| from_manager && !inner.tells) {
        inner.ledger.adopt(acted);
    }
    if let Some(alerts) = news.alerts {
        hear_alerts(monitor, &mut inner, name, alerts);
    }
}

/// Another member's alerts changed: the manager tells of them, as the configuration says.
fn hear_alerts(monitor: &Monitor, inner: &mut Inner, name: &Name, alerts: Vec<Alert>) {
    let Some(other) = inner.others.get_mut(name.as_str()) else { return };
    let old = std::mem::replace(&mut other.alerts, alerts.clone());
    let by_id = |all: Vec<Alert>| {
        all.into_iter().map(|a| (a.id.clone(), a)).collect::<BTreeMap<String, Alert>>()
    };
    let (mut old, new) = (by_id(old), by_id(alerts));
    for (id, alert) in new {
        let kind = match old.remove(&id) {
            None => Kind::Raised,
            Some(before) if before.severity != alert.severity => Kind::Changed,
            Some(_) => continue,
        };
        monitor.heard(inner, kind, alert);
    }
    for alert in old.into_values() {
        monitor.heard(inner, Kind::Cleared, alert);
    }
}
