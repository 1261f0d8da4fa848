// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file of an overlay: to make, open, and remove it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::format::{self, FormatError, Header, MapPage, PAGE, slot_at};
use super::map::Map;
use super::{Flushing, LOCKS, Overlay};
use crate::arbiter::{BladeName, ShareName};
use crate::disk::{Boot, Dir, File};
use crate::source::Source;

/// Why an overlay cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The system refused.
    #[error("cannot {what} overlay {file}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file.
        file: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Whether what was written and not synced is still there cannot be told.
    #[error("cannot tell whether the machine was restarted since overlay {file} was written")]
    Boot {
        /// The overlay's file.
        file: String,
        /// The system's error, which names what could not be read.
        #[source]
        source: io::Error,
    },
    /// Not an overlay, or a damaged one.
    #[error("overlay {file}: {error}; discard it, or put back a copy of it")]
    Format {
        /// The file.
        file: String,
        /// What is wrong.
        error: FormatError,
    },
    /// Bytes are missing at the end.
    #[error(
        "overlay {file} has {found} bytes and must have {wanted}: discard it, or put back a copy of it"
    )]
    Short {
        /// The file.
        file: String,
        /// Bytes there are.
        found: u64,
        /// Bytes there must be.
        wanted: u64,
    },
    /// Neither version of a map page is whole.
    #[error(
        "overlay {file}: both versions of map page {page} are damaged; discard it, or put back a copy of it"
    )]
    Map {
        /// The file.
        file: String,
        /// Which, from 0.
        page: usize,
    },
    /// It says of a cluster that it is nowhere, or of one that is not there that it is somewhere.
    #[error("overlay {file}: its map is damaged; discard it, or put back a copy of it")]
    Places {
        /// The file.
        file: String,
    },
    /// Made over something else.
    #[error(
        "overlay {file} was made over {found}, and this is {wanted}: discard it, or put back what was shared then"
    )]
    Other {
        /// The file.
        file: String,
        /// What its header says.
        found: String,
        /// What was expected.
        wanted: String,
    },
    /// Larger than [`format::MAX_SIZE`], or empty.
    #[error("share {share} has {size} bytes; an overlay can be over 1 to {max}", max = format::MAX_SIZE)]
    Size {
        /// The share.
        share: ShareName,
        /// Its bytes.
        size: u64,
    },
}

impl Header {
    fn show(&self) -> String {
        let Self { share, blade, id, generation, size } = self;
        format!(
            "share {share} generation {generation} of {size} bytes for blade {blade} (epoch {id})"
        )
    }
}

/// The name of the file of an overlay.
#[must_use]
pub fn file_name(share: &ShareName, blade: &BladeName) -> String {
    format!("{share}@{blade}.overlay")
}

/// Makes an empty overlay in `dir`, in place of one for the same share and blade that is there. Once this has
/// returned it is on stable storage.
///
/// # Errors
/// Those of the system, and a share too large.
pub fn create<D: Dir>(dir: &D, header: &Header) -> Result<(), OverlayError> {
    if !(1..=format::MAX_SIZE).contains(&header.size) {
        return Err(OverlayError::Size { share: header.share.clone(), size: header.size });
    }
    let name = file_name(&header.share, &header.blade);
    let new = format!("{name}.new");
    let write = || {
        let file = dir.create(&new)?;
        file.set_size(header.file_size())?;
        file.write_at(&header.encode(), 0)?;
        let page = MapPage::empty();
        for index in 0..header.pages() {
            file.write_at(&page.encode(index, header.id), slot_at(index, page.sequence))?;
        }
        file.sync()?;
        dir.rename(&new, &name)?;
        dir.sync()
    };
    write().map_err(|source| OverlayError::Io { what: "make", file: dir.show(&name), source })
}

