// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys and members on disk.
//!
//! | file | mode | what |
//! |---|---|---|
//! | [`Store::ETC`]`/node.key` | 0600 | who this machine is |
//! | [`Store::ETC`]`/group.key` | 0600 | the group key; no daemon reads it |
//! | [`Store::ETC`]`/keys/PROGRAM.key` | 0640 | what one program has of it, for its group |
//! | [`Store::STATE`]`/members` | 0644 | the roster |
//!
//! A file is written beside its place, brought to the disk, and put into place whole. A daemon gets `node.key`
//! from systemd (`LoadCredential=`). Its own of `keys` it reads itself and looks at again: it changes while the
//! daemon runs, and credentials do not.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, FlockOperation, Gid, RenameFlags, fchown, flock, renameat_with};
use zeroize::Zeroizing;

use crate::keyring::{Keyring, KeyringError, MAX_KEY_FILE, ProgramFile, node_file, parse_node};
use crate::keys::NodeKey;
use crate::name::Name;
use crate::roster::{MAX_ROSTER_FILE, Roster, RosterError};

/// Why something is not read or stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system's reason.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read a secret.
    #[error("{}: others than root may read it; make a new key, or `chmod 600` it", .0.display())]
    Open(PathBuf),
    /// It is too long to be one of ours.
    #[error("{}: it is longer than {most} bytes", path.display())]
    Long {
        /// Which.
        path: PathBuf,
        /// Most bytes.
        most: u64,
    },
    /// It is no key file.
    #[error("{}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: KeyringError,
    },
    /// It is no roster.
    #[error("{}", path.display())]
    Roster {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: RosterError,
    },
    /// It is somebody else's.
    #[error("{}: it is the key of program {found}, not of {wanted}", path.display())]
    OtherProgram {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: Name,
        /// Whose it was to be.
        wanted: Name,
    },
}

type Result<T> = std::result::Result<T, StoreError>;

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    |source| StoreError::File { path: path.to_owned(), source }
}

/// Where keys and members are.
#[derive(Debug, Clone)]
pub struct Store {
    etc: PathBuf,
    state: PathBuf,
}

/// While it lives no other process changes the store.
#[derive(Debug)]
pub struct Locked(#[expect(dead_code, reason = "the lock goes with it")] File);

impl Default for Store {
    fn default() -> Self {
        Self { etc: Self::ETC.into(), state: Self::STATE.into() }
    }
}

impl Store {
    /// The folder of keys.
    pub const ETC: &'static str = "/etc/midplane";
    /// The folder of what changes by itself.
    pub const STATE: &'static str = "/var/lib/midplane";

    /// Below another root than `/`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let under = |path: &str| root.join(path.trim_start_matches('/'));
        Self { etc: under(Self::ETC), state: under(Self::STATE) }
    }

    /// Waits until no other process changes the store.
    ///
    /// # Errors
    /// The folder cannot be made or locked.
    pub fn lock(&self) -> Result<Locked> {
        make_dir(&self.etc, 0o755)?;
        let path = self.etc.join(".lock");
        let opened =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(at(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| at(&path)(error.into()))?;
        Ok(Locked(file))
    }

    /// This machine's key; none if it has none yet.
    ///
    /// # Errors
    /// See [`StoreError`]; so for all.
    pub fn node(&self) -> Result<Option<NodeKey>> {
        found(read_node(&self.etc.join("node.key"), PRIVATE))
    }

    /// This machine's key, which is made if it has none. Of several processes that do so at once all get the same.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn make_node(&self) -> Result<NodeKey> {
        if let Some(node) = self.node()? {
            return Ok(node);
        }
        let path = self.etc.join("node.key");
        let node = NodeKey::generate().map_err(at(&path))?;
        make_dir(&self.etc, 0o755)?;
        match write(&path, &node_file(&node), (0o600, None), RenameFlags::NOREPLACE) {
            Err(StoreError::File { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                read_node(&path, PRIVATE)
            }
            written => written.map(|()| node),
        }
    }

    /// The group keys; none if this machine is in no group.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn keyring(&self) -> Result<Option<Keyring>> {
        let path = self.etc.join("group.key");
        let read = read_secret(&path, PRIVATE).and_then(|text| {
            Keyring::parse(&text).map_err(|source| StoreError::Key { path, source })
        });
        found(read)
    }

    /// Stores the group keys, and for each of `programs` its part, with the group that may read it.
    ///
    /// # Errors
    /// See [`StoreError`]. The group key's file is written last: until then all is to be done again.
    pub fn set_keyring(&self, keyring: &Keyring, programs: &[(Name, Option<u32>)]) -> Result<()> {
        let folder = self.etc.join("keys");
        make_dir(&self.etc, 0o755)?;
        make_dir(&folder, 0o755)?;
        for (program, group) in programs {
            let owner = group.map(Gid::from_raw);
            let (path, mode) =
                (self.program_key(program), if owner.is_some() { 0o640 } else { 0o600 });
            write(
                &path,
                &keyring.file_for(program).to_file(),
                (mode, owner),
                RenameFlags::empty(),
            )?;
        }
        write(&self.etc.join("group.key"), &keyring.to_file(), (0o600, None), RenameFlags::empty())
    }

    fn program_key(&self, program: &Name) -> PathBuf {
        self.etc.join("keys").join(format!("{program}.key"))
    }

    /// What a program has of the group keys; none if this machine is in no group.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn program(&self, program: &Name) -> Result<Option<ProgramFile>> {
        let path = self.program_key(program);
        // Its group may read it.
        let file = found(read_secret(&path, 0o027))?.map(|text| match ProgramFile::parse(&text) {
            Ok(file) if file.program == *program => Ok(file),
            Ok(ProgramFile { program: found, .. }) => {
                Err(StoreError::OtherProgram { path, found, wanted: program.clone() })
            }
            Err(source) => Err(StoreError::Key { path, source }),
        });
        file.transpose()
    }

    /// The members; none where none were ever met.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn roster(&self) -> Result<Roster> {
        let path = self.state.join("members");
        let read = read(&path, MAX_ROSTER_FILE).and_then(|(_, text)| {
            Roster::parse(&text).map_err(|source| StoreError::Roster { path, source })
        });
        Ok(found(read)?.unwrap_or_default())
    }

    /// What the programs of this machine have met.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn met(&self) -> Result<Vec<Met>> {
        let folders = match std::fs::read_dir(&self.state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            folders => folders.map_err(at(&self.state))?,
        };
        let folders = folders.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(folders.map(|folder| Met::new(&folder)).filter(|met| met.0.is_file()).collect())
    }

    /// Stores the members.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn set_roster(&self, roster: &Roster) -> Result<()> {
        make_dir(&self.state, 0o755)?;
        write(&self.state.join("members"), &roster.to_string(), (0o644, None), RenameFlags::empty())
    }
}

