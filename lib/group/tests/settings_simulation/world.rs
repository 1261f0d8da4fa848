// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members, what befalls them, and what must hold in the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use group::settings::wire::{Envelope, Kind, Propose};
use group::settings::{
    Boxed, Change, Expect, MemberId, Options, Order, OrderId, OrderResult, Origin, Policy, Program,
    Record, Reign, Settings, State,
};
use openraft::raft::VoteRequest;
use secure_link::NodeId;
use seeds::{Failure, Figures, Rng};
use tokio::time::{Instant, sleep};

use crate::disk::Machine;
use crate::net::{Link, Net};

const MEMBERS: u8 = 5;
const CLIENTS: usize = 3;
/// Faults of a world.
const FAULTS: u64 = 12;
/// After the last fault all is well within this.
const WHOLE: Duration = Duration::from_secs(90);

struct Anything;

impl Policy for Anything {
    fn judge(&self, _: &Origin, _: &Change, _: &State) -> Result<(), String> {
        Ok(())
    }
}

/// What the world saw.
#[derive(Default)]
struct Seen {
    /// By id: how often it was begun, and ended.
    executed: BTreeMap<OrderId, u64>,
    resumed: u64,
    ordered: BTreeMap<OrderId, Order>,
    acknowledged: BTreeMap<String, Vec<u8>>,
    uncertain: u64,
    log: Vec<String>,
    failure: Option<String>,
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Seen>>);

impl Notes {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("nobody panics with it")
    }

    fn say(&self, at: Instant, what: String) {
        let millis = at.elapsed().as_millis();
        self.seen().log.push(format!("{millis:>7} {what}"));
    }

    fn fail(&self, what: String) {
        self.seen().failure.get_or_insert(what);
    }
}

/// What a machine does, for as long as it lives.
struct Hands {
    notes: Notes,
    alive: Arc<Mutex<bool>>,
    rng: Mutex<Rng>,
}

impl Program for Hands {
    fn execute(&self, record: Record, resume: bool) -> Boxed<'static, Result<Vec<u8>, String>> {
        let takes =
            Duration::from_millis(self.rng.lock().expect("nobody panics with it").below(2500));
        let (notes, alive) = (self.notes.clone(), self.alive.clone());
        Box::pin(async move {
            if *alive.lock().expect("nobody panics with it") {
                let id = record.order.id;
                let mut seen = notes.seen();
                if resume {
                    seen.resumed += 1;
                } else {
                    let count = seen.executed.entry(id).or_default();
                    *count += 1;
                    if *count > 1 {
                        seen.failure.get_or_insert(format!("order {id} is carried out twice"));
                    }
                }
            }
            sleep(takes).await;
            Ok(record.order.what)
        })
    }
}

struct Member {
    machine: Machine,
    life: u64,
    alive: Arc<Mutex<bool>>,
    settings: Option<Settings>,
}

struct World {
    net: Net,
    rng: Rng,
    notes: Notes,
    members: Vec<Member>,
    began: Instant,
    figures: BTreeMap<&'static str, u64>,
}

fn id(at: usize) -> NodeId {
    NodeId([u8::try_from(at + 1).expect("it fits"); 16])
}

