// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a handle sends, and whether an answer is the one to it.

use kernel_abi::ipmi_devintf::{IPMI_RESPONSE_RECV_TYPE, Incoming};

/// bmc-sim's command that answers with its data.
const ECHO: (u8, u8) = (0x30, 0x01);

/// "Timeout while processing command" (IPMI 2.0 table 5-2): what a caller gets when it was given up.
const TIMED_OUT: u8 = 0xc3;

/// A command, the same for all handles but for what --echo puts in front.
#[derive(Debug, Clone)]
pub struct Command {
    pub netfn: u8,
    pub cmd: u8,
    pub data: Vec<u8>,
    pub echo: bool,
}

/// One command of one handle: unlike any other of any process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    pub pid: u32,
    pub handle: u32,
    pub number: u32,
}

impl Id {
    /// Comes back with the answer; holds what a 64-bit message id can.
    pub fn msgid(self) -> i64 {
        i64::from(self.handle) << 32 | i64::from(self.number)
    }
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The answer to this very command.
    Right,
    /// Completion code C3: the BMC, or whoever is before it, gave up.
    TimedOut,
    /// Another completion code that is no success.
    Refused(u8),
    /// Not an answer to this command, for this reason.
    Wrong(&'static str),
}

impl Command {
    /// bmc-sim's echo, with `data` behind what tells the commands apart.
    pub fn echo(data: Vec<u8>) -> Self {
        Self { netfn: ECHO.0, cmd: ECHO.1, data, echo: true }
    }

    /// The data of one command.
    pub fn payload(&self, id: Id) -> Vec<u8> {
        if !self.echo {
            return self.data.clone();
        }
        let id = [id.pid, id.handle, id.number].map(u32::to_be_bytes);
        [&id.concat()[..], &self.data].concat()
    }

    /// Judges an answer to the command `id`.
    pub fn judge(&self, id: Id, answer: &Incoming) -> Verdict {
        // The driver cuts off the upper two bits of a network function.
        let netfn = self.netfn & 0x3f | 1;
        if answer.recv_type != IPMI_RESPONSE_RECV_TYPE {
            return Verdict::Wrong("type");
        }
        if answer.msgid != id.msgid() {
            return Verdict::Wrong("msgid");
        }
        if answer.netfn != netfn {
            return Verdict::Wrong("netfn");
        }
        if answer.cmd != self.cmd {
            return Verdict::Wrong("cmd");
        }
        match answer.data.split_first() {
            None => Verdict::Wrong("empty"),
            Some((&TIMED_OUT, _)) => Verdict::TimedOut,
            Some((&code, _)) if code != 0 => Verdict::Refused(code),
            Some((_, data)) if self.echo && data != self.payload(id) => Verdict::Wrong("data"),
            Some(_) => Verdict::Right,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Id = Id { pid: 0x01020304, handle: 5, number: 6 };

    fn answer(data: &[u8]) -> Incoming {
        Incoming {
            recv_type: IPMI_RESPONSE_RECV_TYPE,
            addr: vec![],
            msgid: 0x5_0000_0006,
            netfn: 0x31,
            cmd: 0x01,
            data: data.to_vec(),
        }
    }

    #[test]
    fn an_echo_is_right_with_its_own_data_only() {
        let echo = Command::echo(vec![0xaa]);
        let own = [0, 1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0xaa];
        assert_eq!(echo.payload(ID), own[1..]);
        assert_eq!(echo.judge(ID, &answer(&own)), Verdict::Right);
        for at in 1..own.len() {
            let mut other = own;
            other[at] ^= 1;
            assert_eq!(echo.judge(ID, &answer(&other)), Verdict::Wrong("data"));
        }
        assert_eq!(echo.judge(ID, &answer(&own[..13])), Verdict::Wrong("data"));
    }

    #[test]
    fn an_answer_to_another_command_is_wrong() {
        let echo = Command::echo(vec![]);
        let right = answer(&[0, 1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 6]);
        assert_eq!(echo.judge(ID, &right), Verdict::Right);
        let other = Id { number: 7, ..ID };
        assert_eq!(echo.judge(other, &right), Verdict::Wrong("msgid"));
        let with = |change: fn(&mut Incoming)| {
            let mut answer = right.clone();
            change(&mut answer);
            echo.judge(ID, &answer)
        };
        assert_eq!(with(|a| a.netfn = 0x30), Verdict::Wrong("netfn"));
        assert_eq!(with(|a| a.cmd = 2), Verdict::Wrong("cmd"));
        assert_eq!(with(|a| a.recv_type = 2), Verdict::Wrong("type"));
        assert_eq!(with(|a| a.data.clear()), Verdict::Wrong("empty"));
    }

    #[test]
    fn a_completion_code_is_told_from_a_wrong_answer() {
        let echo = Command::echo(vec![]);
        assert_eq!(echo.judge(ID, &answer(&[0xc3])), Verdict::TimedOut);
        assert_eq!(echo.judge(ID, &answer(&[0xc0])), Verdict::Refused(0xc0));
    }
}
