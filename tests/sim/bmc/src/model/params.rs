// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbered configuration parameters, as LAN, SOL, PEF, boot options and system information have.
//!
//! They share their rules: parameter 0 is "set in progress", some are read only, some have several
//! sets, chosen by the first data byte.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ipmi::CompletionCode;

/// Parameter not supported.
pub const NOT_SUPPORTED: CompletionCode = CompletionCode(0x80);
/// Set in progress is claimed while it is held.
pub const IN_PROGRESS: CompletionCode = CompletionCode(0x81);
/// The parameter cannot be written.
pub const READ_ONLY: CompletionCode = CompletionCode(0x82);

/// One parameter.
#[derive(Debug)]
pub struct Spec {
    number: u8,
    kind: Kind,
    /// Value at start; its length is the only one that is taken.
    initial: &'static [u8],
}

#[derive(Debug, PartialEq)]
enum Kind {
    InProgress,
    Value,
    ReadOnly,
    Sets(RangeInclusive<u8>),
}

impl Spec {
    /// The lock.
    pub const fn in_progress(number: u8) -> Self {
        Self { number, kind: Kind::InProgress, initial: &[0] }
    }

    /// A plain parameter.
    pub const fn value(number: u8, initial: &'static [u8]) -> Self {
        Self { number, kind: Kind::Value, initial }
    }

    /// One that cannot be written.
    pub const fn read_only(number: u8, initial: &'static [u8]) -> Self {
        Self { number, kind: Kind::ReadOnly, initial }
    }

    /// One with several sets; byte 0 of the value is the set.
    pub const fn sets(number: u8, sets: RangeInclusive<u8>, initial: &'static [u8]) -> Self {
        Self { number, kind: Kind::Sets(sets), initial }
    }
}

/// The values of a group of parameters.
#[derive(Debug)]
pub struct Params {
    specs: &'static [Spec],
    /// By parameter and set; only what was written.
    values: BTreeMap<(u8, u8), Vec<u8>>,
}

impl Params {
    /// All parameters at their initial values.
    pub fn new(specs: &'static [Spec]) -> Self {
        Self { specs, values: BTreeMap::new() }
    }

    fn spec(&self, number: u8) -> Result<&'static Spec, CompletionCode> {
        self.specs.iter().find(|spec| spec.number == number).ok_or(NOT_SUPPORTED)
    }

    /// Whether there is such a parameter.
    ///
    /// # Errors
    /// [`NOT_SUPPORTED`].
    pub fn check(&self, number: u8) -> Result<(), CompletionCode> {
        self.spec(number).map(|_| ())
    }

    /// The value of a parameter; `set` counts only where there are several.
    ///
    /// # Errors
    /// [`NOT_SUPPORTED`], or a set out of range.
    pub fn get(&self, number: u8, set: u8) -> Result<Vec<u8>, CompletionCode> {
        let spec = self.spec(number)?;
        let set = match &spec.kind {
            Kind::Sets(sets) => {
                if !sets.contains(&set) {
                    return Err(CompletionCode::OUT_OF_RANGE);
                }
                Some(set)
            }
            _ => None,
        };
        if let Some(value) = self.values.get(&(number, set.unwrap_or(0))) {
            return Ok(value.clone());
        }
        let mut value = spec.initial.to_vec();
        if let (Some(set), Some(first)) = (set, value.first_mut()) {
            *first = set;
        }
        Ok(value)
    }

    /// Writes a parameter.
    ///
    /// # Errors
    /// [`NOT_SUPPORTED`], [`READ_ONLY`], [`IN_PROGRESS`], wrong length, or a set out of range.
    pub fn set(&mut self, number: u8, value: &[u8]) -> Result<(), CompletionCode> {
        let spec = self.spec(number)?;
        if spec.kind == Kind::ReadOnly {
            return Err(READ_ONLY);
        }
        let first = match value.first() {
            Some(first) if value.len() == spec.initial.len() => *first,
            _ => return Err(CompletionCode::DATA_LENGTH_INVALID),
        };
        let set = match &spec.kind {
            Kind::Sets(sets) if sets.contains(&first) => first,
            Kind::Sets(_) => return Err(CompletionCode::OUT_OF_RANGE),
            Kind::InProgress => {
                self.check_progress(number, first)?;
                0
            }
            _ => 0,
        };
        self.values.insert((number, set), value.to_vec());
        Ok(())
    }

    /// 0 sets it free, 1 claims it; 2 (commit) is for roll-back, which is not kept here.
    fn check_progress(&self, number: u8, wanted: u8) -> Result<(), CompletionCode> {
        let held = self.values.get(&(number, 0)).is_some_and(|value| value[..] != [0]);
        match wanted {
            0 => Ok(()),
            1 if held => Err(IN_PROGRESS),
            1 => Ok(()),
            _ => Err(CompletionCode::INVALID_DATA_FIELD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SPECS: &[Spec] = &[
        Spec::in_progress(0),
        Spec::value(1, &[7, 8]),
        Spec::read_only(2, &[9]),
        Spec::sets(3, 1..=2, &[0, 5]),
    ];

    #[test]
    fn set_in_progress_is_a_lock() {
        let mut params = Params::new(SPECS);
        assert_eq!(params.set(0, &[1]), Ok(()));
        assert_eq!(params.set(0, &[1]), Err(IN_PROGRESS));
        assert_eq!(params.get(0, 0), Ok(vec![1]));
        assert_eq!(params.set(0, &[0]), Ok(()));
        assert_eq!(params.set(0, &[1]), Ok(()));
        assert_eq!(params.set(0, &[2]), Err(CompletionCode::INVALID_DATA_FIELD));
    }

    #[test]
    fn values_sets_and_refusals() {
        let mut params = Params::new(SPECS);
        assert_eq!(params.get(1, 9), Ok(vec![7, 8]));
        assert_eq!(params.set(1, &[1]), Err(CompletionCode::DATA_LENGTH_INVALID));
        assert_eq!(params.set(1, &[1, 2]), Ok(()));
        assert_eq!(params.get(1, 0), Ok(vec![1, 2]));
        assert_eq!(params.set(2, &[1]), Err(READ_ONLY));
        assert_eq!(params.get(4, 0), Err(NOT_SUPPORTED));
        assert_eq!(params.set(3, &[2, 6]), Ok(()));
        assert_eq!(params.get(3, 1), Ok(vec![1, 5]));
        assert_eq!(params.get(3, 2), Ok(vec![2, 6]));
        assert_eq!(params.get(3, 3), Err(CompletionCode::OUT_OF_RANGE));
        assert_eq!(params.set(3, &[0, 6]), Err(CompletionCode::OUT_OF_RANGE));
    }
}
