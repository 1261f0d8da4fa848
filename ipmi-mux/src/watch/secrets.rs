// SPDX-License-Identifier: MIT OR Apache-2.0
//! Secrets in messages: where IPMI 2.0 puts passwords, keys, authentication codes and community strings.
//! Those of vendors' own commands cannot be known.

use ipmi::message::checksum;

/// Replaces secrets by zeros; returns whether there was one. `netfn` is the request's, or odd where
/// `request` is itself an answer. `answer` starts with the completion code.
pub fn blank(netfn: u8, cmd: u8, request: &mut [u8], answer: &mut [u8]) -> bool {
    if netfn & 1 != 0 {
        return blank(netfn & !1, cmd, &mut [], request);
    }
    // How much of each is to be kept.
    let (keep_request, keep_answer) = match (netfn & 0x3f, cmd) {
        (0x06, 0x34) => return blank_bridged(request, answer),
        // Get Message: whatever another controller sent. Section 22.6.
        (0x06, 0x33) => (usize::MAX, 1),
        // Activate Session: after type and privilege the code, with some types the password itself. 22.17.
        (0x06, 0x3a) => (2, 1),
        // Get AuthCode: a hash over the password. 22.21.
        (0x06, 0x3f) => (usize::MAX, 1),
        // Set User Password: after user and operation. 22.30.
        (0x06, 0x47) => (2, usize::MAX),
        // Set Channel Security Keys: after channel, operation and key id; reading gives it back. 22.25.
        (0x06, 0x56) => (3, 1),
        // LAN parameter 16, the community string. 23.1, 23.2.
        (0x0c, 0x01) if request.get(1) == Some(&16) => (2, usize::MAX),
        (0x0c, 0x02) if request.get(1).is_none_or(|parameter| *parameter == 16) => (usize::MAX, 2),
        // Serial/modem parameters: dial strings, users and passwords of PPP. 25.1, 25.2.
        (0x0c, 0x10) => (2, usize::MAX),
        (0x0c, 0x11) => (usize::MAX, 2),
        _ => return false,
    };
    let in_request = zero(request, keep_request);
    let in_answer = zero(answer, keep_answer);
    in_request || in_answer
}

fn zero(bytes: &mut [u8], keep: usize) -> bool {
    let secret = bytes.get_mut(keep..).filter(|secret| !secret.is_empty());
    secret.map(|secret| secret.fill(0)).is_some()
}

