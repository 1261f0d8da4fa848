// SPDX-License-Identifier: MIT OR Apache-2.0
//! What usb-gadget-drive finds on its disk: overlays and the arbiter's state.
//!
//! The input starts with a byte: what it is, one of [`HEADER`] to [`STATE`], and [`SEALED`] to have the checksums put
//! right, which a fuzzer cannot guess.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use usb_gadget_drive::arbiter::{
    Access, Action, Arbiter, Claim, Limits, Mode, Now, Request, Share, State, Ticket,
};
use usb_gadget_drive::disk::Dir;
use usb_gadget_drive::overlay::format::{
    CLUSTER, CLUSTERS_PER_WORD, FormatError, Header, MAX_SIZE, MapPage, PAGE, Place,
    WORDS_PER_PAGE, slot_at,
};
use usb_gadget_drive::overlay::{self, Overlay, OverlayError};
use usb_gadget_drive::source::{Source, Zeroing};
use usb_gadget_drive::state::{self, StateError};

use crate::Reached;
use crate::input::Input;
use crate::memory::{Folder, Memory};

/// The rest is the first page of an overlay; zeroes follow.
pub const HEADER: u8 = 0;
/// The rest is a slot of an overlay's map; zeroes follow.
pub const MAP_PAGE: u8 = 1;
/// The rest changes an overlay: pieces, each a page, where in it, how many bytes (as in [`file`]), and these.
pub const FILE: u8 = 2;
/// The rest is the state; with [`SEALED`] without its first line.
pub const STATE: u8 = 3;
/// Checksums are put right.
pub const SEALED: u8 = 0x80;
/// Of an overlay: it is opened after the machine was started again.
pub const OTHER_BOOT: u8 = 0x40;

/// The overlay of [`FILE`] is over so many bytes: two clusters, one of them cut.
const SIZE: u64 = CLUSTER + 512;
/// Actions until the arbiter is taken for one that goes round in circles.
const CIRCLES: usize = 100_000;

type Page = [u8; PAGE as usize];

/// Reads it as the program does when it starts.
///
/// # Panics
/// Where something is taken for good that contradicts itself, or is not read again as it is written.
pub fn drive_disk(data: &[u8]) -> Reached {
    let mut input = Input::new(data);
    let mode = input.u8();
    let is_sealed = mode & SEALED != 0;
    let reached = match mode & 3 {
        HEADER => header(page(input.rest()), is_sealed),
        MAP_PAGE => map_page(page(input.rest()), is_sealed),
        FILE => return file(mode, input),
        _ => state(input.rest(), is_sealed),
    };
    Reached::from([reached])
}

fn page(bytes: &[u8]) -> Page {
    let mut page = [0; PAGE as usize];
    let len = bytes.len().min(page.len());
    page[..len].copy_from_slice(&bytes[..len]);
    page
}

/// Puts the checksum of a page right that is at `at`.
fn seal(page: &mut [u8], at: usize) {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&page[..at]);
    sum.update(&page[at + 4..]);
    page[at..at + 4].copy_from_slice(&sum.finalize().to_le_bytes());
}

fn header(mut bytes: Page, is_sealed: bool) -> &'static str {
    if is_sealed {
        seal(&mut bytes, 12);
    }
    match Header::decode(&bytes) {
        Ok(header) => {
            assert_eq!(Header::decode(&header.encode()), Ok(header.clone()));
            assert!((1..=MAX_SIZE).contains(&header.size));
            let slots_end = slot_at(header.pages() - 1, 1) + PAGE;
            assert!(slots_end <= header.live_at() && header.live_at() < header.data_at());
            assert!(header.data_at().is_multiple_of(CLUSTER));
            assert!(header.file_size() >= header.data_at() + header.size);
            "header"
        }
        Err(FormatError::Magic) => "no overlay",
        Err(FormatError::Version(_)) => "other version",
        Err(FormatError::Header(what)) => what,
    }
}

