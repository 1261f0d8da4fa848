// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

#[test]
fn netfn_and_lun_share_a_byte() {
    let lun = Lun::new(2).unwrap();
    assert_eq!(NetFn::STORAGE.with_lun(lun), 0x2a);
    assert_eq!(NetFn::split_lun(0x2a), (NetFn::STORAGE, lun));
    assert_eq!(NetFn::new(0x40), None);
    assert_eq!(Lun::new(4), None);
}

#[test]
fn response_belongs_to_its_request() {
    let request = Request::new(NetFn::APP, 0x01, []);
    let response = request.respond(CompletionCode::OK, [0x20]);
    assert_eq!(response.encode(), [0x1c, 0x01, 0x00, 0x20]);
    assert_eq!(response.command(), request.command());
    assert_eq!(Response::decode(&response.encode()), Ok(response));
}

#[test]
fn wrong_direction_and_length_are_refused() {
    assert_eq!(Request::decode(&[0x1c, 0x01]), Err(MessageError::Direction(NetFn::APP.response())));
    assert_eq!(Response::decode(&[0x18, 0x01, 0x00]), Err(MessageError::Direction(NetFn::APP)));
    assert_eq!(Request::decode(&[0x18]), Err(MessageError::TooShort { len: 1, min: 2 }));
    assert_eq!(Response::decode(&[0x1c, 1]), Err(MessageError::TooShort { len: 2, min: 3 }));
    let mut long = vec![0x18, 0x01];
    long.resize(2 + MAX_MESSAGE_LEN, 0);
    assert!(Request::decode(&long).is_ok());
    long.push(0);
    assert_eq!(Request::decode(&long), Err(MessageError::TooLong { len: 273 }));
}

#[test]
fn completion_code_says_what_it_means() {
    assert_eq!(
        CompletionCode::RESERVATION_CANCELLED.to_string(),
        "reservation cancelled or invalid (0xc5)"
    );
    assert_eq!(CompletionCode(0x81).text(), "command specific code");
}

#[test]
fn commands_have_names() {
    let command = Command::new(NetFn::APP.response(), 0x01);
    assert_eq!(command.name(), Some("Get Device ID"));
    assert_eq!(command.to_string(), "06/01");
    assert_eq!(Command::new(NetFn::OEM, 0x01).name(), None);
}
