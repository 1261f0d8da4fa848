// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each step of a service by itself; the simulation has them in all orders, with the unit's core at the other end.

use super::*;
use crate::wire::{Carried, Token};

const TTL: Micros = 30_000_000;
const SECOND: Micros = 1_000_000;

fn grant() -> Grant {
    let device = crate::record::tests::device("u", "1");
    Grant { no: 7, device, function: 0, token: Token([1; 16]), addresses: vec![], ttl_ms: 30_000 }
}

fn open() -> FromHolder {
    FromHolder::Open { no: 7, token: Token([1; 16]) }
}

fn connect(conn: ConnId) -> Action {
    Action::Connect(conn, Box::new(grant()))
}

fn good() -> ToHolder {
    ToHolder::Good(30_000)
}

fn ended(why: &str) -> ToHolder {
    ToHolder::Ended(why.to_owned())
}

fn lost(why: &str) -> Over {
    Over::Lost(why.to_owned())
}

fn not_held(why: NotHeld) -> Over {
    Over::NotHeld(grant().device.id, why)
}

fn send(conn: ConnId, said: FromHolder) -> Action {
    Action::Send(conn, said)
}

impl Service {
    /// Tells it, at that time, and demands what it answers.
    #[track_caller]
    fn told(&mut self, now: Micros, event: Event, actions: &[Action]) -> &mut Self {
        assert_eq!(self.handle(now, event), actions);
        self
    }

    /// Nothing is due before that time.
    #[track_caller]
    fn due(&mut self, at: Micros) -> &mut Self {
        assert_eq!(self.next(), at);
        self
    }
}

fn looking(keep: bool) -> Service {
    let mut service = Service::new(keep, 0);
    service.due(0).told(0, Event::Tick, &[Action::Look]).due(Micros::MAX);
    service
}

/// Has a lease since then, and connects to the unit.
fn granted(keep: bool, now: Micros) -> Service {
    let mut service = looking(keep);
    service.told(now, Event::Granted(Box::new(grant())), &[connect(1)]).due(now + TTL);
    service
}

/// Asked for it at that time, over connection 1.
fn opening(keep: bool, now: Micros) -> Service {
    let mut service = granted(keep, now);
    service.told(now, Event::Connected(1), &[send(1, open())]).due(now + ANSWER);
    service
}

fn taking(keep: bool, now: Micros) -> Service {
    let mut service = opening(keep, now);
    let user = Action::Use(Box::new(grant()));
    service.told(now + 1, Event::Said(1, good()), &[user]).due(now + TTL / 3);
    service
}

fn used(keep: bool, now: Micros) -> Service {
    let mut service = taking(keep, now);
    service.told(now + 2, Event::Used, &[]);
    service
}

#[test]
fn a_lease_is_opened_used_and_given_back_when_nothing_uses_it_any_more() {
    let mut service = used(false, 0);
    assert!(service.held().is_some_and(Hold::is_used));
    service.told(SECOND, Event::Stop, &[Action::Leave]);
    assert!(!service.held().is_some_and(Hold::is_used));
    // What it takes to leave may be long: the lease is renewed meanwhile.
    service.told(TTL / 3, Event::Tick, &[send(1, FromHolder::Renew)]);
    service.told(TTL / 2, Event::Gone(Gone::Left), &[send(1, FromHolder::Release)]);
    service.due(TTL / 2 + ANSWER);
    let end = [Action::Close(1), Action::End(Over::Stopped)];
    service.told(TTL / 2 + 1, Event::Said(1, ended("released")), &end).due(Micros::MAX);
    assert!(service.held().is_none());
}

