// SPDX-License-Identifier: MIT OR Apache-2.0
//! What both forms of ser2net's configuration say of a serial line, and of the network in front of it: gensio(5), and
//! ser2net.conf(5) of ser2net 4.

use super::{At, Found};
use crate::config::format::Flow;
use crate::wire::{ConsoleSettings, Parity};

/// How a line is set; before anything is said as ser2net does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    /// Speed and format.
    pub settings: ConsoleSettings,
    rts_cts: bool,
    xon_xoff: bool,
    /// Mark or space, which we do not have.
    no_parity: bool,
}

impl Default for Serial {
    fn default() -> Self {
        let settings = ConsoleSettings { baud: 9600, ..ConsoleSettings::default() };
        Self { settings, rts_cts: false, xon_xoff: false, no_parity: false }
    }
}

/// What an option was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// One that we have, or that asks for what we do anyway.
    Taken,
    /// Another one.
    Other,
}

impl Serial {
    /// Takes an option of a serial line: `9600n81`, `rtscts`, `-XONXOFF`, `1STOPBIT`, `local=false`.
    pub fn option(&mut self, word: &str) -> Known {
        let lower = word.to_ascii_lowercase();
        if let Some(speed) = lower.strip_prefix("speed=") {
            return self.speed(speed);
        }
        let (name, on) = match (lower.strip_prefix('-'), lower.split_once('=')) {
            (Some(name), _) => (name, false),
            (None, Some((name, "true" | "on" | "yes" | "1"))) => (name, true),
            (None, Some((name, "false" | "off" | "no" | "0"))) => (name, false),
            (None, _) => (lower.as_str(), true),
        };
        match (name, on) {
            ("rtscts", _) => self.rts_cts = on,
            ("xonxoff", _) => self.xon_xoff = on,
            ("none" | "even" | "odd" | "mark" | "space", true) => self.parity(name),
            ("1stopbit", true) => self.settings.stop_bits = 1,
            ("2stopbits", true) => self.settings.stop_bits = 2,
            ("5databits" | "6databits" | "7databits" | "8databits", true) => {
                self.settings.data_bits = name.as_bytes()[0] - b'0';
            }
            // So it is here.
            ("local", true) | ("nobreak" | "hangup-when-done" | "hangup_when_done", false) => {}
            ("wronly" | "rs485", false) => {}
            _ => return self.speed(&lower),
        }
        Known::Taken
    }

    fn parity(&mut self, name: &str) {
        self.no_parity = matches!(name, "mark" | "space" | "m" | "s");
        self.settings.parity = match name {
            "even" | "e" => Parity::Even,
            "odd" | "o" => Parity::Odd,
            _ => Parity::None,
        };
    }

    /// `9600`, `9600n`, `9600n8`, `9600n81`.
    fn speed(&mut self, word: &str) -> Known {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let (baud, format) = word.split_at(digits);
        let (Ok(baud @ 1..), true) = (baud.parse::<u32>(), format.len() <= 3) else {
            return Known::Other;
        };
        let mut next = *self;
        next.settings.baud = baud;
        for (at, letter) in format.char_indices() {
            match (at, letter) {
                (0, 'n' | 'e' | 'o' | 'm' | 's') => next.parity(&format[..1]),
                (1, '5'..='8') => next.settings.data_bits = format.as_bytes()[1] - b'0',
                (2, '1' | '2') => next.settings.stop_bits = format.as_bytes()[2] - b'0',
                _ => return Known::Other,
            }
        }
        *self = next;
        Known::Taken
    }

    /// Who may hold back whom; tells what we cannot set.
    pub fn flow(&self, at: &At, found: &mut Found) -> Flow {
        if self.no_parity {
            found.warn(at, "there is no mark or space parity here: the line is set without parity");
        }
        flow(self.rts_cts, self.xon_xoff, at, found)
    }
}

/// Of two ways to hold back we have one at a time.
pub fn flow(rts_cts: bool, xon_xoff: bool, at: &At, found: &mut Found) -> Flow {
    match (rts_cts, xon_xoff) {
        (false, false) => Flow::None,
        (false, true) => Flow::XonXoff,
        (true, false) => Flow::RtsCts,
        (true, true) => {
            found.warn(at, "flow control is one of RTS/CTS and XON/XOFF here: RTS/CTS is taken");
            Flow::RtsCts
        }
    }
}

