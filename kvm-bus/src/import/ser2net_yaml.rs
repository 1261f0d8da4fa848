// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ser2net.yaml`: ser2net.yaml(5) of ser2net 4, in both of its forms (each connection under a key `connection`, or all in
//! a list under `connections`), with its defines and defaults.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::serial::{Known, Serial, accepter, split};
use super::yaml::{self, Node, What};
use super::{At, Console, Found, Remark};

/// Keys of the file.
pub const KEYS: &[&str] = &[
    "define",
    "defines",
    "connection",
    "connections",
    "default",
    "defaults",
    "delete_default",
    "delete_defaults",
    "rotator",
    "rotators",
    "led",
    "leds",
    "admin",
    "admins",
    "include",
];
/// Longest text after what is defined is put in, bytes.
const LONGEST: usize = 8192;
/// How deep what is defined is in one another.
const DEEPEST: usize = 8;

/// Reads it.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str, file: &str) -> Result<Found, Remark> {
    let file: Arc<str> = file.into();
    let (root, named) = yaml::read(text, &file)?;
    let mut reader = Reader { file, named, serial: Serial::default(), found: Found::default() };
    let Some(root) = root else { return Ok(reader.found) };
    for (key, value) in reader.map(&root, "the file")? {
        let key_text = key.text().unwrap_or("").to_ascii_lowercase();
        match key_text.as_str() {
            "define" => {}
            "defines" => reader.defines(&value)?,
            "connection" => reader.connection(&value)?,
            "default" => reader.default(&value)?,
            "connections" | "defaults" => {
                for entry in reader.list(&value, &key_text)? {
                    if key_text == "defaults" {
                        reader.default(&entry)?;
                    } else {
                        reader.connection(&entry)?;
                    }
                }
            }
            "include" => {
                let at = reader.at(&key);
                reader.found.warn(
                    &at,
                    "what is included is not read: import it by itself, to another folder",
                );
            }
            "rotator" | "rotators" | "led" | "leds" | "admin" | "admins" | "delete_default"
            | "delete_defaults" => {
                let at = reader.at(&key);
                reader.found.warn(&at, format!("`{key_text}` has no counterpart"));
            }
            _ => {
                return Err(Remark::new(
                    &reader.at(&key),
                    format!("`{}` is no key of ser2net", cut(&key_text)),
                ));
            }
        }
    }
    Ok(reader.found)
}

struct Reader {
    file: Arc<str>,
    named: BTreeMap<String, Rc<Node>>,
    /// What is the default by now.
    serial: Serial,
    found: Found,
}

type Pairs = Vec<(Rc<Node>, Rc<Node>)>;

impl Reader {
    fn at(&self, node: &Node) -> At {
        At { file: Arc::clone(&self.file), line: node.line.max(1) }
    }

    fn map(&self, node: &Node, what: &str) -> Result<Pairs, Remark> {
        match &node.what {
            What::Map(map) => Ok(map.clone()),
            _ => Err(Remark::new(&self.at(node), format!("{what} is to be keys with values"))),
        }
    }

    fn list(&self, node: &Node, what: &str) -> Result<Vec<Rc<Node>>, Remark> {
        match &node.what {
            What::List(list) => Ok(list.clone()),
            _ => Err(Remark::new(&self.at(node), format!("`{what}` is to be a list"))),
        }
    }

    /// A text with what is defined put in for `*(NAME)`; none, and told, where a file's contents would be.
    fn text(&mut self, node: &Node, what: &str) -> Result<Option<String>, Remark> {
        let at = self.at(node);
        let Some(text) = node.text() else {
            return Err(Remark::new(&at, format!("`{what}` is to be a text")));
        };
        if text.replace("*{*", "").contains("*{") {
            self.found
                .warn(&at, format!("`{what}` has the contents of a file in it, which is not read"));
            return Ok(None);
        }
        let text = self.expand(text, DEEPEST).map_err(|why| Remark::new(&at, why))?;
        Ok(Some(text.replace("*{*", "*{")))
    }

