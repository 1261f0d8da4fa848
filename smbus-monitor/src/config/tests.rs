// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::sources::Whose;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("x.toml")).map_err(|error| error.to_string())
}

#[test]
fn nothing_is_a_good_configuration() {
    let config = parse("").unwrap();
    assert_eq!(config.sources.system, Some(Duration::from_secs(1)));
    assert!(config.sources.hwmon.is_some() && config.sources.ipmi.is_some());
    assert!(config.devices.is_empty() && config.group.is_some() && config.listen.is_empty());
}

#[test]
fn a_chassis() {
    let text = r#"
listen = ["127.0.0.1:9100"]
[sources]
interval = "500ms"
ipmi = false
[[smbus]]
name = "psu1"
bus = "SMBus stub driver"
address = 0x58
chip = "pmbus"
midplane = true
quantities = ["vin", "vout", "fan1", "status"]
[[smbus]]
name = "fan"
bus = 3
address = 0x2c
chip = "registers"
[[smbus.registers]]
name = "speed"
register = 0x28
width = "word"
unit = "rpm"
scale = 2.5
[[threshold]]
name = "hot"
metric = "*temp*"
high_critical = 80.0
hysteresis = 5.0
trend = "1h"
[[action]]
name = "pager"
on = "critical"
webhook = "http://[::1]:8080/alert"
[[power]]
place = "3"
wake_on_lan = "52:54:00:12:34:56"
"#;
    let config = parse(text).unwrap();
    assert_eq!(config.devices[0].bus, Bus::Named("SMBus stub driver".to_owned()));
    assert_eq!((config.devices[0].whose, config.devices[1].whose), (Whose::Midplane, Whose::Own));
    assert_eq!(config.devices[1].interval, Duration::from_millis(500));
    assert_eq!(config.rules[0].trend_ms, 3_600_000);
    let url = Url { host: "[::1]:8080".to_owned(), path: "/alert".to_owned(), authorities: None };
    assert_eq!(config.actions[0].how, How::Webhook(url));
    let url = |more: &str| {
        let text = format!("[[action]]\nname = 'a'\nwebhook = 'https://tower'\n{more}");
        match parse(&text).unwrap().actions.remove(0).how {
            How::Webhook(url) => (url.host, url.authorities.unwrap()),
            how => panic!("{how:?}"),
        }
    };
    assert_eq!(url(""), ("tower:443".to_owned(), AUTHORITIES.into()));
    assert_eq!(url("authorities = '/own.pem'").1, PathBuf::from("/own.pem"));
}

#[test]
fn mistakes_are_told_with_their_line() {
    let smbus = "[[smbus]]\nname = 'a'\nbus = 1\naddress = 0x48\nchip = 'lm75'\n";
    let action = "[[action]]\nname = 'a'\n";
    for (text, complaint) in [
        ("smbuss = 1".to_owned(), "x.toml:1:1: unknown key `smbuss`; did you mean `smbus`?"),
        (smbus.repeat(2), "two chips have this name"),
        (
            format!("{smbus}{}", smbus.replace("'a'", "'b'")),
            "x.toml:9:11: two chips have this address of the same bus",
        ),
        (smbus.replace("0x48", "0x80"), "an address is 0x08 to 0x77"),
        (smbus.replace("'a'", "'a/b'"), "x.toml:2:8: a name has 1 to 48"),
        (smbus.replace("lm75", "registers"), "1 to 64 registers"),
        (smbus.replace("bus = 1", "bus = true"), "a bus's number"),
        ("listen = ['0.0.0.0:80']".to_owned(), "everybody who reaches it"),
        ("[sources]\ninterval = '1ms'".to_owned(), "x.toml:2:12: shorter than 100ms"),
        (format!("{action}command = ['sh', '-c']"), "whole path"),
        (format!("{action}webhook = 'ftp://a'"), "no address of a webhook"),
        (format!("{action}syslog = 'udp://a'"), "no address of a syslog"),
        (action.to_owned(), "not one of `command`"),
        (
            "[[threshold]]\nname = 'a'\nmetric = '*'\nhigh_warning = 9.0\nhigh_critical = 5.0"
                .to_owned(),
            "must rise",
        ),
        ("[[power]]\nplace = '1'\nwake_on_lan = '5:4'".to_owned(), "no MAC address"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn mac_addresses() {
    assert_eq!(parse_mac("52:54:00:12:34:56"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert_eq!(parse_mac("52-54-00-12-34-5"), None);
    assert_eq!(parse_mac("52:54:00:12:34:56:78"), None);
}