/// Words between commas that are outside of parentheses and quotes, without the blanks around them.
pub fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0_usize, false, 0);
    let mut parts = vec![];
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if depth == 0 && !quoted => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// Where the network reached a console; the port, if it is one of TCP that we can have as well.
pub fn accepter(text: &str, at: &At, found: &mut Found) -> Option<u16> {
    let mut telnet = false;
    let mut host = None;
    let mut port = None;
    let mut others = vec![];
    for part in split(text) {
        let name = part.split('(').next().unwrap_or("").trim().to_ascii_lowercase();
        match name.as_str() {
            "telnet" => telnet = true,
            "tcp" | "ipv4" | "ipv6" | "ipv6n4" => {}
            _ if part.bytes().all(|b| b.is_ascii_digit()) => port = part.parse::<u16>().ok(),
            _ if host.is_none() && is_host(part) => host = Some(part),
            _ => others.push(name),
        }
    }
    if !others.is_empty() {
        let others = others.join(", ");
        found.warn(at, format!("there is no {others} here: consoles are reached by SSH, by kvm-bus(8), and by telnet on loopback"));
        return None;
    }
    let port = port.filter(|port| *port > 1);
    if port.is_none() {
        found.warn(at, "no TCP port is named by its number: the console has another one here");
    } else if !telnet {
        found.warn(at, "was raw TCP and is telnet with RFC 2217 here: clients are to speak telnet");
    }
    if !host.is_some_and(|host| host == "localhost" || host == "::1" || host.starts_with("127.")) {
        found.warn(
            at,
            "was reached from other machines; telnet is on loopback alone here: from afar use SSH",
        );
    }
    port
}

fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part == "0"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::format::format;

    #[test]
    fn a_line_is_set_by_words_of_both_forms() {
        for (words, wanted) in [
            ("9600n81 local", (9600, "8N1", Flow::None)),
            ("115200E72 rtscts", (115_200, "7E2", Flow::RtsCts)),
            ("19200 EVEN 7DATABITS 2STOPBITS XONXOFF LOCAL", (19200, "7E2", Flow::XonXoff)),
            ("speed=300o xonxoff xonxoff=false", (300, "8O1", Flow::None)),
            ("rtscts -RTSCTS 57600", (57600, "8N1", Flow::None)),
        ] {
            let (mut serial, mut found) = (Serial::default(), Found::default());
            for word in words.split(' ') {
                assert_eq!(serial.option(word), Known::Taken, "{word}");
            }
            let at = At { file: "x".into(), line: 1 };
            let settings = serial.settings;
            let read = (settings.baud, format(settings), serial.flow(&at, &mut found));
            assert_eq!(read, (wanted.0, wanted.1.to_owned(), wanted.2), "{words}");
            assert!(found.warnings.is_empty());
        }
    }

    #[test]
    fn words_that_are_none_change_nothing() {
        for word in [
            "",
            "9600x81",
            "9600n91",
            "9600n813",
            "0",
            "99999999999",
            "rs485=x",
            "-9600",
            "local=false",
            "é",
        ] {
            let mut serial = Serial::default();
            assert_eq!(serial.option(word), Known::Other, "{word}");
            assert_eq!(serial, Serial::default());
        }
    }

    #[test]
    fn the_network_in_front_is_read_and_what_differs_is_told() {
        for (text, port, told) in [
            ("telnet(rfc2217),tcp,localhost,2000", Some(2000), vec![]),
            ("telnet,tcp,::1,2000", Some(2000), vec![]),
            ("telnet, tcp , 127.0.0.1, 2000", Some(2000), vec![]),
            ("tcp,localhost,2000", Some(2000), vec!["raw TCP"]),
            ("2000", Some(2000), vec!["other machines", "raw TCP"]),
            ("telnet,mux,certauth(a,b),ssl,tcp,2000", None, vec!["no mux, certauth, ssl"]),
            ("telnet,tcp,localhost,console", None, vec!["no console here"]),
            ("telnet,tcp,localhost,99999", None, vec!["no TCP port"]),
        ] {
            let (at, mut found) = (At { file: "x".into(), line: 1 }, Found::default());
            assert_eq!(accepter(text, &at, &mut found), port, "{text}");
            let warnings: Vec<_> = found.warnings.iter().map(|remark| &remark.text).collect();
            assert_eq!(warnings.len(), told.len(), "{text}: {warnings:?}");
            for part in told {
                assert!(warnings.iter().any(|text| text.contains(part)), "{warnings:?}");
            }
        }
    }
}
