// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asks the manager of this machine: for devices, then for a lease.

use std::path::Path;
use std::time::Duration;

use daemon_kit::client::{Client, ClientError, Lines};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, sleep, timeout_at};

use crate::manager::api::{Known, Lease, Leased, Line};
use crate::manager::core::Scope;
use crate::pattern::Pattern;
use crate::record::{DeviceId, Function, Taken, WHOLE};
use crate::wire::Grant;

/// After all that the manager knows is told, answers of those that it asks are waited for.
const OTHERS: Duration = Duration::from_millis(500);
/// What was waited for and refused is asked for again after this pause.
const AGAIN: Duration = Duration::from_millis(300);

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum NotLeased {
    /// The manager does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing fits.
    #[error("no device fits `{0}`")]
    NoDevice(Pattern),
    /// Several do.
    #[error("{0} devices fit, say which, or take `--any`: {1}")]
    Several(usize, String),
    /// It is refused.
    #[error("{device}: {reason}")]
    Refused {
        /// The device.
        device: DeviceId,
        /// Why.
        reason: String,
        /// Whether it may be had later.
        later: bool,
    },
}

impl NotLeased {
    /// Whether trying again may help.
    #[must_use]
    pub fn later(&self) -> bool {
        match self {
            Self::Refused { later, .. } => *later,
            Self::Several(..) => false,
            Self::Client(_) | Self::NoDevice(_) => true,
        }
    }
}

/// A finder at the manager of this machine.
pub struct Finding {
    lines: Lines,
    complete: Option<Instant>,
}

/// A client of the manager.
#[must_use]
pub fn client(socket: &Path) -> Client {
    Client::new("device-manager", socket)
}

