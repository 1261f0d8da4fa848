// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members that agree on settings, one trouble at a time. Time is virtual.

#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "settings_simulation/disk.rs"]
mod disk;
#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "settings_simulation/net.rs"]
mod net;

use std::sync::Arc;
use std::time::Duration;

use group::settings::change::{MAX_BODY, MAX_VALUE};
use group::settings::wire::{Envelope, Kind, Propose, Proposed, Refusal};
use group::settings::{
    Boxed, Change, Conflict, Expect, Health, MemberId, NotBegun, Options, Order, OrderId,
    OrderResult, Origin, Policy, Program, Record, Refused, Reign, Settings, SettingsError, State,
};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use secure_link::NodeId;
use seeds::Rng;
use tokio::time::{Instant, sleep};

use disk::Machine;
use net::{Link, Net};

const STRANGER: NodeId = NodeId([99; 16]);

/// Members 1 to 5 may do anything but change `locked`; a stranger may neither lead nor change anything.
struct Rules;

impl Policy for Rules {
    fn judge(&self, who: &Origin, change: &Change, _: &State) -> Result<(), String> {
        match change {
            _ if who.node == STRANGER.into() => Err("a stranger may change nothing".to_owned()),
            Change::Set(set) if set.key == "locked" => Err("it is locked".to_owned()),
            _ => Ok(()),
        }
    }

    fn may_lead(&self, node: MemberId) -> bool {
        node != STRANGER.into()
    }
}

struct Echo;

impl Program for Echo {
    fn execute(&self, record: Record, _: bool) -> Boxed<'static, Result<Vec<u8>, String>> {
        Box::pin(async move { Ok(record.order.what) })
    }
}

struct Chassis {
    net: Net,
    began: Instant,
    machines: Vec<Machine>,
    members: Vec<Settings>,
}

fn id(at: usize) -> NodeId {
    NodeId([u8::try_from(at + 1).expect("it fits"); 16])
}

fn ids(range: std::ops::Range<usize>) -> Vec<NodeId> {
    range.map(id).collect()
}

