// SPDX-License-Identifier: MIT OR Apache-2.0
use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

const START: u64 = 1_764_000_000;

/// The core, a shell that does each job at once and well, and a log of both.
struct Bench {
    core: Arbiter,
    secs: u64,
    ticket: u64,
    log: Vec<String>,
    answers: BTreeMap<u64, Result<Outcome, Refusal>>,
    /// Jobs whose text begins so are left undone.
    hangs: &'static str,
    /// The same, but they fail.
    fails: &'static str,
    left: Vec<JobId>,
}

fn share(name: &str) -> ShareName {
    name.parse().unwrap()
}

fn blade(name: &str) -> BladeName {
    name.parse().unwrap()
}

fn shares() -> BTreeMap<ShareName, Share> {
    let of = |mode, is_writable| Share {
        mode,
        rights: [(blade("guest"), Access::Read)].into(),
        others: Some(Access::Write),
        is_writable,
        size: 1 << 20,
    };
    let closed = Share { others: None, ..of(Mode::Exclusive, true) };
    [
        (share("r"), of(Mode::ReadOnly, false)),
        (share("x"), of(Mode::Exclusive, true)),
        (share("p"), of(Mode::Private, true)),
        (share("q"), of(Mode::Private, false)),
        (share("closed"), closed),
    ]
    .into()
}

impl Bench {
    fn new(state: State) -> Self {
        let now = Now { mono: Duration::ZERO, unix: START };
        let core = Arbiter::new(now, Limits::default(), shares(), state);
        let (log, answers) = (vec![], BTreeMap::new());
        Self { core, secs: 0, ticket: 0, log, answers, hangs: "-", fails: "-", left: vec![] }
    }

    fn now(&self) -> Now {
        Now { mono: Duration::from_secs(self.secs), unix: START + self.secs }
    }

