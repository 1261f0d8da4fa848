// SPDX-License-Identifier: MIT OR Apache-2.0
//! The task with the core.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use secure_link::{DatagramId, DatagramOpener, DatagramSealer, Gate, KeyId, Name, NodeId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, info, warn};

use super::identity::Identity;
use super::link::{Link, Outlets};
use super::peers::Newcomer;
use super::sockets::Sockets;
use super::{
    Call, Callee, Clock, Command, Happened, MAX_HAPPENED, Nodes, Options, Received, SendError,
    StartError, epoch,
};
use crate::core::records::Change;
use crate::core::{Action, Core, Event, LinkId, Listed, Notice, Redirect, SEES, timing};
use crate::list::{List, Resolved, Watched};
use crate::report::Report;
use crate::wire::{Channel, Class, Life, Message, Micros};

/// Between two looks at the files, and attempts to listen.
const LOOK: Duration = Duration::from_secs(2);
/// Between two resolutions of host names.
const RESOLVE: Duration = Duration::from_secs(60);
/// What the shell holds of a member.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) addresses: Vec<Option<std::net::IpAddr>>,
    pub(super) link: Option<Link>,
    /// Who is at the other end of the link, and by which key it was let in.
    pub(super) admitted: Option<(NodeId, KeyId)>,
    /// When the link was made, if this end connected: then it makes the next too.
    pub(super) dialled: Option<Instant>,
    pub(super) datagrams: Option<(DatagramSealer, DatagramOpener)>,
    pub(super) connecting: bool,
    pub(super) complained: Option<Instant>,
}

/// A call that is not answered yet.
pub(super) struct Unanswered {
    pub(super) to: Name,
    pub(super) link: LinkId,
    pub(super) answer: Answer,
}

/// To who asked.
pub(super) type Answer = oneshot::Sender<Result<Vec<u8>, SendError>>;
/// Where messages, calls and the settings' calls go.
pub(super) type Programs = (mpsc::Sender<Received>, mpsc::Sender<Call>, mpsc::Sender<Call>);

/// A member.
pub(super) struct Member {
    pub(super) options: Options,
    pub(super) core: Core,
    pub(super) identity: Identity,
    pub(super) list: Watched,
    pub(super) named: List,
    pub(super) sockets: Sockets,
    pub(super) peers: BTreeMap<Name, Peer>,
    pub(super) sessions: BTreeMap<DatagramId, Name>,
    pub(super) gate: Gate,
    /// Who is to be written to disk, when what is being written is there. At most one of each listed name.
    pub(super) newcomers: Vec<Newcomer>,
    pub(super) pinning: bool,
    pub(super) next_link: LinkId,
    pub(super) next_call: u64,
    pub(super) calls: BTreeMap<u64, Unanswered>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) outlets: Outlets,
    pub(super) happened: Option<mpsc::Receiver<Happened>>,
    pub(super) resolved: Instant,
    /// Whether members have come or gone.
    changed: bool,
    clock: Clock,
}

pub(super) fn boot_clock() -> Micros {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + time.tv_nsec as u64 / 1000
}

fn wall_clock() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

