// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is let in: a file of public keys that only root can change; and this machine's own key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

use super::Person;

/// Largest file of keys, bytes: a thousand of them.
const MOST_BYTES: u64 = 1 << 20;
/// First word of a line whose owner only looks.
const READ_ONLY: &str = "read-only";

/// The keys, and whose they are.
#[derive(Debug)]
pub(super) struct AuthorizedKeys(Vec<(PublicKey, Person)>);

impl AuthorizedKeys {
    /// Reads the file; there are none where it does not exist.
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(vec![])),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let metadata = file.metadata()?;
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            bail!("{} can be changed by others than root; chown root, chmod 644", path.display());
        }
        let mut text = String::new();
        file.take(MOST_BYTES)
            .read_to_string(&mut text)
            .with_context(|| path.display().to_string())?;
        Ok(Self(text.lines().filter_map(line).collect()))
    }

    /// Whose a key is.
    pub(super) fn find(&self, key: &PublicKey) -> Option<Person> {
        let same = |(known, _): &&(PublicKey, Person)| known.key_data() == key.key_data();
        self.0.iter().find(same).map(|(_, person)| person.clone())
    }
}

/// `[read-only] TYPE KEY NAME`. Of another form none is let in: an option that is not known may have been a restriction.
fn line(text: &str) -> Option<(PublicKey, Person)> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let (spy, rest) = match text.strip_prefix(READ_ONLY) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    match PublicKey::from_openssh(rest) {
        Ok(key) => {
            let name = rest.splitn(3, ' ').nth(2).unwrap_or("ssh").trim();
            let who = name.chars().filter(|c| !c.is_control()).take(64).collect();
            Some((key, Person { who, spy }))
        }
        Err(error) => {
            tracing::warn!(%error, "a line of the authorized keys makes no sense and lets nobody in");
            None
        }
    }
}

/// This machine's key, made if there is none.
pub(super) fn host_key(path: &Path) -> anyhow::Result<PrivateKey> {
    if !path.exists() {
        make(path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    PrivateKey::from_openssh(text).with_context(|| path.display().to_string())
}

/// Two connections may come first at once: the key that is linked first is it.
fn make(path: &Path) -> anyhow::Result<()> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::from)?;
    let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let key = PrivateKey::from(pair);
    debug_assert_eq!(key.algorithm(), Algorithm::Ed25519);
    let new = path.with_extension(format!("new.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(key.to_openssh(LineEnding::LF)?.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn lines_say_who_and_what_they_may() {
        let (key, person) = line(&format!("{KEY} anna@desk")).unwrap();
        assert_eq!(person, Person { who: "anna@desk".into(), spy: false });
        let (_, person) = line(&format!("read-only {KEY} ben")).unwrap();
        assert!(person.spy);
        assert!(line(&format!("command=\"x\" {KEY} eve")).is_none());
        assert!(
            line("# nobody").is_none()
                && line("").is_none()
                && line("ssh-ed25519 AAAA x").is_none()
        );
        let keys = AuthorizedKeys(vec![(key.clone(), person)]);
        assert_eq!(keys.find(&key).unwrap().who, "ben");
    }

    #[test]
    fn the_host_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host_key");
        let first = host_key(&path).unwrap();
        assert_eq!(host_key(&path).unwrap().public_key(), first.public_key());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn keys_that_others_can_change_let_nobody_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{KEY} anna")).unwrap();
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        assert!(AuthorizedKeys::load(file.path()).is_err());
        assert!(AuthorizedKeys::load(Path::new("/no/such/file")).unwrap().0.is_empty());
    }
}