#[test]
fn it_is_given_back_once_and_nothing_is_renewed_after_that() {
    let mut service = used(false, 0);
    service.told(1, Event::Stop, &[Action::Leave]);
    service.told(TTL / 3 - 1, Event::Gone(Gone::Left), &[send(1, FromHolder::Release)]);
    let limit = TTL / 3 - 1 + ANSWER;
    for (now, event) in [
        (TTL / 3, Event::Tick),
        (TTL / 3, Event::Stop),
        (TTL / 3, Event::Gone(Gone::Lost)),
        (TTL / 3, Event::Said(1, good())),
        (limit - 1, Event::Tick),
    ] {
        service.told(now, event, &[]).due(limit);
    }
    // Nor is it waited for any longer.
    service.told(limit, Event::Tick, &[Action::Close(1), Action::End(Over::Stopped)]);
}

#[test]
fn a_link_that_ends_while_it_is_given_back_is_the_end() {
    let mut service = used(false, 0);
    service.told(1, Event::Stop, &[Action::Leave]);
    service.told(2, Event::Gone(Gone::Left), &[send(1, FromHolder::Release)]);
    service.told(3, Event::LinkEnded(1), &[Action::End(Over::Stopped)]);
}

#[test]
fn a_lease_is_renewed_at_a_third_and_soon_again_without_an_answer() {
    let mut service = used(false, 0);
    let renew = [send(1, FromHolder::Renew)];
    service.told(TTL / 3, Event::Tick, &renew).due(TTL / 3 + TTL / 10);
    service.told(TTL / 3 + TTL / 10, Event::Tick, &renew);
    // The first answer is to what was asked first, however late it comes.
    service.told(TTL / 2, Event::Said(1, good()), &[]).due(TTL / 3 + TTL / 3);
    assert_eq!(service.held().unwrap().expires(), TTL / 3 + TTL);
    service.told(TTL / 2, Event::Said(1, good()), &[]);
    assert_eq!(service.held().unwrap().expires(), TTL / 3 + TTL / 10 + TTL);
    // What nobody asked for is no answer.
    service.told(TTL, Event::Said(1, good()), &renew);
    assert_eq!(service.held().unwrap().expires(), TTL / 3 + TTL / 10 + TTL);
}

#[test]
fn the_unit_says_for_how_long_a_lease_is() {
    let mut service = used(false, 0);
    service.told(TTL / 3, Event::Tick, &[send(1, FromHolder::Renew)]);
    service.told(TTL / 3 + 5, Event::Said(1, ToHolder::Good(3000)), &[]).due(TTL / 3 + SECOND);
    assert_eq!(service.held().unwrap().expires(), TTL / 3 + 3 * SECOND);
}

#[test]
fn a_lease_is_over_by_its_holders_clock_counted_from_when_it_asked() {
    let mut service = granted(false, 0);
    service.told(SECOND, Event::Connected(1), &[send(1, open())]);
    let user = Action::Use(Box::new(grant()));
    service.told(3 * SECOND, Event::Said(1, good()), &[user]);
    service.told(4 * SECOND, Event::Used, &[]);
    assert_eq!(service.held().unwrap().expires(), SECOND + TTL);
    let mut now = SECOND + TTL / 3;
    while now < SECOND + TTL {
        service.told(now, Event::Tick, &[send(1, FromHolder::Renew)]);
        now += TTL / 10;
    }
    service.due(SECOND + TTL);
    service.told(SECOND + TTL - 1, Event::Tick, &[]);
    service.told(SECOND + TTL, Event::Tick, &[Action::Close(1), Action::Leave]);
    // There is nothing left to be given back.
    let end = Action::End(lost(&NotHeld::Expired.to_string()));
    service.told(SECOND + TTL + 9, Event::Gone(Gone::Left), &[end]);
}

#[test]
fn a_unit_that_is_not_reached_is_tried_again_until_the_lease_is_over() {
    let mut service = granted(false, 0);
    service.told(10, Event::NotConnected(1), &[]).due(10 + AGAIN);
    service.told(10 + AGAIN, Event::Tick, &[connect(2)]).due(TTL);
    // What comes too late, or is of an earlier attempt, changes nothing.
    service.told(11 + AGAIN, Event::Connected(1), &[Action::Close(1)]);
    service.told(11 + AGAIN, Event::NotConnected(1), &[]);
    service.told(TTL, Event::Tick, &[Action::End(not_held(NotHeld::Expired))]);
    service.told(TTL + 1, Event::Connected(2), &[Action::Close(2)]);
}

