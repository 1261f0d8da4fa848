// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

const A: MemberId = MemberId([1; 16]);
const B: MemberId = MemberId([2; 16]);

struct OnlyOwnKeys;

impl Policy for OnlyOwnKeys {
    fn judge(&self, who: &Origin, change: &Change, _: &State) -> Result<(), String> {
        match change {
            Change::Set(set) if !set.key.starts_with(&who.user) => {
                Err(format!("{} is somebody else's", set.key))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Default)]
struct Log {
    state: State,
    index: u64,
    time: u64,
}

impl Log {
    fn add(&mut self, node: MemberId, change: &Change) -> Result<Outcome, Refused> {
        self.index += 1;
        let id = u128::from(self.index).to_le_bytes();
        self.add_as(id, node, change)
    }

    fn add_as(
        &mut self,
        id: ProposalId,
        node: MemberId,
        change: &Change,
    ) -> Result<Outcome, Refused> {
        let (kind, body) = change.encode();
        let who = Origin { node, user: "u".to_owned(), role: String::new() };
        let proposal = Proposal { id, who, at: self.time, kind, body };
        let at = Position { index: self.index, term: 1, ..Position::default() };
        self.state.apply(&proposal, at, &OnlyOwnKeys).expect("a known kind")
    }
}

fn set(key: &str, value: &[u8], expect: Expect) -> Change {
    Change::Set(Set { key: key.to_owned(), value: value.to_vec(), expect })
}

fn order(n: u8, deadline: u64) -> Order {
    Order {
        id: OrderId([n; 16]),
        to: B,
        subject: "slot 1".to_owned(),
        what: vec![n],
        deadline,
        expect_boot: None,
    }
}

#[test]
fn a_key_is_changed_only_if_it_is_as_expected() {
    let mut log = Log::default();
    let Ok(Outcome::Changed(first)) = log.add(A, &set("u", b"1", Expect::Absent)) else { panic!() };
    let refused = Err(Refused::Unexpected { found: Some(first) });
    assert_eq!(log.add(A, &set("u", b"2", Expect::Absent)), refused);
    let Ok(Outcome::Changed(second)) = log.add(A, &set("u", b"2", Expect::Is(first))) else {
        panic!()
    };
    assert!(second > first);
    let remove = |expect| Change::Remove(Remove { key: "u".to_owned(), expect });
    assert!(log.add(A, &remove(Expect::Is(first))).is_err());
    assert!(log.add(A, &remove(Expect::Is(second))).is_ok());
    assert_eq!(log.state.get("u"), None);
    assert_eq!(log.state.bytes, 0);
}

#[test]
fn the_policy_is_asked_when_it_is_applied() {
    let mut log = Log::default();
    let refused = log.add(A, &set("other", b"1", Expect::Any));
    assert_eq!(refused, Err(Refused::Policy("other is somebody else's".to_owned())));
}

#[test]
fn a_proposal_that_comes_twice_is_made_once() {
    let mut log = Log::default();
    let first = log.add_as([7; 16], A, &set("u", b"1", Expect::Absent));
    log.add(A, &set("u", b"2", Expect::Any)).unwrap();
    assert_eq!(log.add_as([7; 16], A, &set("u", b"1", Expect::Absent)), first);
    assert_eq!(log.state.get("u").unwrap().value, b"2");
}

#[test]
fn all_has_its_bound() {
    let mut log = Log::default();
    let long = "u".repeat(MAX_KEY + 1);
    assert!(matches!(log.add(A, &set(&long, b"", Expect::Any)), Err(Refused::Length { .. })));
    assert!(matches!(
        log.add(A, &set("u", &vec![0; MAX_VALUE + 1], Expect::Any)),
        Err(Refused::Length { .. })
    ));
    let full = MAX_BYTES / (MAX_VALUE + 5);
    for n in 0..full {
        log.add(A, &set(&format!("u{n:04}"), &vec![0; MAX_VALUE], Expect::Any)).unwrap();
    }
    assert!(matches!(
        log.add(A, &set("u more", &vec![0; MAX_VALUE], Expect::Any)),
        Err(Refused::Full { .. })
    ));
    // What replaces something needs no more room.
    log.add(A, &set("u0000", &vec![1; MAX_VALUE], Expect::Any)).unwrap();
    let mut log = Log::default();
    for n in 0..MAX_KEYS {
        log.add(A, &set(&format!("u{n}"), b"", Expect::Any)).unwrap();
    }
    assert!(matches!(log.add(A, &set("ux", b"", Expect::Any)), Err(Refused::Full { .. })));
}

#[test]
fn the_same_order_is_one_and_another_with_its_id_is_refused() {
    let mut log = Log::default();
    let given = Change::Order(order(1, 1000));
    let Ok(Outcome::Ordered(at, None)) = log.add(A, &given) else { panic!() };
    assert_eq!(log.add(A, &given), Ok(Outcome::Ordered(at, None)));
    let mut other = order(1, 1000);
    other.what = vec![9];
    assert_eq!(log.add(A, &Change::Order(other)), Err(Refused::IdTaken));
    let done = |result| Change::OrderDone(OrderDone { id: OrderId([1; 16]), result });
    assert_eq!(log.add(A, &done(OrderResult::Done(vec![]))), Err(Refused::NotYours));
    let first = OrderResult::Done(vec![1]);
    assert_eq!(log.add(B, &done(first.clone())), Ok(Outcome::Ordered(at, Some(first.clone()))));
    let second = OrderResult::Failed("?".to_owned());
    assert_eq!(log.add(B, &done(second)), Ok(Outcome::Ordered(at, Some(first.clone()))));
    assert_eq!(log.add(A, &given), Ok(Outcome::Ordered(at, Some(first))));
}

#[test]
fn an_order_that_was_forgotten_is_never_taken_for_a_new_one() {
    let mut log = Log::default();
    assert_eq!(log.add(A, &Change::Order(order(1, 0))), Err(Refused::Expired));
    assert_eq!(log.add(A, &Change::Order(order(1, MAX_ORDER_LIFE + 1))), Err(Refused::TooFar));
    let first = Change::Order(order(1, 10));
    log.add(A, &first).unwrap();
    for n in 1..MAX_ORDERS as u128 {
        let mut next = order(0, 20);
        next.id = OrderId((n << 64).to_le_bytes());
        log.add(A, &Change::Order(next)).unwrap();
    }
    let more = Change::Order(order(2, 30));
    assert!(matches!(log.add(A, &more), Err(Refused::Full { .. })));
    log.time = 11;
    log.add(A, &more).unwrap();
    assert_eq!(log.state.order(OrderId([1; 16])), None);
    // Even if the next leader's clock is behind.
    log.time = 1;
    assert_eq!(log.add(A, &first), Err(Refused::Expired));
}

#[test]
fn the_last_voter_stays() {
    let mut log = Log::default();
    log.state.set_voters(BTreeSet::from([A]));
    assert_eq!(log.add(A, &Change::Dismiss(A)), Err(Refused::LastVoter));
    log.add(A, &Change::Admit(B)).unwrap();
    log.add(A, &Change::Dismiss(A)).unwrap();
    assert!(log.state.roster().iter().eq([&B]));
}

#[test]
fn an_unknown_kind_stops_it_and_a_malformed_one_is_refused() {
    let mut state = State::default();
    let who = Origin::program(A);
    let mut proposal = Proposal { id: [0; 16], who, at: 0, kind: 999, body: vec![] };
    let apply = |state: &mut State, proposal: &Proposal| {
        state.apply(proposal, Position::default(), &OnlyOwnKeys)
    };
    assert_eq!(apply(&mut state, &proposal), Err(ChangeError::Unknown(999)));
    proposal.kind = 1;
    assert_eq!(apply(&mut state, &proposal), Ok(Err(Refused::Malformed)));
    assert_eq!(state, State::default());
}