/// Send Message (22.7): channel, then a message in IPMB framing, on some channels after a session handle
/// or a broadcast's zero.
fn blank_bridged(request: &mut [u8], answer: &mut [u8]) -> bool {
    let starts = |at: &usize| match request.get(*at..at + 3) {
        Some([to, netfn, checksum]) => to.wrapping_add(*netfn).wrapping_add(*checksum) == 0,
        _ => false,
    };
    let Some(at) = [1, 2].iter().find(|at| starts(at)).copied() else {
        // No message that we can read: nothing of it is shown.
        return zero(request, 1);
    };
    let inner = &mut request[at..];
    let [_, netfn, _, _, _, cmd, data @ .., _] = &mut *inner else { return false };
    let (netfn, cmd) = (*netfn >> 2, *cmd);
    let blanked = blank(netfn, cmd, data, &mut []);
    if let Some((last, rest)) = inner.split_last_mut().filter(|_| blanked) {
        // The old one would tell of the secret.
        *last = checksum(&rest[3..]);
    }
    // Some controllers put the inner answer into theirs.
    let answer_may_tell =
        matches!((netfn & !1, cmd), (0x06, 0x33 | 0x34 | 0x3f | 0x56) | (0x0c, 0x02 | 0x11));
    (answer_may_tell && zero(answer, 1)) || blanked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blanked(netfn: u8, cmd: u8, request: &[u8], answer: &[u8]) -> (bool, Vec<u8>, Vec<u8>) {
        let (mut request, mut answer) = (request.to_vec(), answer.to_vec());
        let found = blank(netfn, cmd, &mut request, &mut answer);
        (found, request, answer)
    }

    #[test]
    fn secrets_are_blanked_and_nothing_else() {
        let none: &[u8] = &[];
        type Case<'a> = (u8, u8, &'a [u8], &'a [u8], &'a [u8], &'a [u8]);
        let cases: &[Case<'_>] = &[
            (0x06, 0x47, &[2, 2, b'p', b'w'], &[0], &[2, 2, 0, 0], &[0]),
            // The driver shifts a network function of 8 bits, so 0x46 is 0x06 on the wire.
            (0x46, 0x47, &[2, 2, b'p', b'w'], &[0], &[2, 2, 0, 0], &[0]),
            (0x06, 0x56, &[1, 1, 0, 9, 9], &[0, 0], &[1, 1, 0, 0, 0], &[0, 0]),
            (0x06, 0x56, &[1, 0, 0], &[0, 7, 7], &[1, 0, 0], &[0, 0, 0]),
            (0x06, 0x3a, &[4, 4, b'p'], &[0, 1], &[4, 4, 0], &[0, 0]),
            (0x06, 0x3f, &[4, 2], &[0, 7], &[4, 2], &[0, 0]),
            (0x0c, 0x01, &[1, 16, b'c'], &[0], &[1, 16, 0], &[0]),
            (0x0c, 0x02, &[1, 16, 0, 0], &[0, 0x11, b'c'], &[1, 16, 0, 0], &[0, 0x11, 0]),
            // A handle that answers for another controller.
            (0x07, 0x56, &[0, 7, 7], none, &[0, 0, 0], none),
        ];
        for (netfn, cmd, request, answer, left, left_of_answer) in cases {
            let expected = (true, left.to_vec(), left_of_answer.to_vec());
            assert_eq!(blanked(*netfn, *cmd, request, answer), expected, "{netfn:02x}/{cmd:02x}");
        }
        for (netfn, cmd, request) in
            [(0x06, 0x01, none), (0x0c, 0x01, &[1, 3, 10, 0, 0, 1]), (0x06, 0x47, &[2, 1])]
        {
            let answer = [0, 1, 2];
            let expected = (false, request.to_vec(), answer.to_vec());
            assert_eq!(blanked(netfn, cmd, request, &answer), expected, "{netfn:02x}/{cmd:02x}");
        }
    }

    #[test]
    fn bridged_secrets_are_blanked_with_their_checksum() {
        let inner = |netfn: u8, cmd, data: &[u8]| {
            let mut bytes = vec![0x40, 0x82, netfn << 2];
            bytes.push(checksum(&bytes[1..]));
            bytes.extend([0x20, 0x08, cmd]);
            bytes.extend(data);
            bytes.push(checksum(&bytes[4..]));
            bytes
        };
        let expected = inner(6, 0x47, &[2, 2, 0, 0]);
        assert_eq!(
            blanked(6, 0x34, &inner(6, 0x47, &[2, 2, 8, 9]), &[0]),
            (true, expected, vec![0])
        );
        let harmless = inner(6, 0x01, &[]);
        assert_eq!(blanked(6, 0x34, &harmless, &[0, 3]), (false, harmless, vec![0, 3]));
        let twice = inner(6, 0x34, &inner(6, 0x47, &[2, 2, 8, 9]));
        let expected = inner(6, 0x34, &inner(6, 0x47, &[2, 2, 0, 0]));
        assert_eq!(blanked(6, 0x34, &twice, &[0, 9]), (true, expected, vec![0, 0]));
        assert_eq!(blanked(6, 0x34, &[0x40, 1, 2, 3], &[0]), (true, vec![0x40, 0, 0, 0], vec![0]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            netfn: u8, cmd: u8, mut request in proptest::collection::vec(any::<u8>(), 0..80),
            mut answer in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            blank(netfn, cmd, &mut request, &mut answer);
            prop_assert!(!blank(0x06, 0x34, &mut [], &mut []));
        }
    }
}
