// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the loop and the interfaces share: the core behind a lock that is held for no longer than a look, and what is done
//! with what happens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::Bytes;
use tokio::sync::broadcast;

use super::actions::{Actions, Ledger};
use super::kept::Alone;
use super::links::Links;
use super::log::{EventLog, MAX_REMEMBERED};
use crate::config::Config;
use crate::core::alerts::{Alert, Event, Kind};
use crate::core::rules::{Rules, Severity};
use crate::core::{Batch, Core, Happened, Now};
use crate::formats::records::Identity;
use crate::report::{IdentityReport, Status};
use crate::sources::{Whose, now};

pub use crate::core::alerts::{GROUP, MIDPLANE};

/// Orders whose executors are remembered by name.
const MAX_EXECUTORS: usize = 256;
/// Events that a watcher may be behind.
const MAX_BEHIND: usize = 256;
/// Most members of a group besides this one, as of `lib/group`.
pub const MAX_OTHERS: usize = 64;

/// Another member, as it tells.
#[derive(Debug, Clone, Default)]
pub struct Other {
    /// Who it is.
    pub identity: Identity,
    /// Its place.
    pub place: String,
    /// Whether it is here; else all of this is what was last known.
    pub here: bool,
    /// Its alerts.
    pub alerts: Vec<Alert>,
    /// It ought to be here.
    pub missed: bool,
    /// Why it is not here.
    pub away: String,
}

/// What the lock is around.
#[derive(Debug)]
pub struct Inner {
    /// Values, limits, alerts of what is ours to judge.
    pub core: Core,
    /// What is done about alerts.
    pub actions: Actions,
    /// What was told of.
    pub ledger: Ledger,
    /// The last events.
    pub events: VecDeque<Event>,
    /// This machine's name, and its place.
    pub name: String,
    /// See `name`.
    pub place: String,
    /// Who this machine is.
    pub identity: Identity,
    /// The other members, by name.
    pub others: BTreeMap<String, Other>,
    /// The active manager; none in a group without one.
    pub manager: Option<String>,
    /// Whether this machine tells of alerts: its own, and as the manager all.
    pub tells: bool,
    /// What users call slots, and which modules belong there.
    pub slots: BTreeMap<String, SlotSetting>,
    /// The group's name, and members that are here and in all.
    pub group: Option<(String, usize, usize)>,
    /// Alerts changed since they were last told to the members.
    pub alerts_changed: bool,
    /// The member that says to be the manager, if it is another.
    pub redirect: Option<String>,
    /// The serial number that was last seen at each place.
    pub serials: BTreeMap<String, String>,
    /// Who was asked to carry out which order.
    pub executors: BTreeMap<String, String>,
}

/// What users have said of a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SlotSetting {
    /// Its name.
    pub name: String,
    /// The kind of module that belongs there.
    pub module: String,
}

/// See the module.
#[derive(Debug)]
pub struct Monitor {
    /// The configuration.
    pub config: Config,
    started: Now,
    log: EventLog,
    inner: Mutex<Inner>,
    watchers: broadcast::Sender<Bytes>,
    /// Whether this machine is the active manager.
    pub is_manager: Arc<AtomicBool>,
    /// The group, if this machine is in one.
    pub links: OnceLock<Links>,
    /// What users set on a machine that is in none.
    pub alone: Mutex<Option<Alone>>,
}

