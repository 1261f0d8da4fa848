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

use group::settings::change::MAX_ORDER_LIFE;
use group::settings::{Order, OrderId, OrderResult, Program, Record, SettingsError};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use super::member::Links;
use super::monitor::Monitor;
use crate::config::PowerHow;
use crate::core::alerts::Kind;
use crate::report::{PowerAction, PowerReport, PowerRequest};
use crate::sources::ipmi::{Client, IpmiError, node};

/// A blade's own BMC.
pub const IN_BAND: &str = "in-band";
/// A configured program.
pub const COMMAND: &str = "command";
/// A packet that wakes it.
pub const WAKE: &str = "wake-on-lan";
/// An order may wait so long for its executor, milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// A program that takes longer is ended.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// For so long the one who asks waits for the result.
const WAIT: Duration = Duration::from_secs(8);

/// What stands in an order. The layout is JSON with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerOrder {
    version: u32,
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

/// Who is to do it, how, and what boot was seen.
struct Plan {
    member: String,
    backend: &'static str,
    boot: Option<String>,
}

fn plan(monitor: &Monitor, place: &str, request: &PowerRequest) -> Result<Plan, String> {
    let inner = monitor.lock();
    let own = (inner.name.as_str(), &inner.identity, inner.place == place);
    let others = inner.others.iter().filter(|(_, other)| other.here);
    let others = others.map(|(name, other)| (name.as_str(), &other.identity, other.place == place));
    let all: Vec<_> = std::iter::once(own).chain(others).collect();
    let boot = all.iter().find(|one| one.2).map(|one| one.1.boot.clone());
    let boot = boot.filter(|_| request.action == PowerAction::Reset);
    let has = |identity: &crate::formats::records::Identity, backend: &str| {
        identity.powers.iter().any(|way| {
            way.rsplit_once(' ').is_some_and(|(of, how)| {
                how == backend && inner.place_named(of).unwrap_or_else(|| of.to_owned()) == place
            })
        })
    };
    let mut ways = vec![(IN_BAND, true), (COMMAND, false)];
    if request.action == PowerAction::On {
        ways.push((WAKE, false));
    }
    for (backend, itself) in ways {
        for (member, identity, there) in &all {
            let asked = request.by.as_deref().is_none_or(|by| by == *member);
            if asked && has(identity, backend) && (!itself || *there) {
                return Ok(Plan { member: (*member).to_owned(), backend, boot });
            }
        }
    }
    let by = request.by.as_deref().map_or_else(String::new, |by| format!(" by {by}"));
    Err(format!(
        "no member that is here can power {place:?}{by}; see `smbus-monitor slot list`, and configure a way with [[power]]"
    ))
}

fn id(text: Option<&str>) -> Result<OrderId, String> {
    let Some(text) = text else {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        return Ok(OrderId(bytes));
    };
    let number = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number
        .map(|n| OrderId(n.to_be_bytes()))
        .ok_or_else(|| "an order's id has 32 hexadecimal digits".to_owned())
}

/// Why there is no order.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// It cannot be given.
    #[error("{0}")]
    Cannot(String),
    /// See there.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// What is known of an order.
#[must_use]
pub fn report(links: &Links, monitor: &Monitor, id: OrderId) -> Option<PowerReport> {
    let known = links.settings.order_of(id)?;
    let order = PowerOrder::decode(&known.order.what)?;
    let (state, text) = match known.result {
        None => ("under way", String::new()),
        Some(OrderResult::Done(bytes)) => ("done", String::from_utf8_lossy(&bytes).into_owned()),
        Some(OrderResult::Failed(why)) => ("failed", why),
        Some(OrderResult::NotBegun(why)) => ("not begun", why.to_string()),
    };
    let by = monitor.lock().executors.get(&id.to_string()).cloned().unwrap_or_default();
    Some(PowerReport {
        id: id.to_string(),
        place: order.place,
        action: order.action.word().to_owned(),
        by,
        state: state.to_owned(),
        text,
    })
}

/// Gives an order, and waits a little for what comes of it.
///
/// # Errors
/// [`PowerError`]; nothing is done then.
pub async fn order(
    links: &Links,
    monitor: &Monitor,
    request: &PowerRequest,
    user: &str,
) -> Result<PowerReport, PowerError> {
    let id = id(request.id.as_deref()).map_err(PowerError::Cannot)?;
    // The same again is the same order: it goes on, and is not planned anew.
    if report(links, monitor, id).is_none() {
        // A slot whose blade was never met here can be powered too: who has a way to it knows it.
        let known = monitor.lock().place_named(&request.place);
        let place = known.unwrap_or_else(|| request.place.clone());
        let plan = plan(monitor, &place, request).map_err(PowerError::Cannot)?;
        let to = links.node(&plan.member).await;
        let to = to.ok_or_else(|| PowerError::Cannot(format!("{} is not reached", plan.member)))?;
        let expect_boot = match (&plan.boot, plan.backend) {
            (Some(boot), IN_BAND) => u128::from_str_radix(boot, 16).ok().map(u128::to_be_bytes),
            _ => None,
        };
        let what = PowerOrder {
            version: 1,
            place,
            action: request.action,
            backend: plan.backend.to_owned(),
            boot: plan.boot,
        };
        monitor.lock().remember_executor(id.to_string(), plan.member);
        let order = Order {
            id,
            to: to.into(),
            subject: what.subject(),
            what: serde_json::to_vec(&what)
                .map_err(|error| PowerError::Cannot(error.to_string()))?,
            deadline: links.group.clock().now_ms() + PATIENCE_MS.min(MAX_ORDER_LIFE),
            expect_boot,
        };
        links.settings.order(order, links.origin(user)).await?;
    }
    let result = async {
        loop {
            if let Some(report) =
                report(links, monitor, id).filter(|report| report.state != "under way")
            {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match timeout(WAIT, result).await {
        Ok(report) => Ok(report),
        Err(_) => report(links, monitor, id).ok_or_else(|| {
            PowerError::Cannot("the order is not known here yet; ask again".to_owned())
        }),
    }
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
    fn ids_are_as_they_were_chosen() {
        let text = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(id(Some(text)).unwrap().to_string(), text);
        assert!(id(Some("1")).is_err() && id(Some(&"g".repeat(32))).is_err());
        assert_ne!(id(None).unwrap(), id(None).unwrap());
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
