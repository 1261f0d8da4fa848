// SPDX-License-Identifier: MIT OR Apache-2.0
//! How full file systems are. A server that is gone holds whoever asks, so this has a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::statvfs;

use super::kept::Kept;
use super::{Source, ms};
use crate::core::{Batch, Now};
use crate::formats::proc::{self, Mount};
use crate::metric::{Exported, Meta, Reading, Unit};

/// Most file systems.
const MAX: usize = 128;

/// See the module.
#[derive(Debug)]
pub struct Filesystems {
    interval: Duration,
    mounts: Kept,
    metas: BTreeMap<String, [Arc<Meta>; 3]>,
}

impl Filesystems {
    /// All that are on something: a disk, a server.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let mounts = Kept::new(Path::new("/proc/self/mounts"));
        Self { interval, mounts, metas: BTreeMap::new() }
    }

    fn metas(&mut self, mount: &Mount) -> [Arc<Meta>; 3] {
        let Mount { device, at, kind } = mount;
        let interval = ms(self.interval);
        let new = || {
            let labels = [("device", device.as_str()), ("fstype", kind), ("mountpoint", at)];
            let meta = |what: &str, unit, name: &str| {
                let exported = Exported::gauge(name, &labels);
                let place = if at == "/" { "root".to_owned() } else { at[1..].replace('/', "_") };
                let meta = Meta::new(&format!("fs/{place}/{what}"), at, unit, interval);
                Arc::new(meta.exported(exported))
            };
            [
                meta("used", Unit::Percent, ""),
                meta("available", Unit::Bytes, "node_filesystem_avail_bytes"),
                meta("size", Unit::Bytes, "node_filesystem_size_bytes"),
            ]
        };
        self.metas.entry(at.clone()).or_insert_with(new).clone()
    }
}

/// Whether it can become full: it is on a disk or a server, and can be written at all.
fn counts(mount: &Mount) -> bool {
    let Mount { device, at, kind } = mount;
    let on_something = device.starts_with("/dev/") || device.contains(":/") || kind == "zfs";
    let on_something = on_something || device.starts_with("//");
    let read_only = ["squashfs", "iso9660", "erofs", "udf"].contains(&kind.as_str());
    on_something && !read_only && at.starts_with('/')
}

impl Source for Filesystems {
    fn name(&self) -> &str {
        "fs"
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn read(&mut self, _: Now) -> Batch {
        let text = self.mounts.read().unwrap_or_default();
        let mut seen = BTreeSet::new();
        // What is mounted over another is the one that is seen; a device that is mounted again says nothing new.
        let all: BTreeMap<String, Mount> = proc::mounts(text)
            .filter(counts)
            .filter(|mount| seen.insert(mount.device.clone()))
            .map(|mount| (mount.at.clone(), mount))
            .take(MAX)
            .collect();
        self.metas.retain(|at, _| all.contains_key(at));
        let mut readings = vec![];
        for (at, mount) in all {
            let [used, available, size] = self.metas(&mount);
            match statvfs(at.as_str()) {
                Ok(found) if found.f_blocks > 0 => {
                    let block = found.f_frsize as f64;
                    let (free, left) = (found.f_bfree as f64, found.f_bavail as f64);
                    let taken = found.f_blocks as f64 - free;
                    // As df(1) has it: of what its users may have.
                    let share = taken / (taken + left).max(1.0) * 100.0;
                    readings.push(Reading::new(&used, share));
                    readings.push(Reading::new(&available, left * block));
                    readings.push(Reading::new(&size, found.f_blocks as f64 * block));
                }
                Ok(_) => {}
                Err(error) => readings.push(Reading::failed(&used, error)),
            }
        }
        Batch { source: "fs".to_owned(), readings, complete: true }
    }
}
