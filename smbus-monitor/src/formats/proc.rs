// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of proc(5). A line that is not as expected is left out, and all numbers are unsigned.

/// A second has so many ticks in `/proc/stat`: `USER_HZ`, which is part of the ABI.
pub const TICKS: f64 = 100.0;

/// Processor time since the boot, in ticks: a line `cpu…` of `/proc/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// In programs, those that gave way counted; guests are in it.
    pub user: u64,
    /// In the kernel, interrupts counted.
    pub system: u64,
    /// With nothing to do.
    pub idle: u64,
    /// With nothing to do but to wait for a disk.
    pub iowait: u64,
    /// Given to others by the host.
    pub steal: u64,
}

impl CpuTimes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { user, system, idle, iowait, steal } = *self;
        [user, system, idle, iowait, steal].into_iter().fold(0, u64::saturating_add)
    }
}

/// What is read of `/proc/stat`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stat {
    /// Of all processors together.
    pub all: CpuTimes,
    /// Of each, by its number.
    pub each: Vec<(u32, CpuTimes)>,
    /// Interrupts since the boot.
    pub interrupts: u64,
    /// Changes from one thread to another.
    pub switches: u64,
    /// When the machine was booted, in seconds since 1970.
    pub boot_time: u64,
    /// Threads that run or want to.
    pub running: u64,
    /// Threads that wait for a disk.
    pub blocked: u64,
}

/// Reads `/proc/stat`.
#[must_use]
pub fn stat(text: &str) -> Stat {
    let mut stat = Stat::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { continue };
        if let Some(number) = name.strip_prefix("cpu") {
            let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).take(8).collect();
            let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks[..] else {
                continue;
            };
            let times = CpuTimes {
                user: user.saturating_add(nice),
                system: system.saturating_add(irq).saturating_add(softirq),
                idle,
                iowait,
                steal,
            };
            match number.parse() {
                Ok(number) => stat.each.push((number, times)),
                Err(_) => stat.all = times,
            }
            continue;
        }
        let Some(value) = words.next().and_then(|word| word.parse().ok()) else { continue };
        match name {
            "intr" => stat.interrupts = value,
            "ctxt" => stat.switches = value,
            "btime" => stat.boot_time = value,
            "procs_running" => stat.running = value,
            "procs_blocked" => stat.blocked = value,
            _ => {}
        }
    }
    stat
}

/// What is read of `/proc/meminfo`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// All that the kernel has.
    pub total: u64,
    /// Used by nothing.
    pub free: u64,
    /// What programs can have without swapping.
    pub available: u64,
    /// Swap space.
    pub swap_total: u64,
    /// Of it, unused.
    pub swap_free: u64,
}

/// Reads `/proc/meminfo`.
#[must_use]
pub fn meminfo(text: &str) -> Memory {
    let mut memory = Memory::default();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let kib = rest.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        let Some(bytes) = kib.and_then(|kib| kib.checked_mul(1024)) else { continue };
        match name {
            "MemTotal" => memory.total = bytes,
            "MemFree" => memory.free = bytes,
            "MemAvailable" => memory.available = bytes,
            "SwapTotal" => memory.swap_total = bytes,
            "SwapFree" => memory.swap_free = bytes,
            _ => {}
        }
    }
    memory
}

/// The first numbers of `/proc/loadavg` or `/proc/uptime`.
#[must_use]
pub fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let mut words = text.split_ascii_whitespace();
    let mut out = [0.0; N];
    for one in &mut out {
        *one = words.next()?.parse().ok()?;
    }
    Some(out)
}

/// A disk's counters since the boot: a line of `/proc/diskstats` (Documentation/admin-guide/iostats.rst).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Milliseconds in which it had something to do.
    pub busy_ms: u64,
}

/// Sectors are of 512 bytes there, whatever the disk's are.
const SECTOR: u64 = 512;

