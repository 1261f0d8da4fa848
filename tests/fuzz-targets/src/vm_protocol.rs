// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VM serial protocol as a byte stream, its messages built from parts, and the records that
//! messages carry.
//!
//! The first byte of the input chooses: [`BUILT`], [`IPMB`], [`SDR`], [`SEL`], [`FRU`], and
//! everything else a stream, with the size of its pieces in the second byte.

use ipmi::vm::{
    Decoder, END_OF_CONTROL, END_OF_MESSAGE, ESCAPE, Frame, FrameError, MAX_FRAME_LEN, VmRequest,
    VmResponse,
};
use ipmi::{CompletionCode, Lun, MAX_MESSAGE_LEN, NetFn, Request, Response};

use crate::Reached;
use crate::input::Input;
use crate::records;

const BUILT: u8 = 1;
const IPMB: u8 = 2;
const SDR: u8 = 3;
const SEL: u8 = 4;
const FRU: u8 = 5;

/// Decodes a stream or a record of any content.
///
/// # Panics
/// Where the frames are not those that the definition of the protocol tells, depend on the pieces in
/// which the stream comes, or are kept beyond their bound; where something that could be read reads
/// otherwise after it was written.
pub fn vm_protocol(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut input = Input::new(data);
    match input.u8() {
        BUILT => built(&mut input, &mut reached),
        IPMB => records::ipmb(input.rest(), &mut reached),
        SDR => records::sdr(input.rest(), &mut reached),
        SEL => records::sel(input.rest(), &mut reached),
        FRU => records::fru(input.rest(), &mut reached),
        _ => {
            let piece = 1 + usize::from(input.u8() & 0x3f);
            stream(input.rest(), piece, &mut reached);
        }
    }
    reached
}

type Frames = Vec<Result<Frame, FrameError>>;

fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Frames {
    let mut decoder = Decoder::new();
    let mut found = vec![];
    let mut taken = 0;
    for mut piece in pieces {
        taken += piece.len();
        while let Some(frame) = decoder.next_frame(&mut piece) {
            found.push(frame);
        }
        assert!(piece.is_empty(), "without a frame the piece is used up");
    }
    if taken > MAX_FRAME_LEN {
        // Each byte that is kept shows as at most five characters.
        let kept = format!("{decoder:?}").len();
        assert!(kept < 5 * MAX_FRAME_LEN + 100, "{kept} characters show what the decoder keeps");
    }
    found
}

fn stream(bytes: &[u8], piece: usize, reached: &mut Reached) {
    let whole = frames([bytes]);
    assert_eq!(whole, frames(bytes.chunks(piece)), "in pieces of {piece}");

    let is_end = |byte: &u8| matches!(*byte, END_OF_MESSAGE | END_OF_CONTROL);
    let mut between: Vec<&[u8]> = bytes.split_inclusive(is_end).collect();
    // What has no end yet is no frame yet.
    between.pop_if(|last| !last.last().is_some_and(is_end));
    assert_eq!(whole.len(), between.len(), "a frame for every end byte");
    for (found, wire) in whole.iter().zip(between) {
        reached.insert(frame_name(found));
        check_frame(found, wire, reached);
    }
}

fn frame_name(frame: &Result<Frame, FrameError>) -> &'static str {
    match frame {
        Ok(Frame::Message(_)) => "message",
        Ok(Frame::Control(_)) => "control",
        Err(FrameError::TooShort { .. }) => "too short",
        Err(FrameError::TooLong) => "too long",
        Err(FrameError::Checksum { .. }) => "checksum",
        Err(FrameError::EndsInEscape) => "ends in escape",
    }
}

