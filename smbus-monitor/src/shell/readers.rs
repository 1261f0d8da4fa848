// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which sources there are at present, and the threads that read them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use super::monitor::Monitor;
use crate::core::Batch;
use crate::sources::filesystems::Filesystems;
use crate::sources::hwmon::{self, Chip, HwmonSource};
use crate::sources::ipmi::{IpmiSource, node};
use crate::sources::smbus::{SYSFS, SmbusSource, find};
use crate::sources::system::System;
use crate::sources::worker::Workers;
use crate::sources::{Source, Whose};

/// Where chips with a driver are.
const HWMON: &str = "/sys/class/hwmon";

/// Threads, and what they read.
pub struct Readers {
    workers: Workers,
    chips: BTreeMap<String, Chip>,
    /// On which bus each configured chip is read.
    buses: BTreeMap<String, u32>,
    ipmi: bool,
}

impl Readers {
    /// Starts what needs no looking for.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(monitor: &Monitor, out: mpsc::Sender<(Whose, Batch)>) -> std::io::Result<Self> {
        let mut workers = Workers::new(out, monitor.is_manager.clone());
        let of = &monitor.config.sources;
        if let Some(every) = of.system {
            workers.add("system", Box::new(System::new(every, of.per_cpu)))?;
        }
        if let Some(every) = of.filesystems {
            workers.add("filesystems", Box::new(Filesystems::new(every)))?;
        }
        Ok(Self { workers, chips: BTreeMap::new(), buses: BTreeMap::new(), ipmi: false })
    }

    /// What came is read from now on; what went is not. No chip is spoken to here.
    pub fn look(&mut self, monitor: &Monitor) {
        let of = &monitor.config.sources;
        if let Some(every) = of.hwmon {
            self.look_hwmon(every);
        }
        if let Some(every) = of.ipmi
            && !self.ipmi
            && node(of.ipmi_device.as_deref()).exists()
        {
            let source = IpmiSource::new(of.ipmi_device.clone(), every);
            self.ipmi = self.workers.add("ipmi", Box::new(source)).is_ok();
        }
        for device in &monitor.config.devices {
            let found = find(&device.bus, Path::new(SYSFS));
            let (Some(bus), read) = (found, self.buses.get(&device.name).copied()) else {
                continue;
            };
            if read == Some(bus) {
                continue;
            }
            let source = SmbusSource::new(device.clone(), bus);
            if let Some(old) = read {
                self.workers.remove(&format!("i2c-{old}"), Source::name(&source));
            }
            if self.workers.add(&format!("i2c-{bus}"), Box::new(source)).is_ok() {
                self.buses.insert(device.name.clone(), bus);
            }
        }
    }

    fn look_hwmon(&mut self, every: Duration) {
        let there: BTreeMap<String, Chip> =
            hwmon::scan(Path::new(HWMON)).into_iter().map(|c| (c.source_name(), c)).collect();
        for (name, chip) in &self.chips {
            if there.get(name) != Some(chip) {
                tracing::info!(chip = name, "it is gone");
                self.workers.remove(&chip.thread(), name);
            }
        }
        for (name, chip) in &there {
            if self.chips.get(name) != Some(chip) {
                tracing::info!(chip = name, "it is read");
                let source = HwmonSource::new(chip.clone(), every);
                if let Err(error) = self.workers.add(&chip.thread(), Box::new(source)) {
                    tracing::error!(%error, chip = name, "there is no thread to read it");
                }
            }
        }
        self.chips = there;
    }
}