#[test]
fn a_unit_that_does_not_answer_in_time_is_asked_over_another_link() {
    let mut service = opening(false, 0);
    service.told(ANSWER - 1, Event::Tick, &[]);
    service.told(ANSWER, Event::Tick, &[Action::Close(1)]).due(ANSWER + AGAIN);
    service.told(ANSWER + 1, Event::Said(1, good()), &[]);
    service.told(ANSWER + AGAIN, Event::Tick, &[connect(2)]);
}

#[test]
fn a_link_that_ends_is_made_again_after_a_pause_and_the_device_is_used_all_the_time() {
    let mut service = used(false, 0);
    service.told(TTL / 2, Event::LinkEnded(1), &[]).due(TTL / 2 + AGAIN);
    let again = TTL / 2 + AGAIN;
    service.told(again, Event::Tick, &[connect(2)]);
    service.told(again, Event::Connected(2), &[send(2, open())]);
    // It is not used a second time, and renewed as before.
    service.told(again + 9, Event::Said(2, good()), &[]).due(again + TTL / 3);
    assert!(service.held().is_some_and(|held| held.is_used() && held.expires() == again + TTL));
    service.told(again + TTL / 3, Event::Tick, &[send(2, FromHolder::Renew)]);
}

#[test]
fn the_unit_says_why_a_lease_is_over_in_each_state() {
    let why = || NotHeld::Ended("revoked".to_owned());
    let said = || Event::Said(1, ended("revoked"));
    let end = |over| [Action::Close(1), Action::End(over)];
    opening(false, 0).told(5, said(), &end(not_held(why())));
    for (mut service, over) in
        [(taking(false, 0), not_held(why())), (used(false, 0), lost("revoked"))]
    {
        service.told(5, said(), &[Action::Close(1), Action::Leave]);
        service.told(6, Event::LinkEnded(1), &[]).due(Micros::MAX);
        // By a signal as well: the first reason counts.
        service.told(6, Event::Stop, &[]);
        service.told(7, Event::Gone(Gone::Left), &[Action::End(over)]);
    }
    let mut service = used(false, 0);
    service.told(5, Event::Stop, &[Action::Leave]);
    service.told(6, said(), &[Action::Close(1)]);
    service.told(7, Event::Gone(Gone::Left), &[Action::End(Over::Stopped)]);
}

#[test]
fn a_unit_that_answers_nonsense_has_no_lease_for_us() {
    let nonsense = || Event::Said(1, ToHolder::Go(Carried::Serial));
    let over = not_held(NotHeld::Nonsense);
    opening(false, 0).told(5, nonsense(), &[Action::Close(1), Action::End(over)]);
    let mut service = used(false, 0);
    service.told(5, nonsense(), &[Action::Close(1), Action::Leave]);
    let end = Action::End(lost(&NotHeld::Nonsense.to_string()));
    service.told(6, Event::Gone(Gone::Left), &[end]);
}

#[test]
fn when_the_data_are_lost_the_unit_may_say_why() {
    let gone = || Event::Gone(Gone::Lost);
    let mut service = used(false, 0);
    service.told(10, gone(), &[]).due(10 + WHY);
    let end = [Action::Close(1), Action::End(lost("the device was unplugged"))];
    service.told(20, Event::Said(1, ended("the device was unplugged")), &end);
    // It does not: then it has the lease still.
    let mut service = used(false, 0);
    service.told(10, gone(), &[]);
    service.told(10 + WHY, Event::Tick, &[send(1, FromHolder::Release)]);
    let end = [Action::Close(1), Action::End(lost("its data connection was lost"))];
    service.told(11 + WHY, Event::Said(1, ended("released")), &end);
    // Or a signal comes first.
    let mut service = used(false, 0);
    service.told(10, gone(), &[]);
    service.told(20, Event::Stop, &[send(1, FromHolder::Release)]);
    service.told(21, Event::LinkEnded(1), &[Action::End(Over::Stopped)]);
}

