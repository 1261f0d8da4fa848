// SPDX-License-Identifier: MIT OR Apache-2.0
//! `kvm-bus import`.

use std::fmt::Write;
use std::path::Path;

use anyhow::{anyhow, bail};

use super::{Kind, World, detect, parse, place, store, write};
use crate::args::{ImportArgs, ImportFormat};

/// Reads a configuration and writes ours. What has no counterpart goes to standard error; gives what was done, in words.
///
/// # Errors
/// What is wrong, with file and line; then nothing was written.
pub fn command(args: &ImportArgs) -> anyhow::Result<String> {
    let file = args.file.display().to_string();
    let text = store::read(&args.file).map_err(|why| anyhow!("{file}: {why}"))?;
    let kind = match (args.format, detect(&text)) {
        (Some(ImportFormat::Conserver), _) => Kind::Conserver,
        (Some(ImportFormat::Ser2net), Some(Kind::Ser2netConf)) => Kind::Ser2netConf,
        (Some(ImportFormat::Ser2net), _) => Kind::Ser2netYaml,
        (None, Some(kind)) => kind,
        (None, None) => {
            bail!("{file}: neither conserver's nor ser2net's by its looks; tell with --format")
        }
    };
    let hosts = own_names();
    let folder = args.file.parent().unwrap_or(Path::new("")).to_owned();
    let mut read = |name: &str| store::read(&folder.join(name));
    let mut found = parse(kind, &text, &file, &mut World { hosts: &hosts, read: &mut read })?;
    let (placed, base) = place(&mut found);
    for warning in &found.warnings {
        eprintln!("kvm-bus: {warning}");
    }
    if placed.is_empty() {
        bail!("{file}: there is no serial console of this machine in it; nothing is written");
    }
    let files = write(kind, &file, &placed, base, &found).map_err(|why| anyhow!(why))?;
    let paths = store::write(&args.output, &files, args.force)?;
    let mut out = String::new();
    for path in paths {
        let _ = writeln!(out, "wrote {}", path.display());
    }
    let units: String =
        placed.iter().map(|placed| format!(" kvm-bus-lmc@{}", placed.name)).collect();
    let _ =
        writeln!(out, "look at them, stop {kind}, then: systemctl enable --now kvm-bus-rmm{units}");
    Ok(out)
}

/// The host's name, whole and its first part.
fn own_names() -> Vec<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let first = name.split('.').next().unwrap_or("");
    [name, first].iter().filter(|name| !name.is_empty()).map(|name| (*name).to_owned()).collect()
}
