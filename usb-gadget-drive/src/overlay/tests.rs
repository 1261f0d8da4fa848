// SPDX-License-Identifier: MIT OR Apache-2.0
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::AtomicBool;

use super::format::MAX_SIZE;
use super::*;
use crate::disk::RealDir;
use crate::source::{Abilities, Extent};

const SIZE: u64 = 40 * CLUSTER + 512;

/// A base whose bytes tell where they are.
struct Base(u64);

fn base_byte(at: u64) -> u8 {
    (at / 512 % 251) as u8 + 1
}

impl Source for Base {
    fn size(&self) -> u64 {
        self.0
    }

    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        for (at, byte) in (offset..).zip(buf) {
            *byte = base_byte(at);
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64, _: bool) -> io::Result<()> {
        panic!("the base is never written");
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        panic!("the base is never written");
    }

    fn zero(&self, _: u64, _: u64, _: Zeroing, _: bool) -> io::Result<()> {
        panic!("the base is never written");
    }
}

/// A file to commit to.
struct Below(std::fs::File);

impl Source for Below {
    fn size(&self) -> u64 {
        SIZE
    }

    fn abilities(&self) -> Abilities {
        Abilities { write: true, ..Abilities::default() }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64, _: bool) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn trim(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _: Zeroing, _: bool) -> io::Result<()> {
        self.0.punch(offset, len)
    }
}

fn header() -> Header {
    let (share, blade) = ("rescue".parse().unwrap(), "b1".parse().unwrap());
    Header { share, blade, id: 7, generation: 2, size: SIZE }
}

fn fresh() -> (tempfile::TempDir, RealDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = RealDir::new(temp.path()).unwrap();
    create(&dir, &header()).unwrap();
    (temp, dir)
}

fn open(dir: &RealDir) -> Result<Overlay<std::fs::File>, OverlayError> {
    Overlay::open(dir, &header(), Arc::new(Base(SIZE)))
}

fn bytes(source: &dyn Source, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    source.read_at(&mut buf, offset).unwrap();
    buf
}

fn of_base(offset: u64, len: usize) -> Vec<u8> {
    (offset..).take(len).map(base_byte).collect()
}

#[test]
fn it_reads_as_the_base_with_what_was_written() {
    let (temp, dir) = fresh();
    let file = temp.path().join("rescue@b1.overlay");
    let overlay = open(&dir).unwrap();
    assert_eq!(overlay.size(), SIZE);
    let mut expected = of_base(0, SIZE as usize);
    assert_eq!(bytes(&overlay, 0, SIZE as usize), expected);
    // Parts of clusters, whole ones, over the border of a group, and the short one at the end.
    for (n, (at, len)) in [
        (512, 1024),
        (CLUSTER - 512, 1024),
        (3 * CLUSTER, 2 * CLUSTER),
        (15 * CLUSTER + 512, 3 * CLUSTER),
        (SIZE - 512, 512),
        (30 * CLUSTER, SIZE - 30 * CLUSTER),
    ]
    .into_iter()
    .enumerate()
    {
        let data = vec![0xa0 + n as u8; len as usize];
        overlay.write_at(&data, at, n % 2 == 0).unwrap();
        expected[at as usize..(at + len) as usize].copy_from_slice(&data);
    }
    let trims = Zeroing { may_trim: true, fast: true };
    for (at, len, how) in [
        (20 * CLUSTER, CLUSTER, trims),
        (21 * CLUSTER, 1024, trims),
        (33 * CLUSTER, 3 * CLUSTER, trims),
        (36 * CLUSTER + 512, 512, trims),
        (0, 2 * CLUSTER, Zeroing::default()),
        (22 * CLUSTER + 512, CLUSTER, Zeroing::default()),
        (38 * CLUSTER, SIZE - 38 * CLUSTER, trims),
    ] {
        overlay.zero(at, len, how, false).unwrap();
        expected[at as usize..(at + len) as usize].fill(0);
    }
    overlay.trim(3 * CLUSTER + 512, 2 * CLUSTER, false).unwrap();
    expected[4 * CLUSTER as usize..5 * CLUSTER as usize].fill(0);
    assert!(bytes(&overlay, 0, SIZE as usize) == expected);
    let mut buf = vec![0; 4096];
    assert!(!overlay.try_read_at(&mut buf, 10 * CLUSTER).unwrap(), "the base would wait");
    assert!(overlay.try_read_at(&mut buf, 20 * CLUSTER).unwrap());
    let usage = overlay.usage();
    // A server that is killed, and one that is not.
    drop(overlay);
    let again = open(&dir).unwrap();
    assert!(bytes(&again, 0, SIZE as usize) == expected);
    assert_eq!(again.usage(), usage);
    again.flush().unwrap();
    drop(again);
    let blocks = std::fs::metadata(file).unwrap().blocks() * 512;
    assert!(blocks < usage.data + 4 * CLUSTER, "{blocks} bytes for {usage:?}");
}

