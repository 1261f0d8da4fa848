// SPDX-License-Identifier: MIT OR Apache-2.0
//! If a golden test fails, do not change the test: members of the version before speak so.

use openraft::raft::{AppendEntriesResponse, VoteRequest};
use proptest::prelude::*;

use super::super::change::{Change, Expect, Proposal, Set};
use super::super::types::{Entry, LogId, Position, Vote};
use super::*;

const A: MemberId = MemberId([0xaa; 16]);
const REIGN: Reign = Reign { number: 0x0102, by: MemberId([0xbb; 16]) };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(kind: &str) -> String {
    // version, kind, reign: number, by
    format!("01{kind}0201000000000000{}", "bb".repeat(16))
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, A), index)
}

fn append() -> AppendEntriesRequest<Types> {
    let set = Set { key: "k".to_owned(), value: vec![7], expect: Expect::Absent };
    let (kind, body) = Change::Set(set).encode();
    let who = Origin { node: A, user: "u".to_owned(), role: "r".to_owned() };
    let proposal = Proposal { id: [0xcc; 16], who, at: 300, kind, body };
    let payload = openraft::EntryPayload::Normal(proposal);
    AppendEntriesRequest {
        vote: Vote::new_committed(3, A),
        prev_log_id: Some(log_id(2, 4)),
        entries: vec![Entry { log_id: log_id(3, 5), payload }],
        leader_commit: None,
    }
}

#[test]
fn version_1_of_a_vote() {
    let rpc = VoteRequest { vote: Vote::new(3, A), last_log_id: Some(log_id(2, 200)) };
    let bytes = message(REIGN, Kind::Vote, &rpc);
    let a = "aa".repeat(16);
    // term, candidate, committed; some, term, leader, index
    assert_eq!(hex(&bytes), format!("{}03{a}000102{a}c801", header("01")));
    let back: VoteRequest<MemberId> = Envelope::decode(&bytes).unwrap().payload().unwrap();
    assert_eq!(back, rpc);
}

#[test]
fn version_1_of_an_entry() {
    let bytes = message(REIGN, Kind::Append, &append());
    let a = "aa".repeat(16);
    let expected = [
        header("02"),
        // vote: term, leader, committed
        format!("03{a}01"),
        // before: some, term, leader, index
        format!("0102{a}04"),
        // one entry: term, leader, index; normal
        format!("0103{a}0501"),
        // the proposal: id, node, user, role, time, kind, body
        format!("{}{a}01750172ac0201", "cc".repeat(16)),
        // the body: key, value, expected to be absent
        "05016b010701".to_owned(),
        // nothing known to be committed
        "00".to_owned(),
    ];
    assert_eq!(hex(&bytes), expected.concat());
}

#[test]
fn version_1_of_what_is_asked_and_answered() {
    let who = Origin { node: A, user: String::new(), role: "p".to_owned() };
    let propose = Propose { id: [1; 16], who, kind: 5, body: vec![9] };
    let a = "aa".repeat(16);
    let bytes = message(REIGN, Kind::Propose, &propose);
    assert_eq!(hex(&bytes), format!("{}{}{a}00017005{}", header("04"), "01".repeat(16), "0109"));
    let bytes = message(REIGN, Kind::Answer, &Proposed::NotLeader(Some(A)));
    assert_eq!(hex(&bytes), format!("{}0101{a}", header("80")));
    let bytes = message(REIGN, Kind::Answer, &AppendEntriesResponse::<MemberId>::Conflict);
    assert_eq!(hex(&bytes), format!("{}02", header("80")));
    let refusals = [
        (Refusal::Version(1, 1), "000101"),
        (Refusal::Malformed, "01"),
        (Refusal::Reign, "02"),
        (Refusal::NotYou, "03"),
        (Refusal::MayNotLead, "04"),
        (Refusal::Unavailable("x".to_owned()), "050178"),
    ];
    for (refusal, payload) in refusals {
        assert_eq!(hex(&message(REIGN, Kind::Refusal, &refusal)), header("81") + payload);
    }
}