/// Takes an overlay away for good. That it is not there is fine.
///
/// # Errors
/// Those of the system.
pub fn remove<D: Dir>(dir: &D, share: &ShareName, blade: &BladeName) -> Result<(), OverlayError> {
    let name = file_name(share, blade);
    let gone = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    let removed = gone(dir.remove(&name)).and_then(|()| gone(dir.remove(&format!("{name}.new"))));
    removed.and_then(|()| dir.sync()).map_err(|source| OverlayError::Io {
        what: "remove",
        file: dir.show(&name),
        source,
    })
}

impl<F: File> Overlay<F> {
    /// Opens the overlay that `wanted` describes, over `base`.
    ///
    /// # Errors
    /// One that is missing, short, damaged, of an unknown version, or made over something else.
    pub fn open<D: Dir<File = F>>(
        dir: &D,
        wanted: &Header,
        base: Arc<dyn Source>,
    ) -> Result<Self, OverlayError> {
        let name = file_name(&wanted.share, &wanted.blade);
        let shown = || dir.show(&name);
        let failed = |what| move |source| OverlayError::Io { what, file: shown(), source };
        let file = dir.open(&name).map_err(failed("open"))?;
        let found = file.size().map_err(failed("open"))?;
        let short = |wanted| OverlayError::Short { file: shown(), found, wanted };
        if found < PAGE {
            return Err(short(PAGE));
        }
        let mut page = [0; PAGE as usize];
        file.read_at(&mut page, 0).map_err(failed("read"))?;
        let header =
            Header::decode(&page).map_err(|error| OverlayError::Format { file: shown(), error })?;
        let same_size = Header { size: base.size(), ..wanted.clone() };
        if header != *wanted || header != same_size {
            let wanted = same_size.show();
            return Err(OverlayError::Other { file: shown(), found: header.show(), wanted });
        }
        if found < header.file_size() {
            return Err(short(header.file_size()));
        }
        let pages: Vec<MapPage> = (0..header.pages())
            .map(|index| {
                let page = read_map_page(&file, index, header.id).map_err(failed("read"))?;
                page.ok_or_else(|| OverlayError::Map { file: shown(), page: index })
            })
            .collect::<Result<_, _>>()?;
        let map = Map::new(&pages);
        let boot = dir.boot().map_err(|source| OverlayError::Boot { file: shown(), source })?;
        take_live(boot, &file, &header, &map).map_err(failed("open"))?;
        if !map.is_sound(header.clusters()) {
            return Err(OverlayError::Places { file: shown() });
        }
        let sequences = pages.iter().map(|page| page.sequence).collect();
        Ok(Self {
            data_at: header.data_at(),
            header,
            file,
            base,
            map,
            locks: [const { Mutex::new(()) }; LOCKS],
            flushing: Mutex::new(Flushing { sequences, done: 0 }),
            began: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        })
    }
}

/// The newest whole version of a map page.
fn read_map_page<F: File>(file: &F, index: usize, id: u64) -> io::Result<Option<MapPage>> {
    let mut newest: Option<MapPage> = None;
    for slot in [0, 1] {
        let mut bytes = [0; PAGE as usize];
        file.read_at(&mut bytes, slot_at(index, slot))?;
        let found = MapPage::decode(&bytes, index, id).filter(|page| page.sequence % 2 == slot);
        if found.as_ref().map(|page| page.sequence) > newest.as_ref().map(|page| page.sequence) {
            newest = found;
        }
    }
    Ok(newest)
}

/// Puts the live map in place of the one on stable storage if it is of this boot; if not, begins a live map.
fn take_live<F: File>(boot: Boot, file: &F, header: &Header, map: &Map) -> io::Result<()> {
    let wanted = format::live_head(boot, header.id);
    let mut head = [0; PAGE as usize];
    file.read_at(&mut head, header.live_at())?;
    let mut live = map.live();
    if head == wanted {
        file.read_at(&mut live, header.live_at() + PAGE)?;
        map.take_live(&live);
        return Ok(());
    }
    // The head last: until it is there the map behind it counts for nothing.
    file.write_at(&live, header.live_at() + PAGE)?;
    file.write_at(&wanted, header.live_at())
}
