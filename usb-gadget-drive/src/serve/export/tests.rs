// SPDX-License-Identifier: MIT OR Apache-2.0
use std::os::unix::net::UnixStream;

use super::*;
use crate::source::{Abilities, Zeroing};

/// A source that can be written and does nothing.
struct Nothing;

impl Source for Nothing {
    fn size(&self) -> u64 {
        4096
    }
    fn abilities(&self) -> Abilities {
        Abilities { write: true, ..Abilities::default() }
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn trim(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn zero(&self, _: u64, _: u64, _: Zeroing, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_cut_export_is_gone_for_its_connections() {
    let export = Arc::new(Export::new(Arc::new(Nothing), true, ""));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let socket = Arc::new(Socket::new(ours.into()).unwrap());
    let attached = export.attach(&socket).unwrap();
    assert_eq!(export.connections(), 1);
    export.cut();
    assert_eq!(export.check_write(), Err(ErrorCode::Shutdown));
    assert_eq!(export.check_read(), Err(ErrorCode::Shutdown));
    assert_eq!(export.attach(&socket).unwrap_err(), ErrorCode::Shutdown);
    assert_eq!(io::Read::read(&mut &theirs, &mut [0; 1]).unwrap(), 0, "the end is seen");
    assert!(!export.wait_unused(Duration::from_millis(10)));
    drop(attached);
    assert!(export.wait_unused(Duration::from_secs(10)));
}
