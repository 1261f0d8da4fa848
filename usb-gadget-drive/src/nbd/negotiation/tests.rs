// SPDX-License-Identifier: MIT OR Apache-2.0
use super::super::flags;
use super::super::option::{MetaQueries, OptionReply, decode_context, decode_listed, push_option};
use super::*;

struct OneDrive;

impl Offer for OneDrive {
    type Export = &'static str;

    fn names(&self) -> Vec<(String, String)> {
        vec![("drive".to_owned(), "a drive".to_owned())]
    }

    fn open(&self, name: &str) -> Result<Offered<&'static str>, Refusal> {
        let Offered { size, flags, description, preferred_block, .. } = self.describe(name)?;
        Ok(Offered { export: "drive", size, flags, description, preferred_block })
    }

    fn describe(&self, name: &str) -> Result<Offered<()>, Refusal> {
        match name {
            "drive" => Ok(Offered {
                export: (),
                size: 1 << 30,
                flags: flags::SEND_FLUSH,
                description: "a drive".to_owned(),
                preferred_block: 4096,
            }),
            "taken" => Err(Refusal::Policy("taken by another".to_owned())),
            _ => Err(Refusal::Unknown),
        }
    }
}

/// A client whose flags have been taken.
fn negotiation(tls: Tls) -> Negotiation {
    let mut negotiation = Negotiation::new(tls);
    let (used, next) = negotiation.handle(&[0, 0, 0, 3], &OneDrive, &mut vec![]);
    assert!(used == 4 && matches!(next, Next::Read(16)));
    negotiation
}

type Replies = Vec<(u32, Vec<u8>)>;

