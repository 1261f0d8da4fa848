// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory and a device in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use usb_gadget_drive::disk::{Boot, Dir, File};
use usb_gadget_drive::source::{Abilities, Source, Zeroing};

/// A file, and with it a device of the file's size.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    pub fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no panic holds it")
    }

    fn range(offset: u64, len: usize) -> std::ops::Range<usize> {
        let begin = usize::try_from(offset).expect("small files");
        begin..begin + len
    }
}

impl File for Memory {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes();
        let part = bytes.get(Self::range(offset, buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let range = Self::range(offset, buf.len());
        let mut bytes = self.bytes();
        if bytes.len() < range.end {
            bytes.resize(range.end, 0);
        }
        bytes[range].copy_from_slice(buf);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let range = Self::range(offset, usize::try_from(len).expect("small files"));
        let end = range.end.min(bytes.len());
        bytes[range.start.min(end)..end].fill(0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(size).expect("small files"), 0);
        Ok(())
    }
}

impl Source for Memory {
    fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn abilities(&self) -> Abilities {
        Abilities { write: true, ..Abilities::default() }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        File::read_at(self, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64, _: bool) -> io::Result<()> {
        assert!(offset + buf.len() as u64 <= Source::size(self), "a write behind the end");
        File::write_at(self, buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _: Zeroing, _: bool) -> io::Result<()> {
        assert!(offset + len <= Source::size(self), "zeroes behind the end");
        self.punch(offset, len)
    }
}

/// Files by name.
#[derive(Default)]
pub struct Folder {
    pub files: Mutex<BTreeMap<String, Memory>>,
    pub boot: Boot,
}

impl Folder {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Memory>> {
        self.files.lock().expect("no panic holds it")
    }

    fn take(&self, name: &str) -> io::Result<Memory> {
        self.files().remove(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Dir for Folder {
    type File = Memory;

    fn create(&self, name: &str) -> io::Result<Memory> {
        let new = Memory::default();
        self.files().insert(name.to_owned(), new.clone());
        Ok(new)
    }

    fn open(&self, name: &str) -> io::Result<Memory> {
        self.files().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.take(from)?;
        self.files().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.take(name).map(drop)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn boot(&self) -> io::Result<Boot> {
        Ok(self.boot)
    }
}