impl Member {
    pub async fn new(
        options: Options,
        notices: broadcast::Sender<Notice>,
        (messages, calls, settings): Programs,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let identity =
            Identity::load((&options.store, &options.state), &options.program, &options.node)?
                .ok_or_else(|| StartError::NoKey(options.program.clone()))?;
        let own = identity.local.name.clone();
        let mut list = Watched::new(&options.list);
        let named = list.changed()?.unwrap_or_default();
        if !named.member.iter().any(|member| member.name == own) {
            return Err(StartError::NotListed { name: own, list: options.list });
        }
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)?;
        let life = Life { epoch: epoch::next(&options.state)?, nonce: u64::from_le_bytes(nonce) };
        let (replication, leads) = (options.replication, options.leads);
        let core_options = crate::core::Options { own, life, replication, leads };
        let (happened, happens) = mpsc::channel(MAX_HAPPENED);
        let mut member = Self {
            core: Core::new(core_options, boot_clock(), wall_clock()),
            identity,
            list,
            sockets: Sockets::new(options.port, happened.clone()),
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            gate: Gate::default(),
            newcomers: vec![],
            pinning: false,
            next_link: 1,
            next_call: 1,
            calls: BTreeMap::new(),
            notices,
            outlets: Outlets { happened, messages, calls, settings },
            clock,
            happened: Some(happens),
            resolved: Instant::now(),
            changed: true,
            options,
            named,
        };
        let resolved = member.named.resolve().await;
        member.take_list(resolved).await;
        Ok(member)
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let Some(mut happened) = self.happened.take() else { return };
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wait = Duration::from_micros(self.core.next().saturating_sub(boot_clock()));
            tokio::select! {
                Some(what) = happened.recv() => self.happen(what).await,
                command = commands.recv() => match command {
                    Some(Command::Leave(done)) => {
                        self.tell(Event::Leave);
                        // Writers go on until what they have is written.
                        self.peers.clear();
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.command(command).await,
                    // Nobody holds a handle any more.
                    None => return,
                },
                () = tokio::time::sleep(wait) => self.tell(Event::Tick),
                _ = look.tick() => self.look().await,
            }
            if std::mem::take(&mut self.changed) {
                self.tell_who_is_here();
            }
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        let actions = self.core.handle(boot_clock(), event);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let now = boot_clock();
        let offset = self.core.time(now).0 - now as i64;
        self.clock.0.store(offset, Ordering::Relaxed);
        for action in actions {
            match action {
                Action::Connect(name) => self.connect(name),
                Action::Knock(name) => self.knock(name),
                Action::Ask(name) => self.ask(&name),
                Action::Send(name, id, message) => self.send(&name, id, &message),
                Action::Beat(name, over, beat) => self.beat(&name, over, &beat),
                Action::Close(name, id) => self.close(&name, id),
                Action::Persist(epoch) => self.persist(epoch),
                Action::Tell(notice) => self.notice(notice),
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.changed |= matches!(notice, Notice::Here(_) | Notice::Away(..));
        match &notice {
            Notice::Here(member) => info!(%member, "a member is here"),
            Notice::Away(member, why) => {
                info!(%member, ?why, "a member is away");
                // With its link its beats can come again.
                if self.peers.get(member).is_none_or(|peer| peer.link.is_none()) {
                    self.forget_session(member);
                }
            }
            Notice::Manager(manager) => {
                let manager = manager.as_ref().map_or("-", Name::as_str);
                info!(manager, "the active manager");
            }
            Notice::Records(_) => {}
        }
        // Nobody may listen.
        let _ = self.notices.send(notice);
    }

    fn persist(&mut self, epoch: u64) {
        let (state, to) = (self.options.state.clone(), self.outlets.happened.clone());
        warn!(epoch, "the others know of a later life of this member: its disk was set back");
        // Nobody believes this member before it is there: a disk that is full is waited for.
        tokio::spawn(async move {
            let mut complained = false;
            loop {
                let folder = state.clone();
                match tokio::task::spawn_blocking(move || epoch::store(&folder, epoch)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) if !complained => {
                        complained = true;
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "the epoch is not stored; trying on");
                    }
                    _ => {}
                }
                tokio::time::sleep(LOOK).await;
            }
            let _ = to.send(Happened::Persisted(epoch)).await;
        });
    }

    async fn happen(&mut self, what: Happened) {
        match what {
            Happened::Connected(name, connected) => self.connected(name, connected),
            Happened::Knocked(peer, refused) => {
                if refused {
                    self.tell(Event::NotLinked { peer, refused });
                }
            }
            Happened::Came(stream, from) => self.came(stream, from),
            Happened::Accepted(place, session) => {
                self.gate.leave(place);
                if let Some(session) = session {
                    self.linked(*session, false);
                }
            }
            Happened::Pinned(newcomers, written) => self.pinned(newcomers, written),
            Happened::Datagram(network, from, bytes) => self.datagram(network, from, bytes),
            Happened::Said(name, id, message) => match *message {
                Message::Answer(number, bytes) => {
                    self.tell(Event::Heard(name, id));
                    if self.calls.get(&number).is_some_and(|call| call.link == id)
                        && let Some(call) = self.calls.remove(&number)
                    {
                        let _ = call.answer.send(Ok(bytes));
                    }
                }
                message => self.tell(Event::Message(name, id, message)),
            },
            Happened::Heard(name, id) => self.tell(Event::Heard(name, id)),
            Happened::Written(name, id) => self.tell(Event::Sent(name, id)),
            Happened::Answered(name, id, answer) => self.send(&name, id, &answer),
            Happened::Over(name, id, why) => {
                let current = self.peers.get(&name).and_then(|peer| peer.link.as_ref());
                if current.is_some_and(|link| link.id == id) {
                    debug!(member = %name, why, "a link is over");
                    self.over(name, id);
                }
            }
            Happened::Resolved(list) => self.take_list(list).await,
            Happened::Persisted(epoch) => self.tell(Event::Persisted(epoch)),
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Core(work) => {
                let actions = work(&mut self.core, boot_clock());
                self.act(actions);
            }
            Command::Send(name, bytes, answer) => {
                let sent = self.to_program(&name, || Message::Program(bytes));
                let _ = answer.send(sent.map(drop));
            }
            Command::Call(callee, channel, bytes, answer) => {
                self.call(callee, channel, bytes, answer);
            }
            Command::Nodes(answer) => {
                let _ = answer.send(self.nodes());
            }
            Command::Report(answer) => {
                let _ = answer.send(self.report());
            }
            Command::Reload => self.look().await,
            Command::Leave(_) => {}
        }
    }

