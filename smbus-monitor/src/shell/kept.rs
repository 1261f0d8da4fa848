// SPDX-License-Identifier: MIT OR Apache-2.0
//! What users set: limits, names of slots, and the modules that belong there. In a group it is agreed on by a majority;
//! on a machine that stands alone it is a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::monitor::SlotSetting;
use crate::core::rules::{MAX_RULES, Rule};

/// Before the name of a rule.
pub const THRESHOLD: &str = "thresholds/";
/// Before a slot.
pub const SLOT: &str = "slots/";
/// Most slots that have a setting.
pub const MAX_SLOTS: usize = 256;
/// Most bytes of a value.
const MAX_VALUE: usize = 4096;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// Limits of users.
    pub rules: Vec<Rule>,
    /// Slots.
    pub slots: BTreeMap<String, SlotSetting>,
}

/// Whether a value may be set there.
///
/// # Errors
/// What is wrong.
pub fn check(key: &str, value: &[u8]) -> Result<(), String> {
    if value.len() > MAX_VALUE {
        return Err(format!("a value has at most {MAX_VALUE} bytes"));
    }
    if let Some(name) = key.strip_prefix(THRESHOLD) {
        let rule: Rule = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        return if rule.name == name {
            rule.check()
        } else {
            Err("the rule has another name".to_owned())
        };
    }
    if key.strip_prefix(SLOT).is_some_and(|slot| !slot.is_empty()) {
        let setting: SlotSetting =
            serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let fits = |text: &str| text.len() <= 64 && !text.contains(char::is_control);
        return if fits(&setting.name) && fits(&setting.module) {
            Ok(())
        } else {
            Err("at most 64 bytes".to_owned())
        };
    }
    Err(format!("nothing is set under {key}"))
}

/// Reads keys and values; what makes no sense is left out.
pub fn read<'a>(all: impl Iterator<Item = (&'a str, &'a [u8])>) -> Kept {
    let mut kept = Kept::default();
    for (key, value) in all {
        if check(key, value).is_err() {
            continue;
        }
        if key.starts_with(THRESHOLD) && kept.rules.len() < MAX_RULES {
            kept.rules.extend(serde_json::from_slice::<Rule>(value));
        } else if let Some(slot) = key.strip_prefix(SLOT)
            && kept.slots.len() < MAX_SLOTS
            && let Ok(setting) = serde_json::from_slice(value)
        {
            kept.slots.insert(slot.to_owned(), setting);
        }
    }
    kept
}

/// The file of a machine that stands alone.
#[derive(Debug)]
pub struct Alone {
    path: PathBuf,
    values: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    values: BTreeMap<String, serde_json::Value>,
}

impl Alone {
    /// Reads it.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("settings.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, values: BTreeMap::new() });
            }
            text => text?,
        };
        let OnDisk { version, values } = serde_json::from_slice(&text)?;
        if version != 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("version {version} is not known"),
            ));
        }
        Ok(Self { path, values })
    }

    /// What it says.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let all: Vec<(&str, Vec<u8>)> = self
            .values
            .iter()
            .map(|(key, value)| (key.as_str(), value.to_string().into_bytes()))
            .collect();
        read(all.iter().map(|(key, value)| (*key, value.as_slice())))
    }

    /// Sets a key, or takes it away; it is on disk then.
    ///
    /// # Errors
    /// It cannot be written, and nothing was changed.
    pub fn set(&mut self, key: &str, value: Option<&[u8]>) -> io::Result<()> {
        let mut values = self.values.clone();
        match value {
            Some(value) => drop(values.insert(key.to_owned(), serde_json::from_slice(value)?)),
            None => drop(values.remove(key)),
        }
        if values.len() > MAX_RULES + MAX_SLOTS {
            return Err(io::Error::other("there are too many"));
        }
        let text = serde_json::to_vec(&OnDisk { version: 1, values: values.clone() })?;
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.values = values;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Limits;
    use crate::pattern::Pattern;

    #[test]
    fn what_is_set_outlives_a_restart_and_nothing_else_can_be_set() {
        let folder = tempfile::tempdir().unwrap();
        let rule = Rule {
            name: "hot".to_owned(),
            metric: Pattern::any(),
            place: Pattern::any(),
            limits: Limits { high_warning: Some(50.0), ..Limits::default() },
            samples: 1,
            trend_ms: 0,
        };
        let text = serde_json::to_vec(&rule).unwrap();
        assert_eq!(check("thresholds/hot", &text), Ok(()));
        assert!(check("thresholds/cold", &text).is_err());
        assert!(check("slots/", b"{}").is_err() && check("x", b"{}").is_err());
        let mut alone = Alone::open(folder.path()).unwrap();
        alone.set("thresholds/hot", Some(&text)).unwrap();
        alone.set("slots/3", Some(br#"{"name":"db","module":"blade"}"#)).unwrap();
        let kept = Alone::open(folder.path()).unwrap().kept();
        assert_eq!((kept.rules, kept.slots["3"].name.as_str()), (vec![rule], "db"));
        alone.set("thresholds/hot", None).unwrap();
        assert_eq!(Alone::open(folder.path()).unwrap().kept().rules, []);
        fs::write(folder.path().join("settings.json"), "{").unwrap();
        assert!(Alone::open(folder.path()).is_err());
    }
}
