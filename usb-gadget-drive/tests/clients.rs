// SPDX-License-Identifier: MIT OR Apache-2.0
//! The running program and the clients that people use. More of them are in `tests/conformance`.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::net::TcpListener;
use std::path::Path;

use common::{PROGRAM, Server, good, image, need, run};

fn server(arguments: &[String]) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "d.img", 16);
    let shares =
        [format!("--share=d={}", path.display()), format!("--share=r={}:ro", path.display())];
    Server::start(dir, &[&shares[..], arguments].concat())
}

fn path(server: &Server, name: &str) -> String {
    server.dir.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn nbdinfo_sees_what_there_is() {
    need("nbdinfo");
    let server = server(&[]);
    let list = good("nbdinfo", &["--list", "--json", &server.uri("")]);
    for wanted in ["\"d\"", "\"r\"", "\"can_fast_zero\": true", "base:allocation"] {
        assert!(list.contains(wanted), "{wanted} in {list}");
    }
    assert!(!run("nbdinfo", &[&server.uri("none")]).status.success());
    good("nbdinfo", &["--is", "read-only", &server.uri("r")]);
    good("nbdinfo", &["--can", "multi-conn", &server.uri("d")]);
}

#[test]
fn nbdcopy_copies_both_ways() {
    need("nbdcopy");
    let server = server(&[]);
    let (ours, copy, other) =
        (path(&server, "d.img"), path(&server, "copy"), image(server.dir.path(), "other", 15));
    good("nbdcopy", &[&server.uri("d"), &copy]);
    good("cmp", &[&ours, &copy]);
    // 15 MiB and a hole.
    std::fs::File::options().write(true).open(&other).unwrap().set_len(16 << 20).unwrap();
    good("nbdcopy", &["--flush", other.to_str().unwrap(), &server.uri("d")]);
    good("cmp", &[&ours, other.to_str().unwrap()]);
    let map = good("nbdinfo", &["--map", &server.uri("d")]);
    assert!(map.contains("hole,zero"), "{map}");
}

#[test]
fn qemu_reads_writes_and_compares() {
    need("qemu-io");
    need("qemu-img");
    let server = server(&[]);
    let commands = [
        "write -P 5 4096 65536",
        "write -z 8192 4096",
        "discard 1M 1M",
        "write -f -P 7 33333 1M",
        "read -P 5 4096 4096",
        "read -P 0 8192 4096",
        "read -P 7 33333 1M",
        "flush",
    ];
    let uri = server.uri("d");
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(&uri);
    let said = good("qemu-io", &arguments);
    assert!(!said.contains("failed"), "{said}");
    good("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, &path(&server, "d.img")]);
    assert!(
        !run("qemu-io", &["-f", "raw", "-c", "write 0 512", &server.uri("r")]).status.success()
    );
}

#[test]
fn fio_verifies_what_it_wrote() {
    need("fio");
    let server = server(&[]);
    let uri = format!("--uri={}", server.uri("d"));
    good(
        "fio",
        &[
            "--name=v",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bsrange=512-128k",
            "--size=16m",
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--fsync=32",
            "--verify_state_save=0",
            "--output=/dev/null",
        ],
    );
}

#[test]
fn a_client_may_start_the_server() {
    need("nbdinfo");
    let dir = tempfile::tempdir().unwrap();
    let share = format!("d={}", image(dir.path(), "d.img", 1).display());
    // This is socket activation, by LISTEN_FDS.
    let size = good("nbdinfo", &["--size", "--", "[", PROGRAM, "serve", "--share", &share, "]"]);
    assert_eq!(size.trim(), "1048576");
}

#[test]
fn standard_input_may_be_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let share = format!("d={}", image(dir.path(), "d.img", 1).display());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut child = std::process::Command::new(PROGRAM)
        .args(["serve", "--stdin", "--share", &share])
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let mut client = common::Client::go(ours, "", false);
    assert_eq!(client.read(4096, 1).unwrap(), [2]);
    client.send(2, 0, 0, 0, b"");
    assert!(child.wait().unwrap().success());
}

/// An authority, a server and a client in `dir`.
fn certificates(dir: &Path, client: &str) {
    let dir = dir.to_str().unwrap();
    good(PROGRAM, &["cert", "--dir", dir, "ca"]);
    good(PROGRAM, &["cert", "--dir", dir, "server", "localhost"]);
    good(PROGRAM, &["cert", "--dir", dir, "client", client]);
}

/// A client with four connections opens the overlay's file four times at once, and must find one overlay.
#[test]
fn connections_of_one_client_share_an_overlay() {
    need("nbdcopy");
    let dir = tempfile::tempdir().unwrap();
    let (base, new) = (image(dir.path(), "base.img", 8), dir.path().join("new.img"));
    let before = std::fs::read(&base).unwrap();
    std::fs::write(&new, before.iter().map(|byte| !byte).collect::<Vec<u8>>()).unwrap();
    let config = dir.path().join("config.toml");
    let state = dir.path().join("state");
    let text = format!(
        "state_dir = {state:?}\nruntime_dir = {state:?}\n[shares.p]\npath = {base:?}\nmode = \"private\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let server =
        Server::start(tempfile::tempdir().unwrap(), &[format!("--config={}", config.display())]);
    let (new, back) = (new.to_str().unwrap(), path(&server, "back.img"));
    good("nbdcopy", &["--connections=4", "--flush", new, &server.uri("p")]);
    good("nbdcopy", &["--connections=4", &server.uri("p"), &back]);
    assert!(std::fs::read(back).unwrap() == std::fs::read(new).unwrap());
    assert!(std::fs::read(&base).unwrap() == before);
}

#[test]
fn tls_is_for_those_with_a_certificate_of_ours() {
    use std::os::unix::fs::PermissionsExt;
    let tls = tempfile::tempdir().unwrap();
    certificates(tls.path(), "blade-1");
    for key in ["ca-key.pem", "server-key.pem", "blade-1/client-key.pem"] {
        let mode = std::fs::metadata(tls.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert!(!run(PROGRAM, &["cert", "--dir", tls.path().to_str().unwrap(), "ca"]).status.success());
    assert!(
        !run(PROGRAM, &["cert", "--dir", tls.path().to_str().unwrap(), "client", "../x"])
            .status
            .success()
    );
    need("nbdinfo");
    let strangers = tempfile::tempdir().unwrap();
    certificates(strangers.path(), "blade-1");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = tls.path().join("config.toml");
    let image = image(tls.path(), "d.img", 1);
    let text = format!(
        "state_dir = {1:?}\nruntime_dir = {1:?}\n[shares.mine]\npath = {0:?}\nread = [\"blade-1\"]\n\
         [shares.other]\npath = {0:?}\nread = [\"blade-2\"]\n",
        image.to_str().unwrap(),
        tls.path().join("state")
    );
    std::fs::write(&config, text).unwrap();
    let arguments = [
        format!("--config={}", config.display()),
        format!("--tls={}", tls.path().display()),
        format!("--listen=127.0.0.1:{port}"),
    ];
    let _server = Server::start(tempfile::tempdir().unwrap(), &arguments);
    let uri = |export: &str, dir: &Path| {
        format!("nbds://localhost:{port}/{export}?tls-certificates={}", dir.display())
    };
    let mine = tls.path().join("blade-1");
    let list = good("nbdinfo", &["--list", &uri("", &mine)]);
    assert!(list.contains("\"mine\"") && !list.contains("\"other\""), "{list}");
    assert!(list.contains("with TLS"), "{list}");
    assert!(!run("nbdinfo", &[&uri("other", &mine)]).status.success());
    assert!(!run("nbdinfo", &[&uri("mine", &strangers.path().join("blade-1"))]).status.success());
    let copy = tls.path().join("copy");
    good("nbdcopy", &[&uri("mine", &mine), copy.to_str().unwrap()]);
    good("cmp", &[copy.to_str().unwrap(), image.to_str().unwrap()]);
}

#[test]
fn other_machines_are_served_by_tls_alone() {
    let dir = tempfile::tempdir().unwrap();
    let share = format!("d={}", image(dir.path(), "d.img", 1).display());
    let refused = run(PROGRAM, &["serve", "--share", &share, "--listen", "0.0.0.0:0"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--tls"), "{said}");
}
