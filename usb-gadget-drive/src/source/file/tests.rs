// SPDX-License-Identifier: MIT OR Apache-2.0
use std::fs::File;

use super::*;
use crate::nbd::ErrorCode;

const MIB: u64 = 1 << 20;

/// A file of 4 MiB full of ones, and the source over it.
fn source(writable: bool) -> (tempfile::NamedTempFile, FileSource) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![1; 4 * MIB as usize]).unwrap();
    let source = FileSource::open(file.path(), writable).unwrap();
    (file, source)
}

fn read(source: &FileSource, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0xff; len];
    source.read_at(&mut buf, offset).map(|()| buf)
}

#[test]
fn a_file_that_shrinks_gives_errors() {
    let (file, source) = source(true);
    File::options().write(true).open(file.path()).unwrap().set_len(MIB).unwrap();
    let is_told = |error: &io::Error| {
        ErrorCode::from(error) == ErrorCode::Io && error.to_string().contains("become shorter")
    };
    assert!(is_told(&source.flush().unwrap_err()));
    assert_eq!(read(&source, 0, 16).unwrap(), [1; 16]);
    assert!(is_told(&read(&source, MIB - 8, 16).unwrap_err()));
    assert!(!source.try_read_at(&mut [0; 16], MIB - 8).is_ok_and(|done| done));
    assert!(is_told(&source.write_at(&[2], 3 * MIB, false).unwrap_err()));
    assert_eq!(source.size(), 4 * MIB);
}

#[test]
fn zeroes_and_holes_are_where_they_were_made() {
    let (_file, source) = source(true);
    let how = Zeroing { may_trim: true, fast: false };
    source.zero(MIB, MIB, how, true).unwrap();
    source.zero(3 * MIB + 1, 5, Zeroing::default(), false).unwrap();
    source.trim(2 * MIB, MIB, false).unwrap();
    assert_eq!(read(&source, MIB - 1, 2).unwrap(), [1, 0]);
    assert_eq!(read(&source, 3 * MIB, 7).unwrap(), [1, 0, 0, 0, 0, 0, 1]);
    let extents = source.extents(0, 4 * MIB, 10).unwrap();
    let lens: Vec<_> = extents.iter().map(|e| (e.len, e.is_hole)).collect();
    assert_eq!(lens, [(MIB, false), (2 * MIB, true), (MIB, false)]);
    assert_eq!(source.extents(0, 4 * MIB, 1).unwrap().len(), 1);
    assert_eq!(source.extents(MIB + 4096, 1, 1).unwrap()[0].len, 2 * MIB - 4096);
    assert_eq!(source.extents(3 * MIB + 1, 1, 1).unwrap()[0].len, MIB - 1);
    // A hole in the midst of what was known to be data.
    source.trim(3 * MIB + MIB / 2, MIB / 4, false).unwrap();
    assert_eq!(source.extents(3 * MIB + 1, 1, 1).unwrap()[0].len, MIB / 2 - 1);
}

#[test]
fn what_is_read_only_is_not_written() {
    let (_file, source) = source(false);
    assert_eq!(source.write_at(&[2], 0, true).unwrap_err().raw_os_error(), Some(30));
    assert!(source.trim(0, 1, false).is_err());
    assert!(source.zero(0, 1, Zeroing::default(), false).is_err());
    assert!(!source.abilities().write);
    source.flush().unwrap();
}

#[test]
fn a_written_block_is_read_without_waiting() {
    let (_file, source) = source(true);
    source.write_at(&[7; 4096], 4096, true).unwrap();
    let mut buf = [0; 4096];
    if source.try_read_at(&mut buf, 4096).unwrap() {
        assert_eq!(buf, [7; 4096]);
    }
    assert_eq!(read(&source, 4096, 4096).unwrap(), [7; 4096]);
}

#[test]
fn only_files_and_devices_are_opened() {
    assert!(matches!(FileSource::open(Path::new("/"), false), Err(OpenError::Kind(_))));
    let missing = FileSource::open(Path::new("/nonexistent/x"), false);
    assert!(matches!(missing, Err(OpenError::Open { .. })));
}
