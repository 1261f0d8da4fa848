// SPDX-License-Identifier: MIT OR Apache-2.0
//! `conserver.cf`: conserver.cf(5) of conserver 8.2, with `#include`, defaults and what they include, and substitutions
//! in names of devices.

mod block;
mod remarks;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::serial::flow;
use super::words::{Blanks, Token, Words};
use super::{At, Console, Found, Remark, World};
use crate::wire::{ConsoleSettings, Parity};
use block::{Block, substitutions};
use remarks::{elsewhere, no_counterpart};

/// Kinds of blocks.
pub const BLOCKS: &[&str] =
    &["access", "break", "config", "console", "default", "group", "task", "ssl"];

/// Reads it.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str, file: &str, world: &mut World) -> Result<Found, Remark> {
    let mut words = Words::new(text, file, world);
    let mut reader = Reader::default();
    while let Some((token, at)) = words.next(Blanks::End)? {
        let Token::Word(kind) = token else {
            return Err(Remark::new(&at, "a block is to begin here, such as `console NAME {`"));
        };
        let kind = kind.to_ascii_lowercase();
        let name = match words.next(Blanks::Belong)? {
            Some((Token::Word(name), _)) if !name.is_empty() => name,
            _ => return Err(Remark::new(&at, format!("`{kind}` is to be followed by a name"))),
        };
        match words.next(Blanks::End)? {
            Some((Token::Open, _)) => {}
            _ => return Err(Remark::new(&at, format!("`{kind} {name}` is to be followed by {{"))),
        }
        reader.block(&kind, name, &at, &mut words)?;
    }
    reader.finish(words.hosts())
}

#[derive(Debug, Default)]
struct Reader {
    defaults: BTreeMap<String, Block>,
    /// By name, in the order of the file.
    consoles: Vec<(String, At, Block)>,
    found: Found,
}

impl Reader {
    fn block(
        &mut self,
        kind: &str,
        name: String,
        at: &At,
        words: &mut Words,
    ) -> Result<(), Remark> {
        if !BLOCKS.contains(&kind) {
            self.found.warn(at, format!("`{kind}` is no block that is known here; it is left out"));
        }
        let is_console = kind == "console";
        let mut block = Block::default();
        if let Some(default) = self.defaults.get("*").filter(|_| is_console) {
            block = default.clone();
        }
        loop {
            let (key, key_at) = match words.next(Blanks::End)? {
                Some((Token::Close, _)) => break,
                Some((Token::Word(key), at)) => (key.to_ascii_lowercase(), at),
                Some((_, at)) => return Err(Remark::new(&at, "a keyword or } is to stand here")),
                None => return Err(Remark::new(at, format!("`{kind} {name}` has no end"))),
            };
            let Some((Token::Word(value), _)) = words.next(Blanks::Belong)? else {
                return Err(Remark::new(&key_at, format!("`{key}` is to be followed by a value")));
            };
            if !matches!(words.next(Blanks::End)?, Some((Token::End, _))) {
                return Err(Remark::new(&key_at, format!("`{key}` is to end with ;")));
            }
            match kind {
                "console" | "default" => self.key(&mut block, &key, value, &key_at)?,
                _ => self.found.warn(&key_at, elsewhere(kind, &key)),
            }
        }
        match kind {
            "console" => {
                let same = self.consoles.iter().position(|(other, ..)| *other == name);
                if let Some(same) = same {
                    let (_, before, _) = self.consoles.remove(same);
                    self.found.warn(
                        &before,
                        format!("console {name} is defined again at {at}, which is taken"),
                    );
                }
                self.consoles.push((name, at.clone(), block));
            }
            "default" => drop(self.defaults.insert(name, block)),
            _ => {}
        }
        Ok(())
    }

