// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file's contents: one line with the format's version and the checksum, then JSON, which an operator can read.

use crate::arbiter::{ShareState, State};

/// The last epoch or generation that is read: so many are never given, and there is always one more.
pub const LAST: u64 = 1 << 63;
/// The format this program writes and the only one it reads.
pub const VERSION: u32 = 1;
const MAGIC: &str = "midplane-drive-state";

/// The file's contents.
#[must_use]
pub fn encode(state: &State) -> Vec<u8> {
    let json = serde_json::to_string_pretty(state).expect("names and numbers only");
    let sum = crc32fast::hash(json.as_bytes());
    format!("{MAGIC} {VERSION} {sum:08x}\n{json}").into_bytes()
}

/// What is wrong with a file, before it is known which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Another version.
    Version(u32),
    /// Anything else.
    Damaged(String),
}

/// # Errors
/// Whatever is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
    let damaged = |what: &str| DecodeError::Damaged(what.to_owned());
    let split = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("no first line"))?;
    let (head, json) = (&bytes[..split], &bytes[split + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| damaged("its first line"))?;
    let [magic, version, sum] = head.split(' ').collect::<Vec<_>>()[..] else {
        return Err(damaged("its first line"));
    };
    if magic != MAGIC {
        return Err(damaged("its first line"));
    }
    match version.parse() {
        Ok(VERSION) => {}
        Ok(version) => return Err(DecodeError::Version(version)),
        Err(_) => return Err(damaged("its first line")),
    }
    if u32::from_str_radix(sum, 16) != Ok(crc32fast::hash(json)) {
        return Err(damaged("its checksum"));
    }
    let state: State =
        serde_json::from_slice(json).map_err(|error| DecodeError::Damaged(error.to_string()))?;
    for (name, share) in &state.shares {
        check(share).map_err(|what| DecodeError::Damaged(format!("share {name}: {what}")))?;
    }
    Ok(state)
}

/// No epoch is given a second time only if the share knows of all that were.
fn check(share: &ShareState) -> Result<(), &'static str> {
    let overlays = share.overlays.values().flat_map(|overlay| [overlay.id, overlay.epoch]);
    let last = overlays.chain(share.lease.as_ref().map(|lease| lease.epoch)).max();
    if last.is_some_and(|last| last > share.epoch) {
        return Err("an epoch after its last");
    }
    if share.epoch.max(share.generation) > LAST {
        return Err("an epoch or generation that nobody has counted to");
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::arbiter::{Lease, OverlayState, Phase};

    pub fn state() -> State {
        let blade = || "blade-3".parse().unwrap();
        let overlay = OverlayState {
            id: 5,
            epoch: 6,
            generation: 2,
            since: 1_700_000_000,
            phase: Phase::Ready,
        };
        let share = ShareState {
            generation: 2,
            epoch: 7,
            lease: Some(Lease { blade: blade(), epoch: 7, since: 1_700_000_001, is_known: false }),
            overlays: [(blade(), overlay)].into(),
        };
        State { shares: [("rescue".parse().unwrap(), share)].into() }
    }

    /// Never to be edited: files of this version are on disks.
    const GOLDEN: &str = r#"midplane-drive-state 1 ec09790f
{
  "shares": {
    "rescue": {
      "generation": 2,
      "epoch": 7,
      "lease": {
        "blade": "blade-3",
        "epoch": 7,
        "since": 1700000001,
        "is_known": false
      },
      "overlays": {
        "blade-3": {
          "id": 5,
          "epoch": 6,
          "generation": 2,
          "since": 1700000000,
          "phase": "ready"
        }
      }
    }
  }
}"#;

    #[test]
    fn version_1() {
        assert_eq!(String::from_utf8(encode(&state())).unwrap(), GOLDEN);
        assert_eq!(decode(GOLDEN.as_bytes()), Ok(state()));
    }

    #[test]
    fn damage_is_seen_wherever_it_is() {
        let good = encode(&state());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 2;
            assert!(decode(&bad).is_err(), "{at}");
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(decode(b"midplane-drive-state 2 0\n{}"), Err(DecodeError::Version(2)));
    }

    #[test]
    fn an_epoch_that_could_be_given_again_is_refused() {
        let refused = |change: fn(&mut ShareState)| {
            let mut state = state();
            change(state.shares.values_mut().next().unwrap());
            assert!(matches!(decode(&encode(&state)), Err(DecodeError::Damaged(_))), "{state:?}");
        };
        refused(|share| share.epoch = 6);
        refused(|share| share.overlays.values_mut().next().unwrap().id = 8);
        refused(|share| share.epoch = LAST + 1);
        refused(|share| share.generation = u64::MAX);
    }
}
