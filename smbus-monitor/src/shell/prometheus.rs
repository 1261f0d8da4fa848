// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store as Prometheus reads it (text format 0.0.4), under the names that dashboards know, with labels for the
//! slot and for the part in it, so that both have a history. Nothing is read for it: a sensor that hangs holds no scrape.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::core::{Core, Entry};
use crate::report::IdentityReport;

/// The content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is said besides the metrics.
pub struct About<'a> {
    /// The program's version.
    pub version: &'a str,
    /// Whether this machine is the active manager.
    pub is_manager: bool,
    /// Events that were lost.
    pub events_lost: u64,
    /// Alerts: `(place, severity)` and how many.
    pub alerts: BTreeMap<(String, &'static str), usize>,
    /// Bytes of histories.
    pub history_bytes: usize,
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let each = pairs.iter().filter(|(_, value)| !value.is_empty());
    let each: Vec<String> =
        each.map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    if each.is_empty() { String::new() } else { format!("{{{}}}", each.join(",")) }
}

/// All lines of one name stand together, as the format wants it.
#[derive(Default)]
struct Families(BTreeMap<String, (&'static str, Vec<String>)>);

impl Families {
    fn add(&mut self, name: &str, kind: &'static str, pairs: &[(&str, &str)], value: f64) {
        let family = self.0.entry(name.to_owned()).or_insert((kind, vec![]));
        family.1.push(format!("{name}{} {value}", labels(pairs)));
    }

    fn text(self) -> String {
        let mut out = String::new();
        for (name, (kind, lines)) in self.0 {
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for line in lines {
                let _ = writeln!(out, "{line}");
            }
        }
        out
    }
}

fn metric(families: &mut Families, of: &[(&str, &str)], entry: &Entry) {
    let exported = &entry.meta.exported;
    if exported.name.is_empty() || entry.stale {
        return;
    }
    let value = if exported.total { entry.total } else { entry.value };
    let Some(value) = value else { return };
    let own = exported.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let pairs: Vec<_> = own.chain(of.iter().copied()).collect();
    let kind = if exported.total { "counter" } else { "gauge" };
    families.add(&exported.name, kind, &pairs, value * exported.scale);
}

/// The places given, with who is there, and how the program is.
#[must_use]
pub fn text<'a>(
    core: &Core,
    places: impl Iterator<Item = (&'a str, IdentityReport, &'a str)>,
    about: &About<'_>,
) -> String {
    let mut families = Families::default();
    for (place, identity, blade) in places {
        let slot = if identity.slot.is_empty() { place } else { &identity.slot };
        let IdentityReport { chassis, serial, module, .. } = &identity;
        let of =
            [("chassis", chassis.as_str()), ("slot", slot), ("serial", serial), ("blade", blade)];
        let info = [of[0], of[1], of[2], of[3], ("module", module.as_str())];
        families.add("smbus_monitor_blade_info", "gauge", &info, 1.0);
        let metrics = core.place(place).into_iter().flat_map(|place| place.metrics.values());
        for entry in metrics {
            metric(&mut families, &of, entry);
        }
    }
    for ((place, severity), count) in &about.alerts {
        let pairs = [("place", place.as_str()), ("severity", severity)];
        families.add("smbus_monitor_alerts", "gauge", &pairs, *count as f64);
    }
    let manager = f64::from(u8::from(about.is_manager));
    families.add("smbus_monitor_is_active_manager", "gauge", &[], manager);
    families.add("smbus_monitor_events_lost_total", "counter", &[], about.events_lost as f64);
    families.add("smbus_monitor_history_bytes", "gauge", &[], about.history_bytes as f64);
    families.add("smbus_monitor_build_info", "gauge", &[("version", about.version)], 1.0);
    families.text()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::rules::Rules;
    use crate::core::{Batch, Now};
    use crate::metric::{Exported, Meta, Reading, Unit};

    #[test]
    fn names_that_are_known_with_slot_and_serial() {
        let mut core = Core::new("b", 0, Rules::default());
        let temp = Exported::gauge(
            "node_hwmon_temp_celsius",
            &[("chip", "i2c_1_1_0048"), ("sensor", "temp1")],
        );
        let sent = Exported::counter("node_network_transmit_bytes_total", &[("device", "a\"\\\n")]);
        let temp = Arc::new(Meta::new("hwmon/a", "", Unit::Celsius, 1000).exported(temp));
        let sent = Arc::new(Meta::new("net/a", "", Unit::BytesPerSecond, 1000).exported(sent));
        let sent = Reading { total: Some(700.0), ..Reading::new(&sent, 5.0) };
        let readings = vec![Reading::new(&temp, 25.5), sent];
        let batch = Batch { source: "x".to_owned(), readings, complete: false };
        let now = Now { mono: 0, wall: 0 };
        let _ = core.batch(now, "3", true, &batch);
        let identity = IdentityReport {
            chassis: "C1".into(),
            slot: "3".into(),
            serial: "S1".into(),
            ..IdentityReport::default()
        };
        let about = About {
            version: "1",
            is_manager: true,
            events_lost: 0,
            alerts: BTreeMap::new(),
            history_bytes: 0,
        };
        let shown = |core: &Core| text(core, [("3", identity.clone(), "db")].into_iter(), &about);
        let out = shown(&core);
        let line = "node_hwmon_temp_celsius{chip=\"i2c_1_1_0048\",sensor=\"temp1\",chassis=\"C1\",slot=\"3\",serial=\"S1\",blade=\"db\"} 25.5\n";
        assert!(out.contains(line), "{out}");
        assert!(
            out.contains("device=\"a\\\"\\\\\\n\",") && out.contains("blade=\"db\"} 700\n"),
            "{out}"
        );
        assert!(out.contains("# TYPE node_network_transmit_bytes_total counter\n"), "{out}");
        for second in 50..60 {
            let _ = core.tick(Now { mono: second * 1000, wall: 0 });
        }
        assert!(!shown(&core).contains("25.5"), "what is stale is not told");
    }
}
