// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;

/// Bytes in memory that count how many of them are read.
#[derive(Default)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    read: AtomicU64,
    fails: AtomicBool,
}

impl Memory {
    fn new(len: u64) -> Arc<Self> {
        let bytes = (0..len).map(|at| (at / 7 % 251) as u8).collect();
        Arc::new(Self { bytes: Mutex::new(bytes), ..Self::default() })
    }
}

impl Source for Arc<Memory> {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn abilities(&self) -> Abilities {
        Abilities { write: true, ..Abilities::default() }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("the network"));
        }
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let at = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64, _fua: bool) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[at..at + buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, _offset: u64, _len: u64, _fua: bool) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _how: Zeroing, fua: bool) -> io::Result<()> {
        self.write_at(&vec![0; usize::try_from(len).unwrap()], offset, fua)
    }
}

const SIZE: u64 = 20 * CHUNK + 77;

fn all(source: &dyn Source) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(source.size()).unwrap()];
    for (at, part) in (0u64..).zip(bytes.chunks_mut(10_000)) {
        source.read_at(part, at * 10_000).unwrap();
    }
    bytes
}

#[test]
fn many_readers_read_the_source_once() {
    let memory = Memory::new(SIZE);
    let cached = Arc::new(Cached::new(Arc::clone(&memory), Cache::new(SIZE + CHUNK)));
    let together = Arc::new(Barrier::new(8));
    let readers = (0..8).map(|_| {
        let (cached, together) = (Arc::clone(&cached), Arc::clone(&together));
        thread::spawn(move || {
            together.wait();
            all(&*cached)
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert!(reader.join().unwrap() == *memory.bytes.lock().unwrap());
    }
    assert_eq!(memory.read.load(Ordering::Relaxed), SIZE);
    assert_eq!(cached.cache.usage().fetched, SIZE);
}

#[test]
fn it_stays_within_its_room() {
    let memory = Memory::new(SIZE + 100 * CHUNK);
    let cache = Cache::new(16 * CHUNK);
    let cached = Cached::new(Arc::clone(&memory), Arc::clone(&cache));
    assert!(all(&cached) == *memory.bytes.lock().unwrap());
    assert!(cache.usage().bytes <= 16 * CHUNK);
    drop(cached);
    assert_eq!(cache.usage().bytes, 0);
}

#[test]
fn a_change_is_seen_by_the_next_reader() {
    let memory = Memory::new(SIZE);
    let cached = Cached::new(Arc::clone(&memory), Cache::new(SIZE));
    all(&cached);
    cached.write_at(&[9; 300], CHUNK - 100, false).unwrap();
    cached.zero(5 * CHUNK, CHUNK, Zeroing::default(), false).unwrap();
    assert!(all(&cached) == *memory.bytes.lock().unwrap());
    let mut buf = [0; 300];
    assert!(cached.try_read_at(&mut buf, CHUNK - 100).unwrap());
    assert_eq!(buf, [9; 300]);
}

#[test]
fn an_error_is_not_kept() {
    let memory = Memory::new(SIZE);
    let cached = Cached::new(Arc::clone(&memory), Cache::new(SIZE));
    memory.fails.store(true, Ordering::Relaxed);
    assert!(cached.read_at(&mut [0; 9], 0).is_err());
    memory.fails.store(false, Ordering::Relaxed);
    cached.read_at(&mut [0; 9], 0).unwrap();
}