    fn call(&mut self, callee: Callee, channel: Channel, bytes: Vec<u8>, answer: Answer) {
        let name = match callee {
            Callee::Name(name) => Ok(name),
            Callee::Node(node) => {
                let is = |peer: &Peer| peer.admitted.is_some_and(|admitted| admitted.0 == node);
                let found = self.peers.iter().find(|(_, peer)| is(peer));
                found.map(|found| found.0.clone()).ok_or(SendError::Away(node.to_string()))
            }
        };
        let number = self.next_call;
        self.next_call += 1;
        let sent = name.and_then(|name| {
            let question = || Message::Call(number, channel, bytes);
            Ok((self.to_program(&name, question)?, name))
        });
        match sent {
            Ok((link, to)) => {
                // Who gave up waiting makes room.
                self.calls.retain(|_, call| !call.answer.is_closed());
                self.calls.insert(number, Unanswered { to, link, answer });
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    fn nodes(&self) -> Nodes {
        let own = (self.identity.local.name.clone(), self.identity.local.node.id());
        let linked = self.peers.iter();
        let linked = linked.filter_map(|(name, peer)| Some((name.clone(), peer.admitted?.0)));
        let lead = self.named.member.iter().filter(|entry| entry.leads).filter_map(|entry| {
            let is_own = entry.name == own.0;
            let node = if is_own { Some(own.1) } else { self.identity.node(&entry.name) };
            Some((entry.name.clone(), node?))
        });
        Nodes { linked: linked.collect(), of: self.named.member.len(), lead: lead.collect(), own }
    }

    fn report(&self) -> Report {
        let now = boot_clock();
        let redirect = match self.core.redirect() {
            Redirect::To(name) => Some(name.to_string()),
            Redirect::Here | Redirect::Nobody => None,
        };
        let local = &self.identity.local;
        let keys = local.keys.state();
        Report {
            group: local.group.to_string(),
            program: local.program.to_string(),
            node: local.node.id().to_string(),
            key: keys.sends.to_string(),
            other_key: keys.also.map(|key| key.to_string()),
            ..Report::new(self.core.status(now), redirect, now)
        }
    }

    /// Tells the others whom this member sees.
    fn tell_who_is_here(&mut self) {
        let now = boot_clock();
        let members = self.core.status(now).members.into_iter();
        let here = members.filter(|m| m.away.is_none()).map(|m| m.name.to_string());
        let value = here.collect::<Vec<_>>().join(" ").into_bytes().into();
        let Ok(key) = SEES.parse() else { return };
        match self.core.change(now, vec![Change::Set(key, Class::Dynamic, value)]) {
            Ok(actions) => self.act(actions),
            Err(error) => warn!(%error, "whom this member sees is not told"),
        }
    }

    /// Looks whether files have changed, and links have grown old.
    async fn look(&mut self) {
        match self.identity.reload() {
            Ok(true) => self.shut_out(),
            Ok(false) => {}
            Err(error) => warn!(error = &error as &dyn std::error::Error, "keys cannot be read"),
        }
        match self.list.changed() {
            Ok(Some(list)) => {
                self.named = list;
                self.resolve();
            }
            Ok(None) if self.resolved.elapsed() >= RESOLVE => self.resolve(),
            Ok(None) => {}
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the list stays as it was");
            }
        }
        self.listen().await;
        let renew = Duration::from_micros(timing::RENEW);
        let old = self.peers.iter().filter(|(_, peer)| {
            !peer.connecting && peer.dialled.is_some_and(|at| at.elapsed() >= renew)
        });
        for name in old.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.connect(name);
        }
    }

    fn resolve(&mut self) {
        self.resolved = Instant::now();
        let (list, to) = (self.named.clone(), self.outlets.happened.clone());
        tokio::spawn(async move {
            let resolved = list.resolve().await;
            let _ = to.send(Happened::Resolved(resolved)).await;
        });
    }

    async fn take_list(&mut self, list: Vec<Resolved>) {
        let listed = |name: &Name| list.iter().any(|member| member.name == *name);
        for name in self.peers.keys().filter(|name| !listed(name)).cloned().collect::<Vec<_>>() {
            self.forget_session(&name);
            if let Some(link) = self.peers.remove(&name).and_then(|peer| peer.link) {
                self.fail_calls(link.id);
            }
        }
        let mut ranked = vec![];
        for Resolved { name, addresses, leads } in list {
            if name == self.identity.local.name {
                let unfit = !leads || !self.options.leads;
                self.tell(Event::Unfit(crate::core::Unfit::Configured, unfit));
            }
            let peer = self.peers.entry(name.clone()).or_default();
            for (at, address) in addresses.into_iter().enumerate() {
                if peer.addresses.len() <= at {
                    peer.addresses.push(None);
                }
                // A name that is not known for a while stays where it was.
                peer.addresses[at] = address.or(peer.addresses[at]);
            }
            match peer.addresses.first().copied().flatten() {
                Some(address) => ranked.push(Listed { name, address }),
                None => warn!(member = %name, "left out: its first address is not known"),
            }
        }
        self.tell(Event::List(ranked));
        self.listen().await;
    }

    async fn listen(&mut self) {
        let own = self.peers.get(&self.identity.local.name);
        let own = own.map(|own| own.addresses.clone()).unwrap_or_default();
        self.sockets.listen(&own).await;
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}