impl Monitor {
    /// With what the log had.
    #[must_use]
    pub fn new(
        config: Config,
        log: EventLog,
        events: VecDeque<Event>,
        (name, identity): (String, Identity),
    ) -> Self {
        let place = place_of(&identity, &name);
        let seq = events.back().map_or(0, |event| event.seq);
        let rules = Rules { users: vec![], configured: config.rules.clone() };
        let inner = Inner {
            core: Core::new(&identity.boot, seq, rules),
            actions: Actions::start(config.actions.clone()),
            ledger: Ledger::from_log(events.iter()),
            events,
            manager: Some(name.clone()),
            name,
            place,
            identity,
            others: BTreeMap::new(),
            tells: true,
            slots: BTreeMap::new(),
            group: None,
            alerts_changed: false,
            redirect: None,
            serials: BTreeMap::new(),
            executors: BTreeMap::new(),
        };
        Self {
            config,
            started: now(),
            log,
            inner: Mutex::new(inner),
            watchers: broadcast::channel(MAX_BEHIND).0,
            is_manager: Arc::new(AtomicBool::new(true)),
            links: OnceLock::new(),
            alone: Mutex::new(None),
        }
    }

    /// Whether this machine is the active manager, as it is when it stands alone.
    #[must_use]
    pub fn manages(&self) -> bool {
        self.is_manager.load(Ordering::Acquire)
    }

    /// Another member's alert came, changed, or is over; its own log has that, and the manager tells of it. Who has just
    /// started, and knows of no manager yet, tells of its own alone.
    pub fn heard(&self, inner: &mut Inner, kind: Kind, alert: Alert) {
        if !self.manages() || self.links.get().is_none() {
            return;
        }
        let severity = (kind != Kind::Cleared).then_some(alert.severity);
        let text = if kind == Kind::Cleared {
            format!("over: {}", alert.text)
        } else {
            alert.text.clone()
        };
        let mut happened = inner.core.event(now(), kind, &alert.place, severity, &text);
        happened.event.metric.clone_from(&alert.metric);
        happened.event.alert = Some(alert.id.clone());
        happened.alert = Some(alert);
        self.happened(inner, vec![happened]);
    }

    /// This machine has become the one who tells: of all that was not told yet.
    pub fn tell_what_is(&self, inner: &mut Inner) {
        for alert in inner.all_alerts() {
            let mut happened = inner.core.event(
                now(),
                Kind::Raised,
                &alert.place,
                Some(alert.severity),
                &alert.text,
            );
            happened.event.metric.clone_from(&alert.metric);
            happened.event.alert = Some(alert.id.clone());
            happened.alert = Some(alert);
            inner.tell(&happened);
        }
    }

    /// The lock; held by nobody across an await.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A source has read.
    pub fn batch(&self, whose: Whose, batch: &Batch) {
        let mut inner = self.lock();
        let place = match whose {
            Whose::Own => inner.place.clone(),
            Whose::Midplane => MIDPLANE.to_owned(),
        };
        let happened = inner.core.batch(now(), &place, true, batch);
        self.happened(&mut inner, happened);
    }

    /// A second has passed.
    pub fn tick(&self) {
        let mut inner = self.lock();
        let happened = inner.core.tick(now());
        self.happened(&mut inner, happened);
    }

    /// Something that is no alert happened.
    pub fn note(
        &self,
        inner: &mut Inner,
        kind: Kind,
        place: &str,
        severity: Option<Severity>,
        text: &str,
    ) {
        let happened = inner.core.event(now(), kind, place, severity, text);
        self.happened(inner, vec![happened]);
    }

    /// What happened goes to the log, to watchers, and, if it is ours to tell, to whom the configuration names.
    pub fn happened(&self, inner: &mut Inner, all: Vec<Happened>) {
        for one in all {
            let event = &one.event;
            let kind = event.kind;
            match event.severity {
                Some(Severity::Critical) => tracing::warn!(
                    ?kind,
                    place = event.place,
                    metric = event.metric,
                    "{}",
                    event.text
                ),
                _ => tracing::info!(
                    ?kind,
                    place = event.place,
                    metric = event.metric,
                    "{}",
                    event.text
                ),
            }
            if inner.events.len() == MAX_REMEMBERED {
                inner.events.pop_front();
            }
            inner.events.push_back(event.clone());
            self.log.write(event.clone());
            if self.watchers.receiver_count() > 0
                && let Ok(mut line) = serde_json::to_vec(event)
            {
                line.push(b'\n');
                let _ = self.watchers.send(line.into());
            }
            inner.alerts_changed |= one.alert.is_some();
            if inner.tells {
                inner.tell(&one);
            }
        }
    }

