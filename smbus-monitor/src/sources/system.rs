// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processors, memory, disks, network and the time since the boot, from proc(5).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::kept::Kept;
use super::{Rate, Source, ms};
use crate::core::{Batch, Now};
use crate::formats::proc::{self, CpuTimes, TICKS};
use crate::metric::{Exported, Meta, Reading, Unit};

/// Most disks and interfaces each; a host with more has them for its guests.
const MAX_DEVICES: usize = 128;

/// What is read in one go.
#[derive(Debug)]
pub struct System {
    interval: Duration,
    per_cpu: bool,
    stat: Kept,
    meminfo: Kept,
    loadavg: Kept,
    uptime: Kept,
    diskstats: Kept,
    net: Kept,
    block: std::path::PathBuf,
    metas: BTreeMap<String, Arc<Meta>>,
    rates: BTreeMap<String, Rate>,
    cpus: BTreeMap<String, CpuTimes>,
}

impl System {
    /// With `per_cpu` each processor has metrics of its own.
    #[must_use]
    pub fn new(interval: Duration, per_cpu: bool) -> Self {
        let proc = |name: &str| Kept::new(&Path::new("/proc").join(name));
        Self {
            interval,
            per_cpu,
            stat: proc("stat"),
            meminfo: proc("meminfo"),
            loadavg: proc("loadavg"),
            uptime: proc("uptime"),
            diskstats: proc("diskstats"),
            net: proc("net/dev"),
            block: "/sys/block".into(),
            metas: BTreeMap::new(),
            rates: BTreeMap::new(),
            cpus: BTreeMap::new(),
        }
    }

    fn meta(&mut self, id: &str, unit: Unit, exported: impl FnOnce() -> Exported) -> Arc<Meta> {
        if let Some(meta) = self.metas.get(id) {
            return meta.clone();
        }
        let meta = Arc::new(Meta::new(id, "", unit, ms(self.interval)).exported(exported()));
        self.metas.insert(id.to_owned(), meta.clone());
        meta
    }

    fn gauge(&mut self, out: &mut Vec<Reading>, id: &str, unit: Unit, name: &str, value: f64) {
        let meta = self.meta(id, unit, || Exported::gauge(name, &[]));
        out.push(Reading::new(&meta, value));
    }

    /// A counter as a rate; nothing at the first look.
    fn rate(&mut self, now: Now, out: &mut Vec<Reading>, of: Counter<'_>) {
        let Counter { id, unit, name, labels, total, rate_scale, total_scale } = of;
        let rate = match self.rates.get_mut(id) {
            Some(rate) => rate.of(now.mono, total),
            None => self.rates.entry(id.to_owned()).or_default().of(now.mono, total),
        };
        let Some(rate) = rate else { return };
        let meta = self.meta(id, unit, || Exported::counter(name, labels).scaled(total_scale));
        let reading = Reading::new(&meta, rate * rate_scale);
        out.push(Reading { total: Some(total as f64), ..reading });
    }

    fn cpu(&mut self, out: &mut Vec<Reading>, name: &str, number: Option<u32>, times: CpuTimes) {
        let before = self.cpus.insert(name.to_owned(), times);
        let Some(was) = before else { return };
        let Some(all) = times.total().checked_sub(was.total()).filter(|all| *all > 0) else {
            return;
        };
        let modes = [
            ("user", times.user, was.user),
            ("system", times.system, was.system),
            ("iowait", times.iowait, was.iowait),
            ("steal", times.steal, was.steal),
            ("idle", times.idle, was.idle),
        ];
        let mut idle = 0.0;
        for (mode, total, before) in modes {
            let share = total.saturating_sub(before) as f64 / all as f64 * 100.0;
            if matches!(mode, "idle" | "iowait") {
                idle += share;
            }
            let cpu = number.map(|number| number.to_string());
            let meta = self.meta(&format!("{name}/{mode}"), Unit::Percent, || match &cpu {
                Some(cpu) => {
                    let labels = [("cpu", cpu.as_str()), ("mode", mode)];
                    Exported::counter("node_cpu_seconds_total", &labels).scaled(1.0 / TICKS)
                }
                None => Exported::gauge("smbus_monitor_cpu_percent", &[("mode", mode)]),
            });
            let reading = Reading::new(&meta, share);
            let total = number.map(|_| total as f64);
            out.push(Reading { total, ..reading });
        }
        let busy = (100.0 - idle).max(0.0);
        let meta = self.meta(&format!("{name}/usage"), Unit::Percent, Exported::default);
        out.push(Reading::new(&meta, busy));
    }

