// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the operator asks for.

use std::sync::Arc;

use tokio::time::timeout;

use super::agents::OrderError;
use super::exports::{SIZE_LIMIT, SLOW};
use super::presented::Presented;
use super::{Manager, in_full};
use crate::arbiter::{Access, BladeName, Mode, Outcome, Refusal, Request, ShareName};
use crate::link::message::{Claim, Kind, Order};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// By the rules.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// By the blade.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// It is there in another way.
    #[error("blade {blade} has share {share} as a {has}; eject it first")]
    Otherwise {
        /// Where.
        blade: BladeName,
        /// What.
        share: ShareName,
        /// How.
        has: String,
    },
    /// Its source is away.
    #[error("share {share}: {reason}")]
    Source {
        /// Which.
        share: ShareName,
        /// Why.
        reason: String,
    },
    /// A blade has no such drive.
    #[error(
        "blade {blade} does not have share {share}; `usb-gadget-drive status` shows what it has"
    )]
    NotThere {
        /// Where.
        blade: BladeName,
        /// What.
        share: ShareName,
    },
    /// It would be forgotten.
    #[error("cannot store which blade has what: {0}")]
    Storage(String),
}

impl VerbError {
    /// The same may succeed later, or by force.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_temporary(),
            Self::Order(OrderError::Failed { failure, .. }) => failure.is_busy,
            Self::Order(_) | Self::Storage(_) => true,
            Self::Otherwise { .. } | Self::NotThere { .. } | Self::Source { .. } => false,
        }
    }
}

impl Manager {
    /// Has a blade see a share.
    ///
    /// # Errors
    /// Why not; nothing is changed then.
    pub async fn insert(
        self: &Arc<Self>,
        share: &ShareName,
        blade: &BladeName,
        kind: Option<Kind>,
        read_only: bool,
        lun: Option<u8>,
    ) -> Result<(), VerbError> {
        let unknown = || Refusal::Unknown { share: share.clone() };
        let configured = self.shares.get(share).ok_or_else(unknown)?;
        let kind = kind.unwrap_or(configured.kind);
        // A CD-ROM is only read.
        let read = read_only || kind == Kind::Cd;
        let access = if read { Access::Read } else { self.usual(share, blade) };
        let writable = access == Access::Write;
        let how = Presented { kind, writable };
        if let Some(has) = self.lock().presented.get(blade, share).filter(|has| *has != how) {
            let has = has.to_string();
            return Err(VerbError::Otherwise { blade: blade.clone(), share: share.clone(), has });
        }
        self.check_source(share).await?;
        let order = Order::Insert { share: share.clone(), kind, writable, claim: Claim::New, lun };
        self.order(blade, order).await?;
        self.store(blade, share, Some(how)).await
    }

    /// Finds out what is wrong with a source here, where all is known of it.
    async fn check_source(self: &Arc<Self>, share: &ShareName) -> Result<(), VerbError> {
        let name = share.clone();
        let size = self.in_thread(move |manager| manager.size(&name));
        let size = timeout(SIZE_LIMIT, size).await.unwrap_or_else(|_| Err(SLOW.to_owned()));
        let share = share.clone();
        size.map(drop).map_err(|reason| VerbError::Source { share, reason })
    }

    /// Has it see it no more.
    ///
    /// # Errors
    /// Why not.
    pub async fn eject(
        self: &Arc<Self>,
        share: &ShareName,
        blade: &BladeName,
        force: bool,
    ) -> Result<Option<String>, VerbError> {
        if self.shares.contains_key(share) && !self.lock().uses(blade, share) {
            return Err(VerbError::NotThere { blade: blade.clone(), share: share.clone() });
        }
        let request = Request::Eject { share: share.clone(), blade: blade.clone(), force };
        let told = match self.request(request).await? {
            Outcome::Done(told) => told,
            Outcome::Granted(_) => None,
        };
        // A drive whose source was away had no session.
        if self.lock().has_drive(blade, share) {
            self.order(blade, Order::Eject { share: share.clone(), forced: force }).await?;
        }
        self.store(blade, share, None).await?;
        Ok(told)
    }

