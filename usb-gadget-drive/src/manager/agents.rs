// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agents that are connected, and what they are told to do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Manager;
use super::presented::Presented;
use crate::arbiter::{BladeName, ShareName};
use crate::link::message::{Claim, Drive, Failure, FromAgent, Order, ToAgent};

/// An agent answers an order within this time: its host may have to write much before an eject.
const ORDER_LIMIT: Duration = Duration::from_secs(30);
/// Before the first and between later attempts to insert what a blade is to have.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// An agent that is connected.
#[derive(Debug)]
pub(super) struct Agent {
    /// Tells its connections apart; a blade has one at a time.
    connection: u64,
    sender: mpsc::Sender<ToAgent>,
    pub version: String,
    pub udc: String,
    /// Seconds since 1970.
    pub since: u64,
    pub drives: Vec<Drive>,
    /// What it is to have and could not insert when it came, and why. Tried again.
    pub refused: BTreeMap<ShareName, String>,
    last_order: u64,
    orders: HashMap<u64, oneshot::Sender<Option<Failure>>>,
}

/// Why an order was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nobody is there.
    #[error(
        "the agent of blade {0} is not connected; there: systemctl start usb-gadget-drive-agent@UDC"
    )]
    NotConnected(BladeName),
    /// It was there, and is not any more, or does not answer.
    #[error("the agent of blade {0} gave no answer; `usb-gadget-drive status` shows what it has")]
    NoAnswer(BladeName),
    /// It could not.
    #[error("blade {blade}: {failure}")]
    Failed {
        /// Which blade.
        blade: BladeName,
        /// Why not.
        failure: Failure,
    },
}

/// One agent's connection, for whoever reads from it.
#[derive(Debug)]
pub struct Connection {
    manager: Arc<Manager>,
    blade: BladeName,
    id: u64,
}

impl Manager {
    /// An agent has said hello. What is to be sent to it comes out of the receiver, which ends when another
    /// connection of the same blade takes its place.
    #[must_use]
    pub fn agent_arrived(
        self: &Arc<Self>,
        blade: BladeName,
        (version, udc, drives): (String, String, Vec<Drive>),
    ) -> (Connection, mpsc::Receiver<ToAgent>) {
        let (sender, receiver) = mpsc::channel(crate::link::MAX_WAITING);
        let welcome = ToAgent::Welcome {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            blade: blade.clone(),
        };
        // There is room for one.
        let _ = sender.try_send(welcome);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = self.with(|inner, now| {
            inner.last_connection += 1;
            let connection = inner.last_connection;
            let agent = Agent {
                connection,
                sender,
                version,
                udc,
                since,
                drives,
                refused: BTreeMap::new(),
                last_order: 0,
                orders: HashMap::new(),
            };
            inner.agents.insert(blade.clone(), agent);
            inner.arbiter.arrived(now, &blade);
            connection
        });
        tracing::info!(%blade, "the agent is connected");
        tokio::spawn(Arc::clone(self).put_right(blade.clone(), id));
        (Connection { manager: Arc::clone(self), blade, id }, receiver)
    }

    /// Gives an agent that is back the drives that it is to have, and takes others away. What cannot be inserted, as
    /// its source is away perhaps, is tried again while the agent is there.
    async fn put_right(self: Arc<Self>, blade: BladeName, connection: u64) {
        let differences = || {
            let inner = self.lock();
            let agent = inner.agents.get(&blade).filter(|agent| agent.connection == connection);
            agent.map(|agent| inner.presented.differences(&blade, &agent.drives))
        };
        let Some((_, extra)) = differences() else { return };
        for share in extra {
            let what = Order::Eject { share: share.clone(), forced: true };
            if let Err(error) = self.order(&blade, what).await {
                tracing::warn!(%blade, %share, %error, "cannot eject what the blade should not have");
            }
        }
        let mut pause = MIN_PAUSE;
        while let Some((missing, _)) = differences() {
            // All at once: one whose source does not answer keeps no other.
            let mut orders = JoinSet::new();
            for (share, Presented { kind, writable }) in missing {
                let (manager, blade) = (Arc::clone(&self), blade.clone());
                let (claim, lun, name) = (Claim::New, None, share.clone());
                let what = Order::Insert { share: name, kind, writable, claim, lun };
                orders.spawn(async move { (share, manager.order(&blade, what).await) });
            }
            let done = orders.join_all().await.into_iter();
            let refused = done.filter_map(|(share, done)| Some((share, done.err()?.to_string())));
            let refused = refused.collect();
            if !self.set_refused(&blade, connection, refused) {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Keeps it for the status; whether there is anything.
    fn set_refused(
        &self,
        blade: &BladeName,
        connection: u64,
        refused: BTreeMap<ShareName, String>,
    ) -> bool {
        let mut inner = self.lock();
        let agent = inner.agents.get_mut(blade).filter(|agent| agent.connection == connection);
        let Some(agent) = agent else { return false };
        for (share, reason) in &refused {
            if agent.refused.get(share) != Some(reason) {
                tracing::warn!(%blade, %share, reason, "cannot insert again; trying on");
            }
        }
        agent.refused = refused;
        !agent.refused.is_empty()
    }

    /// Has an agent do something, and waits until it is done.
    pub(super) async fn order(
        self: &Arc<Self>,
        blade: &BladeName,
        what: Order,
    ) -> Result<(), OrderError> {
        let (sender, answer) = oneshot::channel();
        let not_connected = || OrderError::NotConnected(blade.clone());
        {
            let mut inner = self.lock();
            let agent = inner.agents.get_mut(blade).ok_or_else(not_connected)?;
            agent.last_order += 1;
            let order = agent.last_order;
            let message = ToAgent::Order { order, what };
            agent.sender.try_send(message).map_err(|_| OrderError::NoAnswer(blade.clone()))?;
            agent.orders.insert(order, sender);
        }
        match timeout(ORDER_LIMIT, answer).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(failure))) => Err(OrderError::Failed { blade: blade.clone(), failure }),
            Ok(Err(_)) | Err(_) => Err(OrderError::NoAnswer(blade.clone())),
        }
    }
}

impl Connection {
    /// The agent has said something.
    pub fn handle(&self, message: FromAgent) {
        let mut inner = self.manager.lock();
        let Some(agent) = inner.agents.get_mut(&self.blade).filter(|a| a.connection == self.id)
        else {
            return;
        };
        // Who asked and went away has left an entry.
        agent.orders.retain(|_, asker| !asker.is_closed());
        match message {
            FromAgent::Done { order, failure } => {
                if let Some(asker) = agent.orders.remove(&order) {
                    let _ = asker.send(failure);
                }
            }
            FromAgent::Drives { drives } | FromAgent::Hello { drives, .. } => agent.drives = drives,
            FromAgent::Alive => {}
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut inner = self.manager.lock();
        if inner.agents.get(&self.blade).is_some_and(|agent| agent.connection == self.id) {
            inner.agents.remove(&self.blade);
            tracing::warn!(blade = %self.blade, "the agent's connection is over");
        }
    }
}
