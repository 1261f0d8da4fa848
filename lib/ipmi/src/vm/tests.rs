// SPDX-License-Identifier: MIT OR Apache-2.0
use proptest::prelude::*;

use super::*;
use crate::message::{CompletionCode, Lun, NetFn};

fn frames(bytes: &[u8]) -> Vec<Result<Frame, FrameError>> {
    let mut decoder = Decoder::new();
    let mut input = bytes;
    std::iter::from_fn(|| decoder.next_frame(&mut input)).collect()
}

/// Version 1 of the protocol, by the definitions in `README.vm`.
#[test]
fn golden_request() {
    let request = VmRequest { seq: 0x01, request: Request::new(NetFn::APP, 0x01, []) };
    let wire = [
        0x01, // sequence
        0x18, // App << 2 | LUN 0
        0x01, // Get Device ID
        0xe6, // checksum: 0x01 + 0x18 + 0x01 + 0xe6 = 0x100
        0xa0, // end of message
    ];
    assert_eq!(request.encode().unwrap(), wire);
    let [Ok(Frame::Message(body))] = &frames(&wire)[..] else { panic!() };
    assert_eq!(VmRequest::parse(body), Ok(request));
}

#[test]
fn golden_response_with_escapes() {
    let response = VmResponse {
        seq: 0xa0,
        response: Response {
            netfn: NetFn::STORAGE.response(),
            lun: Lun::BMC,
            cmd: 0x43,
            ccode: CompletionCode::OK,
            data: vec![0xaa, 0xa1, 0xb0],
        },
    };
    let wire = [
        0xaa, 0xb0, // sequence 0xa0, escaped
        0x2c, // Storage response << 2 | LUN 0
        0x43, // Get SEL Entry
        0x00, // completed normally
        0xaa, 0xba, // 0xaa, escaped
        0xaa, 0xb1, // 0xa1, escaped
        0xb0, // 0xb0 needs none
        0xf6, // checksum
        0xa0, // end of message
    ];
    assert_eq!(response.encode().unwrap(), wire);
    let [Ok(Frame::Message(body))] = &frames(&wire)[..] else { panic!() };
    assert_eq!(VmResponse::parse(body), Ok(response));
}

/// What QEMU sends on a connection, and every number in the table.
#[test]
fn golden_controls() {
    let greeting = [
        0xff, 0x01, 0xa1, // version 1
        0x08, 0x1f, 0xa1, // capabilities: power, reset, interrupt, NMI, attention
    ];
    assert_eq!(
        frames(&greeting),
        [
            Ok(Frame::Control(Control::Version(1))),
            Ok(Frame::Control(Control::Capabilities(Capabilities(0x1f)))),
        ]
    );
    assert_eq!(Control::Version(PROTOCOL_VERSION).encode(), [0xff, 0x01, 0xa1]);
    for (control, number) in [
        (Control::ClearAttention, 0x00),
        (Control::Attention, 0x01),
        (Control::AttentionInterrupt, 0x02),
        (Control::PowerOff, 0x03),
        (Control::Reset, 0x04),
        (Control::EnableInterrupt, 0x05),
        (Control::DisableInterrupt, 0x06),
        (Control::SendNmi, 0x07),
        (Control::GracefulShutdown, 0x09),
        (Control::Unknown(0x55), 0x55),
    ] {
        assert_eq!(control.encode(), [number, 0xa1]);
        assert_eq!(frames(&[number, 0xa1]), [Ok(Frame::Control(control))]);
    }
}

#[test]
fn bad_frames_are_named_and_the_next_one_is_found() {
    let good = VmRequest { seq: 7, request: Request::new(NetFn::APP, 0x01, []) };
    let good = good.encode().unwrap();
    let long = [0x55; MAX_FRAME_LEN + 1];
    let cases: [(&[u8], FrameError); 8] = [
        (&[0xa0], FrameError::TooShort { len: 0 }),
        (&[0x01, 0x18, 0xe7, 0xa0], FrameError::TooShort { len: 3 }),
        (&[0x01, 0x18, 0x01, 0xe7, 0xa0], FrameError::Checksum { len: 4 }),
        (&[0x01, 0x18, 0x01, 0xe6, 0xaa, 0xa0], FrameError::EndsInEscape),
        (&[0xaa, 0xa1], FrameError::EndsInEscape),
        (&[0xa1], FrameError::TooShort { len: 0 }),
        (&[0xff, 0xa1], FrameError::TooShort { len: 1 }),
        (&[&long[..], &[0xa0]].concat(), FrameError::TooLong),
    ];
    for (bytes, error) in cases {
        let found = frames(&[bytes, &good].concat());
        assert_eq!(found.len(), 2, "{error}");
        assert_eq!(found[0], Err(error));
        assert!(matches!(found[1], Ok(Frame::Message(_))), "after {error}");
    }
}

#[test]
fn endless_garbage_stays_within_the_bound() {
    let mut decoder = Decoder::new();
    for _ in 0..1000 {
        let mut input = &[0x55; 1000][..];
        assert_eq!(decoder.next_frame(&mut input), None);
    }
    assert!(decoder.body.capacity() <= 2 * MAX_FRAME_LEN);
}

#[test]
fn longest_messages_pass_and_longer_ones_are_refused() {
    let request = Request::new(NetFn::OEM, 0x01, vec![0xaa; MAX_MESSAGE_LEN]);
    let response = request.respond(CompletionCode::OK, vec![0xa0; MAX_MESSAGE_LEN]);
    let wire = VmResponse { seq: 0xa1, response }.encode().unwrap();
    assert!(matches!(frames(&wire)[..], [Ok(Frame::Message(_))]));
    let request = Request::new(NetFn::OEM, 0x01, vec![0; MAX_MESSAGE_LEN + 1]);
    let refused = VmRequest { seq: 0, request }.encode();
    assert_eq!(refused, Err(MessageError::TooLong { len: MAX_MESSAGE_LEN + 1 }));
}

fn any_request() -> impl Strategy<Value = VmRequest> {
    let data = proptest::collection::vec(any::<u8>(), 0..=MAX_MESSAGE_LEN);
    (any::<u8>(), 0u8..32, 0u8..4, any::<u8>(), data).prop_map(|(seq, netfn, lun, cmd, data)| {
        let netfn = NetFn::new(netfn * 2).unwrap();
        let lun = Lun::new(lun).unwrap();
        VmRequest { seq, request: Request { netfn, lun, cmd, data } }
    })
}

proptest! {
    /// Whatever the pieces in which the stream arrives, the same messages come out.
    #[test]
    fn round_trip_in_pieces(
        requests in proptest::collection::vec(any_request(), 1..4),
        piece in 1usize..40,
    ) {
        let wire: Vec<u8> = requests.iter().flat_map(|r| r.encode().unwrap()).collect();
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for mut input in wire.chunks(piece) {
            while let Some(frame) = decoder.next_frame(&mut input) {
                let Ok(Frame::Message(body)) = frame else { panic!("{frame:?}") };
                found.push(VmRequest::parse(&body).unwrap());
            }
        }
        prop_assert_eq!(found, requests);
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for frame in frames(&bytes).into_iter().flatten() {
            match frame {
                Frame::Message(body) => {
                    let _ = VmRequest::parse(&body);
                    let _ = VmResponse::parse(&body);
                }
                Frame::Control(control) => {
                    prop_assert_eq!(frames(&control.encode()), [Ok(Frame::Control(control))]);
                }
            }
        }
    }
}