#[test]
fn a_device_that_is_not_carried_is_given_back_with_the_reason() {
    let why = || NotHeld::Ended("sda1 is in use at its unit".to_owned());
    let release = || [send(1, FromHolder::Release)];
    let end = |over| [Action::Close(1), Action::End(over)];
    let released = || Event::Said(1, ended("released"));
    for (gone, over) in [
        (Gone::NotCarried(why()), not_held(why())),
        (Gone::Failed("no helper".to_owned()), lost("no helper")),
    ] {
        let mut service = taking(false, 0);
        service.told(10, Event::Gone(gone), &release()).told(11, released(), &end(over));
    }
    // Its end without a word is told over the lease's own link, for which there is more time.
    let mut service = taking(false, 0);
    service.told(10, Event::Gone(Gone::Silent), &[]).due(10 + ANSWER);
    let silent = service.clone();
    service.told(11, Event::Said(1, ended("sda1 is in use at its unit")), &end(not_held(why())));
    let over = not_held(NotHeld::Ended("the unit does not answer".to_owned()));
    silent.clone().told(10 + ANSWER, Event::Tick, &release()).told(
        11 + ANSWER,
        released(),
        &end(over),
    );
}

#[test]
fn a_lease_is_given_back_also_when_stopped_before_the_unit_was_reached() {
    let both = [send(1, open()), send(1, FromHolder::Release)];
    let end = [Action::Close(1), Action::End(Over::Stopped)];
    let mut service = granted(false, 0);
    service.told(5, Event::Stop, &[]).due(5 + ANSWER);
    service.told(6, Event::Connected(1), &both).told(7, Event::Said(1, good()), &[]);
    service.told(8, Event::Said(1, ended("released")), &end);
    // While it was asked.
    let mut service = opening(false, 0);
    service.told(5, Event::Stop, &both[1..]).told(6, Event::Said(1, good()), &[]);
    service.told(7, Event::Said(1, ended("released")), &end);
    // In the pause, after which one attempt is enough.
    let mut service = granted(false, 0);
    service.told(4, Event::NotConnected(1), &[]).told(5, Event::Stop, &[connect(2)]);
    service.told(6, Event::NotConnected(2), &[Action::End(Over::Stopped)]);
    // It does not come about at all.
    let mut service = granted(false, 0);
    service.told(5, Event::Stop, &[]);
    service.told(5 + ANSWER, Event::Tick, &[Action::End(Over::Stopped)]);
}

#[test]
fn who_is_stopped_has_nothing_to_give_back_while_looking_or_pausing() {
    for keep in [false, true] {
        let mut service = looking(keep);
        service.told(5, Event::Stop, &[Action::End(Over::Stopped)]).due(Micros::MAX);
        // It was granted meanwhile: who does not come for it in time loses it.
        service.told(6, Event::Granted(Box::new(grant())), &[]);
    }
    let mut service = looking(true);
    let _ = service.handle(5, refused(true));
    service.told(6, Event::Stop, &[Action::End(Over::Stopped)]).due(Micros::MAX);
}

fn refused(later: bool) -> Event {
    Event::NotLeased { why: "it is refused".to_owned(), later }
}

#[test]
fn places_in_the_queue_are_told_while_it_looks() {
    let device = grant().device.id;
    let mut service = looking(false);
    for place in [2, 1] {
        let note = Action::Note(Note::Waits(device, place));
        service.told(5, Event::Waits(device, place), &[note]).due(Micros::MAX);
    }
    service.told(6, Event::Granted(Box::new(grant())), &[connect(1)]);
    service.told(7, Event::Waits(device, 1), &[]);
}

