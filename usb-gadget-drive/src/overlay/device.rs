// SPDX-License-Identifier: MIT OR Apache-2.0
//! An overlay as its blade sees it.

use std::io;

use rustix::io::Errno;

use super::Overlay;
use super::format::Place;
use crate::disk::File;
use crate::source::{Abilities, Extent, Source, Zeroing};

impl<F: File> Source for Overlay<F> {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn abilities(&self) -> Abilities {
        Abilities { write: true, trim: true, fast_zero: true, extents: true }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut rest = buf;
        for (place, at, len) in self.runs(offset, rest.len() as u64) {
            let (part, behind) = rest.split_at_mut(usize::try_from(len).expect("within buf"));
            match place {
                Place::Base => self.base.read_at(part, at)?,
                Place::Data => self.file.read_at(part, self.data_at + at)?,
                Place::Zero => part.fill(0),
            }
            rest = behind;
        }
        Ok(())
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let mut rest = buf;
        for (place, at, len) in self.runs(offset, rest.len() as u64) {
            let (part, behind) = rest.split_at_mut(usize::try_from(len).expect("within buf"));
            let is_there = match place {
                Place::Base => self.base.try_read_at(part, at)?,
                Place::Data => self.file.try_read_at(part, self.data_at + at)?,
                Place::Zero => {
                    part.fill(0);
                    true
                }
            };
            if !is_there {
                return Ok(false);
            }
            rest = behind;
        }
        Ok(true)
    }

    fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()> {
        self.check()?;
        let mut rest = buf;
        for (at, len, is_whole) in self.pieces(offset, buf.len() as u64) {
            let (part, behind) = rest.split_at(usize::try_from(len).expect("within buf"));
            self.write_piece(part, at, is_whole)?;
            rest = behind;
        }
        if fua { self.flush_all() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.flush_all()
    }

    /// Whole clusters become zeroes; the rest stays.
    fn trim(&self, offset: u64, len: u64, fua: bool) -> io::Result<()> {
        self.check()?;
        for (at, len, _) in self.pieces(offset, len).filter(|(.., is_whole)| *is_whole) {
            self.zero_whole(at, len)?;
        }
        if fua { self.flush_all() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> io::Result<()> {
        self.check()?;
        if how.fast && !how.may_trim {
            return Err(Errno::OPNOTSUPP.into());
        }
        for (at, len, is_whole) in self.pieces(offset, len) {
            match (is_whole, how.may_trim) {
                (true, true) => self.zero_whole(at, len)?,
                (false, may_trim) => self.zero_part(at, len, may_trim)?,
                (true, false) => {
                    let zeroes = vec![0; usize::try_from(len).expect("at most a group")];
                    self.write_piece(&zeroes, at, true)?;
                }
            }
        }
        if fua { self.flush_all() } else { Ok(()) }
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> io::Result<Vec<Extent>> {
        let mut found = Vec::new();
        for (place, at, len) in self.runs(offset, len) {
            let room = max.saturating_sub(found.len());
            if room == 0 {
                break;
            }
            match place {
                Place::Data => found.push(Extent { len, is_hole: false, is_zero: false }),
                Place::Zero => found.push(Extent { len, is_hole: true, is_zero: true }),
                Place::Base => {
                    let mut left = len;
                    for extent in self.base.extents(at, len, room)? {
                        let len = extent.len.min(left);
                        left -= len;
                        if len > 0 {
                            found.push(Extent { len, ..extent });
                        }
                    }
                    if left > 0 {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}