    /// Events as they happen, a line of JSON each.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Bytes> {
        self.watchers.subscribe()
    }

    /// `GET /v1/status`.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = self.lock();
        let log = self.log.state();
        let alerts = inner.all_alerts();
        let count = |severity| alerts.iter().filter(|alert| alert.severity == severity).count();
        let metrics = |place: &str| inner.core.place(place).map_or(0, |place| place.metrics.len());
        let (sees, of) = inner.group.as_ref().map_or((1, 1), |group| (group.1, group.2));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now().mono.saturating_sub(self.started.mono) / 1000,
            name: inner.name.clone(),
            place: inner.place.clone(),
            identity: identity_report(&inner.identity),
            group: inner.group.as_ref().map(|group| group.0.clone()),
            manager: inner.manager.clone(),
            manager_http: inner.manager_http(),
            sees,
            of,
            worst: alerts.iter().map(|alert| alert.severity).max(),
            critical: count(Severity::Critical),
            warnings: count(Severity::Warning),
            metrics: metrics(&inner.place),
            metrics_of_all: inner.core.places().map(|(_, place)| place.metrics.len()).sum(),
            log_error: log.error,
            log_waiting: log.waiting,
            log_lost: log.lost,
            slots: inner.slot_reports(),
        }
    }

    /// `GET /metrics`: this machine's, or of all of the chassis.
    #[must_use]
    pub fn prometheus(&self, all: bool) -> String {
        use super::prometheus::{About, text};
        let inner = self.lock();
        let mut alerts = BTreeMap::new();
        let counted = inner.all_alerts();
        for alert in counted.iter().filter(|alert| all || alert.place == inner.place) {
            *alerts.entry((alert.place.clone(), alert.severity.word())).or_default() += 1;
        }
        let about = About {
            version: env!("CARGO_PKG_VERSION"),
            is_manager: self.manages(),
            events_lost: self.log.state().lost,
            alerts,
            history_bytes: inner.core.history_bytes(),
        };
        let own = (inner.place.as_str(), identity_report(&inner.identity), inner.name.as_str());
        let others = inner.others.iter().filter(|(_, other)| all && other.here);
        let others =
            others.map(|(name, o)| (o.place.as_str(), identity_report(&o.identity), name.as_str()));
        let chassis =
            IdentityReport { chassis: inner.identity.chassis.clone(), ..IdentityReport::default() };
        let midplane = (all || about.is_manager).then_some((MIDPLANE, chassis, ""));
        text(&inner.core, std::iter::once(own).chain(others).chain(midplane), &about)
    }
}

impl Inner {
    /// Who was asked to carry out an order; the oldest names give way.
    pub fn remember_executor(&mut self, order: String, member: String) {
        while self.executors.len() >= MAX_EXECUTORS {
            self.executors.pop_first();
        }
        self.executors.insert(order, member);
    }

    fn tell(&mut self, one: &Happened) {
        let Some(alert) = &one.alert else { return };
        if self.ledger.tell(one.event.kind, alert) {
            let teller = (self.name.as_str(), self.identity.chassis.as_str());
            self.actions.tell(now().mono, teller, one);
        }
    }
}

/// Where a member is: its slot, or itself.
#[must_use]
pub fn place_of(identity: &Identity, name: &str) -> String {
    if identity.slot.is_empty() { name.to_owned() } else { identity.slot.clone() }
}

/// For people.
#[must_use]
pub fn identity_report(identity: &Identity) -> IdentityReport {
    IdentityReport {
        chassis: identity.chassis.clone(),
        slot: identity.slot.clone(),
        module: identity.module.clone(),
        maker: identity.maker.clone(),
        serial: identity.serial.clone(),
    }
}