#[test]
fn a_lease_that_is_refused_is_asked_for_again_if_it_is_to_be_kept_and_may_come() {
    let over = |later| Over::NotLeased { why: "it is refused".to_owned(), later };
    for (keep, later) in [(false, false), (false, true), (true, false)] {
        looking(keep).told(5, refused(later), &[Action::End(over(later))]);
    }
    let mut service = looking(true);
    let note = Action::Note(Note::NotHeld("it is refused".to_owned(), PAUSE.0));
    service.told(5, refused(true), &[note]).due(5 + PAUSE.0);
    service.told(5 + PAUSE.0, Event::Tick, &[Action::Look]);
}

/// The pause after each of so many attempts that fail at once.
fn pauses(service: &mut Service, now: &mut Micros, count: usize) -> Vec<Micros> {
    let attempt = |_| {
        let _ = service.handle(*now, refused(true));
        let pause = service.next() - *now;
        *now += pause;
        service.told(*now, Event::Tick, &[Action::Look]);
        pause / 1000
    };
    (0..count).map(attempt).collect()
}

#[test]
fn pauses_double_up_to_a_limit_and_begin_anew_when_it_was_steady() {
    let (mut service, mut now) = (looking(true), 0);
    let all = [300, 600, 1200, 2400, 4800, 9600, 10_000, 10_000];
    assert_eq!(pauses(&mut service, &mut now, 8), all);
    // So it is after a short time with it.
    let held = |service: &mut Service, now: &mut Micros, time: Micros| {
        let conn = service.conns + 1;
        let _ = service.handle(*now, Event::Granted(Box::new(grant())));
        let _ = service.handle(*now, Event::Connected(conn));
        let _ = service.handle(*now, Event::Said(conn, good()));
        let _ = service.handle(*now, Event::Used);
        *now += time;
        service.told(
            *now,
            Event::Said(conn, ended("revoked")),
            &[Action::Close(conn), Action::Leave],
        );
        let actions = service.handle(*now, Event::Gone(Gone::Left));
        let pause = service.next() - *now;
        assert_eq!(actions, [Action::Note(Note::NotHeld("revoked".to_owned(), pause))]);
        *now += pause;
        service.told(*now, Event::Tick, &[Action::Look]);
        pause
    };
    assert_eq!(held(&mut service, &mut now, STEADY), PAUSE.1);
    assert_eq!(held(&mut service, &mut now, STEADY + 1), PAUSE.0);
    assert_eq!(pauses(&mut service, &mut now, 2), all[1..3]);
}

#[test]
fn who_keeps_it_and_is_stopped_while_it_is_lost_does_not_come_back() {
    let mut service = used(true, 0);
    service.told(5, Event::Said(1, ended("revoked")), &[Action::Close(1), Action::Leave]);
    service.told(6, Event::Stop, &[]);
    service.told(7, Event::Gone(Gone::Left), &[Action::End(Over::Stopped)]);
}

#[test]
fn connections_of_the_lease_before_mean_nothing() {
    let mut service = used(true, 0);
    service.told(5, Event::LinkEnded(1), &[]);
    service.told(6, Event::Gone(Gone::Failed("no helper".to_owned())), &[connect(2)]);
    let note = Note::NotHeld("no helper".to_owned(), PAUSE.0);
    service.told(7, Event::NotConnected(2), &[Action::Note(note)]);
    service.told(7 + PAUSE.0, Event::Tick, &[Action::Look]);
    let now = 8 + PAUSE.0;
    service.told(now, Event::Granted(Box::new(grant())), &[connect(3)]);
    service.told(now, Event::Connected(2), &[Action::Close(2)]);
    for event in [Event::Said(2, ended("revoked")), Event::LinkEnded(1), Event::NotConnected(2)] {
        service.told(now, event, &[]).due(now + TTL);
    }
}
