// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events in the journal, by its native protocol (systemd's docs/JOURNAL_NATIVE_PROTOCOL.md). The message
//! carries the fields too, as `journalctl` shows nothing else unless asked.

use std::fmt::{self, Write};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::table::printable;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Most bytes of one field: an event with a few of them fits the socket's buffer. The rest is cut off.
const MAX_FIELD: usize = 16 * 1024;

/// Sends events there.
pub(super) struct Journal {
    socket: UnixDatagram,
    program: String,
}

impl Journal {
    /// # Errors
    /// There is no journal.
    pub(super) fn new(program: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        // A journal that does not keep up loses events; the daemon goes on.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, program: program.to_owned() })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // By name: a journal that was restarted has another socket there.
        let _ = self.socket.send_to(&entry(&self.program, event), SOCKET);
    }
}

/// An event as the journal takes it.
fn entry(program: &str, event: &Event<'_>) -> Vec<u8> {
    let metadata = event.metadata();
    // syslog(3)'s numbers.
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    };
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut out = vec![];
    put(&mut out, "PRIORITY", priority);
    put(&mut out, "SYSLOG_IDENTIFIER", program);
    put(&mut out, "TARGET", metadata.target());
    put(&mut out, "MESSAGE", format!("{}{}", fields.message, fields.shown).trim_start());
    out.extend(fields.encoded);
    out
}

/// A field: its name and, since a value may hold line breaks, its length and its value.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(MAX_FIELD);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value[..end];
    out.extend(name.bytes());
    out.push(b'\n');
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.bytes());
    out.push(b'\n');
}

#[derive(Default)]
struct Fields {
    message: String,
    /// Behind the message.
    shown: String,
    encoded: Vec<u8>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            let _ = write!(self.message, "{}", printable(value));
            return;
        }
        let _ = write!(self.shown, " {}={}", field.name(), printable(value));
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = field.name().chars().map(plain).collect();
        put(&mut self.encoded, &format!("MIDPLANE_{name}"), value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    static ENTRY: Mutex<Vec<u8>> = Mutex::new(vec![]);

    struct Capture;

    impl<S: Subscriber> Layer<S> for Capture {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            *ENTRY.lock().unwrap() = entry("kit", event);
        }
    }

    #[test]
    fn an_entry_tells_its_fields_in_the_message_and_apart() {
        let subscriber = tracing_subscriber::registry().with(Capture);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(drive = "a\nb", lun.number = 2, "ejected by {}", "force");
        });
        let field = |name: &str, value: &str| {
            let len = (value.len() as u64).to_le_bytes();
            [format!("{name}\n").as_bytes(), &len, value.as_bytes(), b"\n"].concat()
        };
        let expected = [
            field("PRIORITY", "4"),
            field("SYSLOG_IDENTIFIER", "kit"),
            field("TARGET", "daemon_kit::logging::journal::tests"),
            field("MESSAGE", r"ejected by force drive=a\nb lun.number=2"),
            field("MIDPLANE_DRIVE", "a\nb"),
            field("MIDPLANE_LUN_NUMBER", "2"),
        ];
        assert_eq!(*ENTRY.lock().unwrap(), expected.concat());
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let mut out = vec![];
        put(&mut out, "X", &"é".repeat(MAX_FIELD));
        assert_eq!(out.len(), 2 + 8 + MAX_FIELD + 1);
        put(&mut out, "X", &format!("x{}", "é".repeat(MAX_FIELD)));
        assert_eq!(out.len(), 2 * (2 + 8 + MAX_FIELD + 1) - 1);
    }
}