impl Finding {
    /// Begins.
    ///
    /// # Errors
    /// The manager does not answer.
    pub async fn begin(
        client: &Client,
        pattern: &Pattern,
        scope: Scope,
    ) -> Result<Self, ClientError> {
        let text = pattern.to_string();
        let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC);
        let scope = match scope {
            Scope::Group => "group",
            Scope::Managed => "managed",
            Scope::Local => "local",
        };
        let lines = client.get_lines(&format!("/v1/find?scope={scope}&pattern={encoded}")).await?;
        Ok(Self { lines, complete: None })
    }

    /// The next that is told; none when the manager ends it.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn next(&mut self) -> Result<Option<Line>, ClientError> {
        while let Some(text) = self.lines.next().await? {
            // Empty ones only show that the connection is there; later releases may tell more.
            if let Ok(line) = serde_json::from_str(&text) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// All that there is now: `asks` if the manager asks others.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn all(&mut self, asks: bool) -> Result<Vec<Known>, ClientError> {
        let mut found: Vec<Known> = vec![];
        loop {
            let line = match self.complete {
                Some(_) if !asks => return Ok(found),
                Some(since) => match timeout_at(since + OTHERS, self.next()).await {
                    Ok(line) => line?,
                    Err(_) => return Ok(found),
                },
                None => self.next().await?,
            };
            match line {
                None => return Ok(found),
                Some(Line::Complete) => self.complete = Some(Instant::now()),
                Some(Line::Gone(id)) => found.retain(|known| known.device.id != id),
                Some(Line::Match(known) | Line::Changed(known)) => {
                    found.retain(|old| old.device.id != known.device.id);
                    found.push(*known);
                }
            }
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which.
    pub pattern: Pattern,
    /// A part of this type, instead of all of it.
    pub function: Option<String>,
    /// Any of those that fit, a free one first.
    pub any: bool,
    /// Whether to wait for it.
    pub queue: bool,
    /// For how long, seconds.
    pub limit_s: Option<u32>,
}

/// The part that is wanted, by its place; none if there is no such. A free one first, then one for which one can wait.
fn part(known: &Known, wanted: &Wanted) -> Option<u8> {
    let Some(kind) = &wanted.function else {
        // Its only part, where there is no whole.
        return Some(if known.device.found.has_whole() { WHOLE } else { WHOLE + 1 });
    };
    let is_it = |function: &Function| {
        function.kind == *kind || function.node.as_deref() == Some(kind.as_str())
    };
    let all = (1..).zip(known.device.functions.iter().skip(1));
    let fitting = all.filter(|(_, function)| is_it(function)).map(|(at, _)| at);
    fitting.min_by_key(|at| match known.device.taken(*at) {
        None => 0,
        Some(Taken::Leased(_)) => 1,
        Some(Taken::Unavailable(_)) => 2,
    })
}

/// Has a device leased. `waits` is told of places in the queue.
///
/// # Errors
/// See [`NotLeased`].
pub async fn lease(
    client: &Client,
    wanted: &Wanted,
    mut waits: impl FnMut(DeviceId, u32),
) -> Result<Grant, NotLeased> {
    loop {
        let mut waited = false;
        let told = |device, place| {
            waited = true;
            waits(device, place);
        };
        match attempt(client, wanted, told).await {
            // After it was waited for it may have come back by another name, as drivers give nodes.
            Err(NotLeased::Refused { later: true, .. }) if waited => sleep(AGAIN).await,
            ended => return ended,
        }
    }
}

async fn attempt(
    client: &Client,
    wanted: &Wanted,
    mut waits: impl FnMut(DeviceId, u32),
) -> Result<Grant, NotLeased> {
    let status: crate::manager::api::Status = client.get_json("/v1/status").await?;
    let mut finding = Finding::begin(client, &wanted.pattern, Scope::Group).await?;
    let mut found = finding.all(status.replication == "own").await?;
    found.retain(|known| part(known, wanted).is_some());
    found.sort_by_key(|known| part(known, wanted).and_then(|at| known.device.taken(at)).is_some());
    if found.len() > 1 && !wanted.any {
        let ids: Vec<String> = found.iter().map(|known| known.device.id.to_string()).collect();
        return Err(NotLeased::Several(found.len(), ids.join(", ")));
    }
    let best = found.first().ok_or_else(|| NotLeased::NoDevice(wanted.pattern.clone()))?;
    let device = best.device.id;
    let function = part(best, wanted).unwrap_or(WHOLE);
    let ask = Lease { device, function, queue: wanted.queue, limit_s: wanted.limit_s };
    let mut lines = client.post_lines("/v1/lease", &ask).await?;
    while let Some(text) = lines.next().await? {
        match serde_json::from_str(&text) {
            Ok(Leased::Waits(place)) => waits(device, place),
            Ok(Leased::Granted(grant)) => return Ok(*grant),
            Ok(Leased::Refused { reason, later }) => {
                return Err(NotLeased::Refused { device, reason, later });
            }
            Err(_) => {}
        }
    }
    let reason = "the manager ended the connection".to_owned();
    Err(NotLeased::Refused { device, reason, later: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::device;
    use crate::record::{Holder, LeaseInfo};

    #[test]
    fn a_part_that_is_gone_is_not_waited_for() {
        let mut device = device("u", "1");
        let disk = |node: &str| Function::new("disk", Some(node.to_owned()));
        device.functions = vec![Function::new("whole", None), disk("/dev/sda"), disk("/dev/sdb")];
        let kind = |kind: &str| Wanted {
            pattern: "".parse().unwrap(),
            function: Some(kind.to_owned()),
            any: false,
            queue: true,
            limit_s: None,
        };
        let known = |device: &crate::record::Device| Known {
            device: device.clone(),
            manager: "m".parse().unwrap(),
        };
        assert_eq!(part(&known(&device), &kind("disk")), Some(1));
        assert_eq!(part(&known(&device), &kind("/dev/sdb")), Some(2));
        assert_eq!(part(&known(&device), &kind("serial")), None);
        device.functions[1].unavailable = Some("it is gone".to_owned());
        device.functions[2].lease = Some(LeaseInfo {
            no: 1,
            holder: Holder { machine: "a".parse().unwrap(), uid: 0, groups: vec![] },
            through: "a".parse().unwrap(),
            since: 0,
            until: None,
            in_use: false,
        });
        assert_eq!(part(&known(&device), &kind("disk")), Some(2), "it may be free later");
        device.functions[2].unavailable = device.functions[1].unavailable.clone();
        assert_eq!(part(&known(&device), &kind("disk")), Some(1), "why not, is told");
    }
}
