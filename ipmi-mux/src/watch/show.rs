// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records as lines of text for people, and as JSON for programs.

use daemon_kit::table::printable;
use daemon_kit::utc::date_time;
use serde::Serialize;

use super::{Kind, Message, Origin, Record, decode, filter::short_node};

/// Columns before the free text.
const COLUMNS: usize = 7;
const HEADER: [&str; COLUMNS] =
    ["TIME (UTC)", "NODE", "PROCESS", "COMMAND", "CODE", "TOOK", "FROM"];

/// Lines in aligned columns. A column grows with what comes and never shrinks.
#[derive(Debug)]
pub struct Lines {
    widths: [usize; COLUMNS],
    colours: bool,
}

impl Lines {
    /// Columns of a usual width, with or without colours.
    #[must_use]
    pub fn new(colours: bool) -> Self {
        Self { widths: [12, 7, 15, 24, 4, 6, 4], colours }
    }

    /// The names of the columns.
    #[must_use]
    pub fn header(&mut self) -> String {
        self.row(HEADER.map(str::to_owned), "WHAT")
    }

    /// A record as one line, with its end.
    #[must_use]
    pub fn line(&mut self, record: &Record) -> String {
        let mut line = match (&record.message, record.missed) {
            (Some(message), _) => {
                let cells = [
                    date_time(record.time_us / 1_000_000)[11..].to_owned()
                        + &format!(".{:03}", record.time_us / 1000 % 1000),
                    record.who.as_ref().map_or("-", |who| short_node(&who.node)).to_owned(),
                    process(record),
                    command(record.kind, message),
                    code(record),
                    record.took_us.map_or("-".to_owned(), took),
                    from(record).to_owned(),
                ];
                self.row(cells, &what(record, message))
            }
            (None, missed) => {
                let missed = missed.unwrap_or(0);
                format!("-- {missed} records missed: more passes than can be shown --\n")
            }
        };
        if let Some(colour) = self.colour(record) {
            line.truncate(line.trim_end().len());
            line = format!("\u{1b}[{colour}m{line}\u{1b}[0m\n");
        }
        line
    }

    fn row(&mut self, cells: [String; COLUMNS], what: &str) -> String {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&mut self.widths) {
            let cell = printable(cell);
            *width = cell.chars().count().max(*width);
            line.push_str(&format!("{cell:width$}  ", width = *width));
        }
        line.push_str(&printable(what));
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }

    /// Red for what failed, yellow for what is not known, cyan for what came unasked.
    fn colour(&self, record: &Record) -> Option<&'static str> {
        let colour = match record.kind {
            Kind::Answer if record.code() == Some(0) => None,
            Kind::Answer | Kind::Refused => Some("31"),
            Kind::Unanswered | Kind::Missed => Some("33"),
            Kind::Event | Kind::Command => Some("36"),
            Kind::Request => Some("2"),
        };
        colour.filter(|_| self.colours)
    }
}

/// A record with its text, for programs.
#[derive(Debug, Serialize)]
pub struct Explained<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// Name of the command; `event` for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// What the line for people says under WHAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl<'a> Explained<'a> {
    /// Of a record.
    #[must_use]
    pub fn of(record: &'a Record) -> Self {
        let message = record.message.as_ref();
        Self {
            record,
            command: message.map(|message| command(record.kind, message)),
            text: message.map(|message| what(record, message)),
        }
    }
}

fn command(kind: Kind, message: &Message) -> String {
    match kind {
        Kind::Event => "event".to_owned(),
        _ => decode::name(message.netfn, message.cmd),
    }
}