fn map_page(mut bytes: Page, is_sealed: bool) -> &'static str {
    if is_sealed {
        seal(&mut bytes, 0);
    }
    let index = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
    let id = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
    assert_eq!(MapPage::decode(&bytes, index ^ 1, id), None, "another page");
    assert_eq!(MapPage::decode(&bytes, index, !id), None, "another overlay");
    let Some(page) = MapPage::decode(&bytes, index, id) else { return "no map page" };
    assert_eq!(page.encode(index, id), bytes);
    assert_eq!(page.words.len(), WORDS_PER_PAGE);
    for word in page.words {
        let again = (0..CLUSTERS_PER_WORD)
            .fold(0, |again, n| again | (Place::in_word(word, n) as u64) << (2 * n));
        assert_eq!(again, word, "a place that is none");
    }
    "map page"
}

/// The file of an overlay that was written to, flushed, and written to again.
fn written(wanted: &Header, base: &Memory) -> Vec<u8> {
    let folder = Folder::default();
    overlay::create(&folder, wanted).expect("memory");
    let overlay = Overlay::open(&folder, wanted, Arc::new(base.clone())).expect("a new one");
    overlay.write_at(&[1; 512], 0, true).expect("memory");
    overlay.zero(0, CLUSTER, Zeroing { may_trim: true, fast: true }, true).expect("memory");
    overlay.write_at(&[2; 512], CLUSTER, false).expect("memory");
    let file = folder.open(&overlay::file_name(&wanted.share, &wanted.blade)).expect("it was made");
    file.bytes().clone()
}

/// Pieces: a byte for the page (header, two slots, head of the live map, live map, or the file's length), two for the
/// offset, one for the number of bytes.
fn file(mode: u8, mut input: Input) -> Reached {
    let wanted = Header {
        share: "s".parse().expect("a name"),
        blade: "b".parse().expect("a name"),
        id: 1,
        generation: 1,
        size: SIZE,
    };
    let base = Memory::new(vec![3; SIZE as usize]);
    static WRITTEN: OnceLock<Vec<u8>> = OnceLock::new();
    let disk = Memory::new(WRITTEN.get_or_init(|| written(&wanted, &base)).clone());
    let name = overlay::file_name(&wanted.share, &wanted.blade);
    let mut folder =
        Folder { files: Mutex::new([(name, disk.clone())].into()), ..Folder::default() };
    let pages = [0, slot_at(0, 0), slot_at(0, 1), wanted.live_at(), wanted.live_at() + PAGE];
    while !input.rest().is_empty() {
        let (page, offset, len) = (input.u8(), input.u16(), input.u8());
        let mut bytes = disk.bytes();
        let Some(begin) = pages.get(usize::from(page)).map(|at| *at as usize) else {
            // About as long as it was, or next to nothing of it.
            let least = if page % 2 == 1 { wanted.file_size() as usize - 128 } else { 0 };
            bytes.resize(least + usize::from(len) * 32, 0);
            continue;
        };
        if bytes.len() < begin + PAGE as usize {
            continue;
        }
        for at in 0..usize::from(len) {
            bytes[begin + (usize::from(offset) + at) % PAGE as usize] = input.u8();
        }
        if mode & SEALED != 0 && page < 4 {
            seal(&mut bytes[begin..begin + PAGE as usize], if page == 0 { 12 } else { 0 });
        }
    }
    folder.boot[0] = u8::from(mode & OTHER_BOOT != 0);
    Reached::from([open(&folder, &wanted, &base)])
}

