// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ser2net.conf`: ser2net.conf(5) of ser2net 3 and 4, `PORT:STATE:TIMEOUT:DEVICE:OPTIONS` in each line.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::serial::{Known, Serial, accepter};
use super::{At, Console, Found, Remark};

/// Lines that are no consoles.
const WORDS: &[&str] = &[
    "BANNER",
    "SIGNATURE",
    "OPENSTR",
    "CLOSESTR",
    "CLOSEON",
    "DEVICE",
    "TRACEFILE",
    "CONTROLPORT",
    "DEFAULT",
    "DELDEFAULT",
    "RS485CONF",
    "ROTATOR",
    "LED",
];
const STATES: &[&str] = &["raw", "rawlp", "telnet", "off", "on"];

/// Whether a line is one of such a file.
#[must_use]
pub fn is_line(line: &str) -> bool {
    line.split_once(':').is_some_and(|(word, _)| WORDS.contains(&word)) || fields(line).is_some()
}

/// Port, state and the rest. The port may have colons, as an address of IPv6.
fn fields(line: &str) -> Option<(&str, &str, &str)> {
    let colons = line.match_indices(':').map(|(at, _)| at);
    colons.into_iter().find_map(|at| {
        let (state, rest) = line[at + 1..].split_once(':')?;
        STATES.contains(&state).then_some((&line[..at], state, rest))
    })
}

/// Reads it.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str, file: &str) -> Result<Found, Remark> {
    let file: Arc<str> = file.into();
    let mut reader = Reader::default();
    let mut line = String::new();
    let mut begins = 1;
    for (number, piece) in text.lines().enumerate() {
        if line.is_empty() {
            begins = number + 1;
        }
        // A backslash at the end: the next line belongs to this one.
        if let Some(piece) = piece.strip_suffix('\\') {
            line += piece;
            continue;
        }
        line += piece;
        let at = At { file: Arc::clone(&file), line: begins };
        reader.line(&std::mem::take(&mut line), &at)?;
    }
    if !line.is_empty() {
        return Err(Remark::new(
            &At { file, line: begins },
            "the line goes on behind the end of the file",
        ));
    }
    Ok(reader.found)
}

#[derive(Debug, Default)]
struct Reader {
    devices: BTreeMap<String, String>,
    /// Names of texts, which stand alone among the options.
    texts: BTreeMap<String, &'static str>,
    serial: Serial,
    found: Found,
}