/// Compares a frame with the bytes it came from, end included.
fn check_frame(found: &Result<Frame, FrameError>, wire: &[u8], reached: &mut Reached) {
    let (end, escaped) = wire.split_last().expect("pieces end with an end byte");
    let (body, in_escape) = unescaped(escaped);
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let len = body.len();
    let too_long = len > MAX_FRAME_LEN;
    assert_eq!(*found == Err(FrameError::TooLong), too_long, "{len} bytes");
    assert_eq!(*found == Err(FrameError::EndsInEscape), in_escape && !too_long);
    match found {
        Err(FrameError::TooLong | FrameError::EndsInEscape) => {}
        Err(FrameError::TooShort { len: said }) => {
            assert!(*said == len && len < if *end == END_OF_CONTROL { 2 } else { 4 });
        }
        Err(FrameError::Checksum { len: said }) => assert!(*said == len && sum != 0),
        Ok(frame) => {
            match frame {
                Frame::Message(message) => {
                    assert!(*end == END_OF_MESSAGE && sum == 0 && len >= 4);
                    assert_eq!(message[..], body[..len - 1]);
                    check_message(message, reached);
                }
                Frame::Control(control) => {
                    assert_eq!(*end, END_OF_CONTROL);
                    let again = control.encode();
                    assert_eq!(frames([&again[..]]), [Ok(Frame::Control(*control))]);
                    // What comes after the number and its argument is dropped.
                    assert!(body.starts_with(&unescaped(&again[..again.len() - 1]).0));
                }
            }
        }
    }
}

/// The bytes that were meant, and whether another one is due.
fn unescaped(wire: &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = vec![];
    let mut in_escape = false;
    for byte in wire {
        if *byte != ESCAPE {
            bytes.push(if in_escape { byte & 0xef } else { *byte });
        }
        in_escape = *byte == ESCAPE;
    }
    (bytes, in_escape)
}

/// A message is a request or a response; each is written again as it was read.
fn check_message(body: &[u8], reached: &mut Reached) {
    let same = |wire: Vec<u8>| assert_eq!(frames([&wire[..]]), [Ok(Frame::Message(body.to_vec()))]);
    let (request, response) = (VmRequest::parse(body), VmResponse::parse(body));
    assert!(request.is_err() || response.is_err(), "no message is both");
    match (request, response) {
        (Ok(request), _) => {
            reached.insert("request");
            let _ = request.request.command().name();
            same(request.encode().expect("what was read can be written"));
        }
        (_, Ok(response)) => {
            reached.insert("response");
            let _ = (response.response.command().name(), response.response.ccode.to_string());
            same(response.encode().expect("what was read can be written"));
        }
        (Err(error), Err(_)) => {
            reached.insert("refused");
            let no_room = body.len() < 1 + Response::HEADER_LEN;
            let too_long = body.len() > 1 + Request::HEADER_LEN + MAX_MESSAGE_LEN;
            assert!(no_room || too_long, "{error}");
        }
    }
}

/// Sequence, network function with LUN, command, completion code, data.
fn built(input: &mut Input<'_>, reached: &mut Reached) {
    let seq = input.u8();
    let (netfn, lun): (NetFn, Lun) = NetFn::split_lun(input.u8());
    let (cmd, ccode) = (input.u8(), CompletionCode(input.u8()));
    let data = input.rest().to_vec();
    let fits = data.len() <= MAX_MESSAGE_LEN;
    reached.insert(if fits { "built" } else { "too large to build" });

    let request = Request { netfn: netfn.request(), lun, cmd, data: data.clone() };
    let request = VmRequest { seq, request };
    let response = Response { netfn: netfn.response(), lun, cmd, ccode, data };
    let response = VmResponse { seq, response };
    let (Ok(wire), Ok(answer)) = (request.encode(), response.encode()) else {
        assert!(!fits);
        return;
    };
    assert!(fits);
    let stream = [wire, answer].concat();
    let [Ok(Frame::Message(first)), Ok(Frame::Message(second))] = &frames([&stream[..]])[..] else {
        panic!("two messages were sent")
    };
    assert_eq!(VmRequest::parse(first), Ok(request));
    assert_eq!(VmResponse::parse(second), Ok(response));
}
