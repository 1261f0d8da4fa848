// SPDX-License-Identifier: MIT OR Apache-2.0
//! Console logs: a file for each blade, with time stamps, rotated; beside it where the console stands, so that a new life
//! of the RMM goes on from there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use daemon_kit::utc::date_time;

use super::clock::unix_time;
use crate::config::rmm::Logs;

/// Bytes of a log that `replay` reads at most: what an operator scrolls through.
const REPLAYED: u64 = 256 << 10;

/// One blade's log.
#[derive(Debug)]
pub struct Log {
    settings: Logs,
    name: String,
    file: Option<File>,
    written: u64,
    /// The next byte begins a line.
    fresh: bool,
    /// Why nothing can be written, once told.
    error: Option<String>,
    /// Bytes that were not written since.
    lost: u64,
    /// Bytes written, and writes that failed, ever.
    counts: (u64, u64),
}

impl Log {
    /// That of a blade.
    #[must_use]
    pub fn new(settings: &Logs, name: &str) -> Self {
        let settings = settings.clone();
        Self {
            settings,
            name: name.to_owned(),
            file: None,
            written: 0,
            fresh: true,
            error: None,
            lost: 0,
            counts: (0, 0),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes written, and writes that failed, ever.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.counts
    }

    fn path(&self) -> PathBuf {
        self.settings.dir.join(format!("{}.log", self.name))
    }

    fn older(&self, number: u32) -> PathBuf {
        self.settings.dir.join(format!("{}.log.{number}", self.name))
    }

    /// What the console said. A disk that takes nothing costs the log alone; when it takes something again the log says
    /// how much is missing.
    pub fn said(&mut self, bytes: &[u8]) {
        let mut out = vec![];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if std::mem::replace(&mut self.fresh, piece.ends_with(b"\n")) {
                out.extend(format!("[{}] ", date_time(unix_time())).bytes());
            }
            out.extend(piece.iter().filter(|byte| **byte != b'\r' && **byte != 0));
        }
        self.write(&out, bytes.len() as u64);
    }

    /// A note of our own, on a line of its own.
    pub fn note(&mut self, text: &str) {
        let end = if self.fresh { "" } else { "\n" };
        self.fresh = true;
        self.write(format!("{end}[{}] -- {text} --\n", date_time(unix_time())).as_bytes(), 0);
    }

    fn write(&mut self, bytes: &[u8], counts: u64) {
        match self.try_write(bytes) {
            Ok(()) => {
                self.counts.0 += bytes.len() as u64;
                if let Some(error) = self.error.take() {
                    let lost = std::mem::take(&mut self.lost);
                    tracing::info!(console = %self.name, lost, "the log is written again");
                    self.note(&format!("{lost} bytes are missing here: {error}"));
                }
            }
            Err(error) => {
                self.file = None;
                self.counts.1 += 1;
                self.lost += counts;
                if self.error.is_none() {
                    tracing::warn!(log = %self.path().display(), %error, "cannot write the log; the console goes on");
                    self.error = Some(error.to_string());
                }
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            fs::create_dir_all(&self.settings.dir)?;
            let file = OpenOptions::new().append(true).create(true).open(self.path())?;
            self.written = file.metadata()?.len();
            self.file = Some(file);
        }
        if self.written > 0 && self.written + bytes.len() as u64 > self.settings.size {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..self.settings.kept).rev() {
            if self.older(number).exists() {
                fs::rename(self.older(number), self.older(number + 1))?;
            }
        }
        if self.settings.kept > 0 {
            fs::rename(self.path(), self.older(1))?;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(self.path())?;
        drop(file);
        self.file = Some(OpenOptions::new().append(true).open(self.path())?);
        self.written = 0;
        Ok(())
    }
}

/// The last `lines` of a blade's log, across what was rotated.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn tail(settings: &Logs, name: &str, lines: usize) -> io::Result<Vec<u8>> {
    let mut text = end_of(&settings.dir.join(format!("{name}.log")))?;
    for number in 1..=settings.kept {
        if text.iter().filter(|byte| **byte == b'\n').count() >= lines
            || text.len() as u64 >= REPLAYED
        {
            break;
        }
        match end_of(&settings.dir.join(format!("{name}.log.{number}"))) {
            Ok(older) => text = [older, text].concat(),
            Err(_) => break,
        }
    }
    let end = text.len() - usize::from(text.ends_with(b"\n"));
    let starts = text[..end].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = starts.map(|(at, _)| at + 1).nth(lines.saturating_sub(1)).unwrap_or(0);
    Ok(text.split_off(start))
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(REPLAYED)))?;
    let mut text = vec![];
    file.take(REPLAYED).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_time_stamps_and_files_are_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Logs { dir: dir.path().to_owned(), size: 100, kept: 2 };
        let mut log = Log::new(&settings, "b1");
        log.said(b"one\r\nt");
        log.said(b"wo\n");
        let text = fs::read_to_string(dir.path().join("b1.log")).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.split_once("] ").unwrap()).collect();
        assert_eq!((lines[0].1, lines[1].1), ("one", "two"));
        assert!(lines[0].0.starts_with("[20"), "{text}");
        for n in 0..20 {
            log.said(format!("line {n}\n").as_bytes());
        }
        assert!(dir.path().join("b1.log.2").exists() && !dir.path().join("b1.log.3").exists());
        let last = String::from_utf8(tail(&settings, "b1", 5).unwrap()).unwrap();
        assert_eq!(last.lines().count(), 5);
        assert!(last.ends_with("line 19\n") && last.contains("line 15\n"), "{last}");
        log.said(b"unfinished");
        log.note("gone");
        assert!(fs::read_to_string(dir.path().join("b1.log")).unwrap().ends_with("-- gone --\n"));
        assert!(tail(&settings, "b2", 5).is_err());
    }

    #[test]
    fn a_disk_that_takes_nothing_is_noted_when_it_does_again() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("logs");
        fs::write(&blocked, "a file, no folder").unwrap();
        let settings = Logs { dir: blocked.clone(), size: 10_000, kept: 1 };
        let mut log = Log::new(&settings, "b1");
        log.said(b"lost\n");
        fs::remove_file(&blocked).unwrap();
        log.said(b"kept\n");
        let text = fs::read_to_string(blocked.join("b1.log")).unwrap();
        assert!(text.contains("kept\n") && text.contains("5 bytes are missing"), "{text}");
        assert_eq!(log.counts(), (text.len() as u64, 1));
    }
}