    fn processors(&mut self, now: Now, out: &mut Vec<Reading>) {
        let Ok(stat) = self.stat.read().map(proc::stat) else { return };
        self.cpu(out, "system/cpu", None, stat.all);
        if self.per_cpu {
            for (number, times) in stat.each.into_iter().take(MAX_DEVICES) {
                self.cpu(out, &format!("system/cpu{number}"), Some(number), times);
            }
        }
        let counters = [
            ("system/interrupts", "node_intr_total", stat.interrupts),
            ("system/context_switches", "node_context_switches_total", stat.switches),
        ];
        for (id, name, total) in counters {
            self.rate(now, out, Counter { id, name, total, ..Counter::PER_SECOND });
        }
        let (running, blocked) = (stat.running as f64, stat.blocked as f64);
        self.gauge(out, "system/running", Unit::Number, "node_procs_running", running);
        self.gauge(out, "system/blocked", Unit::Number, "node_procs_blocked", blocked);
        let boot = stat.boot_time as f64;
        let meta = self.meta("system/boot_time", Unit::Seconds, || {
            Exported::gauge("node_boot_time_seconds", &[])
        });
        out.push(Reading::new(&meta, boot));
    }

    fn loads(&mut self, out: &mut Vec<Reading>) {
        if let Some(loads) = self.loadavg.read().ok().and_then(proc::numbers::<3>) {
            for (id, name, value) in [
                ("system/load1", "node_load1", loads[0]),
                ("system/load5", "node_load5", loads[1]),
                ("system/load15", "node_load15", loads[2]),
            ] {
                self.gauge(out, id, Unit::Number, name, value);
            }
        }
        if let Some([uptime]) = self.uptime.read().ok().and_then(proc::numbers::<1>) {
            let name = "smbus_monitor_uptime_seconds";
            self.gauge(out, "system/uptime", Unit::Seconds, name, uptime);
        }
    }

    fn memory(&mut self, out: &mut Vec<Reading>) {
        let Ok(memory) = self.meminfo.read().map(proc::meminfo) else { return };
        let proc::Memory { total, free, available, swap_total, swap_free } = memory;
        for (id, name, bytes) in [
            ("system/memory_total", "node_memory_MemTotal_bytes", total),
            ("system/memory_free", "node_memory_MemFree_bytes", free),
            ("system/memory_available", "node_memory_MemAvailable_bytes", available),
            ("system/swap_total", "node_memory_SwapTotal_bytes", swap_total),
            ("system/swap_free", "node_memory_SwapFree_bytes", swap_free),
        ] {
            self.gauge(out, id, Unit::Bytes, name, bytes as f64);
        }
        for (id, total, left) in
            [("system/memory_used", total, available), ("system/swap_used", swap_total, swap_free)]
        {
            if total > 0 {
                let used = total.saturating_sub(left) as f64 / total as f64 * 100.0;
                let meta = self.meta(id, Unit::Percent, Exported::default);
                out.push(Reading::new(&meta, used));
            }
        }
    }

    fn disks(&mut self, now: Now, out: &mut Vec<Reading>) {
        let Ok(text) = self.diskstats.read() else { return };
        let disks: Vec<_> = proc::diskstats(text).collect();
        // Whole disks with a device behind them: no partitions, loops and maps, which would count twice.
        let block = self.block.clone();
        let real = |name: &str| block.join(name.replace('/', "!")).join("device").exists();
        for disk in disks.into_iter().filter(|disk| real(&disk.name)).take(MAX_DEVICES) {
            let labels = [("device", disk.name.as_str())];
            let id = |what| format!("system/disk_{}/{what}", disk.name);
            let bytes = Counter { labels: &labels, ..Counter::BYTES };
            let name = "node_disk_read_bytes_total";
            self.rate(now, out, Counter { id: &id("read"), name, total: disk.read, ..bytes });
            let name = "node_disk_written_bytes_total";
            self.rate(now, out, Counter { id: &id("written"), name, total: disk.written, ..bytes });
            // Milliseconds in a second are tenths of a percent.
            let busy = Counter {
                id: &id("busy"),
                unit: Unit::Percent,
                name: "node_disk_io_time_seconds_total",
                labels: &labels,
                total: disk.busy_ms,
                rate_scale: 0.1,
                total_scale: 0.001,
            };
            self.rate(now, out, busy);
        }
    }

