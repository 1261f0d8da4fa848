// SPDX-License-Identifier: MIT OR Apache-2.0
//! `serve`: starts the sources and the interfaces, and has the loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use daemon_kit::tcp::ReadServer;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::kept::Alone;
use super::log::EventLog;
use super::member::{self, Heard, Member};
use super::monitor::Monitor;
use super::power::{self, Executor};
use super::readers::Readers;
use super::{changes, chassis, control, identity, recall, redirect};
use crate::args::ServeArgs;
use crate::config::Config;
use crate::core::Batch;
use crate::core::alerts::Kind;
use crate::formats::records::Identity;
use crate::sources::Whose;
use crate::sources::worker::MAX_BATCHES;

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
    let given = config.runtime_dir.join(identity::GIVEN);
    let (sender, told) = oneshot::channel();
    // A thread that hangs in a bus stays behind; nothing waits for it.
    std::thread::Builder::new()
        .name("identity".to_owned())
        .spawn(move || sender.send(identity::read(&of, device.as_deref(), &given)))?;
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

/// Where this machine's HTTP is reached from others; empty if it is not.
fn http_address(config: &Config, name: &str) -> String {
    let Some(listen) = config.listen.iter().find(|address| !address.ip().is_loopback()) else {
        return String::new();
    };
    if !listen.ip().is_unspecified() {
        return listen.to_string();
    }
    let list = config.group.as_ref().and_then(|group| group::list::List::load(&group.list).ok());
    let own = list.and_then(|list| list.member.into_iter().find(|one| one.name.as_str() == name));
    let first = own.and_then(|own| own.addresses.into_iter().next());
    first.map_or_else(String::new, |host| match host.contains(':') {
        true => format!("[{host}]:{}", listen.port()),
        false => format!("{host}:{}", listen.port()),
    })
}

/// Serves until a signal.
///
/// # Errors
/// What is wrong at the start.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.config.as_deref())?;
    for folder in [&config.runtime_dir, &config.state_dir] {
        let made = std::fs::create_dir_all(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let folder = config.state_dir.join("events");
    let (log, events) = EventLog::open(&folder).with_context(|| folder.display().to_string())?;
    let mut identity = identify(&config).await?;
    let started = match &config.group {
        Some(group) => member::start(group, &config.state_dir).await?,
        None => None,
    };
    let name = started.as_ref().map_or_else(host_name, |started| started.name.clone());
    identity.http = http_address(&config, &name);
    let (out, batches) = mpsc::channel(MAX_BATCHES);
    let monitor = Arc::new(Monitor::new(config, log, events, (name, identity)));
    let ways = power::ways(&monitor);
    monitor.lock().identity.powers = ways;
    let member = match started {
        Some(started) => {
            // Until the others are heard, another may be the manager.
            monitor.is_manager.store(false, Ordering::Release);
            monitor.lock().manager = None;
            let executor = Arc::new(Executor::default());
            executor.set(&monitor);
            let member = started.open(&monitor, executor).await?;
            let _ = monitor.links.set(member.links.clone());
            recall::recall(&monitor);
            Some(member)
        }
        None => {
            let alone = Alone::open(&monitor.config.state_dir).context("settings.json")?;
            member::set(&monitor, alone.kept());
            *monitor.alone.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(alone);
            None
        }
    };
    let mut readers = Readers::start(&monitor, out)?;
    readers.look(&monitor);
    let router = control::readable(monitor.clone()).merge(changes::changeable(monitor.clone()));
    let socket = monitor.config.control_socket();
    let server = ControlServer::bind(&socket, router, Policy::system()).await?;
    let (stop, stops) = oneshot::channel::<()>();
    let served = tokio::spawn(server.run(async { drop(stops.await) }));
    for address in &monitor.config.listen {
        let server = ReadServer::bind(*address, "listen", redirect::router(&monitor)).await?;
        tokio::spawn(server.run());
    }
    {
        let mut inner = monitor.lock();
        let place = inner.place.clone();
        let text = format!("smbus-monitor {} started", env!("CARGO_PKG_VERSION"));
        monitor.note(&mut inner, Kind::Program, &place, None, &text);
    }
    chassis::check_own(&monitor);
    Loop { monitor: monitor.clone(), readers, member, ticks: 0 }.run(batches).await?;
    drop(stop);
    let _ = served.await;
    Ok(())
}

struct Loop {
    monitor: Arc<Monitor>,
    readers: Readers,
    member: Option<Member>,
    ticks: u64,
}

impl Loop {
    async fn run(mut self, mut batches: mpsc::Receiver<(Whose, Batch)>) -> anyhow::Result<()> {
        let mut signals = Signals::new().context("cannot handle signals")?;
        let watchdog = Watchdog::from_env();
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        if let Some(member) = &mut self.member {
            member.tell_identity(&self.monitor).await;
            member.look_at_all(&self.monitor).await;
        }
        notify::ready("watching");
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => break,
                    Signal::Reload => if let Some(member) = &self.member {
                        let _ = member.links.group.reload().await;
                    }
                },
                Some((whose, batch)) = batches.recv() => self.batch(whose, &batch).await,
                heard = heard(&mut self.member) => if let Some(member) = &mut self.member {
                    member.hear(&self.monitor, heard).await;
                    member.tell_alerts(&self.monitor).await;
                },
                _ = tick.tick() => {
                    self.tick().await;
                    if let Some(watchdog) = &watchdog {
                        watchdog.kick();
                    }
                }
            }
        }
        notify::stopping();
        {
            let mut inner = self.monitor.lock();
            let place = inner.place.clone();
            self.monitor.note(&mut inner, Kind::Program, &place, None, "smbus-monitor stopped");
        }
        if let Some(member) = self.member {
            member.kept.keep_all(&self.monitor).await;
            member.links.settings.clone().close().await;
            member.links.group.leave().await;
        }
        Ok(())
    }

    async fn batch(&mut self, whose: Whose, batch: &Batch) {
        // Read while this machine was the manager, and told after it was: the next one reads it too.
        if whose == Whose::Midplane && !self.monitor.manages() {
            return;
        }
        self.monitor.batch(whose, batch);
        if let Some(member) = &mut self.member {
            member.batch(whose, batch).await;
            member.tell_alerts(&self.monitor).await;
        }
    }

    async fn tick(&mut self) {
        self.ticks += 1;
        self.monitor.tick();
        let group = chassis::judge(&self.monitor);
        if let Some(member) = &mut self.member {
            member.tick(&self.monitor).await;
            if let Some(batch) = group {
                member.batch(chassis::WHOSE, &batch).await;
            }
            member.tell_alerts(&self.monitor).await;
        }
        if self.ticks.is_multiple_of(LOOK_TICKS) {
            self.readers.look(&self.monitor);
        }
    }
}

async fn heard(member: &mut Option<Member>) -> Heard {
    match member {
        Some(member) => member.next().await,
        None => std::future::pending().await,
    }
}
