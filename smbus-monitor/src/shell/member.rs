// SPDX-License-Identifier: MIT OR Apache-2.0
//! This machine as a member of its group: what it tells the others, what it hears, who the manager is, and what all have
//! agreed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use group::core::{Notice, Redirect};
use group::settings::change::Set;
use group::settings::{Change, Order, Origin, Policy, State};
use group::shell::{Call, Group, Incoming, Options, settled};
use group::wire::Life;
use secure_link::{Name, Store};
use tokio::sync::{broadcast, mpsc};

use super::heard::take;
use super::kept::{self, Kept};
use super::links::{Links, answer};
use super::monitor::{MIDPLANE, Monitor};
use super::overrides;
use super::power::PowerOrder;
use super::publish::{self, Follower, News, Publisher, Told};
use super::recall::Keeper;
use crate::config::GroupConfig;
use crate::core::Batch;
use crate::core::alerts::Kind;
use crate::core::rules::Rules;
use crate::sources::{Whose, now};

/// The program, as the group's keys name it.
pub const PROGRAM: &str = "smbus-monitor";
/// A member that has started has read its sensors and judged them within this time, milliseconds.
const SETTLE_MS: u64 = 10_000;

/// What is set in the group, and by whom power is switched.
struct Checked;

impl Policy for Checked {
    fn judge(&self, _: &Origin, change: &Change, _: &State) -> Result<(), String> {
        match change {
            Change::Set(Set { key, value, .. }) => kept::check(key, value),
            Change::Order(Order { subject, what, .. }) => {
                let order = PowerOrder::decode(what).ok_or("no order of this version")?;
                if order.subject() == *subject { Ok(()) } else { Err("another subject".to_owned()) }
            }
            _ => Ok(()),
        }
    }
}

/// The group, for the loop.
pub struct Member {
    /// For the interfaces.
    pub links: Links,
    config: GroupConfig,
    notices: broadcast::Receiver<Notice>,
    calls: mpsc::Receiver<Call>,
    publisher: Publisher,
    /// Of what others said last.
    pub kept: Keeper,
    followers: BTreeMap<Name, Followed>,
    applied: Option<Option<u64>>,
    acted: usize,
}

/// Another member's records, of one of its lives.
#[derive(Default)]
struct Followed {
    life: Option<Life>,
    follower: Follower,
    /// Alerts of the life before stand until then, unless it tells of others: after a restart most come again, and are the
    /// same.
    until: Option<u64>,
}

/// A group that has started, before there is a monitor for it.
pub struct Started {
    group: Group,
    incoming: Incoming,
    config: GroupConfig,
    /// This member's name.
    pub name: String,
}

/// Starts as a member, if this machine has a part of a group's key.
///
/// # Errors
/// It has, and something is wrong with it.
pub async fn start(
    config: &GroupConfig,
    state: &std::path::Path,
) -> anyhow::Result<Option<Started>> {
    let store = config.root.as_deref().map_or_else(Store::default, Store::below);
    let program: Name = PROGRAM.parse().context("the program's name")?;
    if store.program(&program)?.is_none() {
        return Ok(None);
    }
    let node = match secure_link::store::given_node()? {
        Some(node) => node,
        None => store.node()?.context("this machine has no key; use `midplane key`")?,
    };
    let options = Options {
        program,
        port: config.port,
        list: config.list.clone(),
        state: state.to_owned(),
        store,
        node,
        replication: group::core::Replication::All,
        leads: config.leads,
    };
    let (group, incoming) = Group::start(options).await?;
    let name = group.nodes().await?.own.0.to_string();
    Ok(Some(Started { group, incoming, config: config.clone(), name }))
}

