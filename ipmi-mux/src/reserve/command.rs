// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which command: `NN/CC`, or its standard name.

use std::fmt;
use std::str::FromStr;

/// A command of the BMC. As text `00/02`, or its name from IPMI 2.0 appendix G.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandCode {
    /// Network function of the request: even, at most 3E.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
}

/// What was written is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no command; write its network function (even, at most 3e) and number in hexadecimal such as 00/02, or its standard name such as \"Chassis Control\""
)]
pub struct UnknownCommand(String);

impl FromStr for CommandCode {
    type Err = UnknownCommand;

    fn from_str(text: &str) -> Result<Self, UnknownCommand> {
        by_number(text).or_else(|| by_name(text)).ok_or_else(|| UnknownCommand(text.to_owned()))
    }
}

fn by_number(text: &str) -> Option<CommandCode> {
    let (netfn, cmd) = text.split_once('/')?;
    let (netfn, cmd) = (byte(netfn)?, byte(cmd)?);
    (netfn & 1 == 0 && netfn <= 0x3e).then_some(CommandCode { netfn, cmd })
}

fn byte(text: &str) -> Option<u8> {
    // `from_str_radix` takes a sign too.
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    u8::from_str_radix(text, 16).ok().filter(|_| digits)
}

fn by_name(text: &str) -> Option<CommandCode> {
    let (netfn, cmd, _) = ipmi::names::all().find(|(.., name)| plain(name).eq(plain(text)))?;
    Some(CommandCode { netfn, cmd })
}

/// A name for comparison: "Get SEL Info" is "get-sel-info" and "GetSELInfo".
fn plain(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|c| !" -_".contains(*c)).map(|c| c.to_ascii_lowercase())
}

impl fmt::Display for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/{:02x}", self.netfn, self.cmd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_understood() {
        let reset = CommandCode { netfn: 6, cmd: 2 };
        for text in ["06/02", "6/2", "Cold Reset", "cold-reset", "COLD_RESET"] {
            assert_eq!(text.parse(), Ok(reset), "{text}");
        }
        assert_eq!("3E/fF".parse(), Ok(CommandCode { netfn: 0x3e, cmd: 0xff }));
        assert_eq!(reset.to_string(), "06/02");
        for (netfn, cmd, name) in ipmi::names::all() {
            assert_eq!(name.parse(), Ok(CommandCode { netfn, cmd }), "{name} means one command");
            assert!(!name.contains(','), "{name}: commas stand between commands");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for text in
            ["", "/", "07/01", "40/01", "06/100", "+6/1", "06/", "06/01/02", "reset", "06 01"]
        {
            let error = text.parse::<CommandCode>().unwrap_err().to_string();
            assert!(error.contains("such as 00/02"), "{text:?}: {error}");
        }
    }
}