fn root(at: usize) -> Origin {
    Origin { node: id(at).into(), user: "root".to_owned(), role: "administrator".to_owned() }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < limit, "it does not come to pass: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

impl Chassis {
    async fn new(count: usize) -> Self {
        let mut chassis = Self {
            net: Net::new(Rng::new(1)),
            began: Instant::now(),
            machines: vec![],
            members: vec![],
        };
        for at in 0..count {
            chassis.machines.push(Machine::default());
            let settings = chassis.start(at).await;
            chassis.members.push(settings);
        }
        chassis
    }

    /// All of them vote.
    async fn begun(count: usize) -> Self {
        let chassis = Self::new(count).await;
        for settings in &chassis.members {
            settings.begin(ids(0..count)).await.expect("it begins");
        }
        chassis
    }

    async fn start(&self, at: usize) -> Settings {
        let began = self.began;
        let now = move || u64::try_from(began.elapsed().as_millis()).expect("it fits") + 1;
        let options = Options {
            program: Some(Arc::new(Echo)),
            inline_io: true,
            keep: 40,
            ..Options::new(Arc::new(Rules), Arc::new(now))
        };
        let link = Link { net: self.net.clone(), from: id(at), life: 0 };
        let disk = Arc::new(self.machines[at].boot());
        let settings = Settings::open_on(disk, id(at), link, options).await.expect("it opens");
        self.net.plug(id(at), 0, settings.clone());
        settings
    }

    async fn restart(&mut self, at: usize) {
        self.net.unplug(id(at));
        self.machines[at].kill(None);
        self.members[at].clone().close().await;
        self.members[at] = self.start(at).await;
    }

    fn cut(&self, sides: [&[usize]; 2]) {
        let mut links = self.net.links();
        for a in sides[0] {
            for b in sides[1] {
                links.cut.insert((id(*a), id(*b)));
                links.cut.insert((id(*b), id(*a)));
            }
        }
    }

    fn heal(&self) {
        self.net.links().cut.clear();
    }

    async fn leader(&self) -> usize {
        let find = || {
            (0..self.members.len())
                .find(|at| self.members[*at].status().leader == Some(id(*at).into()))
        };
        until("somebody leads", || find().is_some()).await;
        find().expect("it has just led")
    }

    async fn set(&self, at: usize, key: &str, value: &str) -> Result<(), SettingsError> {
        let set = self.members[at].set(key, value.into(), Expect::Any, root(at));
        set.await.map(drop)
    }

    fn has(&self, at: usize, key: &str, value: &str) -> bool {
        self.members[at].get(key).is_some_and(|item| item.value == value.as_bytes())
    }

    fn order(&self, n: u8, to: usize) -> Order {
        Order {
            id: OrderId([n; 16]),
            to: id(to).into(),
            subject: "slot".to_owned(),
            what: vec![n],
            deadline: u64::try_from(self.began.elapsed().as_millis()).expect("it fits") + 30_000,
            expect_boot: None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_member_sets_and_all_have_it() {
    let chassis = Chassis::begun(5).await;
    for at in 0..5 {
        chassis.set(at, &format!("key {at}"), "value").await.unwrap();
    }
    until("all have all", || {
        (0..5).all(|at| (0..5).all(|key| chassis.has(at, &format!("key {key}"), "value")))
    })
    .await;
    let refused = chassis.set(1, "locked", "value").await;
    assert!(matches!(refused, Err(SettingsError::Refused(Refused::Policy(_)))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_end_of_a_minority_with_the_leader() {
    let mut chassis = Chassis::begun(5).await;
    chassis.set(0, "key", "value").await.unwrap();
    let leader = chassis.leader().await;
    for at in [leader, (leader + 1) % 5] {
        chassis.net.unplug(id(at));
        chassis.machines[at].kill(None);
        chassis.members[at].clone().close().await;
    }
    let rest: Vec<usize> = (2..5).map(|n| (leader + n) % 5).collect();
    for at in &rest {
        chassis.restart(*at).await;
    }
    chassis.set(rest[0], "more", "value").await.unwrap();
    until("the rest have it", || rest.iter().all(|at| chassis.has(*at, "key", "value"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_minority_acknowledges_nothing() {
    let chassis = Chassis::begun(5).await;
    chassis.set(0, "key", "old").await.unwrap();
    let leader = chassis.leader().await;
    let other = (leader + 1) % 5;
    let rest: Vec<usize> = (2..5).map(|n| (leader + n) % 5).collect();
    chassis.cut([&[leader, other], &rest]);
    let refused = chassis.set(leader, "key", "lost").await;
    assert!(
        matches!(refused, Err(SettingsError::Uncertain | SettingsError::NoMajority)),
        "{refused:?}"
    );
    chassis.set(rest[0], "key", "new").await.unwrap();
    chassis.heal();
    until("all have the new", || (0..5).all(|at| chassis.has(at, "key", "new"))).await;
}

#[tokio::test(start_paused = true)]
async fn voters_come_and_go_by_the_roster() {
    let chassis = Chassis::new(5).await;
    chassis.members[0].begin(ids(0..3)).await.unwrap();
    // More than the log keeps, and more than one message: the newcomers get the state in pieces.
    let value = "x".repeat(MAX_VALUE);
    for n in 0..100 {
        chassis.set(0, &format!("key {}", n % 20), &value).await.unwrap();
    }
    for at in 3..5 {
        chassis.members[0].admit(id(at), root(0)).await.unwrap();
    }
    let voters = |at: usize| chassis.members[at].status().voters;
    until("five vote", || (0..5).all(|at| voters(at).len() == 5)).await;
    assert!(chassis.has(4, "key 19", &value));
    let leader = chassis.leader().await;
    let out = [leader, (leader + 1) % 5];
    for at in out {
        chassis.members[at].dismiss(id(at), root(at)).await.unwrap();
    }
    let rest: Vec<usize> = (0..5).filter(|at| !out.contains(at)).collect();
    until("three vote", || rest.iter().all(|at| voters(*at).len() == 3)).await;
    chassis.cut([&out, &rest]);
    chassis.set(rest[0], "key", "value").await.unwrap();
    assert_eq!(chassis.members[rest[0]].status().learners, []);
}

#[tokio::test(start_paused = true)]
async fn orders_are_carried_out_once_and_told_to_all() {
    let mut chassis = Chassis::begun(3).await;
    let order = chassis.order(1, 2);
    for at in 0..3 {
        chassis.members[at].order(order.clone(), root(at)).await.unwrap();
    }
    let done = Some(OrderResult::Done(vec![1]));
    let result = |chassis: &Chassis, at: usize, n: u8| {
        chassis.members[at].order_of(OrderId([n; 16])).and_then(|ordered| ordered.result)
    };
    until("all know", || (0..3).all(|at| result(&chassis, at, 1) == done)).await;
    let again = chassis.members[0].order(order, root(0)).await.unwrap();
    assert_eq!(again, done);
    // One that reaches its target too late is not begun.
    chassis.cut([&[0, 1], &[2]]);
    let late = chassis.order(2, 2);
    chassis.members[0].order(late, root(0)).await.unwrap();
    sleep(Duration::from_secs(40)).await;
    chassis.heal();
    let expired = Some(OrderResult::NotBegun(NotBegun::Expired));
    until("it is refused", || result(&chassis, 0, 2) == expired).await;
    let mut other_boot = chassis.order(3, 2);
    other_boot.expect_boot = Some([7; 16]);
    chassis.members[0].order(other_boot, root(0)).await.unwrap();
    let refused = Some(OrderResult::NotBegun(NotBegun::OtherBoot));
    until("it is refused", || result(&chassis, 0, 3) == refused).await;
    chassis.restart(2).await;
    until("it is known after a restart", || result(&chassis, 2, 3) == refused).await;
}

#[tokio::test(start_paused = true)]
async fn an_override_begins_a_reign_that_the_others_join_and_lists_what_is_lost() {
    let chassis = Chassis::begun(5).await;
    chassis.set(0, "both", "value").await.unwrap();
    chassis.set(0, "removed", "value").await.unwrap();
    until("all have it", || (0..5).all(|at| chassis.has(at, "removed", "value"))).await;
    chassis.cut([&[0, 1], &[2, 3, 4]]);
    chassis.set(2, "majority", "value").await.unwrap();
    let removed = chassis.members[2].remove("removed", Expect::Any, root(2)).await;
    removed.unwrap();
    chassis.members[2].order(chassis.order(1, 3), root(2)).await.unwrap();
    assert!(chassis.set(0, "minority", "value").await.is_err());
    let why = "three blades are dead".to_owned();
    let audit = chassis.members[0].override_with(ids(0..2), why, root(0)).await.unwrap();
    assert_eq!(audit.reign, Reign { number: 1, by: id(0).into() });
    assert_eq!(audit.left_out, ids(2..5).into_iter().map(MemberId::from).collect::<Vec<_>>());
    chassis.set(1, "minority", "value").await.unwrap();
    assert!(chassis.has(0, "both", "value"));
    assert_eq!(chassis.members[0].read(|state| state.audits().to_vec()), [audit]);
    chassis.heal();
    for at in 2..5 {
        chassis.members[0].admit(id(at), root(0)).await.unwrap();
    }
    until("all are in the new reign", || {
        (0..5).all(|at| chassis.has(at, "minority", "value"))
            && (0..5).all(|at| chassis.members[at].status().voters.len() == 5)
    })
    .await;
    assert!(!chassis.has(4, "majority", "value"));
    let conflicts = chassis.members[4].conflicts().unwrap();
    let has = |wanted: &dyn Fn(&Conflict) -> bool| conflicts.iter().any(wanted);
    assert!(has(&|c| matches!(c, Conflict::Set { key, .. } if key == "majority")), "{conflicts:?}");
    assert!(has(&|c| matches!(c, Conflict::Removed { key } if key == "removed")), "{conflicts:?}");
    assert!(has(&|c| matches!(c, Conflict::Ordered { .. })), "{conflicts:?}");
    assert_eq!(conflicts.len(), 3, "{conflicts:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_override_at_once_one_wins_everywhere() {
    let mut chassis = Chassis::begun(4).await;
    chassis.set(0, "both", "value").await.unwrap();
    until("all have it", || (0..4).all(|at| chassis.has(at, "both", "value"))).await;
    chassis.cut([&[0, 1], &[2, 3]]);
    for (at, voters) in [(0, ids(0..2)), (2, ids(2..4))] {
        let why = "the other half is gone".to_owned();
        chassis.members[at].override_with(voters, why, root(at)).await.unwrap();
        chassis.set(at, "half", &at.to_string()).await.unwrap();
    }
    chassis.heal();
    for at in 0..2 {
        chassis.members[3].admit(id(at), root(3)).await.unwrap();
    }
    let whole = |chassis: &Chassis| {
        (0..4).all(|at| chassis.has(at, "half", "2") && chassis.has(at, "both", "value"))
    };
    until("all are in the reign of the greater", || whole(&chassis)).await;
    assert_eq!(chassis.members[0].status().reign, Reign { number: 1, by: id(2).into() });
    // It is so after a restart too.
    chassis.restart(0).await;
    until("it is as it was", || whole(&chassis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_one_member_until_there_is_room() {
    let chassis = Chassis::begun(3).await;
    chassis.set(0, "key", "1").await.unwrap();
    let leader = chassis.leader().await;
    chassis.machines[leader].set_full(true);
    let other = (leader + 1) % 3;
    chassis.set(other, "key", "2").await.unwrap();
    until("it is said", || {
        let Health::Down(why) = chassis.members[leader].status().health else { return false };
        why.contains("reign-0") && why.contains("room")
    })
    .await;
    chassis.machines[leader].set_full(false);
    until("it recovers", || {
        chassis.has(leader, "key", "2") && chassis.members[leader].status().health == Health::Good
    })
    .await;
}

async fn ask(
    chassis: &Chassis,
    from: NodeId,
    kind: Kind,
    payload: Vec<u8>,
) -> Result<Envelope, Refusal> {
    let reign = Reign::default();
    let request = Envelope { reign, kind, payload }.encode();
    let answer = chassis.members[0].answer(from, &request).await;
    let answer = Envelope::decode(&answer).expect("an answer");
    if answer.kind == Kind::Refusal {
        Err(answer.payload().expect("a refusal"))
    } else {
        Ok(answer)
    }
}

fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("it has a form")
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_for_another() {
    let chassis = Chassis::begun(3).await;
    chassis.set(0, "key", "value").await.unwrap();
    let (other, third) = (id(1), id(2).into());
    let vote = VoteRequest { vote: openraft::Vote::new(1000, third), last_log_id: None };
    assert_eq!(ask(&chassis, other, Kind::Vote, pack(&vote)).await, Err(Refusal::NotYou));
    let append = AppendEntriesRequest::<group::settings::types::Types> {
        vote: openraft::Vote::new_committed(1000, third),
        prev_log_id: None,
        entries: vec![],
        leader_commit: None,
    };
    assert_eq!(ask(&chassis, other, Kind::Append, pack(&append)).await, Err(Refusal::NotYou));
    let piece = openraft::raft::InstallSnapshotRequest::<group::settings::types::Types> {
        vote: openraft::Vote::new_committed(1000, third),
        meta: openraft::SnapshotMeta {
            last_log_id: None,
            last_membership: openraft::StoredMembership::default(),
            snapshot_id: String::new(),
        },
        offset: 0,
        data: vec![],
        done: true,
    };
    assert_eq!(ask(&chassis, other, Kind::Snapshot, pack(&piece)).await, Err(Refusal::NotYou));
    let (kind, body) = Change::Dismiss(id(0).into()).encode();
    let propose = Propose { id: [5; 16], who: root(2), kind, body };
    assert_eq!(ask(&chassis, other, Kind::Propose, pack(&propose)).await, Err(Refusal::NotYou));
    // In its own name a stranger may do neither.
    let vote = VoteRequest {
        vote: openraft::Vote::new(1000, MemberId::from(STRANGER)),
        last_log_id: None,
    };
    assert_eq!(ask(&chassis, STRANGER, Kind::Vote, pack(&vote)).await, Err(Refusal::MayNotLead));
    assert!(chassis.members[0].status().term < 1000);
    let reign = Reign { number: 9, by: STRANGER.into() };
    let request = Envelope { reign, kind: Kind::Vote, payload: vec![] }.encode();
    chassis.members[0].answer(STRANGER, &request).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(chassis.members[0].status().reign, Reign::default());
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_and_all_goes_on() {
    let chassis = Chassis::begun(3).await;
    let leader = chassis.leader().await;
    let mut header =
        Envelope { reign: Reign::default(), kind: Kind::Append, payload: vec![] }.encode();
    header.extend([1; 10]);
    let all = [
        (vec![], Refusal::Malformed),
        (vec![1], Refusal::Malformed),
        (header, Refusal::Malformed),
        (vec![7; 100], Refusal::Version(1, 1)),
    ];
    for (bytes, expected) in all {
        let answer = chassis.members[0].answer(id(1), &bytes).await;
        let refusal: Refusal = Envelope::decode(&answer).unwrap().payload().unwrap();
        assert_eq!(refusal, expected);
    }
    let propose = |kind, body| Propose { id: [6; 16], who: root(1), kind, body };
    for propose in [propose(999, vec![]), propose(1, vec![]), propose(1, vec![0; MAX_BODY + 1])] {
        let request =
            Envelope { reign: Reign::default(), kind: Kind::Propose, payload: pack(&propose) };
        let answer = chassis.members[leader].answer(id(1), &request.encode()).await;
        let answer: Proposed = Envelope::decode(&answer).unwrap().payload().unwrap();
        assert_eq!(answer, Proposed::Applied(Err(Refused::Malformed)));
    }
    chassis.set(0, "key", "value").await.unwrap();
}