    fn network(&mut self, now: Now, out: &mut Vec<Reading>) {
        let Ok(text) = self.net.read() else { return };
        let all: Vec<_> = proc::net_dev(text).filter(|one| one.name != "lo").collect();
        for one in all.into_iter().take(MAX_DEVICES) {
            let labels = [("device", one.name.as_str())];
            let counters = [
                ("received", Counter::BYTES, "node_network_receive_bytes_total", one.received.0),
                ("sent", Counter::BYTES, "node_network_transmit_bytes_total", one.sent.0),
                (
                    "receive_errors",
                    Counter::PER_SECOND,
                    "node_network_receive_errs_total",
                    one.received.1,
                ),
                (
                    "send_errors",
                    Counter::PER_SECOND,
                    "node_network_transmit_errs_total",
                    one.sent.1,
                ),
            ];
            for (what, kind, name, total) in counters {
                let id = format!("system/net_{}/{what}", one.name);
                self.rate(now, out, Counter { id: &id, name, labels: &labels, total, ..kind });
            }
        }
    }
}

/// A counter of the kernel.
#[derive(Clone, Copy)]
struct Counter<'a> {
    id: &'a str,
    unit: Unit,
    name: &'a str,
    labels: &'a [(&'a str, &'a str)],
    total: u64,
    rate_scale: f64,
    total_scale: f64,
}

impl Counter<'_> {
    const PER_SECOND: Self = Self {
        id: "",
        unit: Unit::PerSecond,
        name: "",
        labels: &[],
        total: 0,
        rate_scale: 1.0,
        total_scale: 1.0,
    };
    const BYTES: Self = Self { unit: Unit::BytesPerSecond, ..Self::PER_SECOND };
}

impl Source for System {
    fn name(&self) -> &str {
        "system"
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn read(&mut self, now: Now) -> Batch {
        let mut readings = Vec::with_capacity(self.metas.len());
        self.processors(now, &mut readings);
        self.loads(&mut readings);
        self.memory(&mut readings);
        self.disks(now, &mut readings);
        self.network(now, &mut readings);
        // Interfaces of guests come and go: what was not seen is forgotten here as well.
        if self.metas.len() > readings.len() + MAX_DEVICES {
            let there: std::collections::BTreeSet<&str> =
                readings.iter().map(|reading| reading.meta.id.as_str()).collect();
            self.metas.retain(|id, _| there.contains(id.as_str()));
            self.rates.retain(|id, _| there.contains(id.as_str()));
        }
        Batch { source: self.name().to_owned(), readings, complete: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::now;

    #[test]
    fn this_machine_has_all_of_it() {
        let mut system = System::new(Duration::from_secs(1), true);
        let first = system.read(now());
        // Until some ticks have passed there is nothing to compare.
        let limit = std::time::Instant::now() + Duration::from_secs(5);
        let batch = loop {
            let batch = system.read(now());
            let has = |id: &str| batch.readings.iter().any(|r| r.meta.id == id);
            if has("system/cpu/usage") && has("system/context_switches") {
                break batch;
            }
            assert!(std::time::Instant::now() < limit, "{batch:?}");
            std::thread::yield_now();
        };
        let value = |id: &str| {
            let found = batch.readings.iter().find(|reading| reading.meta.id == id);
            *found.unwrap_or_else(|| panic!("{id}")).value.as_ref().unwrap()
        };
        assert!(value("system/memory_total") > value("system/memory_available"));
        assert!((0.0..=100.0).contains(&value("system/cpu/usage")));
        assert!(value("system/uptime") > 0.0 && value("system/load1") >= 0.0);
        assert!(first.readings.iter().all(|reading| reading.total.is_none()));
    }
}
