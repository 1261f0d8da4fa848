// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client may say in the name of an NBD export beside the share's name.
//!
//! `SHARE`, or `SHARE@ACCESS`, or `SHARE@ACCESS,CLAIM`: ACCESS is `ro` or `rw`, CLAIM is `new`, `epoch=N` or
//! `generation=N`. Share names have no `@`.

use std::fmt;
use std::str::FromStr;

use crate::arbiter::{Access, Claim, ShareName};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportName {
    /// Of what.
    pub share: ShareName,
    /// How; where it does not say, in the way that is usual for the share.
    pub access: Option<Access>,
    /// What of its past still counts.
    pub claim: Claim,
}

impl FromStr for ExportName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (share, rest) = match name.split_once('@') {
            Some((share, rest)) => (share, Some(rest)),
            None => (name, None),
        };
        let share = share.parse().map_err(drop)?;
        let Some(rest) = rest else { return Ok(Self { share, access: None, claim: Claim::Any }) };
        let (access, claim) = rest.split_once(',').unwrap_or((rest, ""));
        let access = match access {
            "ro" => Access::Read,
            "rw" => Access::Write,
            _ => return Err(()),
        };
        let number = |digits: &str| digits.parse::<u64>().map_err(drop);
        let claim = match claim.split_once('=') {
            None if !rest.contains(',') => Claim::Any,
            None if claim == "new" => Claim::New,
            Some(("epoch", digits)) => Claim::Epoch(number(digits)?),
            Some(("generation", digits)) => Claim::Generation(number(digits)?),
            _ => return Err(()),
        };
        Ok(Self { share, access: Some(access), claim })
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { share, access, claim } = self;
        write!(f, "{share}")?;
        match access {
            None => return Ok(()),
            Some(Access::Read) => f.write_str("@ro")?,
            Some(Access::Write) => f.write_str("@rw")?,
        }
        match claim {
            Claim::Any => Ok(()),
            Claim::New => f.write_str(",new"),
            Claim::Epoch(epoch) => write!(f, ",epoch={epoch}"),
            Claim::Generation(generation) => write!(f, ",generation={generation}"),
        }
    }
}

/// What was granted, as the description of the export (NBD's `INFO_DESCRIPTION`) tells it to our agents.
#[must_use]
pub fn describe_grant(epoch: Option<u64>, generation: u64) -> String {
    match epoch {
        Some(epoch) => format!("generation={generation},epoch={epoch}"),
        None => format!("generation={generation}"),
    }
}

/// The claim with which a client comes back to what such a description told.
#[must_use]
pub fn claim_of(description: &str) -> Option<Claim> {
    let number = |key: &str| {
        description.split(',').find_map(|part| part.strip_prefix(key)?.parse::<u64>().ok())
    };
    number("epoch=").map(Claim::Epoch).or_else(|| number("generation=").map(Claim::Generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for name in ["a", "a@ro", "a@rw", "a@rw,new", "a@rw,epoch=7", "a@ro,generation=3"] {
            assert_eq!(name.parse::<ExportName>().unwrap().to_string(), name);
        }
        for bad in
            ["", "a/b", "a@", "a@rx", "a@rw,", "a@rw,epoch=", "a@rw,epoch=-1", "a@rw,old", "@rw"]
        {
            let parsed = bad.parse::<ExportName>();
            assert!(parsed.is_err(), "{bad}: {parsed:?}");
        }
    }

    #[test]
    fn a_grant_is_claimed_again() {
        assert_eq!(claim_of(&describe_grant(Some(7), 3)), Some(Claim::Epoch(7)));
        assert_eq!(claim_of(&describe_grant(None, 3)), Some(Claim::Generation(3)));
        assert_eq!(claim_of("a disk"), None);
    }
}
