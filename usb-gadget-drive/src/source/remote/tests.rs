// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against our own server; `tests/clients.rs` and the lab have others.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::client::connect::Unix;
use crate::serve::Server;
use crate::serve::exports::{FixedShares, Share};
use crate::source::place::Place;

const SIZE: usize = 3 << 20;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8).collect()
}

fn serve(image: &Path, writable: bool) -> (Arc<Server>, PathBuf) {
    let socket = image.with_extension("sock");
    let place = Place::File(image.to_owned());
    let share = Share { place, writable, description: String::new(), allow: vec![] };
    let shares = FixedShares::new([("disk".to_owned(), share)].into());
    let server = Server::new(Arc::new(shares), None);
    server.listen_unix(&socket).unwrap();
    (server, socket)
}

fn open(socket: &Path, writable: bool) -> Result<RemoteSource, OpenError> {
    let connect = Unix { path: socket.to_owned(), export: "disk".to_owned() };
    RemoteSource::open("nbd+unix:///disk", Arc::new(connect), writable)
}

fn all(source: &RemoteSource) -> Vec<u8> {
    let mut read = vec![0; SIZE];
    source.read_at(&mut read, 0).unwrap();
    read
}

fn wait_for(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn stop(server: &Server, socket: &Path) {
    assert!(server.shut_down(Duration::from_secs(5)));
    std::fs::remove_file(socket).unwrap();
}

#[test]
fn what_is_written_is_read_and_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, bytes(SIZE)).unwrap();
    let (_server, socket) = serve(&image, true);
    let source = open(&socket, true).unwrap();
    assert_eq!(source.size(), SIZE as u64);
    let mut model = bytes(SIZE);
    assert!(all(&source) == model);

    // Longer than one request, and at odd places.
    source.write_at(&[9; 700_001], 77, false).unwrap();
    model[77..77 + 700_001].fill(9);
    source.write_at(&[8; 3], 5, true).unwrap();
    model[5..8].fill(8);
    source.zero(1 << 20, 600_000, Zeroing::default(), false).unwrap();
    model[1 << 20..(1 << 20) + 600_000].fill(0);
    source.flush().unwrap();
    assert!(all(&source) == model && std::fs::read(&image).unwrap() == model);

    thread::scope(|scope| {
        for at in 0..16_usize {
            let (source, model) = (&source, &model);
            scope.spawn(move || {
                let mut read = vec![0; 300_000];
                source.read_at(&mut read, at as u64 * 100_000).unwrap();
                assert!(read == model[at * 100_000..at * 100_000 + 300_000]);
            });
        }
    });
}

#[test]
fn a_drive_that_is_read_only_there_is_so_here() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, bytes(SIZE)).unwrap();
    let (_server, socket) = serve(&image, false);
    let error = open(&socket, true).unwrap_err().to_string();
    assert!(error.contains("read-only there"), "{error}");
    let source = open(&socket, false).unwrap();
    assert!(source.write_at(&[1], 0, false).is_err() && !source.abilities().write);
    let error = open(&folder.path().join("none"), false).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.to_string(), "cannot open nbd+unix:///disk");
    assert!(cause.contains("No such file"), "{cause}");
}

#[test]
fn a_server_that_is_restarted_is_not_noticed_and_one_that_stays_away_is() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, bytes(SIZE)).unwrap();
    let (server, socket) = serve(&image, false);
    let source = open(&socket, false).unwrap();
    assert!(all(&source) == bytes(SIZE));
    stop(&server, &socket);
    thread::scope(|scope| {
        let reader = scope.spawn(|| all(&source));
        wait_for(|| source.trouble().is_some());
        let (again, _) = serve(&image, false);
        assert!(reader.join().unwrap() == bytes(SIZE));
        assert_eq!(source.trouble(), None);
        stop(&again, &socket);
    });
    let begun = Instant::now();
    let error = source.read_at(&mut [0; 512], 0).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    assert!(begun.elapsed() < HOLD + Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(source.trouble().is_some());
    // It has waited once; no other need.
    let begun = Instant::now();
    source.read_at(&mut [0; 512], 0).unwrap_err();
    assert!(begun.elapsed() < HOLD / 2, "{:?}", begun.elapsed());
    let (_server, _) = serve(&image, false);
    wait_for(|| source.trouble().is_none());
    assert!(all(&source) == bytes(SIZE));
}
