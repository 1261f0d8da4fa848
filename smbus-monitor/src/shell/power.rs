// SPDX-License-Identifier: MIT OR Apache-2.0
//! Power of slots, for all faces: an order in the group's log, carried out once by the member it names. A blade switches
//! itself through its own BMC; where its agent is dead, a member that has another way to its slot does it. What is wanted is
//! a state and never a toggle; a reset names the boot that was seen.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use group::settings::{Program, Record};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use super::monitor::Monitor;
use crate::config::PowerHow;
use crate::core::alerts::Kind;
use crate::report::PowerAction;
use crate::sources::ipmi::{Client, IpmiError, node};

/// A blade's own BMC.
pub const IN_BAND: &str = "in-band";
/// A configured program.
pub const COMMAND: &str = "command";
/// A packet that wakes it.
pub const WAKE: &str = "wake-on-lan";
/// A program that takes longer is ended.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What stands in an order. The layout is JSON with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerOrder {
    pub(super) version: u32,
    /// Which slot.
    pub place: String,
    /// What is to be.
    pub action: PowerAction,
    /// How.
    pub backend: String,
    /// The boot of the blade that was seen, for a reset.
    pub boot: Option<String>,
}

impl PowerOrder {
    /// Reads it; none if it is of another version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|order| order.version == 1)
    }

    /// Orders for one slot are carried out one after the other.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("power {}", self.place)
    }
}

/// Ways that this machine has, as it tells the others: `PLACE BACKEND`.
#[must_use]
pub fn ways(monitor: &Monitor) -> Vec<String> {
    let config = &monitor.config;
    let mut out = vec![];
    if node(config.sources.ipmi_device.as_deref()).exists() && config.sources.ipmi.is_some() {
        out.push(format!("{} {IN_BAND}", monitor.lock().place));
    }
    for one in &config.power {
        let how = if matches!(one.how, PowerHow::Command(_)) { COMMAND } else { WAKE };
        out.push(format!("{} {how}", one.place));
    }
    out
}

/// Carries orders out for this machine.
#[derive(Debug, Default)]
pub struct Executor(OnceLock<Weak<Monitor>>);

impl Executor {
    /// It acts with this monitor from now on.
    pub fn set(&self, monitor: &Arc<Monitor>) {
        let _ = self.0.set(Arc::downgrade(monitor));
    }
}