/// What the message is about, and what went wrong.
fn what(record: &Record, message: &Message) -> String {
    let request = message.request.as_deref().unwrap_or_default();
    let answer = message.answer.as_deref();
    let mut parts = vec![];
    if let Some(target) = message.target {
        let way = if record.kind == Kind::Command { "from" } else { "to" };
        parts.push(format!("{way} {target:#04x} on channel {}", message.channel));
    }
    match record.code() {
        Some(0) | None => {}
        Some(code) => parts.push(decode::code(message.netfn, message.cmd, code)),
    }
    match (record.kind, record.sent) {
        (Kind::Event, _) => parts.push(decode::event(answer.unwrap_or_default())),
        (Kind::Unanswered, Some(true)) => {
            parts.push("closed before the answer, the BMC has it".to_owned());
        }
        (Kind::Unanswered, _) => parts.push("closed before it was sent".to_owned()),
        _ => {}
    }
    if record.kind != Kind::Event {
        let data = answer.and_then(|answer| answer.get(1..));
        parts.push(decode::describe(message.netfn, message.cmd, request, data));
    }
    if message.blanked {
        parts.push("secret blanked".to_owned());
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// `ipmitool[4711]`.
#[must_use]
pub fn process(record: &Record) -> String {
    let Some(who) = &record.who else { return "-".to_owned() };
    format!("{}[{}]", who.process.as_deref().unwrap_or("?"), who.pid)
}

fn code(record: &Record) -> String {
    match (record.code(), &record.errno) {
        (Some(code), _) => format!("{code:02x}"),
        (None, Some(errno)) => errno.clone(),
        (None, None) => "-".to_owned(),
    }
}

fn took(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{}ms", us / 1000, us / 100 % 10),
        10_000..10_000_000 => format!("{}ms", us / 1000),
        _ => format!("{}s", us / 1_000_000),
    }
}

fn from(record: &Record) -> &'static str {
    match (record.origin, record.kind) {
        (Some(Origin::Bmc), _) | (None, Kind::Event | Kind::Command) => "bmc",
        (Some(Origin::Shared), _) => "shared",
        (Some(Origin::Cache), _) => "cache",
        (Some(Origin::Mux), _) | (None, Kind::Refused) => "mux",
        (None, _) => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::answer;

    #[test]
    fn a_line_has_who_what_and_how_it_went() {
        let mut lines = Lines::new(false);
        let header = lines.header();
        let line = lines.line(&answer(0x0a, 0x22, &[], &[0, 0x34, 0x12]));
        assert_eq!(
            line,
            "22:13:20.123  ipmi/1   ipmitool[4711]   Reserve SDR Repository    00    3.2ms   bmc   \
             reservation 0x1234\n"
        );
        assert_eq!(header.find("WHAT"), line.find("reservation"));
        let line = lines.line(&answer(0x0a, 0x23, &[1, 0, 2, 0, 0, 16], &[0xc5]));
        assert!(line.ends_with(
            "c5    3.2ms   bmc   reservation cancelled or invalid; record 0x0002 offset 0, 16 bytes\n"
        ));
    }

    #[test]
    fn what_has_no_answer_says_why() {
        let mut lines = Lines::new(false);
        let mut record = answer(0x00, 0x02, &[0], &[]);
        record.message.as_mut().unwrap().answer = None;
        record.origin = None;
        record.kind = Kind::Unanswered;
        record.sent = Some(true);
        let line = lines.line(&record);
        assert!(line.ends_with("closed before the answer, the BMC has it; power down\n"), "{line}");
        record.kind = Kind::Refused;
        record.errno = Some("EBUSY".to_owned());
        let line = lines.line(&record);
        assert!(line.contains(" EBUSY ") && line.contains(" mux "), "{line}");
        let missed = Record { missed: Some(12), ..Record::new(0, Kind::Missed) };
        assert!(lines.line(&missed).starts_with("-- 12 records missed"));
    }

    #[test]
    fn names_cannot_steer_a_terminal_and_colours_are_ours() {
        let mut record = answer(6, 1, &[], &[0xc1]);
        record.who.as_mut().unwrap().process = Some("a\u{1b}[2J".to_owned());
        assert!(Lines::new(false).line(&record).contains("a\\u{1b}[2J[4711]"));
        let line = Lines::new(true).line(&record);
        assert!(line.starts_with("\u{1b}[31m") && line.ends_with("\u{1b}[0m\n"));
        assert_eq!(line.matches('\u{1b}').count(), 2);
    }

    #[test]
    fn json_has_the_record_and_its_text() {
        let json =
            serde_json::to_value(Explained::of(&answer(6, 0x46, &[2], b"\0ADMIN\0"))).unwrap();
        assert_eq!(json["command"], "Get User Name");
        assert_eq!(json["text"], "user 2 -> name \"ADMIN\"");
        assert_eq!((&json["netfn"], &json["answer"]), (&6.into(), &"0041444d494e00".into()));
    }
}