    fn key(&mut self, block: &mut Block, key: &str, value: String, at: &At) -> Result<(), Remark> {
        let wrong = |what: &str| Remark::new(at, format!("`{}` is no {what}", cut(&value)));
        let number = |what| {
            value
                .parse::<i64>()
                .ok()
                .filter(|n| (-1..=65_535).contains(n))
                .ok_or_else(|| wrong(what))
        };
        let given = Some(value.clone()).filter(|value| !value.is_empty());
        match key {
            "type" => block.kind = given.map(|kind| kind.to_ascii_lowercase()),
            "device" => block.device = given,
            "devicesubst" => {
                if let Some(text) = &given {
                    substitutions(text)
                        .ok_or_else(|| wrong("list of substitutions, such as .=Pd"))?;
                }
                block.devicesubst = given.map(|text| (text, at.clone()));
            }
            "baud" if given.is_none() => block.baud = None,
            "baud" => {
                let baud = value.parse().ok().filter(|baud| *baud > 0);
                block.baud = Some(baud.ok_or_else(|| wrong("speed"))?);
            }
            "parity" => block.parity = self.parity(&value, at).map_err(|()| wrong("parity"))?,
            "options" => self.options(block, &value, at)?,
            "host" => block.host = given,
            "replstring" => block.replstring = given,
            "port" => block.port = given,
            "portbase" => block.portbase = Some(number("number of a port")?),
            "portinc" => block.portinc = Some(number("number of ports")?),
            "master" => block.master = given,
            "include" => {
                let Some(default) = self.defaults.get(&value) else {
                    let text =
                        format!("there is no default block `{}` before this line", cut(&value));
                    return Err(Remark::new(at, text));
                };
                block.take(default);
            }
            "logfilemax" => {
                block.log_size = Some(size(&value).ok_or_else(|| wrong("size, such as 512k"))?);
            }
            // Of consoles that are no serial lines, which are told of as a whole.
            _ if ["exec", "ipmi", "uds"].iter().any(|kind| key.starts_with(kind)) => {}
            "username" | "password" | "protocol" => {}
            _ => self.found.warn(at, no_counterpart(key)),
        }
        Ok(())
    }

    fn parity(&mut self, value: &str, at: &At) -> Result<Option<Parity>, ()> {
        Ok(Some(match value.to_ascii_lowercase().as_str() {
            "" => return Ok(None),
            "none" => Parity::None,
            "even" => Parity::Even,
            "odd" => Parity::Odd,
            "mark" | "space" => {
                self.found.warn(
                    at,
                    "there is no mark or space parity here: the line is set without parity",
                );
                Parity::None
            }
            _ => return Err(()),
        }))
    }

    fn options(&mut self, block: &mut Block, value: &str, at: &At) -> Result<(), Remark> {
        if value.is_empty() {
            (block.two_stop_bits, block.crtscts, block.ixon, block.ixoff) =
                (None, None, None, None);
        }
        for word in value.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            let lower = word.to_ascii_lowercase();
            let (name, on) =
                lower.strip_prefix('!').map_or((lower.as_str(), true), |name| (name, false));
            match (name, on) {
                ("cstopb", _) => block.two_stop_bits = Some(on),
                ("crtscts", _) => block.crtscts = Some(on),
                ("ixon", _) => block.ixon = Some(on),
                ("ixoff", _) => block.ixoff = Some(on),
                // So it is here.
                ("hupcl" | "ixany" | "ondemand" | "striphigh" | "unloved", false) => {}
                ("autoreinit" | "reinitoncc" | "login", true) => {}
                ("hupcl" | "ixany" | "ondemand" | "striphigh" | "unloved", true)
                | ("autoreinit" | "reinitoncc" | "login", false) => {
                    self.found.warn(at, format!("option {} has no counterpart", cut(word)));
                }
                _ => return Err(Remark::new(at, format!("`{}` is no option", cut(word)))),
            }
        }
        Ok(())
    }

    fn finish(mut self, hosts: &[String]) -> Result<Found, Remark> {
        for (name, at, block) in std::mem::take(&mut self.consoles) {
            if let Some(console) = self.console(&name, &at, &block, hosts)? {
                let size = block.log_size.filter(|size| *size > 0);
                self.found.log_size = self.found.log_size.max(size);
                self.found.add(console)?;
            }
        }
        Ok(self.found)
    }

    fn console(
        &mut self,
        name: &str,
        at: &At,
        block: &Block,
        hosts: &[String],
    ) -> Result<Option<Console>, Remark> {
        let shown = cut(name);
        let missing = |key: &str| Remark::new(at, format!("console {shown} has no `{key}`"));
        let master = block.master.as_deref().ok_or_else(|| missing("master"))?;
        if !is_here(master, hosts) {
            let text = format!(
                "console {shown} is at {}, not at this machine; import it there",
                cut(master)
            );
            self.found.warn(at, text);
            return Ok(None);
        }
        let kind = block.kind.as_deref().ok_or_else(|| missing("type"))?;
        if kind != "device" {
            let text = format!(
                "console {shown} is of type {}, no serial line of this machine; it is left out",
                cut(kind)
            );
            self.found.warn(at, text);
            return Ok(None);
        }
        let device = block.device_of(name).ok_or_else(|| missing("device"))??;
        let settings = ConsoleSettings {
            baud: block.baud.ok_or_else(|| missing("baud"))?,
            parity: block.parity.ok_or_else(|| missing("parity"))?,
            data_bits: 8,
            stop_bits: if block.two_stop_bits == Some(true) { 2 } else { 1 },
        };
        // Both are on unless told, as conserver.cf(5) says.
        let (ixon, ixoff) = (block.ixon.unwrap_or(true), block.ixoff.unwrap_or(true));
        let crtscts = block.crtscts == Some(true);
        if ixon != ixoff && !crtscts {
            self.found.warn(
                at,
                format!("XON/XOFF of console {shown} was for one way alone; it is for both here"),
            );
        }
        // It is on without having been asked for where RTS/CTS is asked for.
        let asked = block.ixon == Some(true) || block.ixoff == Some(true) || !crtscts;
        let flow = flow(crtscts, (ixon || ixoff) && asked, at, &mut self.found);
        Ok(Some(Console {
            at: at.clone(),
            name: name.to_owned(),
            device,
            settings,
            flow,
            port: None,
        }))
    }
}

fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match lower.strip_suffix(['k', 'm']) {
        Some(digits) if lower.ends_with('k') => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (lower.as_str(), 1),
    };
    // More than a disk has is a slip.
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes < 1 << 40)
}

fn is_here(master: &str, hosts: &[String]) -> bool {
    master == "localhost"
        || master.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || hosts.iter().any(|host| host.eq_ignore_ascii_case(master))
}

/// So much of a word as belongs in a message.
fn cut(word: &str) -> &str {
    word.char_indices().nth(40).map_or(word, |(at, _)| &word[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::format::{Flow, format};

    pub(super) fn read(text: &str) -> Result<Found, String> {
        let mut read = |name: &str| match name {
            "common.cf" => Ok("default more { baud 19200; }\n".to_owned()),
            _ => Err("there is no such file".to_owned()),
        };
        let hosts = ["rmm1".to_owned()];
        let mut world = World { hosts: &hosts, read: &mut read };
        parse(text, "c.cf", &mut world).map_err(|error| error.to_string())
    }

    fn lines(found: &Found) -> Vec<String> {
        let line = |console: &Console| {
            let Console { name, device, settings, flow, .. } = console;
            format!("{name} {device} {} {} {flow}", settings.baud, format(*settings))
        };
        found.consoles.iter().map(line).collect()
    }

    pub(super) const PLAIN: &str =
        "default * { master localhost; type device; baud 9600; parity none; }\n";

    #[test]
    fn defaults_are_inherited_in_their_order() {
        let text = format!(
            "{PLAIN}#include common.cf\ndefault even {{ include more; parity even; options cstopb,!ixon,!ixoff; }}\n\
             console a {{ device /dev/ttyS1; }}\n\
             console b {{ include even; device /dev/ttyS2; baud 300; }}\n\
             console c {{ baud 300; include even; device /dev/ttyS3; master RMM1; options crtscts; }}\n\
             default * {{ master localhost; }}\n\
             console d {{ include more; type device; device /dev/ttyS4; parity odd; options \"\"; }}\n"
        );
        let found = read(&text).unwrap();
        assert_eq!(
            lines(&found),
            [
                "a /dev/ttyS1 9600 8N1 xon-xoff",
                "b /dev/ttyS2 300 8E2 none",
                "c /dev/ttyS3 19200 8E2 rts-cts",
                "d /dev/ttyS4 19200 8O1 xon-xoff",
            ]
        );
        assert_eq!(found.consoles[1].at.to_string(), "c.cf:5");
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        assert_eq!(found.consoles[0].flow, Flow::XonXoff);
    }

    #[test]
    fn what_has_no_counterpart_is_told_with_its_line() {
        let text = format!(
            "{PLAIN}config * {{\n defaultaccess rejected;\n}}\naccess * {{ trusted 127.0.0.1; }}\ngroup g {{ users a; }}\n\
             break 4 {{ string \"+\\d+\"; }}\nconsole a {{ device /dev/ttyS1;\n rw *; idletimeout 5m;\n logfile /x/&; logfilemax 64k; options ondemand,!hupcl; }}\n\
             console t {{ type host; host ts1; port 2002; password hush; }}\n\
             console o {{ device /dev/ttyS2; master other; }}\nconsole a {{ device /dev/ttyS3; logfilemax 128k; parity mark; }}\nnews x {{ y z; }}\n"
        );
        let found = read(&text).unwrap();
        assert_eq!(lines(&found), ["a /dev/ttyS3 9600 8N1 xon-xoff"]);
        assert_eq!(found.log_size, Some(128 << 10));
        let told: Vec<_> = found.warnings.iter().map(ToString::to_string).collect();
        for wanted in [
            "c.cf:3: `defaultaccess` of `config`",
            "c.cf:5: `trusted` has no counterpart: from afar",
            "c.cf:6: there are no groups",
            "c.cf:7: `string` of a break sequence",
            "c.cf:8: console a is defined again at c.cf:13",
            "c.cf:9: `rw` has no counterpart",
            "c.cf:9: `idletimeout` has no counterpart",
            "c.cf:10: the log is ",
            "c.cf:10: option ondemand",
            "c.cf:11: console t is of type host",
            "c.cf:12: console o is at other",
            "c.cf:13: there is no mark",
            "c.cf:14: `news` is no block",
        ] {
            assert!(told.iter().any(|line| line.starts_with(wanted)), "{wanted}: {told:#?}");
        }
        assert!(!told.iter().any(|line| line.contains("hush")));
    }

    #[test]
    fn what_contradicts_itself_is_an_error_with_its_line() {
        for (text, wanted) in [
            ("\n;", "c.cf:2: a block is to begin"),
            ("console", "c.cf:1: `console` is to be followed by a name"),
            ("console a\n;", "c.cf:1: `console a` is to be followed by {"),
            ("console a {\n type", "c.cf:2: `type` is to be followed by a value"),
            ("console a {\n type device }", "c.cf:2: `type` is to end with ;"),
            ("console a {\n\n;", "c.cf:3: a keyword or }"),
            ("console a { type device;\n", "c.cf:1: `console a` has no end"),
            ("console a { type device; }", "c.cf:1: console a has no `master`"),
            ("console a { master localhost; }", "c.cf:1: console a has no `type`"),
            ("console a { master ::1; type device; baud 1; parity odd; }", "no `device`"),
            ("console a { master ::1; type device; device /d; parity odd; }", "no `baud`"),
            ("console a { master ::1; type device; device /d; baud 1; }", "no `parity`"),
            ("console a {\n baud fast; }", "c.cf:2: `fast` is no speed"),
            ("console a {\n parity both; }", "c.cf:2: `both` is no parity"),
            ("console a {\n options cstopc; }", "c.cf:2: `cstopc` is no option"),
            ("console a {\n include x; }", "c.cf:2: there is no default block `x`"),
            ("console a {\n devicesubst .=Pz; }", "c.cf:2: `.=Pz` is no list"),
            ("console a {\n devicesubst .=Pd,.=cs; }", "c.cf:2: "),
            ("console a {\n portbase x; }", "c.cf:2: `x` is no number of a port"),
            ("console a {\n logfilemax 1g; }", "c.cf:2: `1g` is no size"),
            ("\n#include gone\n", "c.cf:2: cannot read gone"),
            (
                "default * { master ::1; type device; baud 1; parity odd; }\nconsole a { device %;\ndevicesubst %=Pd; port ssh; }",
                "c.cf:3: port `ssh`",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let mut many = PLAIN.to_owned();
        for n in 0..240 {
            many += &format!("console c{n} {{ device /dev/tty{n}; }}\n");
        }
        assert!(read(&many).unwrap_err().starts_with("c.cf:241: there are more than 239"));
    }
}