impl Started {
    /// Takes part in the settings too; orders are carried out by `power`.
    ///
    /// # Errors
    /// The settings' log cannot be opened.
    pub async fn open(
        self,
        monitor: &Monitor,
        power: Arc<dyn group::settings::Program>,
    ) -> anyhow::Result<Member> {
        let folder = monitor.config.state_dir.join("settings");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let clock = self.group.clock();
        let mut options =
            group::settings::Options::new(Arc::new(Checked), Arc::new(move || clock.now_ms()));
        options.program = Some(power);
        let boot =
            u128::from_str_radix(&monitor.lock().identity.boot, 16).context("the boot's id")?;
        options.boot = boot.to_be_bytes();
        let settings = settled::open(&self.group, self.incoming.settings, &folder, options).await?;
        let own = self.group.nodes().await?.own.1;
        Ok(Member {
            links: Links { group: self.group, settings, own },
            config: self.config,
            notices: self.incoming.notices,
            calls: self.incoming.calls,
            publisher: Publisher::default(),
            kept: Keeper::start(&monitor.config.state_dir)?,
            followers: BTreeMap::new(),
            applied: None,
            acted: usize::MAX,
        })
    }
}

/// What comes to a member.
pub enum Heard {
    /// Something changed.
    Notice(Notice),
    /// So much that it is to look at everything.
    Behind,
    /// A question.
    Call(Call),
}