impl Reader {
    fn line(&mut self, line: &str, at: &At) -> Result<(), Remark> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (word, rest) = line.split_once(':').unwrap_or((line, ""));
        if let Some(word) = WORDS.iter().copied().find(|known| *known == word) {
            return self.word(word, rest, at);
        }
        let Some((port, state, rest)) = fields(line) else {
            return Err(Remark::new(
                at,
                "this is neither PORT:STATE:TIMEOUT:DEVICE:OPTIONS nor a line that begins with a known word",
            ));
        };
        let mut rest = rest.splitn(3, ':');
        let timeout = rest.next().unwrap_or("").trim();
        let device = rest.next().unwrap_or("").trim();
        if timeout.parse::<u32>().is_err() {
            return Err(Remark::new(at, format!("`{}` is no time in seconds", cut(timeout))));
        }
        if device.is_empty() {
            return Err(Remark::new(at, "there is no device in this line"));
        }
        let options = rest.next().unwrap_or("");
        self.port(port.trim(), state, timeout, device, options, at)
    }

    fn word(&mut self, word: &'static str, rest: &str, at: &At) -> Result<(), Remark> {
        let (name, value) = rest.split_once(':').unwrap_or((rest, ""));
        let name = name.trim();
        if name.is_empty() {
            return Err(Remark::new(at, format!("{word} is to be followed by a name")));
        }
        match word {
            "DEVICE" => drop(self.devices.insert(name.to_owned(), value.trim().to_owned())),
            "DEFAULT" => {
                let (value, class) = value.split_once(':').unwrap_or((value, ""));
                let of_lines = matches!(class.trim(), "" | "serialdev");
                let option = format!("{name}={}", value.trim());
                if !of_lines || self.serial.option(&option) == Known::Other {
                    self.found.warn(at, format!("default `{}` has no counterpart", cut(name)));
                }
            }
            // Told where they are used.
            "BANNER" | "SIGNATURE" | "OPENSTR" | "CLOSESTR" | "CLOSEON" => {
                self.texts.insert(name.to_owned(), word);
            }
            _ => self.found.warn(at, format!("{word} has no counterpart")),
        }
        Ok(())
    }

    fn port(
        &mut self,
        port: &str,
        state: &str,
        timeout: &str,
        device: &str,
        options: &str,
        at: &At,
    ) -> Result<(), Remark> {
        let device = self.devices.get(device).map_or(device, String::as_str).to_owned();
        if state == "off" || state == "rawlp" || !device.starts_with('/') {
            let why = match state {
                "off" => "is off",
                "rawlp" => "is a printer",
                _ => "is no serial line of this machine",
            };
            self.found
                .warn(at, format!("{} at port {} {why}; it is left out", cut(&device), cut(port)));
            return Ok(());
        }
        if timeout != "0" {
            self.found.warn(
                at,
                "the time limit has no counterpart: nobody is sent away for being silent",
            );
        }
        let mut serial = self.serial;
        for option in options.split_whitespace() {
            if serial.option(option) == Known::Taken {
                continue;
            }
            let text = match (self.texts.get(option), option) {
                (Some(word), _) => format!("{word} has no counterpart"),
                // So it is here.
                (None, "max-connections=1" | "-kickolduser" | "remctl" | "-remctl") => continue,
                (None, _) => format!("`{}` has no counterpart", cut(option)),
            };
            self.found.warn(at, text);
        }
        let gensio = if state == "telnet" { format!("telnet,{port}") } else { port.to_owned() };
        let network = accepter(&gensio, at, &mut self.found);
        let flow = serial.flow(at, &mut self.found);
        let name = device.rsplit('/').next().unwrap_or("").to_owned();
        self.found.add(Console {
            at: at.clone(),
            name,
            device,
            settings: serial.settings,
            flow,
            port: network,
        })
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
        parse(text, "s.conf").map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_all_kinds_are_read() {
        let text = "# ser2net\nBANNER:b:hello \\\nworld\\r\\n\nDEVICE:usb:/dev/serial/by-path/pci-0000:00:1d.0-port0\nDEFAULT:speed:19200:serialdev\n\
            localhost,2001:telnet:600:/dev/ttyS0:9600 EVEN 2STOPBITS 7DATABITS XONXOFF \\\n\tLOCAL -RTSCTS b\n\
            telnet,::1,3001:raw:0:usb:remctl max-connections=3\n2003:off:0:/dev/ttyS2:9600\n2004:raw:0:sol.lan x:9600\n5001:rawlp:10:/dev/lp0\nROTATOR:4001:2001\n";
        let found = read(text).unwrap();
        let lines: Vec<_> = found
            .consoles
            .iter()
            .map(|c| {
                format!(
                    "{} {} {} {} {} {:?}",
                    c.at,
                    c.device,
                    c.settings.baud,
                    format(c.settings),
                    c.flow,
                    c.port
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "s.conf:6 /dev/ttyS0 9600 7E2 xon-xoff Some(2001)",
                "s.conf:8 /dev/serial/by-path/pci-0000:00:1d.0-port0 19200 8N1 none Some(3001)",
            ]
        );
        let told: Vec<_> = found.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "s.conf:6: BANNER has no counterpart",
                "s.conf:6: the time limit has no counterpart: nobody is sent away for being silent",
                "s.conf:8: `max-connections=3` has no counterpart",
                "s.conf:9: /dev/ttyS2 at port 2003 is off; it is left out",
                "s.conf:10: sol.lan x at port 2004 is no serial line of this machine; it is left out",
                "s.conf:11: /dev/lp0 at port 5001 is a printer; it is left out",
                "s.conf:12: ROTATOR has no counterpart",
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_an_error_with_its_line() {
        for (text, wanted) in [
            ("\nhello\n", "s.conf:2: this is neither"),
            ("2001:maybe:0:/dev/ttyS0:9600\n", "s.conf:1: this is neither"),
            ("2001:raw:soon:/dev/ttyS0:9600\n", "s.conf:1: `soon` is no time"),
            ("2001:raw:0\n", "s.conf:1: there is no device"),
            ("BANNER\n", "s.conf:1: BANNER is to be followed by a name"),
            ("# x\n2001:raw:0:/dev/ttyS0:\\\n9600\\", "s.conf:2: the line goes on"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