/// A program's own record of members that it has met, which this machine's roster may not name: a daemon may not
/// write that, and a member may join while it is down.
#[derive(Debug, Clone)]
pub struct Met(PathBuf);

impl Met {
    /// In the program's folder for what it has to remember.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.join("members"))
    }

    /// Those it has met; nobody if there is no file.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn load(&self) -> Result<Roster> {
        let read = read(&self.0, MAX_ROSTER_FILE).and_then(|(_, text)| {
            let path = self.0.clone();
            Roster::parse(&text).map_err(|source| StoreError::Roster { path, source })
        });
        Ok(found(read)?.unwrap_or_default())
    }

    /// Stores them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn store(&self, roster: &Roster) -> Result<()> {
        // The owner stays who it is, also when root takes a member out.
        let owner = std::fs::metadata(&self.0).ok().map(|data| (data.uid(), data.gid()));
        write(&self.0, &roster.to_string(), (0o644, None), RenameFlags::empty())?;
        if let Some((uid, gid)) = owner.filter(|_| rustix::process::geteuid().is_root()) {
            std::os::unix::fs::chown(&self.0, Some(uid), Some(gid)).map_err(at(&self.0))?;
        }
        Ok(())
    }
}

/// Reads the node key that systemd gives to a unit, `node.key` in `$CREDENTIALS_DIRECTORY`; none outside of one, and none
/// if it says `none`: what a unit has with `SetCredential=` for a machine without a key.
///
/// # Errors
/// See [`StoreError`].
pub fn given_node() -> Result<Option<NodeKey>> {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    // The unit's user reads it by an access list, whose mask shows as the group's bits.
    let path = Path::new(&folder).join("node.key");
    if std::fs::read(&path).is_ok_and(|text| text.trim_ascii() == b"none") {
        return Ok(None);
    }
    found(read_node(&path, 0o027))
}

