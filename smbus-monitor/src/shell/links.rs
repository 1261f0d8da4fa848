// SPDX-License-Identifier: MIT OR Apache-2.0
//! The group as the interfaces use it: questions to members, settings, what is shown.

use std::time::Duration;

use group::report::Report;
use group::settings::{Expect, Origin, Settings, SettingsError};
use group::shell::{Call, Group, settled};
use secure_link::{Name, NodeId};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::monitor::Monitor;
use crate::sources::now;

/// Time for another member's answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Most bytes of a question.
const MAX_ASK: usize = 4096;

/// What members ask one another.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Take note of an alert.
    Acknowledge { id: String, by: String },
}

/// The group, for the interfaces.
#[derive(Debug, Clone)]
pub struct Links {
    /// Members, and their records.
    pub group: Group,
    /// What all have agreed on.
    pub settings: Settings,
    /// This member's node.
    pub own: NodeId,
}

/// Answers a member's question.
pub async fn answer(monitor: &Monitor, call: Call) {
    let asked = (call.bytes.len() <= MAX_ASK)
        .then(|| serde_json::from_slice::<Ask>(&call.bytes).ok())
        .flatten();
    let done = match asked {
        Some(Ask::Acknowledge { id, by }) => {
            let mut inner = monitor.lock();
            let by = format!("{by} at {}", call.from);
            let happened = inner.core.acknowledge(now(), &id, &by);
            let found = !happened.is_empty();
            monitor.happened(&mut inner, happened);
            found
        }
        None => false,
    };
    call.answer(vec![u8::from(done)]).await;
}

impl Links {
    /// Takes note of another member's alert; whether it has that alert.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn acknowledge(&self, member: &str, id: &str, by: &str) -> Result<bool, String> {
        let name: Name = member.parse().map_err(|_| format!("{member} is no member"))?;
        let ask = Ask::Acknowledge { id: id.to_owned(), by: by.to_owned() };
        let bytes = serde_json::to_vec(&ask).map_err(|error| error.to_string())?;
        let answer = timeout(LIMIT, self.group.call(&name, bytes)).await;
        let answer = answer.map_err(|_| format!("{member} does not answer"))?;
        Ok(answer.map_err(|error| error.to_string())? == [1])
    }

    /// Gives a key a value, or takes it away.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub async fn set(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        user: &str,
    ) -> Result<(), SettingsError> {
        let who = self.origin(user);
        match value {
            Some(value) => self.settings.set(key, value, Expect::Any, who).await.map(drop),
            None => self.settings.remove(key, Expect::Any, who).await.map(drop),
        }
    }

    /// Who asks.
    #[must_use]
    pub fn origin(&self, user: &str) -> Origin {
        Origin { user: user.to_owned(), ..Origin::program(self.own.into()) }
    }

    /// What `midplane status` shows.
    ///
    /// # Errors
    /// The group has ended.
    pub async fn report(&self) -> Result<Report, group::shell::Gone> {
        let nodes = self.group.nodes().await?;
        let settings = Some(settled::report(&self.settings.status(), &nodes));
        let report = self.group.report().await?;
        Ok(Report { settings, ..report })
    }

    /// The node of a member that is here.
    pub async fn node(&self, name: &str) -> Option<NodeId> {
        let nodes = self.group.nodes().await.ok()?;
        let mut all = nodes.linked.iter().chain([&nodes.own]);
        all.find(|one| one.0.as_str() == name).map(|one| one.1)
    }
}
