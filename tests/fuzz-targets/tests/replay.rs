// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays what the fuzzers found: the corpora, which together reach all that is listed here, and
//! the inputs that once broke something.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzz_targets::drive_disk::drive_disk;
use fuzz_targets::{
    Reached, config, device_bmc, device_streams, devices, devintf, drive_config, drive_link, group,
    kvm_control, kvm_frame, kvm_hotkey, kvm_import, kvm_telnet, monitor, nbd_options, nbd_requests,
    secure_link, vm_protocol,
};

/// Most files in a corpus and their bytes together; beyond them it wants `fuzz/minimise`.
const MAX_FILES: usize = 300;
const MAX_BYTES: usize = 300 * 1024;

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files
}

/// Runs `target` on every file kept for it; the corpus must reach all of `wanted`.
fn replay(name: &str, target: fn(&[u8]) -> Reached, wanted: &[&str]) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let corpus = files(&fuzz.join("corpus").join(name));
    assert!(!corpus.is_empty(), "there is no corpus for {name}; it belongs to the sources");
    let mut reached = BTreeSet::new();
    let mut broken = vec![];
    let mut bytes = 0;
    let count = corpus.len();
    for file in corpus.into_iter().chain(files(&fuzz.join("regressions").join(name))) {
        let input = fs::read(&file).expect("a readable file");
        bytes += input.len();
        match catch_unwind(|| target(&input)) {
            Ok(places) => reached.extend(places),
            Err(_) => broken.push(file),
        }
    }
    assert!(broken.is_empty(), "these inputs break {name}: {broken:#?}");
    let missed: Vec<_> = wanted.iter().filter(|place| !reached.contains(**place)).collect();
    assert!(missed.is_empty(), "the corpus of {name} no longer reaches {missed:?}");
    assert!(count <= MAX_FILES && bytes <= MAX_BYTES, "{name}: {count} files, {bytes} bytes");
}

#[test]
fn devintf_corpus() {
    replay(
        "devintf",
        devintf,
        &[
            "send",
            "send with timing",
            "register",
            "unregister",
            "set events",
            "set address",
            "get address",
            "set LUN",
            "get LUN",
            "set timing",
            "get timing",
            "set maintenance",
            "get maintenance",
            "delivered",
            "delivered in part",
            "unsettled",
            "EFAULT",
            "EINVAL",
            "EMSGSIZE",
            "ENOTTY",
            "loose",
            "malformed",
            "ioctl",
            "init",
            "init refused",
            "open",
            "release",
            "poll",
            "interrupt",
            "other",
        ],
    );
}

#[test]
fn vm_protocol_corpus() {
    replay(
        "vm_protocol",
        vm_protocol,
        &[
            "message",
            "control",
            "request",
            "response",
            "refused",
            "too short",
            "too long",
            "checksum",
            "ends in escape",
            "built",
            "too large to build",
            "ipmb",
            "full sensor",
            "compact sensor",
            "FRU locator",
            "MC locator",
            "other record",
            "system event",
            "OEM event with time",
            "OEM event",
            "inventory",
            "chassis",
            "board",
            "product",
        ],
    );
}

#[test]
fn config_corpus() {
    replay(
        "config",
        config,
        &[
            "device",
            "tcp",
            "unix",
            "unknown key",
            "bad node name",
            "name twice",
            "no node",
            "bad address",
            "two addresses",
            "bad deadline",
            "deadlines in disorder",
            "too many nodes",
            "missing key",
            "bad mode",
            "bad duration",
            "wrong type or syntax",
            "too deep",
            "not text",
        ],
    );
}

#[test]
fn nbd_options_corpus() {
    replay(
        "nbd_options",
        nbd_options,
        &[
            "ack",
            "listed",
            "info",
            "context",
            "unsupported",
            "policy",
            "platform",
            "shutdown",
            "invalid",
            "tls required",
            "unknown",
            "too big",
            "starttls",
            "serve",
            "serve structured",
            "serve with context",
            "done",
            "bad magic",
            "bad flags",
            "too long",
            "no such export",
            "injected",
        ],
    );
}

#[test]
fn nbd_requests_corpus() {
    replay(
        "nbd_requests",
        nbd_requests,
        &[
            "read",
            "write",
            "flush",
            "trim",
            "zero",
            "status",
            "EPERM",
            "EINVAL",
            "ENOSPC",
            "EOVERFLOW",
            "no request",
            "simple",
            "failed",
            "chunk",
            "runs",
            "error",
            "info",
            "info request",
            "queries",
            "listed",
            "context",
            "greeting",
            "option reply",
            "option",
            "data",
        ],
    );
}

#[test]
fn drive_disk_corpus() {
    replay(
        "drive_disk",
        drive_disk,
        &[
            "header",
            "no overlay",
            "other version",
            "checksum",
            "size of a cluster",
            "size",
            "name of the share",
            "name of the blade",
            "map page",
            "no map page",
            "live map",
            "map",
            "zeroes",
            "damaged places",
            "damaged header",
            "another overlay",
            "short file",
            "damaged map",
            "state",
            "damaged state",
            "state of another version",
            "no state",
            "state without sense",
        ],
    );
}