/// Whatever is found: what is read is one of the three places, and stays so.
fn open(folder: &Folder, wanted: &Header, base: &Memory) -> &'static str {
    let open = || Overlay::open(folder, wanted, Arc::new(base.clone()));
    let contents = |of: &dyn Source| {
        let mut bytes = vec![0; SIZE as usize];
        of.read_at(&mut bytes, 0).expect("memory");
        bytes
    };
    let overlay = match open() {
        Ok(overlay) => overlay,
        Err(error) => {
            return match error {
                OverlayError::Format { .. } => "damaged header",
                OverlayError::Short { .. } => "short file",
                OverlayError::Map { .. } => "damaged map",
                OverlayError::Other { .. } => "another overlay",
                OverlayError::Places { .. } => "damaged places",
                OverlayError::Io { .. } | OverlayError::Boot { .. } | OverlayError::Size { .. } => {
                    panic!("{error}")
                }
            };
        }
    };
    let before = contents(&overlay);
    overlay.write_at(&before[..512], 0, true).expect("memory");
    drop(overlay);
    let overlay = open().expect("it was just flushed");
    assert!(contents(&overlay) == before, "another content after a flush");
    let below = Memory::new(contents(base));
    let (mut last, mut total) = (0, 0);
    let mut progress = |done, of| {
        (last, total) = (done, of);
        true
    };
    overlay.commit(&below, &mut progress).expect("memory");
    assert!(*below.bytes() == before, "another content after a commit");
    assert_eq!(last, total, "a commit ends with its end");
    match before[CLUSTER as usize] {
        2 => "live map",
        3 => "map",
        _ => "zeroes",
    }
}

fn state(bytes: &[u8], is_sealed: bool) -> &'static str {
    let sealed = is_sealed.then(|| {
        let first = format!("midplane-drive-state 1 {:08x}\n", crc32fast::hash(bytes));
        [first.as_bytes(), bytes].concat()
    });
    let folder = Folder::default();
    assert_eq!(state::load(&folder).expect("a new one"), State::default());
    let file = Memory::new(sealed.unwrap_or_else(|| bytes.to_vec()));
    folder.files.lock().expect("no panic holds it").insert(state::FILE.to_owned(), file);
    match state::load(&folder) {
        Ok(found) => {
            state::store(&folder, &found).expect("memory");
            assert_eq!(state::load(&folder).expect("our own"), found);
            resume(found);
            "state"
        }
        Err(StateError::Version { .. }) => "state of another version",
        Err(StateError::Damaged { what, .. }) => match &what[..] {
            "no first line" | "its first line" => "no state",
            "its checksum" => "damaged state",
            _ => "state without sense",
        },
        Err(error) => panic!("{error}"),
    }
}

/// The arbiter takes up what it finds, and grants what is asked for.
fn resume(state: State) {
    let now = Now { mono: Duration::ZERO, unix: 0 };
    let share_of = |has_overlays: bool| Share {
        mode: if has_overlays { Mode::Private } else { Mode::Exclusive },
        rights: BTreeMap::new(),
        others: Some(Access::Write),
        is_writable: true,
        size: SIZE,
    };
    let shares: BTreeMap<_, _> = state
        .shares
        .iter()
        .map(|(name, state)| (name.clone(), share_of(!state.overlays.is_empty())))
        .collect();
    let names: Vec<_> = shares.keys().cloned().collect();
    let mut arbiter = Arbiter::new(now, Limits::default(), shares, state);
    for (ticket, share) in (0..).zip(names) {
        let blade = "b".parse().expect("a name");
        let (access, claim) = (Access::Write, Claim::New);
        arbiter.request(now, Ticket(ticket), Request::Attach { share, blade, access, claim });
    }
    for _ in 0..CIRCLES {
        match arbiter.next_action() {
            None => return,
            Some(Action::Answer { .. }) => {}
            Some(Action::Store { version, state }) => {
                let is_last =
                    state.shares.values().any(|s| s.epoch.max(s.generation) > state::LAST);
                assert!(is_last || state::decode(&state::encode(&state)) == Ok(state));
                arbiter.stored(now, version, Ok(()));
            }
            Some(Action::Do { job, .. }) => arbiter.done(now, job, Ok(())),
        }
    }
    panic!("the arbiter goes round in circles");
}
