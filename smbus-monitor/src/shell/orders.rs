// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders for power: who is to carry one out and how, and what came of it.

use std::time::Duration;

use group::settings::change::MAX_ORDER_LIFE;
use group::settings::{Order, OrderId, OrderResult, SettingsError};
use tokio::time::timeout;

use super::links::Links;
use super::monitor::Monitor;
use super::power::{COMMAND, IN_BAND, PowerOrder, WAKE};
use crate::report::{PowerAction, PowerReport, PowerRequest};

/// An order may wait so long for its executor, milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// For so long the one who asks waits for the result.
const WAIT: Duration = Duration::from_secs(8);

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
    fn ids_are_as_they_were_chosen() {
        let text = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(id(Some(text)).unwrap().to_string(), text);
        assert!(id(Some("1")).is_err() && id(Some(&"g".repeat(32))).is_err());
        assert_ne!(id(None).unwrap(), id(None).unwrap());
    }
}