impl Member {
    /// The next thing that comes. Cancel safe.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            notice = self.notices.recv() => match notice {
                Ok(notice) => Heard::Notice(notice),
                Err(broadcast::error::RecvError::Lagged(_)) => Heard::Behind,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            },
            Some(call) = self.calls.recv() => Heard::Call(call),
        }
    }

    async fn change(&self, changes: Vec<group::core::records::Change>) {
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.links.group.change(changes).await {
            tracing::warn!(%error, "the others are not told");
        }
    }

    /// Tells who this machine is.
    pub async fn tell_identity(&self, monitor: &Monitor) {
        let change = publish::identity(&monitor.lock().identity);
        self.change(change.into_iter().collect()).await;
    }

    /// A source was read.
    pub async fn batch(&mut self, whose: Whose, batch: &Batch) {
        let changes = self.publisher.batch(&self.config, now().mono, whose, batch);
        self.change(changes).await;
    }

    /// Tells of this machine's alerts, and of what it told others of.
    pub async fn tell_alerts(&mut self, monitor: &Monitor) {
        let mut changes = vec![];
        {
            let mut inner = monitor.lock();
            if std::mem::take(&mut inner.alerts_changed) {
                changes.extend(self.publisher.alerts(inner.core.alerts().iter()));
                if inner.tells {
                    changes.extend(publish::acted(&inner.ledger.all()));
                }
            }
        }
        self.change(changes).await;
    }

    /// What came is taken in.
    pub async fn hear(&mut self, monitor: &Monitor, heard: Heard) {
        match heard {
            Heard::Notice(Notice::Records(name)) => self.read(monitor, &name).await,
            Heard::Notice(Notice::Manager(name)) => self.elect(monitor, name.as_ref()).await,
            Heard::Notice(Notice::Here(name)) => self.presence(monitor, &name, None).await,
            Heard::Notice(Notice::Away(name, why)) => {
                self.presence(monitor, &name, Some(why)).await;
            }
            Heard::Behind => self.look_at_all(monitor).await,
            Heard::Call(call) => answer(monitor, call).await,
        }
    }

    /// Looks at everything anew, as at the start.
    pub async fn look_at_all(&mut self, monitor: &Monitor) {
        let Ok(status) = self.links.group.status().await else { return };
        for member in &status.members {
            self.presence(monitor, &member.name, member.away).await;
            self.read(monitor, &member.name).await;
        }
        self.elect(monitor, status.manager.as_ref()).await;
    }

    async fn presence(&mut self, monitor: &Monitor, name: &Name, away: Option<group::core::Why>) {
        use group::core::Why;
        let mut inner = monitor.lock();
        let other = inner.others.entry(name.to_string()).or_default();
        if other.place.is_empty() {
            other.place = name.to_string();
        }
        let (was, place) = (other.here, other.place.clone());
        other.here = away.is_none();
        // Who says that it stops, or never came, is not missed.
        other.missed = matches!(away, Some(Why::Refused | Why::Silent | Why::Misbehaved));
        other.away = group::report::state(away).to_owned();
        if was && !other.here {
            self.kept.keep(&inner, name.as_str());
        }
        let other = inner.others.entry(name.to_string()).or_default();
        if was != other.here {
            let text = format!("member {name}: {}", other.away);
            monitor.note(&mut inner, Kind::Group, &place, None, &text);
        }
    }

    /// Another is the manager, or nobody.
    async fn elect(&mut self, monitor: &Monitor, name: Option<&Name>) {
        let manager = name.map(ToString::to_string);
        let (changed, lost) = {
            let mut inner = monitor.lock();
            let is = manager.as_ref() == Some(&inner.name);
            let was = monitor.is_manager.swap(is, Ordering::AcqRel);
            let changed = inner.manager != manager;
            inner.manager.clone_from(&manager);
            inner.tells = is || manager.is_none();
            if changed {
                let text = manager.map_or("nobody is the manager".to_owned(), |name| {
                    format!("{name} is the manager")
                });
                let place = inner.place.clone();
                monitor.note(&mut inner, Kind::Group, &place, None, &text);
            }
            if was && !is {
                // What was read of it is the new one's to read.
                inner.core.stop_judging(MIDPLANE);
                inner.core.stop_judging(super::monitor::GROUP);
                inner.alerts_changed = true;
            }
            if is && !was {
                // What the one before told of is known; the rest is ours to tell.
                inner.alerts_changed = true;
                monitor.tell_what_is(&mut inner);
            }
            (changed, was && !is)
        };
        if lost {
            let changes = self.publisher.forget_midplane();
            self.change(changes).await;
        }
        // Its records may have come before the word that it is the manager, and were not taken then.
        if let Some(name) = name.filter(|_| changed)
            && let Some(followed) = self.followers.get_mut(name)
        {
            followed.follower.hear_again_as_manager();
            self.read(monitor, name).await;
        }
    }

    /// A member's records changed.
    async fn read(&mut self, monitor: &Monitor, name: &Name) {
        let asked = name.clone();
        let found = self.links.group.look(move |core, _| {
            let records = core.records(&asked)?;
            let told = |record: &group::wire::Record| {
                (record.key.to_string(), record.version, record.value.clone())
            };
            let all: Vec<Told> = records
                .iter()
                .filter(|r| !r.key.as_str().starts_with("group."))
                .map(told)
                .collect();
            Some((core.life_of(&asked), all))
        });
        let Ok(Some((life, records))) = found.await else { return };
        let followed = self.followers.entry(name.clone()).or_default();
        if followed.life != life {
            let until = Some(now().mono + SETTLE_MS);
            *followed = Followed { life, until, ..Followed::default() };
        }
        let news = followed.follower.follow(&records);
        take(monitor, name, news);
    }

    /// Once a second: whether users have set something, whom to send who asks for the manager.
    pub async fn tick(&mut self, monitor: &Monitor) {
        let applied = self.links.settings.status().applied;
        if self.applied != Some(applied) {
            self.applied = Some(applied);
            let kept = self.links.settings.read(|state| {
                kept::read(state.keys().map(|(key, item)| (key.as_str(), item.value.as_slice())))
            });
            set(monitor, kept);
            overrides::tell(monitor, &self.links).await;
        }
        let redirect = self.links.group.look(|core, _| match core.redirect() {
            Redirect::To(name) => Some(name.to_string()),
            Redirect::Here | Redirect::Nobody => None,
        });
        let redirect = redirect.await.ok().flatten();
        if let Ok(report) = self.links.group.report().await {
            let mut inner = monitor.lock();
            inner.group = Some((report.group, report.sees, report.of));
            inner.redirect = redirect;
        }
        for (name, followed) in &mut self.followers {
            if followed.until.is_some_and(|until| now().mono >= until) {
                followed.until = None;
                let alerts = Some(followed.follower.alerts());
                take(monitor, name, News { alerts, ..News::default() });
            }
        }
        let told = monitor.lock().ledger.all().len();
        if self.acted != told {
            self.acted = told;
            monitor.lock().alerts_changed = true;
        }
    }
}

/// Users have set something.
pub fn set(monitor: &Monitor, kept: Kept) {
    let mut inner = monitor.lock();
    let configured = inner.core.rules().configured.clone();
    inner.core.set_rules(Rules { users: kept.rules, configured });
    inner.slots = kept.slots;
}
