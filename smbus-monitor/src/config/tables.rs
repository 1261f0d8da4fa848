// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands in tables of tables: chips, limits, actions, ways to power.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon_kit::config::{ConfigError, HumanDuration, Source};

use super::raw::{RawAction, RawBus, RawChip, RawPower, RawSmbus, RawThreshold};
use super::{AUTHORITIES, Action, How, Power, PowerHow, Syslog, Url, interval};
use crate::core::rules::{Rule, SAMPLES, Severity};
use crate::formats::pmbus::Direct;
use crate::metric::Limits;
use crate::pattern::Pattern;
use crate::sources::Whose;
use crate::sources::smbus::{Bus, ChipKind, Device, MAX_REGISTERS, PmbusSetup, Register, USUAL};

pub(super) fn bus(raw: RawBus) -> Bus {
    match raw {
        RawBus::Number(number) => Bus::Number(number),
        RawBus::Named(name) => match name.strip_prefix("i2c-").and_then(|n| n.parse().ok()) {
            Some(number) => Bus::Number(number),
            None => Bus::Named(name),
        },
    }
}

pub(super) fn device(
    raw: RawSmbus,
    default: Duration,
    source: &Source,
) -> Result<Device, ConfigError> {
    let address = *raw.address.get_ref();
    // 0x00 to 0x07 and 0x78 to 0x7f have other meanings (SMBus 3.2, 4.2.2).
    if !(0x08..=0x77).contains(&address) {
        return Err(source.error_at(
            raw.address.span(),
            "an address is 0x08 to 0x77",
            "see the chip's manual",
        ));
    }
    let chip = match raw.chip {
        RawChip::Lm75 => ChipKind::Lm75,
        RawChip::Pmbus => {
            let quantities = raw.quantities.unwrap_or_else(|| USUAL.to_vec());
            let direct = raw.direct.map(|[m, b, r]| Direct { m, b, r: r.clamp(-128, 127) as i8 });
            ChipKind::Pmbus(PmbusSetup { quantities, page: raw.page, direct })
        }
        RawChip::Registers => {
            let all: Vec<Register> = raw
                .registers
                .into_iter()
                .map(|one| Register {
                    name: one.name,
                    register: one.register,
                    width: one.width,
                    unit: one.unit,
                    scale: one.scale.unwrap_or(1.0),
                    offset: one.offset,
                })
                .collect();
            if all.is_empty() || all.len() > MAX_REGISTERS {
                let what = format!("a chip of this kind has 1 to {MAX_REGISTERS} registers");
                return Err(source.error_at(raw.name.span(), what, "add [[smbus.registers]]"));
            }
            ChipKind::Registers(all)
        }
    };
    let every = interval(
        raw.interval.as_ref(),
        u64::try_from(default.as_millis()).unwrap_or(1_000),
        source,
    )?;
    Ok(Device {
        name: raw.name.into_inner(),
        bus: bus(raw.bus),
        address,
        chip,
        whose: if raw.midplane { Whose::Midplane } else { Whose::Own },
        interval: every,
        pec: raw.pec,
    })
}

pub(super) fn rule(raw: RawThreshold, source: &Source) -> Result<Rule, ConfigError> {
    let rule = Rule {
        name: raw.name.get_ref().clone(),
        metric: raw.metric,
        place: raw.place.unwrap_or_else(Pattern::any),
        limits: Limits {
            high_critical: raw.high_critical,
            high_warning: raw.high_warning,
            low_warning: raw.low_warning,
            low_critical: raw.low_critical,
            hysteresis: raw.hysteresis,
        },
        samples: raw.samples.unwrap_or(SAMPLES),
        trend_ms: raw.trend.map_or(0, |t| u64::try_from(t.get().as_millis()).unwrap_or(u64::MAX)),
    };
    rule.check().map_err(|what| source.error_at(raw.name.span(), what, "change it"))?;
    Ok(rule)
}

pub(super) fn action(raw: RawAction, source: &Source) -> Result<Action, ConfigError> {
    let wrong = |what: &str, remedy: &str| Err(source.error_at(raw.name.span(), what, remedy));
    let how = match (raw.command, raw.webhook, raw.syslog) {
        (Some(argv), None, None)
            if argv.first().is_some_and(|program| program.starts_with('/')) =>
        {
            How::Command(argv)
        }
        (Some(_), None, None) => {
            return wrong("the program is not told by its whole path", "begin it with `/`");
        }
        (None, Some(url), None) => match parse_url(&url, raw.authorities) {
            Some(url) => How::Webhook(url),
            None => return wrong("no address of a webhook", "write https://HOST[:PORT]/PATH"),
        },
        (None, None, Some(place)) => How::Syslog(match place.strip_prefix("udp://") {
            Some(host)
                if host
                    .rsplit_once(':')
                    .is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok()) =>
            {
                Syslog::Udp(host.to_owned())
            }
            None if place.starts_with('/') => Syslog::Unix(place.into()),
            _ => return wrong("no address of a syslog", "write /dev/log or udp://HOST:PORT"),
        }),
        _ => return wrong("not one of `command`, `webhook` and `syslog`", "give one of them"),
    };
    Ok(Action {
        name: raw.name.into_inner(),
        on: raw.on.unwrap_or(Severity::Warning),
        metric: raw.metric.unwrap_or_else(Pattern::any),
        place: raw.place.unwrap_or_else(Pattern::any),
        how,
        limit: raw.limit.unwrap_or(10).clamp(1, 1_000),
        per: raw.per.map_or(Duration::from_secs(60), HumanDuration::get),
    })
}

fn parse_url(text: &str, authorities: Option<PathBuf>) -> Option<Url> {
    let (rest, port, authorities) = match text.strip_prefix("https://") {
        Some(rest) => (rest, 443, Some(authorities.unwrap_or_else(|| AUTHORITIES.into()))),
        None => (text.strip_prefix("http://")?, 80, None),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || host.contains('@') || !plain(host) || !plain(path) {
        return None;
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:{port}") };
    let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    Some(Url { host, path, authorities })
}

pub(super) fn power(raw: RawPower, source: &Source) -> Result<Power, ConfigError> {
    let wrong = |what: &str, remedy: &str| Err(source.error_at(raw.place.span(), what, remedy));
    let how = match (raw.command, raw.wake_on_lan) {
        (Some(argv), None) if argv.first().is_some_and(|program| program.starts_with('/')) => {
            PowerHow::Command(argv)
        }
        (None, Some(mac)) => match parse_mac(&mac) {
            Some(mac) => PowerHow::WakeOnLan(
                mac,
                raw.broadcast.unwrap_or_else(|| SocketAddr::from(([255, 255, 255, 255], 9))),
            ),
            None => return wrong("no MAC address", "write it as 52:54:00:12:34:56"),
        },
        _ => {
            return wrong(
                "not one of `command` (a whole path) and `wake_on_lan`",
                "give one of them",
            );
        }
    };
    Ok(Power { place: raw.place.into_inner(), how })
}

/// A MAC address as people write it.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}
