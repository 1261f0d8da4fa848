// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that are read, and files that are written: all of them or none.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;

use super::{File, MAX_FILE};

/// Reads a configuration.
///
/// # Errors
/// In words: it is no plain file, too large, no text, or cannot be read.
pub fn read(path: &Path) -> Result<String, String> {
    // Opening a pipe or a line would wait for its other end.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is no plain file".to_owned());
    }
    let mut bytes = vec![];
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {} KiB", MAX_FILE >> 10));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text; save it as UTF-8".to_owned())
}

/// Writes all files to a folder, or none: each beside its place first, and then renamed. Those that are there already are
/// replaced with `force` alone. Gives their paths.
///
/// # Errors
/// One is there already; one cannot be written.
pub fn write(dir: &Path, files: &[File], force: bool) -> anyhow::Result<Vec<PathBuf>> {
    let places: Vec<PathBuf> = files.iter().map(|file| dir.join(&file.name)).collect();
    let there: Vec<_> = places.iter().filter(|path| path.symlink_metadata().is_ok()).collect();
    if let Some(first) = there.first().filter(|_| !force) {
        let more = if there.len() > 1 {
            format!(" and {} more are", there.len() - 1)
        } else {
            " is".to_owned()
        };
        bail!(
            "{}{more} there already; write to another folder with --output, or replace with --force",
            first.display()
        );
    }
    let mut made = Made::default();
    for (file, place) in files.iter().zip(&places) {
        let beside = made.beside(place, "new");
        let cannot = || format!("cannot write {}", place.display());
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&beside)
            .with_context(cannot)?;
        made.files.push(beside);
        out.write_all(file.text.as_bytes()).and_then(|()| out.sync_all()).with_context(cannot)?;
    }
    for place in &places {
        made.put(place, force).with_context(|| format!("cannot write {}", place.display()))?;
    }
    made.keep();
    Ok(places)
}

/// What was made so far. It is taken away, and what was replaced put back, unless all is done.
#[derive(Debug, Default)]
struct Made {
    files: Vec<PathBuf>,
    /// What was replaced: where it is now, and where it was.
    replaced: Vec<(PathBuf, PathBuf)>,
}

impl Made {
    fn beside(&self, place: &Path, what: &str) -> PathBuf {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        place.with_file_name(format!(".{name}.{what}-{}", std::process::id()))
    }

    fn put(&mut self, place: &Path, force: bool) -> io::Result<()> {
        let (new, old) = (self.beside(place, "new"), self.beside(place, "old"));
        if force && place.symlink_metadata().is_ok() {
            fs::rename(place, &old)?;
            self.replaced.push((old, place.to_owned()));
        }
        // Fails where somebody has put a file there meanwhile, other than a renaming.
        fs::hard_link(&new, place)?;
        self.files.push(place.to_owned());
        fs::remove_file(&new)
    }

    fn keep(mut self) {
        self.files.clear();
        for (old, _) in std::mem::take(&mut self.replaced) {
            let _ = fs::remove_file(old);
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.files {
            let _ = fs::remove_file(path);
        }
        for (old, place) in &self.replaced {
            let _ = fs::rename(old, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> File {
        File { name: name.to_owned(), text: text.to_owned() }
    }

    fn names(dir: &Path) -> Vec<String> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_there_is_replaced_with_force_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b"), "old").unwrap();
        let files = [file("a", "1"), file("b", "2")];
        let error = write(dir.path(), &files, false).unwrap_err().to_string();
        assert!(error.contains("/b is there already"), "{error}");
        assert_eq!(names(dir.path()), ["b"]);
        write(dir.path(), &files, true).unwrap();
        assert_eq!(names(dir.path()), ["a", "b"]);
        assert_eq!(fs::read_to_string(dir.path().join("b")).unwrap(), "2");
    }

    #[test]
    fn a_failure_half_way_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "old").unwrap();
        // The last has no folder.
        let error = write(dir.path(), &[file("a", "1"), file("b", "2"), file("no/c", "3")], true)
            .unwrap_err();
        assert!(format!("{error:#}").contains("cannot write"), "{error:#}");
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "old");
        // The last cannot be put in its place: it is a folder with something in it, which `old` of it would be.
        let blocked = dir.path().join(format!(".c.old-{}", std::process::id()));
        fs::create_dir_all(blocked.join("x")).unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        write(dir.path(), &[file("a", "1"), file("b", "2"), file("c", "3")], true).unwrap_err();
        assert_eq!(names(dir.path()), [blocked.file_name().unwrap().to_str().unwrap(), "a", "c"]);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "old");
    }

    #[test]
    fn what_is_no_plain_file_of_text_is_refused() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("no plain file"));
        assert!(read(Path::new("/nowhere")).is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path).unwrap_err().contains("not UTF-8"));
        fs::write(&path, vec![b'#'; (MAX_FILE + 1) as usize]).unwrap();
        assert!(read(&path).unwrap_err().contains("larger than 1024 KiB"));
    }
}