/// Sends one option, and reads the replies to it.
fn ask(negotiation: &mut Negotiation, option: u32, body: &[u8]) -> (Replies, Next<&'static str>) {
    let mut input = vec![];
    push_option(&mut input, option, body);
    let mut out = vec![];
    let (used, next) = negotiation.handle(&input, &OneDrive, &mut out);
    assert!(used == input.len() || matches!(next, Next::Fail(_)));
    let mut rest = &out[..];
    let mut replies = vec![];
    while let Some((header, body)) = rest.split_first_chunk() {
        let header = OptionReply::decode(header).unwrap();
        assert_eq!(header.option, option);
        let (body, behind) = body.split_at(header.len as usize);
        replies.push((header.kind, body.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    (replies, next)
}

fn kinds(asked: (Replies, Next<&'static str>)) -> Vec<u32> {
    assert!(matches!(asked.1, Next::Read(16)), "it goes on");
    asked.0.into_iter().map(|(kind, _)| kind).collect()
}

fn go(name: &str, infos: &[u16]) -> Vec<u8> {
    InfoRequest { name, infos: infos.to_vec() }.encode()
}

fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
    MetaQueries { name, queries: queries.to_vec() }.encode()
}

#[test]
fn go_tells_what_was_asked_and_serves() {
    let mut n = negotiation(Tls::Off);
    let (replies, next) = ask(&mut n, opt::GO, &go("drive", &[info::BLOCK_SIZE, 99]));
    let infos: Vec<_> = replies[..2].iter().map(|(_, body)| Info::decode(body).unwrap()).collect();
    let flags = flags::HAS_FLAGS | flags::SEND_FLUSH;
    let size = Info::BlockSize { min: 1, preferred: 4096, max: MAX_SERVED };
    assert_eq!(infos, [Info::Export { size: 1 << 30, flags }, size]);
    assert_eq!(replies[2], (rep::ACK, vec![]));
    let Next::Serve(agreed) = next else { panic!("{next:?}") };
    assert_eq!((agreed.export, agreed.flags), ("drive", flags));
    assert!(!agreed.structured && !agreed.base_allocation);
}

#[test]
fn export_name_is_answered_without_a_header() {
    for (client, len) in [(1, 134), (3, 10)] {
        let mut n = Negotiation::new(Tls::Off);
        let _ = n.handle(&[0, 0, 0, client], &OneDrive, &mut vec![]);
        let (mut input, mut out) = (vec![], vec![]);
        push_option(&mut input, opt::EXPORT_NAME, b"drive");
        let (_, next) = n.handle(&input, &OneDrive, &mut out);
        assert!(matches!(next, Next::Serve(_)));
        assert_eq!((out.len(), &out[..8]), (len, &(1_u64 << 30).to_be_bytes()[..]));
    }
    let (replies, next) = ask(&mut negotiation(Tls::Off), opt::EXPORT_NAME, b"none");
    assert!(replies.is_empty() && matches!(next, Next::Fail(Violation::NoSuchExport(_))));
}

#[test]
fn refusals_say_why_and_the_client_may_go_on() {
    let mut n = negotiation(Tls::Off);
    assert_eq!(kinds(ask(&mut n, 4711, b"x")), [rep::ERR_UNSUP]);
    assert_eq!(kinds(ask(&mut n, opt::STARTTLS, b"")), [rep::ERR_UNSUP]);
    assert_eq!(kinds(ask(&mut n, opt::GO, &go("none", &[]))), [rep::ERR_UNKNOWN]);
    assert_eq!(kinds(ask(&mut n, opt::GO, &go("taken", &[]))), [rep::ERR_POLICY]);
    assert_eq!(kinds(ask(&mut n, opt::GO, b"")), [rep::ERR_INVALID]);
    assert_eq!(kinds(ask(&mut n, opt::LIST, b"x")), [rep::ERR_INVALID]);
    assert_eq!(kinds(ask(&mut n, opt::STRUCTURED_REPLY, b"x")), [rep::ERR_INVALID]);
    assert_eq!(kinds(ask(&mut n, opt::INFO, &go("drive", &[]))), [rep::INFO, rep::ACK]);
    let (replies, next) = ask(&mut n, opt::ABORT, b"");
    assert!(replies == [(rep::ACK, vec![])] && matches!(next, Next::Done));
}

#[test]
fn the_list_has_names_and_descriptions() {
    let (replies, _) = ask(&mut negotiation(Tls::Off), opt::LIST, b"");
    assert_eq!(decode_listed(&replies[0].1), Some(("drive", "a drive")));
    assert_eq!(replies[1].0, rep::ACK);
}

#[test]
fn a_context_is_had_for_the_export_it_was_chosen_for() {
    let mut n = negotiation(Tls::Off);
    let set = queries("drive", &["x:y", BASE_ALLOCATION]);
    assert_eq!(kinds(ask(&mut n, opt::SET_META_CONTEXT, &set)), [rep::ERR_INVALID], "too early");
    assert_eq!(kinds(ask(&mut n, opt::STRUCTURED_REPLY, b"")), [rep::ACK]);
    for listed in [&[][..], &["base:"], &[BASE_ALLOCATION]] {
        let (replies, _) = ask(&mut n, opt::LIST_META_CONTEXT, &queries("drive", listed));
        assert_eq!(decode_context(&replies[0].1), Some((0, BASE_ALLOCATION)));
    }
    // A namespace can be listed, not chosen.
    assert_eq!(
        kinds(ask(&mut n, opt::SET_META_CONTEXT, &queries("drive", &["base:"]))),
        [rep::ACK]
    );
    assert_eq!(kinds(ask(&mut n, opt::SET_META_CONTEXT, &set)), [rep::META_CONTEXT, rep::ACK]);
    let Next::Serve(agreed) = ask(&mut n, opt::GO, &go("drive", &[])).1 else { panic!() };
    assert!(agreed.structured && agreed.base_allocation);
    assert_ne!(agreed.flags & flags::SEND_DF, 0);

    // A failed choice makes the former one void.
    assert_eq!(kinds(ask(&mut n, opt::SET_META_CONTEXT, b"")), [rep::ERR_INVALID]);
    let Next::Serve(agreed) = ask(&mut n, opt::GO, &go("drive", &[])).1 else { panic!() };
    assert!(!agreed.base_allocation);
}

#[test]
fn nothing_but_tls_is_answered_where_tls_is_required() {
    let mut n = negotiation(Tls::Required);
    for option in [opt::LIST, opt::GO, opt::STRUCTURED_REPLY, opt::SET_META_CONTEXT, 4711] {
        assert_eq!(kinds(ask(&mut n, option, b"")), [rep::ERR_TLS_REQD]);
    }
    let (_, next) = ask(&mut n, opt::EXPORT_NAME, b"drive");
    assert!(matches!(next, Next::Fail(_)));
    let (replies, next) = ask(&mut n, opt::STARTTLS, b"");
    assert!(replies == [(rep::ACK, vec![])] && matches!(next, Next::StartTls));
    n.handle_tls();
    assert_eq!(kinds(ask(&mut n, opt::STARTTLS, b"")), [rep::ERR_INVALID]);
    assert!(matches!(ask(&mut n, opt::GO, &go("drive", &[])).1, Next::Serve(_)));
}

#[test]
fn what_was_agreed_on_in_clear_is_forgotten() {
    let mut n = negotiation(Tls::Offered);
    assert_eq!(kinds(ask(&mut n, opt::STRUCTURED_REPLY, b"")), [rep::ACK]);
    let set = queries("drive", &[BASE_ALLOCATION]);
    assert_eq!(kinds(ask(&mut n, opt::SET_META_CONTEXT, &set)), [rep::META_CONTEXT, rep::ACK]);
    assert!(matches!(ask(&mut n, opt::STARTTLS, b"").1, Next::StartTls));
    n.handle_tls();
    let Next::Serve(agreed) = ask(&mut n, opt::GO, &go("drive", &[])).1 else { panic!() };
    assert!(!agreed.structured && !agreed.base_allocation);
}

#[test]
fn plain_text_behind_starttls_ends_it() {
    let mut n = negotiation(Tls::Offered);
    let mut input = vec![];
    push_option(&mut input, opt::STARTTLS, b"");
    push_option(&mut input, opt::LIST, b"");
    let (_, next) = n.handle(&input, &OneDrive, &mut vec![]);
    assert!(matches!(next, Next::Fail(Violation::Injected)));
}

#[test]
fn a_long_option_is_passed_over_and_a_huge_one_ends_it() {
    let mut n = negotiation(Tls::Off);
    let mut input = vec![];
    push_option(&mut input, opt::GO, &vec![0; MAX_OPTION as usize + 1]);
    push_option(&mut input, opt::LIST, b"");
    let mut out = vec![];
    // In pieces, as they come.
    let mut at = 0;
    while out.is_empty() {
        let piece = &input[at..(at + 5000).min(input.len())];
        let (used, next) = n.handle(piece, &OneDrive, &mut out);
        assert!(matches!(next, Next::Read(_)));
        at += used;
    }
    let header = OptionReply::decode(out.first_chunk().unwrap()).unwrap();
    assert_eq!(header.kind, rep::ERR_TOO_BIG);
    assert_eq!(input.len() - at, 16, "the next option is where it should be");

    let huge = [&super::super::option::OPTION_MAGIC.to_be_bytes()[..], &[0, 0, 0, 7], &[0xff; 4]];
    let (_, next) = n.handle(&huge.concat(), &OneDrive, &mut out);
    assert!(matches!(next, Next::Fail(Violation::TooLong(u32::MAX))));
}

#[test]
fn violations_end_it() {
    let (_, next) = Negotiation::new(Tls::Off).handle(&[0, 0, 0, 4], &OneDrive, &mut vec![]);
    assert!(matches!(next, Next::Fail(Violation::Flags(4))));
    let (_, next) = negotiation(Tls::Off).handle(&[0; 16], &OneDrive, &mut vec![]);
    assert!(matches!(next, Next::Fail(Violation::Magic(_))));
    let mut n = negotiation(Tls::Off);
    let mut options = 0;
    while matches!(ask(&mut n, opt::LIST, b"x").1, Next::Read(_)) {
        options += 1;
        if options > MAX_OPTIONS {
            panic!("options never end");
        }
    }
    assert_eq!(options, MAX_OPTIONS);
}