    fn run(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Store { version, .. } => {
                    self.log.push("store".to_owned());
                    self.core.stored(self.now(), version, Ok(()));
                }
                Action::Answer { ticket, result } => {
                    self.log.push("answer".to_owned());
                    assert!(self.answers.insert(ticket.0, result).is_none(), "answered twice");
                }
                Action::Do { job, what } => {
                    let text = show(&what);
                    self.log.push(text.clone());
                    if text.starts_with(self.hangs) {
                        self.left.push(job);
                    } else if text.starts_with(self.fails) {
                        self.core.done(self.now(), job, Err("it is mounted".to_owned()));
                    } else {
                        self.core.done(self.now(), job, Ok(()));
                    }
                }
            }
        }
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.ticket += 1;
        self.core.request(self.now(), Ticket(self.ticket), request);
        self.run();
        self.ticket
    }

    fn wait(&mut self, secs: u64) {
        self.secs += secs;
        self.core.handle_timeout(self.now());
        self.run();
    }

    fn attach(
        &mut self,
        of: &str,
        who: &str,
        access: Access,
        claim: Claim,
    ) -> Result<Grant, String> {
        let ticket =
            self.ask(Request::Attach { share: share(of), blade: blade(who), access, claim });
        self.granted(ticket)
    }

    fn granted(&mut self, ticket: u64) -> Result<Grant, String> {
        match self.answers.remove(&ticket).expect("no answer") {
            Ok(Outcome::Granted(grant)) => Ok(grant),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    fn order(&mut self, request: Request) -> Result<Option<String>, String> {
        let ticket = self.ask(request);
        self.ordered(ticket)
    }

    fn ordered(&mut self, ticket: u64) -> Result<Option<String>, String> {
        match self.answers.remove(&ticket).expect("no answer") {
            Ok(Outcome::Done(note)) => Ok(note),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn show(job: &Job) -> String {
    match job {
        Job::Eject { blade, forced, .. } => format!("eject {blade} {forced}"),
        Job::Cut { epoch, sessions, .. } => format!("cut {epoch:?} {}", sessions.len()),
        Job::Flush { .. } => "flush".to_owned(),
        Job::Insert { blade, epoch, .. } => format!("insert {blade} {epoch}"),
        Job::Make(of) => format!("make {}", of.id),
        Job::Commit(of) => format!("commit {}", of.id),
        Job::Remove(of) => format!("remove {}", of.id),
    }
}

fn hand_over(to: &str, force: bool) -> Request {
    Request::HandOver { share: share("x"), from: None, to: blade(to), force }
}

fn eject(of: &str, who: &str) -> Request {
    Request::Eject { share: share(of), blade: blade(who), force: false }
}

const WRITE: Access = Access::Write;
const READ: Access = Access::Read;

#[test]
fn a_hand_over_goes_step_by_step() {
    let mut bench = Bench::new(State::default());
    let first = bench.attach("x", "b3", WRITE, Claim::Any).unwrap();
    assert_eq!(bench.log(), ["store", "answer"]);
    assert_eq!((first.epoch, first.generation), (Some(1), 1));
    assert_eq!(bench.order(hand_over("b5", false)), Ok(None));
    // The epoch is on stable storage before anybody is told.
    let steps =
        ["eject b3 false", "cut Some(1) 1", "flush", "store", "insert b5 2", "store", "answer"];
    assert_eq!(bench.log(), steps);
    let late = bench.attach("x", "b3", WRITE, Claim::Epoch(1)).unwrap_err();
    assert!(late.starts_with("STALE") && late.contains("epoch 2 of blade b5"), "{late}");
    let second = bench.attach("x", "b5", WRITE, Claim::Epoch(2)).unwrap();
    assert_eq!((second.epoch, second.generation), (Some(2), 2));
}

#[test]
fn refusals_say_who_since_when_and_what_to_do() {
    let mut bench = Bench::new(State::default());
    bench.attach("x", "b3", WRITE, Claim::Any).unwrap();
    for (of, who, access, text) in [
        (
            "x",
            "b5",
            WRITE,
            "BUSY: share x is written by blade b3 (lease epoch 1) since 2025-11-24 16:00:00 UTC; \
             hand over with `usb-gadget-drive handover x b5`",
        ),
        ("x", "b5", READ, "BUSY: share x is written by blade b3"),
        ("y", "b5", READ, "UNKNOWN: there is no share y"),
        (
            "x",
            "guest",
            WRITE,
            "DENIED: blade guest is not allowed to write to share x: it may only read",
        ),
        ("r", "b5", WRITE, "the share is read-only"),
        ("closed", "b5", READ, "DENIED: blade b5 is not allowed to read share closed"),
    ] {
        let refusal = bench.attach(of, who, access, Claim::Any).unwrap_err();
        assert!(refusal.starts_with(text) || refusal.ends_with(text), "{refusal}");
    }
    let refusal = bench.order(hand_over("guest", true)).unwrap_err();
    assert!(refusal.contains("give it the right"), "{refusal}");
}

#[test]
fn readers_and_a_writer_never_meet() {
    let mut bench = Bench::new(State::default());
    let reader = bench.attach("x", "b1", READ, Claim::Any).unwrap();
    assert_eq!(reader.epoch, None);
    let refusal = bench.attach("x", "b2", WRITE, Claim::Any).unwrap_err();
    assert!(refusal.contains("is read by blade b1; eject it there first"), "{refusal}");
    bench.order(eject("x", "b1")).unwrap();
    let writer = bench.attach("x", "b2", WRITE, Claim::Any).unwrap();
    bench.log();
    bench.core.detached(bench.now(), writer.session);
    bench.run();
    assert_eq!(bench.log(), ["cut Some(1) 0", "flush", "store"]);
    let again = bench.attach("x", "b1", READ, Claim::Generation(1)).unwrap_err();
    assert!(again.starts_with("STALE"), "{again}");
    assert_eq!(bench.attach("x", "b1", READ, Claim::Generation(2)).unwrap().generation, 2);
}

#[test]
fn a_blade_that_does_not_let_go() {
    let mut bench = Bench::new(State::default());
    bench.attach("x", "b3", WRITE, Claim::Any).unwrap();
    bench.fails = "eject b3 false";
    let refusal = bench.order(hand_over("b5", false)).unwrap_err();
    assert!(refusal.contains("is not let go by blade b3: it is mounted"), "{refusal}");
    bench.attach("x", "b3", WRITE, Claim::Epoch(1)).unwrap();
    // Nor does its agent answer: only force goes on.
    (bench.fails, bench.hangs) = ("-", "eject");
    let ticket = bench.ask(hand_over("b5", true));
    bench.wait(19);
    assert!(bench.answers.is_empty());
    bench.wait(1);
    bench.wait(5);
    let note = bench.ordered(ticket).unwrap().unwrap();
    assert!(note.contains("no answer in time"), "{note}");
    // What the agent says in the end means nothing any more.
    for job in std::mem::take(&mut bench.left) {
        bench.core.done(bench.now(), job, Ok(()));
    }
    bench.run();
    assert_eq!(bench.core.work().count(), 0);
}

#[test]
fn a_flush_that_fails_stops_it_and_the_old_epoch_stays_cut() {
    let mut bench = Bench::new(State::default());
    bench.attach("x", "b3", WRITE, Claim::Any).unwrap();
    bench.fails = "flush";
    let refusal = bench.order(hand_over("b5", false)).unwrap_err();
    assert!(refusal.starts_with("FAILED: share x") && refusal.contains("--force"), "{refusal}");
    assert!(bench.attach("x", "b5", WRITE, Claim::Any).is_err());
    assert!(bench.attach("x", "b3", WRITE, Claim::Epoch(1)).is_err());
    assert_eq!(bench.attach("x", "b3", WRITE, Claim::Any).unwrap().epoch, Some(2));
    assert!(bench.order(hand_over("b5", true)).unwrap().unwrap().contains("flush failed"));
}

#[test]
fn several_connections_at_once_are_one_session() {
    let mut bench = Bench::new(State::default());
    bench.hangs = "make";
    let attach =
        |claim| Request::Attach { share: share("p"), blade: blade("b1"), access: WRITE, claim };
    let tickets: Vec<u64> = (0..4).map(|_| bench.ask(attach(Claim::Any))).collect();
    assert!(bench.answers.is_empty());
    let job = bench.left.pop().unwrap();
    bench.core.done(bench.now(), job, Ok(()));
    bench.run();
    let grants: Vec<Grant> = tickets.iter().map(|t| bench.granted(*t).unwrap()).collect();
    assert!(grants.iter().all(|grant| grant.session == grants[0].session));
    // A new process of the blade cuts them all.
    let new = bench.attach("p", "b1", WRITE, Claim::New).unwrap();
    assert_eq!((new.epoch, new.overlay), (Some(2), grants[0].overlay));
    assert!(bench.log().contains(&"cut Some(1) 1".to_owned()));
    assert_ne!(new.session, grants[0].session);
    assert!(bench.attach("p", "b1", WRITE, Claim::Epoch(1)).is_err());
}

#[test]
fn overlays_are_committed_alone() {
    let mut bench = Bench::new(State::default());
    let commit = |of: &str, who: &str| Request::Commit { share: share(of), blade: blade(who) };
    let discard = |who: &str| Request::Discard { share: share("p"), blade: blade(who) };
    let one = bench.attach("p", "b1", WRITE, Claim::Any).unwrap();
    let two = bench.attach("p", "b2", WRITE, Claim::Any).unwrap();
    assert_ne!(one.overlay, two.overlay);
    let refusal = bench.order(commit("p", "b1")).unwrap_err();
    assert!(refusal.contains("overlays of other blades over the same base (b2)"), "{refusal}");
    let refusal = bench.order(discard("b2")).unwrap_err();
    assert!(refusal.contains("is used by blade b2; eject it there first"), "{refusal}");
    bench.order(eject("p", "b2")).unwrap();
    bench.order(discard("b2")).unwrap();
    let refusal = bench.order(commit("p", "b1")).unwrap_err();
    assert!(refusal.contains("is used by blade b1"), "{refusal}");
    bench.order(eject("p", "b1")).unwrap();
    bench.fails = "commit";
    let refusal = bench.order(commit("p", "b1")).unwrap_err();
    assert!(refusal.contains("part old and part new"), "{refusal}");
    assert!(bench.attach("p", "b2", READ, Claim::Any).unwrap_err().contains("overlay commit p b1"));
    assert!(bench.order(discard("b1")).unwrap_err().contains("half overwritten"));
    // A restart takes it up again by itself.
    let mut bench = Bench::new(bench.core.state().clone());
    bench.run();
    assert_eq!(bench.log()[..2], ["commit 1", "store"]);
    assert!(
        bench.order(commit("p", "b1")).unwrap_err().starts_with("UNKNOWN: share p has no overlay")
    );
    assert_eq!(bench.attach("p", "b2", READ, Claim::Any).unwrap().generation, 2);
    bench.attach("q", "b1", WRITE, Claim::Any).unwrap();
    assert!(bench.order(commit("q", "b1")).unwrap_err().contains("can only be read"));
}

#[test]
fn nothing_is_granted_while_the_state_cannot_be_stored() {
    let mut bench = Bench::new(State::default());
    let attach =
        Request::Attach { share: share("x"), blade: blade("b1"), access: WRITE, claim: Claim::Any };
    bench.core.request(bench.now(), Ticket(1), attach);
    let Some(Action::Store { version, .. }) = bench.core.next_action() else { panic!("no store") };
    bench.core.stored(bench.now(), version, Err("no space".to_owned()));
    bench.ticket = 1;
    let refusal = bench.attach("p", "b2", WRITE, Claim::Any).unwrap_err();
    assert!(refusal.contains("cannot be stored (no space)"), "{refusal}");
    bench.attach("r", "b2", READ, Claim::Any).unwrap();
    assert_eq!(bench.core.next_timeout(), Some(Duration::from_secs(1)));
    bench.wait(1);
    assert_eq!(bench.granted(1).unwrap().epoch, Some(1));
    assert_eq!(bench.core.storage_error(), None);
}

#[test]
fn a_hand_over_that_was_stored_goes_on_after_a_restart() {
    let mut bench = Bench::new(State::default());
    bench.attach("x", "b3", WRITE, Claim::Any).unwrap();
    bench.hangs = "insert";
    bench.ask(hand_over("b5", false));
    let mut bench = Bench::new(bench.core.state().clone());
    bench.fails = "insert";
    bench.run();
    assert_eq!(bench.log(), ["insert b5 2"]);
    bench.fails = "-";
    bench.core.arrived(bench.now(), &blade("b5"));
    bench.run();
    assert_eq!(bench.log(), ["insert b5 2", "store"]);
    bench.core.arrived(bench.now(), &blade("b5"));
    bench.run();
    assert!(bench.log().is_empty());
    assert_eq!(bench.attach("x", "b5", WRITE, Claim::Epoch(2)).unwrap().epoch, Some(2));
}

#[test]
fn tables_have_bounds() {
    let mut bench = Bench::new(State::default());
    for n in 0..MAX_OVERLAYS {
        bench.attach("p", &format!("b{n}"), WRITE, Claim::Any).unwrap();
    }
    assert!(bench.attach("p", "one-more", WRITE, Claim::Any).unwrap_err().starts_with("FULL"));
    for _ in 1..MAX_CONNECTIONS {
        bench.attach("p", "b0", WRITE, Claim::Any).unwrap();
    }
    assert!(bench.attach("p", "b0", WRITE, Claim::Any).unwrap_err().starts_with("FULL"));
    for n in MAX_OVERLAYS..MAX_SESSIONS {
        bench.attach("r", &format!("b{n}"), READ, Claim::Any).unwrap();
    }
    assert!(bench.attach("r", "one-more", READ, Claim::Any).unwrap_err().starts_with("FULL"));
}
