// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shipped configuration, and one text for each mistake.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz_targets::config;

use crate::seed;

pub fn write() {
    let shipped: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ipmi-mux/ipmi-mux.toml");
    let shipped = fs::read_to_string(shipped).expect("the shipped configuration");
    // All that it comments out, too.
    let enabled: String = shipped
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with([' ', '#'])).unwrap_or(line))
        .filter(|line| !line.starts_with("device ="))
        .flat_map(|line| [line, "\n"])
        .collect();
    let long = format!("[[nodes]]\nname = \"{}1..9\"", "n".repeat(60));
    let (deep, deep_key) =
        (format!("a = {}", "[".repeat(100)), format!("a{} = 1", ".a".repeat(100)));
    let cases = [
        ("deep.toml", "too deep", &deep[..]),
        ("deep-key.toml", "too deep", &deep_key),
        ("shipped.toml", "device", &shipped[..]),
        ("enabled.toml", "tcp", &enabled),
        ("empty.toml", "device", ""),
        ("unix.toml", "unix", "[bmc]\nvm = \"unix:/run/bmc.sock\""),
        ("inline.toml", "device", "bmc = {deadline = \"2s\"}\nnodes = [{name = \"a\"}]"),
        ("range.toml", "device", "[[nodes]]\nname = \"ipmi/9..11\"\nmode = \"0600\""),
        ("long-name.toml", "device", &long),
        ("key.toml", "unknown key", "[bmc]\ndevise = \"/dev/ipmi0\""),
        ("name.toml", "bad node name", "\n[[nodes]]\nname = \"../sda\""),
        ("hidden.toml", "bad node name", "[[nodes]]\nname = \"ipmi/.1\""),
        ("slashes.toml", "bad node name", "[[nodes]]\nname = \"ipmi//1\""),
        ("order.toml", "bad node name", "[[nodes]]\nname = \"ipmi/8..1\""),
        (
            "many.toml",
            "too many nodes",
            "[[nodes]]\nname = \"a/1..999\"\n[[nodes]]\nname = \"b1..99\"",
        ),
        ("range-too-long.toml", "bad node name", "[[nodes]]\nname = \"ipmi/1..9999\""),
        ("twice.toml", "name twice", "[[nodes]]\nname = \"a\"\n[[nodes]]\nname = \"a\""),
        ("none.toml", "no node", "nodes = []"),
        ("address.toml", "bad address", "[bmc]\nvm = \"9002\""),
        ("both.toml", "two addresses", "[bmc]\ndevice = \"/x\"\nvm = \"tcp:h:1\""),
        ("deadline.toml", "bad deadline", "[bmc]\ndeadline = \"1ms\""),
        ("deadlines.toml", "deadlines in disorder", "[bmc]\ndeadline = \"2m\""),
        ("duration.toml", "bad duration", "[bmc]\ndeadline = \"5 s\""),
        ("mode.toml", "bad mode", "[[nodes]]\nname = \"a\"\nmode = \"0990\""),
        ("type.toml", "wrong type or syntax", "[bmc]\ndeadline = 5"),
        ("syntax.toml", "wrong type or syntax", "[[nodes]\nname = "),
        ("missing.toml", "missing key", "[[nodes]]\nowner = \"root\""),
        ("control.toml", "wrong type or syntax", "[bmc]\nvm = \"\u{e9}\u{1b}[31m\""),
        ("turned.toml", "bad address", "[bmc]\r\nvm = \"\\u001b\u{202e}x\""),
    ];
    for (name, wanted, text) in cases {
        seed(config, "config", name, wanted, text.as_bytes());
    }
    seed(config, "config", "latin1.toml", "not text", b"# \xe9\n");
}
