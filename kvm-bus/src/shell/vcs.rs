// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text screen of a blade: attributes and cursor from vcsa(4), characters from vcsu.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use crate::core::screen::{Cell, Screen};

/// Between two looks at a screen that changes all the time: 20 in a second is more than the bus carries.
const PAUSE: Duration = Duration::from_millis(50);
/// For how long one look waits for a change, ms: until it is seen that nobody looks any more.
const WAIT_MS: u16 = 500;
/// Screens that wait for the daemon's loop: the latest, and one that is being taken.
const WAITING: usize = 1;

/// Whether somebody looks.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<AtomicBool>, Option<std::thread::Thread>);

impl Wanted {
    /// Somebody looks, or nobody.
    pub fn set(&self, wanted: bool) {
        self.0.store(wanted, Ordering::Relaxed);
        if let Some(thread) = &self.1 {
            thread.unpark();
        }
    }
}

/// Starts a thread that reads `vcsa` (`/dev/vcsa`, or that of one console) while somebody looks.
///
/// # Errors
/// The devices cannot be opened.
pub fn start(vcsa: &Path) -> io::Result<(Wanted, mpsc::Receiver<Screen>)> {
    let mut source = Source::open(vcsa)?;
    source.read()?;
    let (screens, latest) = mpsc::channel(WAITING);
    let wanted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&wanted);
    let thread = std::thread::Builder::new().name("vcs".to_owned()).spawn(move || {
        while !screens.is_closed() {
            if !seen.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_secs(5));
                continue;
            }
            match source.read() {
                Ok(screen) => drop(screens.blocking_send(screen)),
                Err(error) => tracing::debug!(%error, "cannot read the screen"),
            }
            std::thread::sleep(PAUSE);
            source.wait();
        }
    })?;
    Ok((Wanted(wanted, Some(thread.thread().clone())), latest))
}

struct Source {
    vcsa: File,
    vcsu: File,
}

impl Source {
    fn open(vcsa: &Path) -> io::Result<Self> {
        let name = vcsa.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let number = name.strip_prefix("vcsa").ok_or_else(|| {
            io::Error::other("write /dev/vcsa, or /dev/vcsa1 for the first console alone")
        })?;
        let vcsu: PathBuf = vcsa.with_file_name(format!("vcsu{number}"));
        Ok(Self { vcsa: File::open(vcsa)?, vcsu: File::open(vcsu)? })
    }

    /// Returns when something has changed since the last read, or after a while.
    fn wait(&self) {
        let mut fds = [PollFd::new(self.vcsa.as_fd(), PollFlags::POLLPRI)];
        let _ = poll(&mut fds, PollTimeout::from(WAIT_MS));
    }

    fn read(&mut self) -> io::Result<Screen> {
        let mut attributes = vec![];
        self.vcsa.seek(SeekFrom::Start(0))?;
        (&self.vcsa).take(4 + 2 * 255 * 255).read_to_end(&mut attributes)?;
        let mut characters = vec![];
        self.vcsu.seek(SeekFrom::Start(0))?;
        (&self.vcsu).take(4 * 255 * 255).read_to_end(&mut characters)?;
        parse(&attributes, &characters).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Lines, columns, cursor column and row in a byte each, then character and attribute of each cell; and the characters in
/// Unicode, four bytes each in the machine's order. None where they do not fit, as while the size changes.
fn parse(vcsa: &[u8], vcsu: &[u8]) -> Option<Screen> {
    let ([rows, columns, x, y], cells) = vcsa.split_first_chunk()?;
    let count = usize::from(*rows) * usize::from(*columns);
    if count == 0 || cells.len() < 2 * count || vcsu.len() < 4 * count {
        return None;
    }
    let pairs = vcsu.chunks_exact(4).zip(cells.chunks_exact(2)).take(count);
    let cell = |(unicode, cell): (&[u8], &[u8])| -> Cell {
        let code = u32::from_ne_bytes([unicode[0], unicode[1], unicode[2], unicode[3]]);
        let c = char::from_u32(code).filter(|c| !c.is_control()).unwrap_or(' ');
        (c, cell[1])
    };
    Some(Screen {
        columns: *columns,
        rows: *rows,
        cursor: (*x, *y),
        cells: pairs.map(cell).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_characters_of_one_and_attributes_of_the_other() {
        let vcsa = [1, 2, 1, 0, b'?', 0x1f, b'x', 7];
        let vcsu: Vec<u8> = ['ü' as u32, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let screen = parse(&vcsa, &vcsu).unwrap();
        assert_eq!((screen.columns, screen.rows, screen.cursor), (2, 1, (1, 0)));
        assert_eq!(screen.cells, [('ü', 0x1f), (' ', 7)]);
        assert_eq!(parse(&vcsa[..6], &vcsu), None);
        assert_eq!(parse(&vcsa, &vcsu[..5]), None);
        assert_eq!(parse(&[0, 0, 0, 0], &[]), None);
    }
}