impl Program for Executor {
    fn execute(
        &self,
        record: Record,
        resume: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> {
        let monitor = self.0.get().and_then(Weak::upgrade);
        Box::pin(async move {
            let monitor = monitor.ok_or("the program is about to end")?;
            let order = PowerOrder::decode(&record.order.what).ok_or("no order of this version")?;
            let done = execute(&monitor, &order, &record, resume).await;
            let text = match &done {
                Ok(text) => format!("{} by {}: {text}", order.action.word(), order.backend),
                Err(why) => format!("{} by {} FAILED: {why}", order.action.word(), order.backend),
            };
            let mut inner = monitor.lock();
            monitor.note(&mut inner, Kind::Power, &order.place, None, &text);
            done.map(String::into_bytes)
        })
    }
}

async fn execute(
    monitor: &Monitor,
    order: &PowerOrder,
    record: &Record,
    resume: bool,
) -> Result<String, String> {
    {
        let mut inner = monitor.lock();
        let again = if resume { ", begun before" } else { "" };
        let text =
            format!("{} by {}, asked by {}{again}", order.action.word(), order.backend, record.who);
        monitor.note(&mut inner, Kind::Power, &order.place, None, &text);
    }
    match order.backend.as_str() {
        IN_BAND => in_band(monitor, order, record, resume).await,
        COMMAND => command(monitor, order, resume).await,
        WAKE => wake(monitor, order).await,
        other => Err(format!("there is no way {other:?}")),
    }
}

/// Through this machine's own BMC.
async fn in_band(
    monitor: &Monitor,
    order: &PowerOrder,
    record: &Record,
    resume: bool,
) -> Result<String, String> {
    let (place, boot) = {
        let inner = monitor.lock();
        (inner.place.clone(), inner.identity.boot.clone())
    };
    if place != order.place {
        return Err(format!("this machine is in {place} now"));
    }
    let begun: String = record.boot.iter().map(|byte| format!("{byte:02x}")).collect();
    // The machine went down after the order was begun, and is up again: that was it.
    if resume && begun != boot && order.action != PowerAction::On {
        return Ok("done; the machine was booted since".to_owned());
    }
    if order.boot.as_ref().is_some_and(|expected| *expected != boot) {
        return Err("the machine was booted since it was asked for".to_owned());
    }
    let path: PathBuf = node(monitor.config.sources.ipmi_device.as_deref());
    let action = order.action;
    let done = tokio::task::spawn_blocking(move || -> Result<String, IpmiError> {
        let mut client = Client::open(&path)?;
        match action {
            PowerAction::On if client.has_power()? => return Ok("it is on".to_owned()),
            PowerAction::On => client.chassis(1)?,
            PowerAction::Off => client.chassis(0)?,
            PowerAction::Shutdown => client.chassis(5)?,
            PowerAction::Reset => client.chassis(3)?,
        }
        Ok("the BMC was told".to_owned())
    });
    let done = done.await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

/// What this machine has for a slot.
fn configured(monitor: &Monitor, order: &PowerOrder, wake: bool) -> Option<PowerHow> {
    let inner = monitor.lock();
    let mut of = monitor.config.power.iter().filter(|one| {
        inner.place_named(&one.place).unwrap_or_else(|| one.place.clone()) == order.place
    });
    of.find(|one| matches!(one.how, PowerHow::WakeOnLan(..)) == wake).map(|one| one.how.clone())
}

async fn command(monitor: &Monitor, order: &PowerOrder, resume: bool) -> Result<String, String> {
    let Some(PowerHow::Command(argv)) = configured(monitor, order, false) else {
        return Err(format!("no command for {} is configured here any more", order.place));
    };
    if order.action == PowerAction::Reset {
        // A second reset would be one too many; nobody knows whether the first was done.
        if resume {
            return Err("this program ended in the middle of it; look, and ask again".to_owned());
        }
        let inner = monitor.lock();
        let there = inner.others.values().find(|other| other.place == order.place && other.here);
        if let (Some(there), Some(expected)) = (there, &order.boot)
            && there.identity.boot != *expected
        {
            return Err("the machine was booted since it was asked for".to_owned());
        }
    }
    let fill = |text: &String| {
        text.replace("{place}", &order.place).replace("{action}", order.action.word())
    };
    let argv: Vec<String> = argv.iter().map(fill).collect();
    let Some((program, arguments)) = argv.split_first() else {
        return Err("no program".to_owned());
    };
    let run = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    match timeout(COMMAND_LIMIT, run).await {
        Ok(Ok(done)) if done.status.success() => Ok(format!("{program} has done it")),
        Ok(Ok(done)) => {
            let said = crate::metric::cut(&String::from_utf8_lossy(&done.stderr), 200);
            Err(format!("{program} ended with {}: {said}", done.status))
        }
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} took more than {} s", COMMAND_LIMIT.as_secs())),
    }
}

/// Six times 0xff and sixteen times the address.
fn magic(mac: [u8; 6]) -> Vec<u8> {
    [vec![0xff; 6], mac.repeat(16)].concat()
}

async fn wake(monitor: &Monitor, order: &PowerOrder) -> Result<String, String> {
    if order.action != PowerAction::On {
        return Err("a packet that wakes a machine can do nothing else".to_owned());
    }
    let Some(PowerHow::WakeOnLan(mac, to)) = configured(monitor, order, true) else {
        return Err(format!("no address for {} is configured here any more", order.place));
    };
    let any: SocketAddr =
        if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let send = async {
        let socket = tokio::net::UdpSocket::bind(any).await?;
        socket.set_broadcast(true)?;
        socket.send_to(&magic(mac), to).await
    };
    send.await.map(|_| "the packet was sent".to_owned()).map_err(|error| format!("{to}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_that_wakes() {
        let packet = magic([1, 2, 3, 4, 5, 6]);
        assert_eq!(
            (packet.len(), &packet[..7], &packet[96..]),
            (102, &[255, 255, 255, 255, 255, 255, 1][..], &[1, 2, 3, 4, 5, 6][..])
        );
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let order = PowerOrder {
            version: 1,
            place: "3".into(),
            action: PowerAction::Reset,
            backend: IN_BAND.into(),
            boot: Some("ab".into()),
        };
        let bytes = serde_json::to_vec(&order).unwrap();
        assert_eq!(PowerOrder::decode(&bytes), Some(order.clone()));
        assert_eq!(order.subject(), "power 3");
        let newer = String::from_utf8(bytes).unwrap().replace("\"version\":1", "\"version\":2");
        assert_eq!(PowerOrder::decode(newer.as_bytes()), None);
    }
}
