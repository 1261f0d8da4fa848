// SPDX-License-Identifier: MIT OR Apache-2.0
//! BMCs, by the nodes that the configuration names. What a BMC says of itself is not looked at: the kernel's files of that ask the BMC
//! when they are read, and one that hangs would hold all else (`__bmc_get_device_id` in `ipmi_msghandler.c`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::digest;
use super::folders::name;
use crate::record::{BMC_BUS, Found, IPMI};

/// Why all of it cannot be had, as a USB device can.
const NO_WHOLE: &str = "a BMC is used by its function `ipmi`";

/// The device that a node stands for: the kernel's of a BMC, or one of `ipmi-mux`. None if it is not there, or another.
#[must_use]
pub fn look(sys: &Path, node: &Path) -> Option<Found> {
    let meta = fs::metadata(node).ok().filter(|meta| meta.file_type().is_char_device())?;
    let number = of(meta.rdev());
    let class = fs::canonicalize(sys.join("dev/char").join(&number).join("subsystem")).ok()?;
    let model = match name(&class).as_str() {
        "ipmi" => "BMC",
        "cuse" => "BMC by ipmi-mux",
        _ => return None,
    };
    let node = node.to_str()?.to_owned();
    Some(Found {
        key: format!("bmc {node}"),
        bus: BMC_BUS.to_owned(),
        path: node.clone(),
        types: vec!["bmc".to_owned()],
        vendor: String::new(),
        product: String::new(),
        manufacturer: String::new(),
        model: model.to_owned(),
        serial: String::new(),
        descriptors: digest_of(model, meta.rdev()),
        parts: vec![(IPMI.to_owned(), node)],
        unavailable: Some(NO_WHOLE.to_owned()),
        busy: vec![],
        needs_setup: false,
        instance: 0,
    })
}

fn of(number: u64) -> String {
    format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
}

/// Stands for descriptors: what tells a node from another that has its name later.
#[must_use]
pub fn digest_of(model: &str, number: u64) -> u64 {
    digest(format!("{model} {}", of(number)).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::{Inventory, Offer};
    use super::*;

    /// `/dev/null`, 1:3, stands for a node, and `/dev/zero`, 1:5, for something else.
    #[test]
    fn a_bmc_is_offered_if_its_node_is_named_and_is_one() {
        let sys = tempfile::tempdir().unwrap();
        for (number, class) in [("1:3", "ipmi"), ("1:5", "mem")] {
            let device = sys.path().join("dev/char").join(number);
            let class = sys.path().join("class").join(class);
            fs::create_dir_all(&device).unwrap();
            fs::create_dir_all(&class).unwrap();
            symlink(class, device.join("subsystem")).unwrap();
        }
        let found = |offer: &Offer| Inventory::new(sys.path(), "u".parse().unwrap()).scan(offer);
        assert_eq!(found(&Offer::default()), [], "never by itself");
        let bmcs = ["/dev/null", "/dev/zero", "/dev/ipmi-nowhere"].map(Into::into).to_vec();
        let offer = vec!["type=disk".parse().unwrap()];
        let mut offer = Offer { bmcs, offer, ..Offer::default() };
        let all = found(&offer);
        let nodes: Vec<&str> = all.iter().map(|found| found.path.as_str()).collect();
        assert_eq!(nodes, ["/dev/null"], "and no other node");
        assert_eq!(all[0].parts, [("ipmi".to_owned(), "/dev/null".to_owned())]);
        assert!(!all[0].has_whole() && all[0].unavailable.is_some());
        offer.never = vec!["type=bmc".parse().unwrap()];
        assert_eq!(found(&offer), []);
    }
}
