// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happened, on disk: a line for each event, with its checksum, in files that take turns. A write that was cut off by a
//! kill is removed at the next start; while the disk is full events wait in memory, and what finds no room there is counted.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::alerts::Event;

/// Bytes of a file before the next one begins.
const MAX_FILE: u64 = 1 << 20;
/// Old files that are kept: with the present one some 40,000 events.
const MAX_OLD: u32 = 7;
/// Events that wait for room on the disk.
pub const MAX_WAITING: usize = 1_000;
/// Events of the past that are read at the start and kept in memory.
pub const MAX_REMEMBERED: usize = 1_000;
/// Longest line, bytes: an event's texts have bounds.
const MAX_LINE: usize = 4_096;
/// Between two attempts to write.
const AGAIN: Duration = Duration::from_secs(1);

/// How the log is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// Why nothing is written; none if it is.
    pub error: Option<String>,
    /// Events that wait.
    pub waiting: usize,
    /// Events that found no room, since the start.
    pub lost: u64,
}

/// A line of the file.
fn line(event: &Event) -> Vec<u8> {
    let json = serde_json::to_string(event).expect("an event has a form in JSON");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// An event of a line; none if it is damaged.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Event> {
    let (sum, json) = line.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    let whole = line.len() <= MAX_LINE && crc32fast::hash(json) == sum;
    whole.then(|| serde_json::from_slice(json).ok()).flatten()
}

/// The files.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    file: File,
    /// Bytes of whole lines; what is behind them was cut off.
    len: u64,
}

impl Files {
    /// Opens the log, and reads what was last written.
    fn open(folder: &Path) -> io::Result<(Self, VecDeque<Event>)> {
        fs::create_dir_all(folder)?;
        let mut events = VecDeque::new();
        for number in (1..=MAX_OLD).rev() {
            let text = fs::read(old(folder, number)).unwrap_or_default();
            remember(&mut events, text.split(|byte| *byte == b'\n'));
        }
        let path = folder.join("events.log");
        let text = fs::read(&path).unwrap_or_default();
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        remember(&mut events, text[..end].split(|byte| *byte == b'\n'));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = end as u64;
        file.set_len(len)?;
        Ok((Self { folder: folder.to_owned(), file, len }, events))
    }

    /// Appends whole lines, or nothing.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.len >= MAX_FILE {
            self.turn()?;
        }
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // A part of it would be taken for damage.
            self.file.set_len(self.len)?;
            return written;
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        for number in (1..MAX_OLD).rev() {
            match fs::rename(old(&self.folder, number), old(&self.folder, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let path = self.folder.join("events.log");
        fs::rename(&path, old(&self.folder, 1))?;
        self.file = OpenOptions::new().create(true).append(true).open(path)?;
        self.len = 0;
        Ok(())
    }
}

fn old(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("events.log.{number}"))
}

fn remember<'a>(events: &mut VecDeque<Event>, lines: impl Iterator<Item = &'a [u8]>) {
    for event in lines.filter_map(parse) {
        if events.len() == MAX_REMEMBERED {
            events.pop_front();
        }
        events.push_back(event);
    }
}

/// A log with a thread that writes it, as a disk may take its time.
#[derive(Debug, Clone)]
pub struct EventLog {
    events: SyncSender<Event>,
    state: Arc<Mutex<LogState>>,
}

impl EventLog {
    /// Opens it; with the events that were last written.
    ///
    /// # Errors
    /// The folder or the file cannot be made or read.
    pub fn open(folder: &Path) -> io::Result<(Self, VecDeque<Event>)> {
        let (files, past) = Files::open(folder)?;
        let (events, receiver) = sync_channel(MAX_WAITING);
        let state = Arc::new(Mutex::new(LogState::default()));
        let writer = Writer { files, waiting: VecDeque::new(), state: state.clone() };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok((Self { events, state }, past))
    }

    /// Has an event written, without waiting.
    pub fn write(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.locked().lost += 1;
        }
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> LogState {
        self.locked().clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    files: Files,
    waiting: VecDeque<Event>,
    state: Arc<Mutex<LogState>>,
}

impl Writer {
    fn run(mut self, events: &Receiver<Event>) {
        loop {
            let first = if self.waiting.is_empty() {
                events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                events.recv_timeout(AGAIN)
            };
            match first {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(event) = events.try_recv() {
                self.take(event);
            }
            self.write();
        }
    }

    fn take(&mut self, event: Event) {
        if self.waiting.len() == MAX_WAITING {
            // The oldest goes: what is wrong now matters more.
            self.waiting.pop_front();
            self.state.lock().unwrap_or_else(PoisonError::into_inner).lost += 1;
        }
        self.waiting.push_back(event);
    }

    fn write(&mut self) {
        let lines: Vec<u8> = self.waiting.iter().flat_map(line).collect();
        let written = self.files.write(&lines);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(()) => {
                self.waiting.clear();
                if state.error.take().is_some() {
                    tracing::info!("events are written again");
                }
            }
            Err(error) => {
                let text = format!("{}: {error}", self.files.folder.display());
                if state.error.is_none() {
                    tracing::error!(error = text, "events are not written and wait in memory");
                }
                state.error = Some(text);
            }
        }
        state.waiting = self.waiting.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::alerts::Kind;

    fn event(seq: u64) -> Event {
        Event {
            seq,
            at_ms: 5,
            kind: Kind::Program,
            place: "1".to_owned(),
            metric: String::new(),
            severity: None,
            text: "x".repeat(300),
            alert: None,
        }
    }

    #[test]
    fn what_was_cut_off_is_removed_and_all_before_it_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.log");
        let whole = [line(&event(1)), line(&event(2))].concat();
        for cut in 0..line(&event(3)).len() {
            let torn = [&whole[..], &line(&event(3))[..cut]].concat();
            fs::write(&path, torn).unwrap();
            let (mut files, past) = Files::open(folder.path()).unwrap();
            assert_eq!(past.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
            files.write(&line(&event(4))).unwrap();
            let (_, past) = Files::open(folder.path()).unwrap();
            assert_eq!(past.back().unwrap().seq, 4);
        }
        let mut damaged = whole.clone();
        damaged[40] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert_eq!(Files::open(folder.path()).unwrap().1.len(), 1);
    }

    #[test]
    fn files_take_turns_and_their_number_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = Files::open(folder.path()).unwrap();
        let many: Vec<u8> = (0..3_000).flat_map(|seq| line(&event(seq))).collect();
        for _ in 0..12 {
            files.write(&many).unwrap();
        }
        let all: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(all.len(), 1 + MAX_OLD as usize);
        let (_, past) = Files::open(folder.path()).unwrap();
        assert_eq!((past.len(), past.back().unwrap().seq), (MAX_REMEMBERED, 2_999));
    }
}
