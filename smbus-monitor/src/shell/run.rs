// SPDX-License-Identifier: MIT OR Apache-2.0
//! `serve`: starts the sources and the interfaces, and has the loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use daemon_kit::tcp::ReadServer;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::log::EventLog;
use super::monitor::Monitor;
use super::{control, identity};
use crate::args::ServeArgs;
use crate::config::Config;
use crate::core::alerts::{Kind, Wanted};
use crate::core::rules::{Edge, Severity};
use crate::formats::records::Identity;
use crate::sources::filesystems::Filesystems;
use crate::sources::hwmon::{self, Chip, HwmonSource};
use crate::sources::ipmi::{IpmiSource, node};
use crate::sources::now;
use crate::sources::smbus::{SYSFS, SmbusSource, find};
use crate::sources::system::System;
use crate::sources::worker::{MAX_BATCHES, Workers};

/// Where chips with a driver are.
const HWMON: &str = "/sys/class/hwmon";
/// For so long the start waits for this machine's identity; a BMC that hangs must not keep it from being watched.
const IDENTITY_LIMIT: Duration = Duration::from_secs(10);
/// Ticks between two looks for chips and buses that came or went.
const LOOK_TICKS: u64 = 5;

/// This boot.
///
/// # Errors
/// The kernel does not tell it.
pub fn boot_id() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().replace('-', ""))
}

/// Who this machine is; only its boot if that takes too long.
async fn identify(config: &Config) -> anyhow::Result<Identity> {
    let boot = boot_id().context("the boot's id")?;
    let (of, device) = (config.identity.clone(), config.sources.ipmi_device.clone());
    let (sender, told) = oneshot::channel();
    // A thread that hangs in a bus stays behind; nothing waits for it.
    std::thread::Builder::new()
        .name("identity".to_owned())
        .spawn(move || sender.send(identity::read(&of, device.as_deref())))?;
    let told = match timeout(IDENTITY_LIMIT, told).await {
        Ok(Ok(told)) => told,
        _ => {
            tracing::warn!(
                "it took too long to find out who this machine is; see its EEPROM and BMC"
            );
            vec![]
        }
    };
    Ok(Identity { boot, version: env!("CARGO_PKG_VERSION").to_owned(), ..identity::decide(told) })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().split('.').next().unwrap_or("").to_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Serves until a signal.
///
/// # Errors
/// What is wrong at the start.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.config.as_deref())?;
    for folder in [&config.runtime_dir, &config.state_dir] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let folder = config.state_dir.join("events");
    let (log, events) = EventLog::open(&folder).with_context(|| folder.display().to_string())?;
    let identity = identify(&config).await?;
    let name = host_name();
    let (out, batches) = mpsc::channel(MAX_BATCHES);
    let monitor = Arc::new(Monitor::new(config, log, events, (name, identity)));
    let mut sources = Sources::start(&monitor, out)?;
    sources.look(&monitor);
    let router = control::readable(monitor.clone()).merge(control::changeable(monitor.clone()));
    let socket = monitor.config.control_socket();
    let server = ControlServer::bind(&socket, router, Policy::system()).await?;
    let (stop, stops) = oneshot::channel::<()>();
    let served = tokio::spawn(server.run(async { drop(stops.await) }));
    for address in &monitor.config.listen {
        let router = control::readable(monitor.clone());
        let server = ReadServer::bind(*address, "listen", router).await?;
        tokio::spawn(server.run());
    }
    check_identity(&monitor);
    {
        let mut inner = monitor.lock();
        let (place, text) =
            (inner.place.clone(), format!("smbus-monitor {} started", env!("CARGO_PKG_VERSION")));
        monitor.note(&mut inner, Kind::Program, &place, None, &text);
    }
    run(&monitor, sources, batches).await?;
    drop(stop);
    let _ = served.await;
    Ok(())
}

/// What disagrees about where this machine is.
fn check_identity(monitor: &Monitor) {
    let mut inner = monitor.lock();
    let told = identity::disagreements(&inner.identity);
    let wanted = (!told.is_empty()).then(|| Wanted::plain(Severity::Warning, told.join("; ")));
    let key = (inner.place.clone(), "identity".to_owned(), Edge::Misplaced);
    let happened = inner.core.condition(now(), key, wanted);
    monitor.happened(&mut inner, happened);
}

async fn run(
    monitor: &Arc<Monitor>,
    mut sources: Sources,
    mut batches: mpsc::Receiver<(crate::sources::Whose, crate::core::Batch)>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let watchdog = Watchdog::from_env();
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ticks = 0_u64;
    notify::ready("watching");
    loop {
        tokio::select! {
            signal = signals.next() => if signal == Signal::Stop { break },
            Some((whose, batch)) = batches.recv() => monitor.batch(whose, &batch),
            _ = tick.tick() => {
                monitor.tick();
                ticks += 1;
                if ticks.is_multiple_of(LOOK_TICKS) {
                    sources.look(monitor);
                }
                if let Some(watchdog) = &watchdog {
                    watchdog.kick();
                }
            }
        }
    }
    notify::stopping();
    let mut inner = monitor.lock();
    let place = inner.place.clone();
    monitor.note(&mut inner, Kind::Program, &place, None, "smbus-monitor stopped");
    Ok(())
}

/// Threads, and what they read.
struct Sources {
    workers: Workers,
    chips: BTreeMap<String, Chip>,
    /// On which bus each configured chip is read.
    buses: BTreeMap<String, u32>,
    ipmi: bool,
}

impl Sources {
    fn start(
        monitor: &Monitor,
        out: mpsc::Sender<(crate::sources::Whose, crate::core::Batch)>,
    ) -> std::io::Result<Self> {
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
    fn look(&mut self, monitor: &Monitor) {
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
                self.workers.remove(&format!("i2c-{old}"), crate::sources::Source::name(&source));
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
