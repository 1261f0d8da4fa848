// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the corpus files that have names, from the structures they stand for:
//! `cargo run -p fuzz-targets --example seeds` after the layout of an input has changed. The other
//! files are the fuzzer's own finds, see `fuzz/minimise`.

use std::fs;
use std::path::Path;

use fuzz_targets::Reached;

mod config;
mod device_bmc;
mod device_streams;
mod devices;
mod devintf;
mod drive;
mod group;
mod kvm;
mod monitor;
mod nbd;
mod secure_link;
mod vm_protocol;

fn main() {
    devintf::write();
    vm_protocol::write();
    config::write();
    device_bmc::write();
    device_streams::write();
    devices::write();
    drive::write();
    group::write();
    kvm::write();
    monitor::write();
    nbd::write();
    secure_link::write();
}

/// Writes one seed after making sure that it gets where its name says; nowhere if `wanted` is empty.
fn seed(target: fn(&[u8]) -> Reached, folder: &str, name: &str, wanted: &str, bytes: &[u8]) {
    let reached = target(bytes);
    let there = if wanted.is_empty() { reached.is_empty() } else { reached.contains(wanted) };
    assert!(there, "{folder}/{name} reaches {reached:?}, not {wanted:?}");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(folder);
    fs::create_dir_all(&corpus).expect("the checkout can be written");
    fs::write(corpus.join(name), bytes).expect("the checkout can be written");
}