#[test]
fn version_1_of_changes() {
    use super::super::change::{NotBegun, Order, OrderDone, OrderId, OrderResult, Remove};
    let a = "aa".repeat(16);
    let version = Position { reign: REIGN, term: 3, index: 4 };
    let set = Set { key: "k".to_owned(), value: vec![7], expect: Expect::Is(version) };
    let order = Order {
        id: OrderId([0xdd; 16]),
        to: A,
        subject: "s".to_owned(),
        what: vec![8],
        deadline: 300,
        expect_boot: Some([0xee; 16]),
    };
    let done = |result| Change::OrderDone(OrderDone { id: OrderId([0xdd; 16]), result });
    let (d, e) = ("dd".repeat(16), "ee".repeat(16));
    let changes = [
        // key, value, expected: reign, term, index
        (Change::Set(set), 1, format!("016b010702{}{}0304", "8202", "bb".repeat(16))),
        (
            Change::Remove(Remove { key: "k".to_owned(), expect: Expect::Any }),
            2,
            "016b00".to_owned(),
        ),
        // id, to, subject, what, deadline, boot
        (Change::Order(order), 3, format!("{d}{a}01730108ac0201{e}")),
        (done(OrderResult::Done(vec![1])), 4, format!("{d}000101")),
        (done(OrderResult::Failed("f".to_owned())), 4, format!("{d}010166")),
        (done(OrderResult::NotBegun(NotBegun::Expired)), 4, format!("{d}0200")),
        (done(OrderResult::NotBegun(NotBegun::NoProgram)), 4, format!("{d}0203")),
        (Change::Admit(A), 5, a.clone()),
        (Change::Dismiss(A), 6, a.clone()),
    ];
    for (change, kind, body) in changes {
        let (found, bytes) = change.encode();
        assert_eq!((found, hex(&bytes)), (kind, body));
        assert_eq!(Change::decode(kind, &bytes), Ok(change));
    }
}

#[test]
fn another_version_is_told_apart_from_what_is_no_message() {
    let mut bytes = message(REIGN, Kind::Append, &append());
    bytes[0] = 2;
    assert_eq!(Envelope::decode(&bytes), Err(WireError::Version(2)));
    assert!(matches!(Envelope::decode(&[]), Err(WireError::Malformed(_))));
    assert!(matches!(Envelope::decode(&[1, 1]), Err(WireError::Malformed(_))));
    assert!(matches!(Envelope::decode(&vec![1; MAX_RPC + 1]), Err(WireError::Malformed(_))));
}

#[test]
fn entries_that_do_not_follow_one_another_never_reach_the_engine() {
    assert_eq!(check_append(&append()), Ok(()));
    let spoil: [fn(&mut AppendEntriesRequest<Types>); 7] = [
        |rpc| rpc.vote = Vote::new(3, A),
        |rpc| rpc.prev_log_id = None,
        |rpc| rpc.prev_log_id = Some(log_id(4, 4)),
        |rpc| rpc.entries[0].log_id = log_id(1, 5),
        |rpc| rpc.entries[0].log_id = log_id(4, 5),
        |rpc| rpc.leader_commit = Some(log_id(3, u64::MAX)),
        |rpc| {
            let again = rpc.entries[0].clone();
            rpc.entries.push(again);
        },
    ];
    for (n, spoil) in spoil.iter().enumerate() {
        let mut rpc = append();
        spoil(&mut rpc);
        assert!(check_append(&rpc).is_err(), "{n}");
    }
}

#[test]
fn a_piece_of_the_state_makes_no_room_beyond_the_bound() {
    let meta = openraft::SnapshotMeta {
        last_log_id: Some(log_id(1, 1)),
        last_membership: openraft::StoredMembership::default(),
        snapshot_id: String::new(),
    };
    let piece = |offset| InstallSnapshotRequest::<Types> {
        vote: Vote::new_committed(3, A),
        meta: meta.clone(),
        offset,
        data: vec![0; 10],
        done: false,
    };
    assert!(check_piece(&piece(MAX_SNAPSHOT - 10)).is_ok());
    assert!(check_piece(&piece(MAX_SNAPSHOT - 9)).is_err());
    assert!(check_piece(&piece(u64::MAX)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for version in [0, 1] {
            if let Some(first) = bytes.first_mut() {
                *first |= version;
            }
            if let Ok(envelope) = Envelope::decode(&bytes) {
                prop_assert_eq!(envelope.encode(), bytes.clone());
                let _ = envelope.payload::<VoteRequest<MemberId>>();
                let _ = envelope.payload::<Propose>();
                let _ = envelope.payload::<Refusal>();
                if let Ok(rpc) = envelope.payload() {
                    let _ = check_append(&rpc);
                }
                if let Ok(rpc) = envelope.payload() {
                    let _ = check_piece(&rpc);
                }
            }
        }
    }

    #[test]
    fn a_message_with_wrong_bytes_in_it_makes_nothing_panic(
        at in 0usize..120, byte in any::<u8>(), cut in 0usize..160,
    ) {
        let mut bytes = message(REIGN, Kind::Append, &append());
        let len = bytes.len();
        bytes[at % len] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(envelope) = Envelope::decode(&bytes)
            && let Ok(rpc) = envelope.payload::<AppendEntriesRequest<Types>>()
        {
            let _ = check_append(&rpc);
            for entry in &rpc.entries {
                if let openraft::EntryPayload::Normal(proposal) = &entry.payload {
                    let _ = Change::decode(proposal.kind, &proposal.body);
                }
            }
        }
    }
}
