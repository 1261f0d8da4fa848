// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file system that keeps its word and no more: at a power cut what was not synced is lost, or there, or torn at
//! the borders of sectors; names come back as they were after some number of the changes since the last sync.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use seeds::Rng;
use usb_gadget_drive::disk::{Boot, Dir, File};

pub const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// Sparse contents.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pages {
    pages: HashMap<u64, Box<[u8; PAGE as usize]>>,
    size: u64,
}

impl Pages {
    pub fn read(&self, buf: &mut [u8], offset: u64) {
        self.parts(buf.len() as u64, offset, |page, within, range| match self.pages.get(&page) {
            Some(page) => buf[range.clone()].copy_from_slice(&page[within..within + range.len()]),
            None => buf[range].fill(0),
        });
    }

    pub fn write(&mut self, buf: &[u8], offset: u64) {
        let mut parts = Vec::new();
        self.parts(buf.len() as u64, offset, |page, within, range| {
            parts.push((page, within, range));
        });
        for (page, within, range) in parts {
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[within..within + range.len()].copy_from_slice(&buf[range]);
        }
        self.size = self.size.max(offset + buf.len() as u64);
    }

    fn parts(
        &self,
        len: u64,
        offset: u64,
        mut each: impl FnMut(u64, usize, std::ops::Range<usize>),
    ) {
        let mut at = 0;
        while at < len {
            let within = (offset + at) % PAGE;
            let part = (PAGE - within).min(len - at);
            each((offset + at) / PAGE, within as usize, at as usize..(at + part) as usize);
            at += part;
        }
    }

    /// The same contents, holes and zeroes alike.
    pub fn is_same(&self, other: &Self) -> bool {
        let covers = |a: &Self, b: &Self| {
            a.pages.iter().all(|(at, page)| match b.pages.get(at) {
                Some(same) => same == page,
                None => page.iter().all(|byte| *byte == 0),
            })
        };
        self.size == other.size && covers(self, other) && covers(other, self)
    }
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Size(u64),
}

impl Change {
    fn apply(&self, to: &mut Pages) {
        match self {
            Self::Write(offset, bytes) => to.write(bytes, *offset),
            Self::Size(size) => {
                if *size < to.size {
                    to.pages.retain(|page, _| page * PAGE < *size);
                }
                to.size = *size;
            }
        }
    }

    /// As it is found after a power cut.
    fn tear(&self, rng: &mut Rng, to: &mut Pages) {
        match (self, rng.below(4)) {
            (_, 0) => {}
            (_, 1) | (Self::Size(_), _) => self.apply(to),
            (Self::Write(offset, bytes), _) => {
                let mut at = 0;
                while at < bytes.len() {
                    let left = SECTOR - (offset + at as u64) % SECTOR;
                    let end = bytes.len().min(at + left as usize);
                    if rng.permille(500) {
                        to.write(&bytes[at..end], offset + at as u64);
                    }
                    at = end;
                }
            }
        }
    }
}

#[derive(Default)]
struct Inode {
    cache: Pages,
    durable: Pages,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum NameChange {
    Put(String, usize),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    fn is_in(&self, dir: &str) -> bool {
        let (Self::Put(name, _) | Self::Remove(name) | Self::Rename(name, _)) = self;
        parent(name) == dir
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

/// The directory a file is in, with its slash; nothing for the first.
fn parent(name: &str) -> &str {
    &name[..name.rfind('/').map_or(0, |at| at + 1)]
}

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Inner {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    /// Changing calls until the power goes.
    left: Option<u64>,
    is_off: bool,
    /// Handles of a process before are dead.
    boot: u64,
    power_cuts: u64,
    open: usize,
    /// The next sync of this file fails, and drops what was not written.
    fail_sync: Option<String>,
    /// Done during the sync after so many others: what another thread does at that moment.
    during_sync: Option<(u64, Hook)>,
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl Inner {
    /// Before anything that changes something.
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => self.is_off = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.is_off { Err(off()) } else { Ok(()) }
    }

    fn name(&mut self, change: NameChange) -> io::Result<()> {
        self.spend()?;
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
        Ok(())
    }
}

/// A directory of a disk. A sync of one says nothing of the others.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>, &'static str);

impl SimDisk {
    /// Another directory of the same disk; its name ends with a slash.
    pub fn directory(&self, name: &'static str) -> Self {
        Self(self.0.clone(), name)
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.1)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic holds it")
    }

    /// The power goes after so many more changing calls.
    pub fn cut_after(&self, calls: u64) {
        self.inner().left = Some(calls);
    }

    pub fn is_off(&self) -> bool {
        self.inner().is_off
    }

    /// The process ends: its handles are dead, and nothing else happens.
    pub fn kill(&self) {
        let mut inner = self.inner();
        inner.boot += 1;
        inner.is_off = false;
        inner.left = None;
        inner.fail_sync = None;
        inner.during_sync = None;
    }

    /// The power is cut, and comes back.
    pub fn power_cut(&self, rng: &mut Rng) {
        self.kill();
        let mut inner = self.inner();
        inner.power_cuts += 1;
        for inode in &mut inner.inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                change.tear(rng, &mut inode.durable);
            }
            inode.cache = inode.durable.clone();
        }
        let changes = std::mem::take(&mut inner.unsynced_names);
        let kept = rng.index(changes.len() + 1);
        for change in &changes[..kept] {
            change.apply(&mut inner.durable_names);
        }
        inner.names = inner.durable_names.clone();
    }

