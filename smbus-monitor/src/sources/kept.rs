// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of proc and sysfs that stay open: to read one again costs one system call.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most bytes that are read of a file: `/proc/stat` of a machine with 500 processors and as many interrupts.
const MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Kept {
    /// Opened when it is first read.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, buffer: vec![0; 256] }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it now.
    ///
    /// # Errors
    /// What the kernel says; `ENODEV` when a device is gone, whose file is opened anew the next time.
    pub fn read(&mut self) -> io::Result<&str> {
        if self.file.is_none() {
            self.file = Some(File::open(&self.path)?);
        }
        let mut len = 0;
        loop {
            let file = self.file.as_ref().expect("it was opened above");
            match file.read_at(&mut self.buffer[len..], len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.file = None;
                    return Err(error);
                }
            }
            // A file of sysfs comes whole, one of proc in pages: the end is where nothing more comes.
            if len == self.buffer.len() {
                if len >= MAX {
                    break;
                }
                self.buffer.resize(len * 4, 0);
            } else if len < 256 {
                break;
            }
        }
        std::str::from_utf8(&self.buffer[..len])
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no text"))
    }

    /// A whole number in it.
    ///
    /// # Errors
    /// As of [`Self::read`], or that it holds none.
    pub fn number(&mut self) -> io::Result<i64> {
        let text = self.read()?;
        let number = text.trim().parse();
        number.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_again_and_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut kept = Kept::new(file.path());
        for text in ["25000\n".to_owned(), "7".repeat(100_000)] {
            std::fs::write(file.path(), &text).unwrap();
            assert_eq!(kept.read().unwrap(), text);
        }
        assert!(kept.number().is_err());
        std::fs::write(file.path(), "-5\n").unwrap();
        assert_eq!(kept.number().unwrap(), -5);
        assert!(Kept::new(Path::new("/nowhere")).read().is_err());
    }
}
