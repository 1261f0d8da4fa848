// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that lose, delay and double messages, and are cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use group::settings::wire::{Envelope, Kind};
use group::settings::{MemberId, Settings, Transport, Unreachable};
use openraft::raft::AppendEntriesResponse;
use secure_link::NodeId;
use seeds::Rng;

#[derive(Debug)]
pub struct Links {
    pub rng: Rng,
    members: BTreeMap<NodeId, (u64, Settings)>,
    /// From, to.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub loss_permille: u64,
    pub delay_ms: u64,
    pub delivered: u64,
    pub lost: u64,
    pub stale: u64,
}

#[derive(Debug, Clone)]
pub struct Net(Arc<Mutex<Links>>);

impl Net {
    pub fn new(rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(Links {
            rng,
            members: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss_permille: 0,
            delay_ms: 2,
            delivered: 0,
            lost: 0,
            stale: 0,
        })))
    }

    pub fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().expect("nobody panics with it")
    }

    pub fn plug(&self, id: NodeId, life: u64, settings: Settings) {
        self.links().members.insert(id, (life, settings));
    }

    pub fn unplug(&self, id: NodeId) {
        self.links().members.remove(&id);
    }

    pub fn unplug_all(&self) {
        // These end without the lock, which they may want.
        let members = std::mem::take(&mut self.links().members);
        drop(members);
    }

    /// How long it takes; none if it is lost.
    fn way(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let mut links = self.links();
        let (loss, delay) = (links.loss_permille, links.delay_ms);
        if links.cut.contains(&(from, to)) || links.rng.permille(loss) {
            links.lost += 1;
            return None;
        }
        links.delivered += 1;
        // Now and then one is much later than those after it.
        let late = if links.rng.permille(20) { 20 * delay } else { delay };
        Some(Duration::from_micros(links.rng.between(100, 1000 * late)))
    }
}

/// One life of a member as the others see it.
pub struct Link {
    pub net: Net,
    pub from: NodeId,
    pub life: u64,
}

const SILENCE: Duration = Duration::from_millis(1500);

impl Transport for Link {
    async fn call(&self, to: NodeId, request: Vec<u8>) -> Result<Vec<u8>, Unreachable> {
        let gone = || Unreachable("lost".to_owned());
        let Some(way) = self.net.way(self.from, to) else {
            tokio::time::sleep(SILENCE).await;
            return Err(gone());
        };
        tokio::time::sleep(way).await;
        let target = {
            let links = self.net.links();
            let alive = self.life == 0
                || links.members.get(&self.from).is_some_and(|(life, _)| *life == self.life);
            links.members.get(&to).filter(|_| alive).map(|(_, settings)| settings.clone())
        };
        let Some(target) = target else { return Err(gone()) };
        let doubled = self.net.links().rng.permille(20);
        if doubled && let Some(way) = self.net.way(self.from, to) {
            let (target, from, request) = (target.clone(), self.from, request.clone());
            tokio::spawn(async move {
                tokio::time::sleep(way).await;
                target.answer(from, &request).await;
            });
        }
        let answer = target.answer(self.from, &request).await;
        self.count(&request, &answer);
        let Some(way) = self.net.way(to, self.from) else {
            tokio::time::sleep(SILENCE).await;
            return Err(gone());
        };
        tokio::time::sleep(way).await;
        Ok(answer)
    }
}

impl Link {
    fn count(&self, request: &[u8], answer: &[u8]) {
        let request = Envelope::decode(request).expect("a message");
        let answer = Envelope::decode(answer).expect("a message");
        if request.kind == Kind::Append
            && answer.kind == Kind::Answer
            && let Ok(AppendEntriesResponse::<MemberId>::HigherVote(_)) = answer.payload()
        {
            self.net.links().stale += 1;
        }
    }
}