    pub fn fail_next_sync(&self, name: &str) {
        self.inner().fail_sync = Some(name.to_owned());
    }

    pub fn forget_failure(&self) -> bool {
        self.inner().fail_sync.take().is_some()
    }

    pub fn during_sync(&self, after: u64, hook: Hook) {
        self.inner().during_sync = Some((after, hook));
    }

    /// Whether the hook was not called, and is forgotten.
    pub fn forget_hook(&self) -> bool {
        self.inner().during_sync.take().is_some()
    }

    /// Contents as every reader sees them.
    pub fn contents(&self, name: &str) -> Option<Pages> {
        let inner = self.inner();
        inner.names.get(&self.path(name)).map(|inode| inner.inodes[*inode].cache.clone())
    }

    /// Contents that are there after a power cut whatever happens.
    pub fn durable(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner();
        let pages = &inner.inodes[*inner.durable_names.get(&self.path(name))?].durable;
        let mut bytes = vec![0; pages.size as usize];
        pages.read(&mut bytes, 0);
        Some(bytes)
    }

    pub fn open_files(&self) -> usize {
        self.inner().open
    }

    fn handle(&self, name: &str, inode: usize) -> SimFile {
        let mut inner = self.inner();
        inner.open += 1;
        let boot = inner.boot;
        drop(inner);
        SimFile { disk: self.clone(), name: name.to_owned(), inode, boot }
    }
}

impl Dir for SimDisk {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let found = self.inner().names.get(&self.path(name)).copied();
        let inode = if let Some(inode) = found {
            self.handle(name, inode).set_size(0)?;
            inode
        } else {
            let mut inner = self.inner();
            inner.inodes.push(Inode::default());
            let inode = inner.inodes.len() - 1;
            inner.name(NameChange::Put(self.path(name), inode))?;
            inode
        };
        Ok(self.handle(name, inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inner = self.inner();
        if inner.is_off {
            return Err(off());
        }
        let inode = inner.names.get(&self.path(name)).copied();
        drop(inner);
        Ok(self.handle(name, inode.ok_or(io::ErrorKind::NotFound)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner().name(NameChange::Rename(self.path(from), self.path(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.names.contains_key(&self.path(name)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.name(NameChange::Remove(self.path(name)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let inner = self.inner();
        let mine = inner.names.keys().filter(|name| parent(name) == self.1);
        Ok(mine.map(|name| name[self.1.len()..].to_owned()).collect())
    }

    fn boot(&self) -> io::Result<Boot> {
        Ok(u128::from(self.inner().power_cuts).to_be_bytes())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.spend()?;
        let changes = std::mem::take(&mut inner.unsynced_names);
        for change in changes {
            if change.is_in(self.1) {
                change.apply(&mut inner.durable_names);
            } else {
                inner.unsynced_names.push(change);
            }
        }
        Ok(())
    }
}

pub struct SimFile {
    disk: SimDisk,
    name: String,
    inode: usize,
    boot: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.inner().open -= 1;
    }
}

impl SimFile {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner();
        if inner.is_off || inner.boot != self.boot { Err(off()) } else { Ok(inner) }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut inner = self.inner()?;
        let cut = inner.spend();
        let inode = &mut inner.inodes[self.inode];
        // What is on its way when the power goes may arrive.
        inode.unsynced.push(change.clone());
        change.apply(&mut inode.cache);
        cut
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.inner()?;
        let cache = &inner.inodes[self.inode].cache;
        if offset + buf.len() as u64 > cache.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        cache.read(buf, offset);
        Ok(())
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.read_at(buf, offset).map(|()| true)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(offset, buf.to_vec()))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(&vec![0; len as usize], offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.spend()?;
        if inner.fail_sync.as_ref() == Some(&self.name) {
            inner.fail_sync = None;
            let inode = &mut inner.inodes[self.inode];
            inode.unsynced.clear();
            inode.cache = inode.durable.clone();
            return Err(io::Error::other("injected"));
        }
        let covered = inner.inodes[self.inode].unsynced.len();
        let hook = match inner.during_sync.take() {
            Some((0, hook)) => Some(hook),
            Some((n, hook)) => {
                inner.during_sync = Some((n - 1, hook));
                None
            }
            None => None,
        };
        drop(inner);
        if let Some(hook) = hook {
            hook();
        }
        let mut inner = self.inner()?;
        let inode = &mut inner.inodes[self.inode];
        for change in inode.unsynced.drain(..covered) {
            change.apply(&mut inode.durable);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.inner()?.inodes[self.inode].cache.size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.change(Change::Size(size))
    }
}