    fn expand(&self, text: &str, depth: usize) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("*(") {
            out += before;
            if let Some(after) = after.strip_prefix('*') {
                out += "*(";
                rest = after;
                continue;
            }
            let (name, after) = after.split_once(')').ok_or("*( has no ) behind it")?;
            let node = self.named.get(name).and_then(|node| node.text());
            let value = node.ok_or_else(|| format!("nothing is defined as `{}`", cut(name)))?;
            if depth == 0 {
                return Err(format!("definitions are more than {DEEPEST} deep in one another"));
            }
            out += &self.expand(value, depth - 1)?;
            rest = after;
            if out.len() > LONGEST {
                break;
            }
        }
        out += rest;
        if out.len() > LONGEST {
            return Err(format!("the text is longer than {LONGEST} bytes with what is defined"));
        }
        Ok(out)
    }

    fn defines(&mut self, node: &Node) -> Result<(), Remark> {
        let entries = match &node.what {
            What::List(list) => list.clone(),
            _ => vec![Rc::new(node.clone())],
        };
        for entry in entries {
            let pairs = self.map(&entry, "a definition")?;
            let of = |key: &str| pairs.iter().find(|(k, _)| k.text() == Some(key)).map(|(_, v)| v);
            if let (Some(name), Some(value)) =
                (of("name").and_then(|name| name.text()), of("value"))
            {
                self.named.insert(name.to_owned(), Rc::clone(value));
            } else {
                let plain =
                    pairs.iter().filter_map(|(k, v)| Some((k.text()?.to_owned(), Rc::clone(v))));
                self.named.extend(plain);
            }
        }
        Ok(())
    }

    fn default(&mut self, node: &Node) -> Result<(), Remark> {
        let (mut name, mut value, mut class) = (String::new(), String::new(), String::new());
        for (key, text) in self.map(node, "`default`")? {
            let into = match key.text() {
                Some("name") => &mut name,
                Some("value") => &mut value,
                Some("class") => &mut class,
                _ => {
                    return Err(Remark::new(
                        &self.at(&key),
                        "a default has `name`, `value` and `class`",
                    ));
                }
            };
            let text =
                text.text().ok_or_else(|| Remark::new(&self.at(&text), "this is to be a text"))?;
            *into = text.to_owned();
        }
        let of_lines = class.is_empty() || class == "serialdev";
        if !of_lines || self.serial.option(&format!("{name}={value}")) == Known::Other {
            let at = self.at(node);
            self.found.warn(&at, format!("default `{}` has no counterpart", cut(&name)));
        }
        Ok(())
    }

    fn connection(&mut self, node: &Node) -> Result<(), Remark> {
        let at = self.at(node);
        let mut name = node.anchor.clone();
        let (mut access, mut connector) = (None, None);
        let mut enabled = true;
        for (key, value) in self.map(node, "a connection")? {
            let line = self.at(&key);
            match key.text().unwrap_or("").to_ascii_lowercase().as_str() {
                "name" => name = self.text(&value, "name")?,
                "accepter" => access = Some((self.text(&value, "accepter")?, line)),
                "connector" => connector = Some((self.text(&value, "connector")?, line)),
                "enable" => match value.text().unwrap_or("").to_ascii_lowercase().as_str() {
                    "on" | "true" => enabled = true,
                    "off" | "false" => enabled = false,
                    _ => return Err(Remark::new(&line, "`enable` is on or off")),
                },
                "timeout" if value.text() == Some("0") => {}
                "timeout" => self.found.warn(
                    &line,
                    "`timeout` has no counterpart: nobody is sent away for being silent",
                ),
                "options" => self.options(&value)?,
                other => self.found.warn(&line, format!("`{}` has no counterpart", cut(other))),
            }
        }
        let name = name.unwrap_or_else(|| "connection".to_owned());
        let missing =
            |key: &str| Remark::new(&at, format!("connection {} has no `{key}`", cut(&name)));
        let (access, access_at) = access.ok_or_else(|| missing("accepter"))?;
        let (connector, connector_at) = connector.ok_or_else(|| missing("connector"))?;
        if !enabled {
            self.found.warn(&at, format!("connection {} is off; it is left out", cut(&name)));
            return Ok(());
        }
        let (Some(access), Some(connector)) = (access, connector) else {
            self.found.warn(&at, format!("connection {} is left out", cut(&name)));
            return Ok(());
        };
        let Some((device, serial)) = self.connector(&connector, &connector_at) else {
            self.found.warn(
                &connector_at,
                format!(
                    "connection {} has no serial line of this machine; it is left out",
                    cut(&name)
                ),
            );
            return Ok(());
        };
        let port = accepter(&access, &access_at, &mut self.found);
        let flow = serial.flow(&connector_at, &mut self.found);
        self.found.add(Console { at, name, device, settings: serial.settings, flow, port })
    }

    /// Device and settings of a serial line.
    fn connector(&mut self, text: &str, at: &At) -> Option<(String, Serial)> {
        let mut serial = self.serial;
        let parts = split(text);
        let is_serial = |part: &str| matches!(part.split('(').next(), Some("serialdev" | "sdev"));
        let begins = parts.iter().position(|part| is_serial(part))?;
        for filter in &parts[..begins] {
            let filter = filter.split('(').next().unwrap_or("");
            self.found.warn(at, format!("`{}` has no counterpart", cut(filter)));
        }
        let of_type =
            parts[begins].split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
        let device = parts.get(begins + 1).filter(|device| !device.is_empty())?;
        let options = parts[begins + 2..].iter().flat_map(|part| part.split_whitespace());
        for option in of_type.split([',', ' ']).filter(|word| !word.is_empty()).chain(options) {
            if serial.option(option) == Known::Other {
                self.found
                    .warn(at, format!("`{}` of a serial line has no counterpart", cut(option)));
            }
        }
        Some(((*device).to_owned(), serial))
    }

    fn options(&mut self, node: &Node) -> Result<(), Remark> {
        if node.text().is_some_and(str::is_empty) {
            return Ok(());
        }
        for (key, value) in self.map(node, "`options`")? {
            let name = key.text().unwrap_or("");
            let text = match (name, value.text().unwrap_or("")) {
                // So it is here.
                (_, "false") | ("max-connections", "1") => continue,
                ("kickolduser", _) => "`kickolduser` has no counterpart: whoever comes second looks, and takes the keyboard by ^Ecf".to_owned(),
                ("max-connections", _) => "`max-connections` has no counterpart: one writes, any number look".to_owned(),
                (name, _) if name.starts_with("trace") => format!("`{}` has no counterpart: the log is /var/log/midplane/kvm-bus/NAME.log", cut(name)),
                (name, _) => format!("`{}` has no counterpart", cut(name)),
            };
            let at = self.at(&key);
            self.found.warn(&at, text);
        }
        Ok(())
    }
}