    /// Puts one share in the place of another.
    ///
    /// # Errors
    /// Why not. If the new one turns out not to be had only when it is inserted, the old one is ejected all the same.
    pub async fn swap(
        self: &Arc<Self>,
        old: &ShareName,
        new: &ShareName,
        blade: &BladeName,
        force: bool,
    ) -> Result<(), VerbError> {
        let not_there = || VerbError::NotThere { blade: blade.clone(), share: old.clone() };
        let (lun, how) = {
            let inner = self.lock();
            let how = inner.presented.get(blade, old).ok_or_else(not_there)?;
            let drives = inner.agents.get(blade).map(|agent| &agent.drives);
            let drive = drives.into_iter().flatten().find(|d| !d.local && d.name == old.as_str());
            (drive.map(|drive| drive.lun), how)
        };
        self.check_right(new, blade)?;
        self.check_source(new).await?;
        self.eject(old, blade, force).await?;
        self.insert(new, blade, Some(how.kind), !how.writable, lun).await
    }

    fn check_right(&self, share: &ShareName, blade: &BladeName) -> Result<(), Refusal> {
        let (share, blade) = (share.clone(), blade.clone());
        let Some(configured) = self.shares.get(&share) else {
            return Err(Refusal::Unknown { share });
        };
        if self.right(configured, &blade).is_none() {
            let remedy = "name it in the rights of the share".to_owned();
            return Err(Refusal::Denied { share, blade, what: "to read", remedy });
        }
        Ok(())
    }

    /// Gives an exclusive share to another writer, whose agent must be there to take it.
    ///
    /// # Errors
    /// Why not.
    pub async fn hand_over(
        self: &Arc<Self>,
        share: &ShareName,
        from: Option<BladeName>,
        to: &BladeName,
        force: bool,
    ) -> Result<Option<String>, VerbError> {
        self.check_right(share, to)?;
        if !self.lock().agents.contains_key(to) {
            return Err(OrderError::NotConnected(to.clone()).into());
        }
        let (share, to) = (share.clone(), to.clone());
        match self.request(Request::HandOver { share, from, to, force }).await? {
            Outcome::Done(told) => Ok(told),
            Outcome::Granted(_) => Ok(None),
        }
    }

    /// Makes what a blade wrote the share, or forgets it.
    ///
    /// # Errors
    /// Why not.
    pub async fn end_overlay(
        self: &Arc<Self>,
        share: &ShareName,
        blade: &BladeName,
        commit: bool,
    ) -> Result<Option<String>, VerbError> {
        let (share, blade) = (share.clone(), blade.clone());
        let request = if commit {
            Request::Commit { share, blade }
        } else {
            Request::Discard { share, blade }
        };
        match self.request(request).await? {
            Outcome::Done(told) => Ok(told),
            Outcome::Granted(_) => Ok(None),
        }
    }

    async fn store(
        self: &Arc<Self>,
        blade: &BladeName,
        share: &ShareName,
        how: Option<Presented>,
    ) -> Result<(), VerbError> {
        let stored = self.present(blade, share, how).await;
        stored.map_err(|error| VerbError::Storage(in_full(&error)))
    }

    /// How a share is used.
    #[must_use]
    pub fn mode(&self, share: &ShareName) -> Option<Mode> {
        self.shares.get(share).map(|configured| configured.share.mode)
    }
}

impl super::Inner {
    /// Whether there is anything of the share at the blade to be taken away.
    fn uses(&self, blade: &BladeName, share: &ShareName) -> bool {
        let state = self.arbiter.state().shares.get(share);
        self.has_drive(blade, share)
            || self.presented.get(blade, share).is_some()
            || self.arbiter.sessions().any(|(_, s)| s.blade == *blade && s.share == *share)
            || state.and_then(|s| s.lease.as_ref()).is_some_and(|lease| lease.blade == *blade)
    }

    fn has_drive(&self, blade: &BladeName, share: &ShareName) -> bool {
        let drives = self.agents.get(blade).map(|agent| &agent.drives);
        drives.into_iter().flatten().any(|drive| !drive.local && drive.name == share.as_str())
    }
}
