// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this member had agreed on with others in a reign that was overridden, and what did not come with it. It is in the log
//! that was put aside; an operator decides what to do again.

use std::sync::Arc;

use super::change::OrderId;
use super::engine::whole;
use super::state::State;
use super::store;
use super::types::Position;
use super::{Settings, SettingsError};

/// Something of the old reign that the newer one does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// A key was given a value.
    Set {
        /// Which.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// When.
        at: Position,
    },
    /// A key's value was taken away.
    Removed {
        /// Which.
        key: String,
    },
    /// An order was given.
    Ordered {
        /// Which.
        id: OrderId,
        /// When.
        at: Position,
    },
}

/// What `old` has that is not in `new`, which was made of an earlier state of the same log, up to `base`.
fn differences(old: &State, new: &State, base: Position) -> Vec<Conflict> {
    let after = |at: Position| at.reign == base.reign && at > base;
    let set = old.keys().filter(|(key, item)| {
        after(item.version) && new.get(key).is_none_or(|now| now.value != item.value)
    });
    let set = set.map(|(key, item)| Conflict::Set {
        key: key.clone(),
        value: item.value.clone(),
        at: item.version,
    });
    let removed = new.keys().filter(|(key, item)| item.version <= base && old.get(key).is_none());
    let removed = removed.map(|(key, _)| Conflict::Removed { key: key.clone() });
    let ordered = old
        .orders()
        .filter(|ordered| after(ordered.position) && new.order(ordered.order.id).is_none());
    let ordered =
        ordered.map(|ordered| Conflict::Ordered { id: ordered.order.id, at: ordered.position });
    set.chain(removed).chain(ordered).collect()
}

impl Settings {
    /// What of the logs that were put aside here did not come with the reigns that overrode them. Empty too while nothing of
    /// the newer reign is known here.
    ///
    /// # Errors
    /// A log that was put aside cannot be read.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, SettingsError> {
        let aside = store::open_aside(&*self.inner.disk, true)?;
        let mut conflicts = vec![];
        for (reign, db) in aside {
            let (old, _) = whole(&Arc::new(db), reign, &self.inner.hub)?;
            self.read(|new| {
                let audit = new.audits().iter().find(|audit| audit.base.reign == reign);
                if let Some(audit) = audit {
                    conflicts.extend(differences(&old.state, new, audit.base));
                }
            });
        }
        Ok(conflicts)
    }
}