/// So much of a word as belongs in a message.
fn cut(word: &str) -> &str {
    word.char_indices().nth(40).map_or(word, |(at, _)| &word[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::format::format;

    fn read(text: &str) -> Result<Found, String> {
        parse(text, "s.yaml").map_err(|error| error.to_string())
    }

    fn lines(found: &Found) -> Vec<String> {
        let line = |console: &Console| {
            let Console { name, device, settings, flow, port, .. } = console;
            format!("{name} {device} {} {} {flow} {port:?}", settings.baud, format(*settings))
        };
        found.consoles.iter().map(line).collect()
    }

    fn told(found: &Found) -> Vec<String> {
        found.warnings.iter().map(ToString::to_string).collect()
    }

    /// As Debian ships it, with one connection.
    const DEBIAN: &str = "%YAML 1.1\n---\n# simple\ndefine: &banner \\r\\nser2net port \\p device \\d [\\B] (Debian GNU/Linux)\\r\\n\\r\\n\n\nconnection: &con0096\n    accepter: tcp,localhost,2000\n    enable: on\n    options:\n      banner: *banner\n      kickolduser: true\n      telnet-brk-on-sync: false\n    connector: serialdev,\n              /dev/ttyS0,\n              9600n81,local\n";

    #[test]
    fn what_debian_ships_is_read() {
        let found = read(DEBIAN).unwrap();
        assert_eq!(lines(&found), ["con0096 /dev/ttyS0 9600 8N1 none Some(2000)"]);
        let told = told(&found);
        for wanted in ["s.yaml:7: was raw TCP", "s.yaml:10: `banner`", "s.yaml:11: `kickolduser`"] {
            assert!(told.iter().any(|line| line.starts_with(wanted)), "{told:?}");
        }
        assert_eq!((told.len(), found.consoles[0].at.line), (3, 6));
    }

    #[test]
    fn defines_and_defaults_are_put_in() {
        let text = "define: &base \"/dev/serial/by-path/x\"\ndefine: &usb \"*(base)-usb\"\ndefault:\n  name: speed\n  value: 115200e71\n  class: serialdev\n\
            default: {name: rtscts, value: true}\ndefault: {name: speed, value: 300, class: ipmisol}\n\
            connection: &a\n  accepter: telnet(rfc2217),tcp,localhost,3001\n  connector: serialdev,*(usb)-port0\n\
            connection: &b\n  accepter: telnet(rfc2217),tcp,localhost,3002\n  connector: keepopen(x=1),serialdev(local),*(usb)-port1,9600 rtscts=false local=false\n";
        let found = read(text).unwrap();
        assert_eq!(
            lines(&found),
            [
                "a /dev/serial/by-path/x-usb-port0 115200 7E1 rts-cts Some(3001)",
                "b /dev/serial/by-path/x-usb-port1 9600 7E1 none Some(3002)",
            ]
        );
        assert_eq!(
            told(&found),
            [
                "s.yaml:8: default `speed` has no counterpart",
                "s.yaml:14: `keepopen` has no counterpart",
                "s.yaml:14: `local=false` of a serial line has no counterpart",
            ]
        );
    }

    #[test]
    fn the_newer_form_is_read_as_well() {
        let text = "defines:\n  - {name: d, value: /dev/ttyUSB}\ndefaults:\n  - name: speed\n    value: 38400\nconnections:\n  - name: a\n    accepter: telnet,tcp,::1,2001\n    connector: serialdev,*(d)0\n  - name: b\n    accepter: telnet,tcp,::1,2002\n    enable: off\n    connector: serialdev,*(d)1\n  - name: c\n    accepter: telnet,tcp,::1,2003\n    timeout: 60\n    connector: ipmisol,lan -U x -P *{pw} h,9600\n  - name: d\n    accepter: tcp,::1,2004\n    connector: telnet,tcp,h,23\nrotators: []\ninclude: /x/*\n";
        let found = read(text).unwrap();
        assert_eq!(lines(&found), ["a /dev/ttyUSB0 38400 8N1 none Some(2001)"]);
        let told = told(&found);
        for wanted in [
            "s.yaml:10: connection b is off",
            "s.yaml:16: `timeout`",
            "s.yaml:17: `connector` has the contents of a file",
            "s.yaml:14: connection c is left out",
            "s.yaml:20: connection d has no serial line",
            "s.yaml:21: `rotators`",
            "s.yaml:22: what is included",
        ] {
            assert!(told.iter().any(|line| line.starts_with(wanted)), "{wanted}: {told:#?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error_with_its_line() {
        for (text, wanted) in [
            ("x\n", "s.yaml:1: the file is to be keys"),
            ("a: b\n", "s.yaml:1: `a` is no key"),
            ("connection: x\n", "s.yaml:1: a connection is to be keys"),
            ("connection: &a\n  accepter: tcp,1\n", "s.yaml:1: connection a has no `connector`"),
            ("connection: &a\n  connector: x\n", "connection a has no `accepter`"),
            ("connection: &a\n  accepter: [x]\n", "s.yaml:2: `accepter` is to be a text"),
            ("connection: &a\n  enable: maybe\n", "s.yaml:2: `enable` is on or off"),
            ("connection: &a\n  accepter: \"*(b)\"\n", "s.yaml:2: nothing is defined as `b`"),
            ("connection: &a\n  accepter: \"*(b\"\n", "s.yaml:2: *( has no )"),
            (
                "define: &b \"*(b)\"\nconnection: &a\n  accepter: \"*(b)\"\n",
                "s.yaml:3: definitions are more than 8",
            ),
            ("define: &b xxxxxxxxxx\nconnection: &a\n  accepter: \"", "no YAML"),
            ("connections: x\n", "s.yaml:1: `connections` is to be a list"),
            ("default: {size: 1}\n", "s.yaml:1: a default has"),
            ("connection: &a\n  options: x\n", "s.yaml:2: `options` is to be keys"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let long = format!(
            "define: &b {}\nconnection: &a\n  accepter: \"{}\"\n",
            "x".repeat(1000),
            "*(b)".repeat(100)
        );
        assert!(read(&long).unwrap_err().contains("longer than 8192"));
    }
}