/// Reads `/proc/diskstats`.
pub fn diskstats(text: &str) -> impl Iterator<Item = Disk> {
    text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some(Disk {
            name: (*words.get(2)?).to_owned(),
            read: number(5)?.saturating_mul(SECTOR),
            written: number(9)?.saturating_mul(SECTOR),
            busy_ms: number(12)?,
        })
    })
}

/// A network interface's counters: a line of `/proc/net/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Bytes received, and errors.
    pub received: (u64, u64),
    /// Bytes sent, and errors.
    pub sent: (u64, u64),
}

/// Reads `/proc/net/dev`.
pub fn net_dev(text: &str) -> impl Iterator<Item = Interface> {
    text.lines().filter_map(|line| {
        // With large numbers there is no blank behind the colon; names may have colons (old aliases).
        let (name, rest) = line.rsplit_once(':')?;
        let numbers: Vec<u64> =
            rest.split_ascii_whitespace().map_while(|w| w.parse().ok()).collect();
        let [received, _, receive_errors, _, _, _, _, _, sent, _, send_errors, ..] = numbers[..]
        else {
            return None;
        };
        let name = name.trim().to_owned();
        Some(Interface { name, received: (received, receive_errors), sent: (sent, send_errors) })
    })
}

/// A line of `/proc/self/mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub device: String,
    /// Where.
    pub at: String,
    /// The kind of file system.
    pub kind: String,
}

/// Reads `/proc/self/mounts`.
pub fn mounts(text: &str) -> impl Iterator<Item = Mount> {
    text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let mut next = || words.next().map(unescape);
        Some(Mount { device: next()?, at: next()?, kind: next()? })
    })
}

/// Blanks, tabs, line ends and backslashes stand there as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        let octal = rest.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                bytes = &rest[3..];
            }
            None => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_machine() {
        let text = "cpu  10 1 20 300 4 5 6 7 0 0\ncpu0 5 0 10 150 2 2 3 4 0 0\ncpu1 bad\nintr 1234 0 1\n\
                    ctxt 99\nbtime 1700000000\nprocs_running 2\nprocs_blocked 1\n";
        let stat = stat(text);
        assert_eq!(stat.all, CpuTimes { user: 11, system: 31, idle: 300, iowait: 4, steal: 7 });
        assert_eq!((stat.each.len(), stat.all.total()), (1, 353));
        assert_eq!((stat.interrupts, stat.switches, stat.running, stat.blocked), (1234, 99, 2, 1));
    }

    #[test]
    fn memory_and_load() {
        let memory = meminfo("MemTotal:  2048 kB\nMemAvailable: 1024 kB\nX\nMemFree: x kB\n");
        assert_eq!((memory.total, memory.available, memory.free), (2 << 20, 1 << 20, 0));
        assert_eq!(numbers("0.50 0.25 0.10 1/80 999"), Some([0.5, 0.25, 0.1]));
        assert_eq!(numbers::<3>("0.50 x"), None);
    }

    #[test]
    fn disks_interfaces_and_mounts() {
        let text = " 254 0 vda 10 0 80 5 20 0 160 9 0 33 14 0 0 0 0\nshort\n";
        let disks: Vec<_> = diskstats(text).collect();
        let disk = Disk { name: "vda".into(), read: 40_960, written: 81_920, busy_ms: 33 };
        assert_eq!(disks, [disk]);
        let text = "Inter-| Receive\n face |bytes\n  eth0:100 1 2 0 0 0 0 0 200 1 3 0 0 0 0 0\n";
        let all: Vec<_> = net_dev(text).collect();
        let eth0 = Interface { name: "eth0".into(), received: (100, 2), sent: (200, 3) };
        assert_eq!(all, [eth0]);
        let all: Vec<_> = mounts("/dev/vda1 /a\\040b ext4 rw 0 0\nbad\n/x\\9 \\1 z").collect();
        assert_eq!((all[0].at.as_str(), all.len()), ("/a b", 2));
        assert_eq!(all[1].device, "/x\\9");
    }
}
