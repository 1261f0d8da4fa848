// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ipmi_mux.h` and [`ipmi_mux::extension`] say the same, and the example is valid C.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::mem::offset_of;
use std::process::Command;

use ipmi_mux::extension::{Sequence, ioctl};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

fn compile(source: &str, program: &std::path::Path) {
    let strict = ["-std=c11", "-Wall", "-Wextra", "-Werror"];
    let cc = Command::new("cc").args(strict).arg("-o").arg(program).arg(source).output();
    let cc = cc.expect("a C compiler, cc");
    assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
}

#[test]
fn the_header_is_what_we_decode() {
    let expected = [
        ("IPMI_MUX_RESERVE_COMMAND", ioctl::RESERVE_COMMAND as usize),
        ("IPMI_MUX_RELEASE_COMMAND", ioctl::RELEASE_COMMAND as usize),
        ("IPMI_MUX_RESERVE_SEQUENCE", ioctl::RESERVE_SEQUENCE as usize),
        ("IPMI_MUX_RELEASE_SEQUENCE", ioctl::RELEASE_SEQUENCE as usize),
        ("IPMI_MUX_ATTACH", ioctl::ATTACH as usize),
        ("sizeof(struct ipmi_mux_sequence)", size_of::<Sequence>()),
        ("offsetof(struct ipmi_mux_sequence, count)", offset_of!(Sequence, count)),
        ("offsetof(struct ipmi_mux_sequence, first)", offset_of!(Sequence, first)),
        ("offsetof(struct ipmi_mux_sequence, token)", offset_of!(Sequence, token)),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("ask.c"), dir.path().join("ask"));
    let asked: String =
        expected.iter().map(|(e, _)| format!("printf(\"%zu\\n\", (size_t)({e}));\n")).collect();
    let text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include \"{CRATE}/include/ipmi_mux.h\"\n\
         int main(void) {{\n{asked}return 0; }}\n"
    );
    std::fs::write(&source, text).unwrap();
    compile(source.to_str().unwrap(), &program);
    let told = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    let told: Vec<usize> = told.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(told.len(), expected.len());
    for ((expression, ours), theirs) in expected.iter().zip(told) {
        assert_eq!(*ours, theirs, "{expression}");
    }
}

#[test]
fn the_example_compiles() {
    let dir = tempfile::tempdir().unwrap();
    compile(&format!("{CRATE}/examples/virtual-clients.c"), &dir.path().join("example"));
}
