// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where events go: to the journal with their fields, or to standard error for a person.
//!
//! systemd tells by `JOURNAL_STREAM` that standard error is the journal
//! (systemd.exec(5)); then events go there by its native protocol, which keeps fields apart and
//! takes any bytes. Fields carry the prefix `MIDPLANE_`: `journalctl MIDPLANE_PEER=…`.
//! On standard error an event is one line, with what could steer a terminal escaped.

mod journal;

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::table::printable;

/// The environment variable that holds a filter, such as `debug` or `ipmi_mux::run=trace,info`.
pub const FILTER_VARIABLE: &str = "MIDPLANE_LOG";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter in the environment is no filter.
    #[error("{FILTER_VARIABLE}: {reason}; write a level such as `debug`, or `module=level` pairs")]
    Filter {
        /// What the filter parser said.
        reason: String,
    },
    /// The process logs already.
    #[error("logging is set up twice")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the whole process. `verbosity` counts `-v`: 0 is info, 1 debug, 2 trace;
/// a filter in [`FILTER_VARIABLE`] wins over it.
///
/// # Errors
/// The filter is malformed, or logging was set up before.
pub fn init(program: &str, verbosity: u8) -> Result<(), LogError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref(), verbosity)?;
    let registry = tracing_subscriber::registry().with(filter);
    let stream = std::env::var("JOURNAL_STREAM").ok();
    if stream.is_some_and(|stream| stderr_is(&stream))
        && let Ok(journal) = journal::Journal::new(program)
    {
        return Ok(registry.with(journal).try_init()?);
    }
    let terminal = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(verbosity > 0)
        .fmt_fields(debug_fn(write_field).delimited(" "));
    Ok(registry.with(terminal).try_init()?)
}

fn filter(variable: Option<&str>, verbosity: u8) -> Result<EnvFilter, LogError> {
    // The consensus engine reports each attempt that fails, which its caller handles.
    let level = match verbosity {
        0 => "info,openraft=off",
        1 => "debug,openraft=off",
        _ => "trace",
    };
    let directives = variable.filter(|text| !text.trim().is_empty()).unwrap_or(level);
    EnvFilter::builder()
        .parse(directives)
        .map_err(|err| LogError::Filter { reason: err.to_string() })
}

/// Writes a field, or the message, on one line: values are hostile where a name comes from a FRU
/// or a host.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(to, "{}", printable(&value)),
        name => write!(to, "{name}={}", printable(&value)),
    }
}

/// Whether standard error is the file that `stream`, `DEVICE:INODE`, names.
fn stderr_is(stream: &str) -> bool {
    nix::sys::stat::fstat(io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_count() {
        assert_eq!(filter(None, 0).unwrap().to_string(), "openraft=off,info");
        assert_eq!(filter(Some(" "), 1).unwrap().to_string(), "openraft=off,debug");
        assert_eq!(filter(None, 9).unwrap().to_string(), "trace");
        assert_eq!(filter(Some("warn"), 2).unwrap().to_string(), "warn");
    }

    #[test]
    fn a_malformed_filter_names_the_variable() {
        let err = filter(Some("ipmi=loud"), 0).unwrap_err().to_string();
        assert!(err.starts_with("MIDPLANE_LOG: "), "{err}");
    }

    #[test]
    fn a_line_holds_nothing_that_steers_a_terminal() {
        static LINES: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());
        struct Capture;
        impl io::Write for Capture {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                LINES.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let subscriber = tracing_subscriber::fmt()
            .with_writer(|| Capture)
            .with_ansi(false)
            .without_time()
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(name = %"a\u{1b}[31m\nb", count = 2, "up\n{}", "\u{202e}x");
        });
        let text = String::from_utf8(LINES.lock().unwrap().clone()).unwrap();
        let event = r"up\n\u{202e}x name=a\u{1b}[31m\nb count=2";
        assert_eq!(text, format!(" INFO daemon_kit::logging::tests: {event}\n"));
    }

    #[test]
    fn another_stream_is_not_the_journal() {
        assert!(!stderr_is("0:0"));
        assert!(!stderr_is("nonsense"));
    }
}