fn who(at: usize) -> Origin {
    Origin { node: id(at).into(), user: "client".to_owned(), role: "administrator".to_owned() }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let member = |_| Member {
            machine: Machine::default(),
            life: 0,
            alive: Arc::default(),
            settings: None,
        };
        Self {
            net: Net::new(Rng::new(rng.next())),
            rng,
            notes: Notes::default(),
            members: (0..MEMBERS).map(member).collect(),
            began: Instant::now(),
            figures: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
        self.notes.say(self.began, what.to_owned());
    }

    async fn start(&mut self, at: usize) {
        let began = self.began;
        let rng = Mutex::new(Rng::new(self.rng.next()));
        let member = &mut self.members[at];
        member.life += 1;
        member.alive = Arc::new(Mutex::new(true));
        let hands = Hands { notes: self.notes.clone(), alive: member.alive.clone(), rng };
        let now = move || u64::try_from(began.elapsed().as_millis()).expect("it fits") + 1;
        let options = Options {
            program: Some(Arc::new(hands)),
            inline_io: true,
            keep: 40,
            ..Options::new(Arc::new(Anything), Arc::new(now))
        };
        let link = Link { net: self.net.clone(), from: id(at), life: member.life };
        let disk = Arc::new(member.machine.boot());
        match Settings::open_on(disk, id(at), link, options).await {
            Ok(settings) => {
                self.net.plug(id(at), member.life, settings.clone());
                member.settings = Some(settings);
            }
            Err(error) => self.notes.fail(format!("member {at} does not start: {error}")),
        }
    }

    fn kill(&mut self, at: usize, power: bool) {
        let member = &mut self.members[at];
        if let Some(settings) = member.settings.take() {
            *member.alive.lock().expect("nobody panics with it") = false;
            self.net.unplug(id(at));
            member.machine.kill(power.then_some(&mut self.rng));
            tokio::spawn(settings.close());
        }
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|at| self.members[*at].settings.is_some()).collect()
    }

    fn leader(&self) -> Option<usize> {
        self.alive().into_iter().find(|at| {
            let status = self.members[*at].settings.as_ref().expect("it is alive").status();
            status.leader == Some(id(*at).into())
        })
    }

    async fn fault(&mut self) {
        let victim = match self.leader() {
            Some(leader) if self.rng.permille(500) => leader,
            _ => self.rng.index(self.members.len()),
        };
        self.forge().await;
        match self.rng.below(8) {
            0..2 => {
                self.count("members killed");
                self.kill(victim, false);
            }
            2..4 => {
                self.count("power cuts");
                self.kill(victim, true);
            }
            4 => {
                self.count("partitions");
                let side: Vec<bool> = self.members.iter().map(|_| self.rng.permille(400)).collect();
                for (a, b) in (0..5).flat_map(|a| (0..5).map(move |b| (a, b))) {
                    if side[a] != side[b] {
                        self.net.links().cut.insert((id(a), id(b)));
                    }
                }
            }
            5 => {
                self.count("one-way cuts");
                let other = self.rng.index(self.members.len());
                self.net.links().cut.insert((id(victim), id(other)));
            }
            6 => {
                self.count("disks filled");
                self.members[victim].machine.set_full(true);
            }
            _ => {
                self.count("lossy times");
                let loss = self.rng.between(50, 300);
                let delay = self.rng.between(5, 60);
                let mut links = self.net.links();
                (links.loss_permille, links.delay_ms) = (loss, delay);
            }
        }
        sleep(Duration::from_millis(self.rng.between(50, 6000))).await;
        // Most is mended before the next; some of it not.
        if self.rng.permille(700) {
            self.mend().await;
        }
        sleep(Duration::from_millis(self.rng.between(50, 3000))).await;
    }

    /// A member speaks in another's name.
    async fn forge(&mut self) {
        let from = self.rng.index(self.members.len());
        let third: MemberId = id((from + 1) % self.members.len()).into();
        let Some(&to) = self.alive().first() else { return };
        let settings = self.members[to].settings.clone().expect("it is alive");
        let vote = openraft::Vote::new(self.rng.below(9), third);
        let vote = VoteRequest { vote, last_log_id: None };
        let (kind, body) = Change::Dismiss(third).encode();
        let propose = Propose { id: [0; 16], who: Origin::program(third), kind, body };
        let forged = [
            (Kind::Vote, postcard::to_allocvec(&vote).expect("it has a form")),
            (Kind::Propose, postcard::to_allocvec(&propose).expect("it has a form")),
        ];
        for (kind, payload) in forged {
            let request = Envelope { reign: Reign::default(), kind, payload }.encode();
            let answer = settings.answer(id(from), &request).await;
            if Envelope::decode(&answer).map(|answer| answer.kind) != Ok(Kind::Refusal) {
                self.notes.fail(format!("{kind:?} in another's name is answered"));
            }
            self.count("forgeries refused");
        }
    }

    async fn mend(&mut self) {
        {
            let mut links = self.net.links();
            links.cut.clear();
            (links.loss_permille, links.delay_ms) = (0, 2);
        }
        for at in 0..self.members.len() {
            self.members[at].machine.set_full(false);
            if self.members[at].settings.is_none() {
                self.count("members restarted");
                self.start(at).await;
            }
        }
    }

    /// What a client does, until its member is gone; then it goes to another.
    fn client(&mut self, number: usize) {
        let at = self.rng.index(self.members.len());
        let Some(settings) = self.members[at].settings.clone() else { return };
        let mut rng = Rng::new(self.rng.next());
        let (notes, began) = (self.notes.clone(), self.began);
        tokio::spawn(async move {
            let key = format!("{number}/{:x}", rng.next());
            if rng.permille(600) {
                let value = rng.next().to_le_bytes().to_vec();
                match settings.set(&key, value.clone(), Expect::Absent, who(at)).await {
                    Ok(_) => {
                        notes.seen().acknowledged.insert(key, value);
                    }
                    Err(_) => notes.seen().uncertain += 1,
                }
                return;
            }
            let now = u64::try_from(began.elapsed().as_millis()).expect("it fits");
            let order = Order {
                id: OrderId(std::array::from_fn(|_| rng.byte())),
                to: id(rng.index(usize::from(MEMBERS))).into(),
                subject: format!("slot {}", rng.below(3)),
                what: vec![rng.byte(); 4],
                deadline: now + rng.between(5_000, 60_000),
                expect_boot: None,
            };
            for _ in 0..rng.between(1, 3) {
                if settings.order(order.clone(), who(at)).await.is_ok() {
                    notes.seen().ordered.insert(order.id, order.clone());
                }
                sleep(Duration::from_millis(rng.below(4000))).await;
            }
        });
    }

    async fn run(&mut self) -> Result<(), String> {
        for at in 0..self.members.len() {
            self.start(at).await;
        }
        for at in 0..3 {
            let voters = (0..usize::from(MEMBERS)).map(id);
            let settings = self.members[at].settings.clone().expect("it has just started");
            settings.begin(voters).await.map_err(|error| format!("not begun: {error}"))?;
        }
        let faults = self.rng.below(FAULTS) + 1;
        for _ in 0..faults {
            for number in 0..CLIENTS {
                self.client(number);
            }
            self.fault().await;
            if let Some(failure) = self.notes.seen().failure.clone() {
                return Err(failure);
            }
        }
        self.mend().await;
        self.whole().await?;
        self.check()
    }

    /// Waits until all members have the same, and know what became of every order.
    async fn whole(&mut self) -> Result<(), String> {
        let until = Instant::now() + WHOLE;
        loop {
            let why = self.not_whole();
            let Some(why) = why else { return Ok(()) };
            if Instant::now() > until {
                return Err(format!("not whole after {WHOLE:?}: {why}"));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn not_whole(&self) -> Option<String> {
        let all: Vec<&Settings> = self.members.iter().filter_map(|m| m.settings.as_ref()).collect();
        let first = all.first()?.status();
        if first.leader.is_none() {
            return Some(format!(
                "nobody leads: {:?}",
                all.iter().map(|s| s.status().health).collect::<Vec<_>>()
            ));
        }
        for settings in &all {
            let status = settings.status();
            if status.applied != first.last || status.leader != first.leader {
                return Some(format!("{status:?} is not {first:?}"));
            }
            let open = settings.read(|state| {
                let open = state.orders().find(|ordered| ordered.result.is_none());
                open.map(|ordered| format!("order {} has no result", ordered.order.id))
            });
            if open.is_some() {
                return open;
            }
        }
        None
    }

    fn check(&mut self) -> Result<(), String> {
        let states: Vec<State> = self
            .members
            .iter()
            .filter_map(|member| member.settings.as_ref())
            .map(|settings| settings.read(State::clone))
            .collect();
        let seen = self.notes.seen();
        if let Some(failure) = &seen.failure {
            return Err(failure.clone());
        }
        for state in &states {
            if *state != states[0] {
                return Err("two members have not agreed on the same".to_owned());
            }
            for (key, value) in &seen.acknowledged {
                if state.get(key).is_none_or(|item| item.value != *value) {
                    return Err(format!("{key} was acknowledged, and is lost"));
                }
            }
            for (id, order) in &seen.ordered {
                let known = state.order(*id).ok_or(format!("order {id} is lost"))?;
                let executed = seen.executed.get(id).copied().unwrap_or(0);
                match known.result.as_ref().ok_or(format!("order {id} has no result"))? {
                    OrderResult::Done(what) if *what == order.what => {}
                    OrderResult::NotBegun(_) if executed == 0 => {}
                    other => return Err(format!("order {id}: {other:?} after {executed}")),
                }
            }
        }
        let links = self.net.links();
        let figures = [
            ("changes acknowledged", seen.acknowledged.len() as u64),
            ("changes with no answer", seen.uncertain),
            ("orders given", seen.ordered.len() as u64),
            ("orders carried out", seen.executed.len() as u64),
            ("orders carried on with", seen.resumed),
            ("messages", links.delivered),
            ("messages lost", links.lost),
            ("stale terms refused", links.stale),
            ("syncs", self.members.iter().map(|member| member.machine.syncs()).sum()),
        ];
        self.figures.extend(figures);
        Ok(())
    }
}

pub fn live(seed: u64, _logging: bool, figures: &mut Figures) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (result, log) = runtime.expect("a runtime").block_on(async {
        let mut world = World::new(seed);
        let result = world.run().await;
        let log = std::mem::take(&mut world.notes.seen().log);
        // The links have the members, and the members the links.
        world.net.unplug_all();
        (result.map(|()| world.figures), log)
    });
    for (name, count) in result.map_err(|what| Failure { what, log })? {
        *figures.entry(name).or_default() += count;
    }
    Ok(())
}
