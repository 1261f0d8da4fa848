// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a block says, what it takes over from others, and the device's name that comes of its substitutions.

use super::cut;
use crate::import::{At, Remark};
use crate::wire::Parity;

/// Longest name of a device after its substitutions, bytes: Linux's `PATH_MAX`.
const LONGEST_DEVICE: usize = 4096;

/// What a console block or a default block says; later words change earlier ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    pub(super) kind: Option<String>,
    pub(super) device: Option<String>,
    pub(super) devicesubst: Option<(String, At)>,
    pub(super) baud: Option<u32>,
    pub(super) parity: Option<Parity>,
    pub(super) two_stop_bits: Option<bool>,
    pub(super) crtscts: Option<bool>,
    pub(super) ixon: Option<bool>,
    pub(super) ixoff: Option<bool>,
    pub(super) host: Option<String>,
    pub(super) replstring: Option<String>,
    pub(super) port: Option<String>,
    pub(super) portbase: Option<i64>,
    pub(super) portinc: Option<i64>,
    pub(super) master: Option<String>,
    pub(super) log_size: Option<u64>,
}

impl Block {
    /// What a default says, where it says something.
    pub(super) fn take(&mut self, default: &Self) {
        macro_rules! take {
            ($($field:ident),*) => {
                $(if default.$field.is_some() { self.$field.clone_from(&default.$field); })*
            };
        }
        take!(kind, device, devicesubst, baud, parity, two_stop_bits, crtscts, ixon, ixoff);
        take!(host, replstring, port, portbase, portinc, master, log_size);
    }

    /// The device of a console, with its substitutions.
    pub(super) fn device_of(&self, name: &str) -> Option<Result<String, Remark>> {
        let device = self.device.as_ref()?;
        let Some((text, at)) = &self.devicesubst else { return Some(Ok(device.clone())) };
        let all = substitutions(text).unwrap_or_default();
        let mut out = String::new();
        for c in device.chars() {
            match all.iter().find(|substitution| substitution.of == c) {
                None => out.push(c),
                Some(substitution) => match self.value(substitution, name) {
                    Ok(value) => out += &value,
                    Err(why) => return Some(Err(Remark::new(at, why))),
                },
            }
            if out.len() > LONGEST_DEVICE {
                return Some(Err(Remark::new(at, "the device's name becomes too long")));
            }
        }
        Some(Ok(out))
    }

    fn value(&self, by: &Substitution, name: &str) -> Result<String, String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let width = by.width;
        let value = match by.what {
            'c' => name.to_owned(),
            'h' => text(&self.host),
            'r' => text(&self.replstring),
            'b' => self.baud.map(|baud| baud.to_string()).unwrap_or_default(),
            what => {
                let port = self.port.as_deref().unwrap_or("0");
                let number: u16 = port.parse().map_err(|_| {
                    format!("port `{}` is the name of a service; write its number", cut(port))
                })?;
                let (base, step) = (self.portbase.unwrap_or(0), self.portinc.unwrap_or(1));
                // As conserver reckons, in 16 bits.
                let of_network = (base + step * i64::from(number)).rem_euclid(1 << 16);
                let number = if what == 'p' { i64::from(number) } else { of_network };
                let digits = in_base(number, by.base, by.capitals);
                let pad = if by.zeros { "0" } else { " " };
                return Ok(pad.repeat(width.saturating_sub(digits.len())) + &digits);
            }
        };
        Ok(" ".repeat(width.saturating_sub(value.len())) + &value)
    }
}

/// One of `devicesubst`: which character becomes what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Substitution {
    of: char,
    /// `c`, `h`, `r`, `b`, `p` or `P`.
    what: char,
    width: usize,
    zeros: bool,
    base: i64,
    capitals: bool,
}

/// `c=t[n]f[,...]`; none if it is no such text. No width is beyond three digits.
pub(super) fn substitutions(text: &str) -> Option<Vec<Substitution>> {
    let mut all: Vec<Substitution> = vec![];
    for part in text.split(',') {
        let mut chars = part.chars();
        let of = chars.next().filter(char::is_ascii_graphic)?;
        if chars.next() != Some('=') || all.iter().any(|other| other.of == of) {
            return None;
        }
        let what = chars.next()?;
        let rest = chars.as_str();
        let form = rest.chars().next_back()?;
        let digits = &rest[..rest.len() - form.len_utf8()];
        if digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let base = match (what, form) {
            ('c' | 'h' | 'r' | 'b', 's') => 0,
            ('p' | 'P', 'd') => 10,
            ('p' | 'P', 'x' | 'X') => 16,
            ('p' | 'P', 'a' | 'A') => 36,
            _ => return None,
        };
        all.push(Substitution {
            of,
            what,
            width: digits.parse().unwrap_or(0),
            zeros: digits.starts_with('0'),
            base,
            capitals: form.is_ascii_uppercase(),
        });
    }
    Some(all)
}

/// `base` is 10, 16 or 36.
fn in_base(mut number: i64, base: i64, capitals: bool) -> String {
    let mut digits = vec![];
    loop {
        let digit = u32::try_from(number % base).unwrap_or(0);
        let c = char::from_digit(digit, 36).unwrap_or('0');
        digits.push(if capitals { c.to_ascii_uppercase() } else { c });
        number /= base;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::import::conserver::tests::{PLAIN, read};

    #[test]
    fn devices_are_substituted_as_conserver_does_it() {
        for (device, keys, wanted) in [
            ("/dev/ttyC.", "devicesubst .=Pd; portbase -1; port 2", "/dev/ttyC1"),
            ("/dev/ttyC.", "devicesubst .=P3d; portbase 1; portinc 10; port 2", "/dev/ttyC 21"),
            ("/dev/%/&", "devicesubst %=p03d,&=cs; port 7", "/dev/007/x"),
            ("/dev/a%b@", "devicesubst %=PX,@=hs; portbase 200; port 50; host h1", "/dev/aFAbh1"),
            ("/dev/%", "devicesubst %=pa; port 35", "/dev/z"),
            ("/dev/%", "devicesubst %=bs", "/dev/9600"),
            ("/dev/%", "devicesubst %=rs; replstring us.b", "/dev/us.b"),
            ("/dev/%", "devicesubst %=Pd; portbase -1; port 0", "/dev/65535"),
            ("/dev/%", "devicesubst %=Pd; devicesubst \"\"", "/dev/%"),
        ] {
            let found = read(&format!("{PLAIN}console x {{ device {device}; {keys}; }}")).unwrap();
            assert_eq!(found.consoles[0].device, wanted, "{keys}");
        }
    }
}