#[test]
fn drive_link_corpus() {
    replay(
        "drive_link",
        drive_link,
        &[
            "hello",
            "drives",
            "too many drives",
            "done",
            "failure",
            "alive",
            "welcome",
            "refused",
            "insert",
            "eject",
            "too long",
            "export",
            "export with access",
            "export anew",
            "export in an epoch",
            "export of a generation",
            "grant to write",
            "grant to read",
            "drive",
        ],
    );
}

#[test]
fn drive_config_corpus() {
    replay(
        "drive_config",
        drive_config,
        &[
            "no share",
            "read-only share",
            "exclusive share",
            "private share",
            "a blade alone",
            "drives of its own",
            "a blade with a manager",
            "unknown key",
            "bad name",
            "too many shares",
            "no certificates",
            "nobody may write",
            "writer of a read-only share",
            "bad address",
            "bad host",
            "writable CD",
            "name twice",
            "too many drives",
            "missing key",
            "too deep",
            "wrong type or syntax",
            "not text",
        ],
    );
}

#[test]
fn secure_link_corpus() {
    replay(
        "secure_link",
        secure_link,
        &[
            "opening",
            "no opening",
            "hello",
            "no hello",
            "refusal",
            "no refusal",
            "keyring",
            "program's keyring",
            "no keyring",
            "not text",
            "roster",
            "no roster",
            "handshake",
            "no handshake",
            "datagram",
            "changed datagram",
            "frame",
            "changed frame",
        ],
    );
}

#[test]
fn device_bmc_corpus() {
    replay(
        "device_bmc",
        device_bmc,
        &[
            "a control",
            "sent",
            "answered",
            "too many",
            "overdue",
            "a client goes",
            "the end",
            "events are wanted",
            "too many events",
        ],
    );
}

#[test]
fn device_streams_corpus() {
    replay(
        "device_streams",
        device_streams,
        &[
            "opened",
            "data",
            "a full window",
            "no room",
            "room",
            "closed",
            "a frame",
            "late",
            "refused",
        ],
    );
}

#[test]
fn devices_corpus() {
    replay(
        "devices",
        devices,
        &[
            "from a unit",
            "published",
            "a finder is told",
            "wrong",
            "from a peer",
            "given up",
            "a gap",
            "leased",
            "turned away",
            "a disk",
            "it fits",
            "to a holder",
            "a device",
        ],
    );
}

#[test]
fn group_corpus() {
    replay(
        "group",
        group,
        &[
            "welcome",
            "welcome again",
            "push",
            "again",
            "leaving",
            "program",
            "call",
            "answer",
            "unknown kind",
            "beat",
            "here",
            "another manager",
            "closed",
            "set back",
            "envelope",
            "vote",
            "entries",
            "state",
            "proposal",
            "set",
            "remove",
            "order",
            "order done",
            "admit",
            "dismiss",
        ],
    );
}

#[test]
fn kvm_frame_corpus() {
    replay(
        "kvm_frame",
        kvm_frame,
        &[
            "damaged",
            "too long",
            "version",
            "fields",
            "frame",
            "for all",
            "for an RMM",
            "for a blade",
            "hello",
            "welcome",
            "to an LMC",
            "from an LMC",
            "keys",
            "select",
            "selected",
            "console",
            "screen",
        ],
    );
}

#[test]
fn kvm_telnet_corpus() {
    replay("kvm_telnet", kvm_telnet, &["data", "answer", "break", "set", "for ever"]);
}

#[test]
fn kvm_hotkey_corpus() {
    replay(
        "kvm_hotkey",
        kvm_hotkey,
        &[
            "passed",
            "swallowed",
            "said again",
            "command ended",
            "named",
            "next",
            "previous",
            "command",
        ],
    );
}

#[test]
fn kvm_import_corpus() {
    replay(
        "kvm_import",
        kvm_import,
        &["conserver", "yaml", "conf", "detected", "error", "warning", "renamed", "port"],
    );
}

#[test]
fn kvm_control_corpus() {
    replay(
        "kvm_control",
        kvm_control,
        &[
            "session",
            "up",
            "down",
            "coupled",
            "uncoupled",
            "keys",
            "typed",
            "console",
            "gap",
            "break",
            "line",
            "pointer",
            "power",
            "not coupled",
        ],
    );
}

#[test]
fn monitor_corpus() {
    replay(
        "monitor",
        monitor,
        &[
            "voltage",
            "no voltage",
            "impossible voltage",
            "location",
            "product",
            "inventory",
            "reading",
            "no reading",
            "other record",
            "no record",
            "processor",
            "memory",
            "load",
            "disk",
            "interface",
            "mount",
            "identity",
            "acted",
            "alerts",
            "values",
            "event",
            "no event",
            "rule",
            "slot",
            "not set",
            "configuration",
            "chips",
            "refused",
            "not text",
        ],
    );
}