fn found<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(StoreError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// For root's eyes alone.
const PRIVATE: u32 = 0o077;

fn read_node(path: &Path, closed: u32) -> Result<NodeKey> {
    let text = read_secret(path, closed)?;
    parse_node(&text).map_err(|source| StoreError::Key { path: path.to_owned(), source })
}

/// Reads a file of keys, unless its mode has a bit of `closed`.
fn read_secret(path: &Path, closed: u32) -> Result<Zeroizing<String>> {
    let (mode, text) = read(path, MAX_KEY_FILE)?;
    if mode & closed != 0 {
        return Err(StoreError::Open(path.to_owned()));
    }
    Ok(text)
}

/// The file's mode and its text.
fn read(path: &Path, most: u64) -> Result<(u32, Zeroizing<String>)> {
    let file = File::open(path).map_err(at(path))?;
    let metadata = file.metadata().map_err(at(path))?;
    let long = || StoreError::Long { path: path.to_owned(), most };
    let len = usize::try_from(metadata.len().min(most)).map_err(|_| long())?;
    // All at once: what a buffer grows out of is not wiped.
    let mut text = Zeroizing::new(String::with_capacity(len + 1));
    file.take(most + 1).read_to_string(&mut text).map_err(at(path))?;
    if text.len() as u64 > most {
        return Err(long());
    }
    Ok((metadata.mode(), text))
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(at(path))
}

/// Mode and group.
type Access = (u32, Option<Gid>);

/// Writes a file whole or not at all; it is on the disk when this returns.
fn write(path: &Path, text: &str, access: Access, flags: RenameFlags) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    static WRITES: AtomicU32 = AtomicU32::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let beside = folder.join(format!(".{name}.{}.{number}", std::process::id()));
    let written = write_new(&beside, text, access).and_then(|()| {
        renameat_with(CWD, &beside, CWD, path, flags)?;
        File::open(folder)?.sync_all()
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(at(path))
}

fn write_new(path: &Path, text: &str, (mode, group): Access) -> io::Result<()> {
    // Left by a process of this number that was killed.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if group.is_some() {
        fchown(&file, None, group)?;
    }
    // After the group, and whatever the process' mask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::GroupKey;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn keys_are_stored_for_root_alone_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path());
        assert!(store.node().unwrap().is_none() && store.keyring().unwrap().is_none());
        let _lock = store.lock().unwrap();
        let node = store.make_node().unwrap();
        assert_eq!(store.make_node().unwrap().id(), node.id());
        let ring = Keyring::new(
            "rack-1".parse().unwrap(),
            "b".parse().unwrap(),
            GroupKey::generate().unwrap(),
        );
        let program: Name = "ipmi-mux".parse().unwrap();
        let group = rustix::process::getgid().as_raw();
        let other: Name = "kvm-bus".parse().unwrap();
        store.set_keyring(&ring, &[(program.clone(), Some(group)), (other, None)]).unwrap();
        let file = store.program(&program).unwrap().unwrap();
        assert_eq!((file.keys.state(), &file.group), (ring.state(), &ring.group));
        assert_eq!(store.keyring().unwrap().unwrap().state(), ring.state());
        let etc = dir.path().join("etc/midplane");
        for (path, expected) in [
            ("node.key", 0o600),
            ("group.key", 0o600),
            ("keys", 0o755),
            ("keys/ipmi-mux.key", 0o640),
            ("keys/kvm-bus.key", 0o600),
        ] {
            assert_eq!(mode(&etc.join(path)), expected, "{path}");
        }
        let left: Vec<_> =
            std::fs::read_dir(&etc).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 4, "{left:?}");

        std::fs::copy(etc.join("keys/ipmi-mux.key"), etc.join("keys/kvm-bus.key")).unwrap();
        let other = store.program(&"kvm-bus".parse().unwrap());
        assert!(matches!(other, Err(StoreError::OtherProgram { .. })));
    }

    #[test]
    fn a_key_that_others_may_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path());
        store.make_node().unwrap();
        let path = dir.path().join("etc/midplane/node.key");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = store.node().unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, vec![b'#'; 5000]).unwrap();
        assert!(matches!(store.node(), Err(StoreError::Long { .. })));
    }

    #[test]
    fn of_many_that_make_a_node_key_at_once_one_wins() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::below(dir.path());
            make_dir(&store.etc, 0o755).unwrap();
            let made: Vec<_> = std::thread::scope(|scope| {
                let make = || store.make_node().unwrap().id();
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let stored = store.node().unwrap().unwrap().id();
            assert!(made.iter().all(|id| *id == stored));
            assert_eq!(std::fs::read_dir(&store.etc).unwrap().count(), 1);
        }
    }

    #[test]
    fn members_are_stored_for_all_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path());
        assert_eq!(store.roster().unwrap(), Roster::default());
        store.set_roster(&Roster::default()).unwrap();
        let path = dir.path().join("var/lib/midplane/members");
        assert_eq!(mode(&path), 0o644);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(store.roster(), Err(StoreError::Roster { .. })), "not taken for empty");
    }
}