#[test]
fn what_cannot_be_fast_says_so() {
    let (_temp, dir) = fresh();
    let slow = Zeroing { may_trim: false, fast: true };
    let error = open(&dir).unwrap().zero(0, CLUSTER, slow, false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
}

#[test]
fn extents_tell_data_from_holes() {
    let (_temp, dir) = fresh();
    let overlay = open(&dir).unwrap();
    overlay.write_at(&[1; 512], 2 * CLUSTER, false).unwrap();
    overlay.trim(3 * CLUSTER, 2 * CLUSTER, false).unwrap();
    let data = |clusters: u64| Extent { len: clusters * CLUSTER, is_hole: false, is_zero: false };
    let hole = Extent { len: 2 * CLUSTER, is_hole: true, is_zero: true };
    assert_eq!(overlay.extents(0, 6 * CLUSTER, 9).unwrap(), [data(2), data(1), hole, data(1)]);
    assert_eq!(overlay.extents(0, 6 * CLUSTER, 2).unwrap(), [data(2), data(1)]);
}

#[test]
fn a_commit_is_the_base_with_what_was_written() {
    let (_temp, dir) = fresh();
    let overlay = open(&dir).unwrap();
    overlay.write_at(&[7; 1024], 512, false).unwrap();
    overlay.write_at(&vec![8; 20 * CLUSTER as usize], 5 * CLUSTER, false).unwrap();
    overlay.trim(30 * CLUSTER, 2 * CLUSTER, false).unwrap();
    let below = Below(tempfile::tempfile().unwrap());
    below.write_at(&of_base(0, SIZE as usize), 0, false).unwrap();
    let stopped = overlay.commit(&below, &mut |_, _| false).unwrap_err();
    assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    let mut last = (0, 0);
    let mut progress = |done, total| {
        last = (done, total);
        true
    };
    overlay.commit(&below, &mut progress).unwrap();
    assert_eq!(last, (23 * CLUSTER, 23 * CLUSTER));
    assert!(bytes(&below, 0, SIZE as usize) == bytes(&overlay, 0, SIZE as usize));
}

#[test]
fn damage_is_named() {
    let (temp, dir) = fresh();
    let path = temp.path().join("rescue@b1.overlay");
    let good = std::fs::read(&path).unwrap();
    let check = |change: &mut dyn FnMut(&mut Vec<u8>), text: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        std::fs::write(&path, bad).unwrap();
        let error = open(&dir).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(text) && error.contains("rescue@b1"), "{error:?} has no {text:?}");
    };
    check(&mut |bytes| bytes.truncate(100), "has 100 bytes");
    check(&mut |bytes| bytes.truncate(90000), "has 90000 bytes and must have");
    check(&mut |bytes| bytes[0] = 0, "is not an overlay");
    check(&mut |bytes| bytes[8] = 9, "has version 9");
    check(&mut |bytes| bytes[33] ^= 1, "checksum");
    // The first version of the map is in slot 1; nothing was written to slot 0 yet.
    check(&mut |bytes| bytes[2 * PAGE as usize + 100] = 1, "map page 0 are damaged");
    let mut other = Header { generation: 3, ..header() }.encode().to_vec();
    check(&mut |bytes| bytes[..PAGE as usize].swap_with_slice(&mut other), "generation 3");
    std::fs::remove_file(&path).unwrap();
    let missing = open(&dir).err().unwrap();
    assert!(missing.to_string().contains("cannot open overlay"), "{missing}");
    std::fs::write(&path, &good).unwrap();
    remove(&dir, &header().share, &header().blade).unwrap();
    remove(&dir, &header().share, &header().blade).unwrap();
    let large = Header { size: MAX_SIZE + 1, ..header() };
    assert!(matches!(create(&dir, &large), Err(OverlayError::Size { .. })));
}

#[test]
fn many_threads_at_once_lose_nothing() {
    const THREADS: u64 = 8;
    let (_temp, dir) = fresh();
    let overlay = open(&dir).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|me| {
                let overlay = &overlay;
                scope.spawn(move || {
                    // Each has every eighth sector, so that all meet in each cluster.
                    for at in (me * 512..40 * CLUSTER).step_by(512 * THREADS as usize) {
                        let fua = at % (CLUSTER * 4) == me * 512;
                        overlay.write_at(&[100 + me as u8; 512], at, fua).unwrap();
                    }
                })
            })
            .collect();
        let (overlay, is_done) = (&overlay, &is_done);
        scope.spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                overlay.flush().unwrap();
                let found = bytes(overlay, 0, 4096);
                for (n, sector) in found.chunks(512).enumerate() {
                    let (old, new) = (base_byte(n as u64 * 512), 100 + n as u8);
                    assert!(sector.iter().all(|byte| *byte == old || *byte == new));
                }
            }
        });
        let ends: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok));
    });
    let check = |overlay: &Overlay<std::fs::File>| {
        for (n, sector) in bytes(overlay, 0, 40 * CLUSTER as usize).chunks(512).enumerate() {
            assert!(sector.iter().all(|byte| *byte == 100 + (n % 8) as u8), "sector {n}");
        }
    };
    check(&overlay);
    overlay.flush().unwrap();
    drop(overlay);
    check(&open(&dir).unwrap());
}
