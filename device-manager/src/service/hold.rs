// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds a lease: renews it over a link to its unit that is made again when it breaks, and gives it back.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::ktls;
use crate::link::{Chain, Link};
use crate::trust::{Role, Trust};
use crate::wire::{Carried, FromHolder, Grant, ToHolder};

/// The unit answers within this time.
const ANSWER: Duration = Duration::from_secs(5);
/// A unit that is not reached is tried again after this pause.
const AGAIN: Duration = Duration::from_millis(300);

/// Why a lease is over, or was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    /// The unit ended it.
    #[error("{0}")]
    Ended(String),
    /// It could not be renewed in time.
    #[error("the unit was not reached for as long as the lease lasts")]
    Expired,
    /// The unit says what it may not.
    #[error("the unit does not answer as it should")]
    Nonsense,
}

/// A lease, and the way to its unit.
pub struct Holding {
    trust: Trust,
    local: PathBuf,
    grant: Grant,
    link: Option<Link>,
    ttl: Duration,
    /// By our clock: not later than by the unit's.
    expires: Instant,
    renew_at: Instant,
}

impl Holding {
    /// Takes a lease up. `local` is where a unit of this machine waits.
    ///
    /// # Errors
    /// See [`NotHeld`].
    pub async fn open(trust: Trust, local: PathBuf, grant: Grant) -> Result<Self, NotHeld> {
        let ttl = Duration::from_millis(grant.ttl_ms.into());
        let now = Instant::now();
        let mut holding =
            Self { trust, local, grant, link: None, ttl, expires: now + ttl, renew_at: now };
        while holding.link.is_none() {
            holding.connect().await?;
        }
        Ok(holding)
    }

    async fn dial(&self) -> Option<Link> {
        let roles = (Role::Holder, Role::Unit);
        let unit = &self.grant.device.unit;
        match Link::connect(&self.trust, unit, roles, &self.grant.addresses, &self.local).await {
            Ok(link) => Some(link),
            Err(error) => {
                tracing::debug!(%unit, error = %Chain(&error), "the unit is not reached");
                None
            }
        }
    }

    /// One attempt.
    async fn connect(&mut self) -> Result<(), NotHeld> {
        if Instant::now() > self.expires {
            return Err(NotHeld::Expired);
        }
        let asked = Instant::now();
        let Some(mut link) = self.dial().await else {
            sleep(AGAIN).await;
            return Ok(());
        };
        let open = FromHolder::Open { no: self.grant.no, token: self.grant.token.clone() };
        if link.outbox.send(&open).await.is_err() {
            sleep(AGAIN).await;
            return Ok(());
        }
        match timeout(ANSWER, link.inbox.next::<ToHolder>()).await {
            Ok(Ok(Some(ToHolder::Good(ttl)))) => {
                self.good(asked, ttl);
                self.link = Some(link);
                Ok(())
            }
            Ok(Ok(Some(ToHolder::Ended(why)))) => Err(NotHeld::Ended(why)),
            Ok(Ok(Some(_))) => Err(NotHeld::Nonsense),
            _ => {
                sleep(AGAIN).await;
                Ok(())
            }
        }
    }

    fn good(&mut self, asked: Instant, ttl_ms: u32) {
        self.ttl = Duration::from_millis(ttl_ms.into());
        self.expires = asked + self.ttl;
        self.renew_at = asked + self.ttl / 3;
    }

    /// A connection that carries the device's data from here on.
    ///
    /// # Errors
    /// See [`NotHeld`].
    pub async fn data(&mut self) -> Result<(Carried, Link), NotHeld> {
        let mut link =
            self.dial().await.ok_or(NotHeld::Ended("the unit is not reached".to_owned()))?;
        let (no, token) = (self.grant.no, self.grant.token.clone());
        let data = match ktls::is_there() {
            true => FromHolder::Data { no, token },
            false => FromHolder::Framed { no, token },
        };
        let sent = link.outbox.send(&data).await;
        sent.map_err(|error| NotHeld::Ended(error.to_string()))?;
        match timeout(ANSWER, link.inbox.next::<ToHolder>()).await {
            Ok(Ok(Some(ToHolder::Go(carried)))) => Ok((carried, link)),
            Ok(Ok(Some(ToHolder::Ended(why)))) => Err(NotHeld::Ended(why)),
            Ok(Ok(None)) | Err(_) => Err(self.why().await),
            _ => Err(NotHeld::Nonsense),
        }
    }

    /// The lease's end is told over its own link.
    async fn why(&mut self) -> NotHeld {
        match timeout(ANSWER, self.keep()).await {
            Ok(over) => over,
            Err(_) => NotHeld::Ended("the unit does not answer".to_owned()),
        }
    }

    /// Renews the lease, for as long as that works; returns why it is over. Nothing is lost when the future is dropped.
    pub async fn keep(&mut self) -> NotHeld {
        loop {
            let Some(link) = &mut self.link else {
                if let Err(over) = self.connect().await {
                    return over;
                }
                continue;
            };
            let asked = Instant::now();
            tokio::select! {
                () = tokio::time::sleep_until(self.renew_at) => {
                    // Asked again soon if there is no answer.
                    self.renew_at = asked + self.ttl / 10;
                    if link.outbox.send(&FromHolder::Renew).await.is_err() {
                        self.link = None;
                    }
                }
                said = link.inbox.next::<ToHolder>() => match said {
                    Ok(Some(ToHolder::Good(ttl))) => {
                        // It was asked for before: the lease does not last longer than this at the unit.
                        let last = self.renew_at - self.ttl / 10;
                        self.good(last.min(asked), ttl);
                    }
                    Ok(Some(ToHolder::Ended(why))) => return NotHeld::Ended(why),
                    Ok(Some(ToHolder::Go(_))) => return NotHeld::Nonsense,
                    Ok(None) | Err(_) => self.link = None,
                },
            }
            if Instant::now() > self.expires {
                return NotHeld::Expired;
            }
        }
    }

    /// Gives it back, if the unit is reached; else it expires there.
    pub async fn release(mut self) {
        if let Some(link) = &mut self.link
            && link.outbox.send(&FromHolder::Release).await.is_ok()
        {
            let _ = timeout(ANSWER, link.inbox.next::<ToHolder>()).await;
        }
    }
}
