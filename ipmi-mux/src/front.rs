// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device nodes that clients open: one CUSE session each, all on one major number.
//!
//! The kernel gives each CUSE node a major number of its own unless told otherwise, and has some 140
//! of them: so the first node takes what it gets and the others share it. The number is remembered in
//! the runtime directory, and the minor number is the node's place in the configuration: a node keeps
//! its numbers over a restart.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kernel_abi::async_fd::watch_readable;
use kernel_abi::cuse::{self, FUSE_MIN_READ_BUFFER, InitError, Operation};
use nix::errno::Errno;
use nix::sys::stat::{major, minor};
use nix::unistd::{Group, Uid, User};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::config::NodeSpec;

/// How long the kernel and udev may take to make a node.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
/// Between looks at a node that is to appear.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Largest major number for character devices, `CHRDEV_MAJOR_MAX` in `linux/include/linux/fs.h`.
const MAX_MAJOR: u32 = 512;

/// A node cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// `/dev/cuse` is not there.
    #[error("/dev/cuse: {0}; is the module loaded and may this user open it? (modprobe cuse)")]
    NoCuse(#[source] io::Error),
    /// Something has the name already.
    #[error(
        "/dev/{name} exists already and is not ours; choose another name in `nodes`, or end what serves it"
    )]
    NameTaken {
        /// The node.
        name: String,
    },
    /// The kernel would not make the node.
    #[error("/dev/{name}: the kernel did not make the node: {reason}")]
    Refused {
        /// The node.
        name: String,
        /// Why, as far as it says.
        reason: String,
    },
    /// The node does not appear under `/dev`.
    #[error("/dev/{name} did not appear within {} s; is devtmpfs mounted on /dev?", APPEARS_WITHIN.as_secs())]
    NotAppeared {
        /// The node.
        name: String,
    },
    /// The kernel's CUSE will not do.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A file in the runtime directory cannot be written.
    #[error("{}: {source}", path.display())]
    RuntimeFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A node being served.
#[derive(Debug, Clone)]
pub struct Node {
    /// As configured.
    pub spec: NodeSpec,
    /// Major and minor number.
    pub numbers: (u32, u32),
    session: Arc<AsyncFd<OwnedFd>>,
}

/// What a node's reader reports.
#[derive(Debug)]
pub enum NodeEvent {
    /// A request of the kernel, to decode with [`cuse::decode`].
    Request(usize, Vec<u8>),
    /// The node is gone: aborted by root through sysfs.
    Gone(usize, Errno),
}

impl Node {
    /// Path below `/dev`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        device_path(&self.spec.name)
    }

    /// Writes a reply or a notification.
    pub fn reply(&self, reply: &[u8]) {
        if let Err(errno) = cuse::write_reply(self.session.get_ref(), reply) {
            // The node is going, which its reader reports.
            tracing::debug!(node = self.spec.name, %errno, "reply not taken");
        }
    }

    /// Reports the kernel's requests in order. Runs beside the main loop.
    pub fn reader(
        &self,
        index: usize,
        events: mpsc::Sender<NodeEvent>,
    ) -> impl Future<Output = ()> + use<> {
        let session = Arc::clone(&self.session);
        async move {
            let mut buffer = [0u8; FUSE_MIN_READ_BUFFER];
            loop {
                let Ok(mut ready) = session.readable().await else { return };
                let event = match read_one(&session, &mut buffer) {
                    Ok(bytes) => NodeEvent::Request(index, bytes),
                    Err(Errno::EAGAIN) => {
                        ready.clear_ready();
                        continue;
                    }
                    Err(errno) => {
                        let _ = events.send(NodeEvent::Gone(index, errno)).await;
                        return;
                    }
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn read_one(
    session: &AsyncFd<OwnedFd>,
    buffer: &mut [u8; FUSE_MIN_READ_BUFFER],
) -> Result<Vec<u8>, Errno> {
    let len = cuse::read_request(session.get_ref(), buffer)?;
    Ok(buffer[..len].to_vec())
}

/// Makes all nodes and waits until they are there with owner and mode.
///
/// # Errors
/// [`FrontError`]; nodes made so far vanish with what is dropped.
pub async fn create(specs: &[NodeSpec], runtime_dir: &Path) -> Result<Vec<Node>, FrontError> {
    for spec in specs {
        prepare(spec, runtime_dir)?;
    }
    let remembered = remembered_major(runtime_dir);
    let mut nodes: Vec<Node> = Vec::with_capacity(specs.len());
    for (place, spec) in (0u32..).zip(specs) {
        let wanted = nodes.first().map(|n| n.numbers.0).or(remembered).unwrap_or(0);
        let node = match open_node(spec, wanted, place).await {
            // Somebody else took the number in the meantime.
            Err(FrontError::Refused { .. }) if place == 0 && wanted != 0 => {
                open_node(spec, 0, place).await?
            }
            made => made?,
        };
        nodes.push(node);
    }
    if let Some(first) = nodes.first() {
        let path = runtime_dir.join("major");
        std::fs::write(&path, first.numbers.0.to_string())
            .map_err(|source| FrontError::RuntimeFile { path, source })?;
    }
    for node in &nodes {
        wait_for(node).await?;
    }
    Ok(nodes)
}

/// Makes one more node, under these numbers, and waits until it is there with owner and mode. When the
/// future is dropped, so is the node.
///
/// # Errors
/// [`FrontError`].
pub async fn create_one(
    spec: &NodeSpec,
    runtime_dir: &Path,
    (major, minor): (u32, u32),
) -> Result<Node, FrontError> {
    prepare(spec, runtime_dir)?;
    let node = open_node(spec, major, minor).await?;
    wait_for(&node).await?;
    Ok(node)
}

/// Whether a name is no longer free.
#[must_use]
pub fn is_taken(name: &str) -> bool {
    device_path(name).exists() || class_dir(name).exists()
}

/// Removes what udev's rule was told of a node that goes.
pub fn forget(name: &str, runtime_dir: &Path) {
    let _ = std::fs::remove_file(runtime_dir.join("nodes").join(name));
}

fn prepare(spec: &NodeSpec, runtime_dir: &Path) -> Result<(), FrontError> {
    if is_taken(&spec.name) {
        return Err(FrontError::NameTaken { name: spec.name.clone() });
    }
    write_udev_properties(spec, runtime_dir)
}

/// The first request of a session names the node; when the answer is written the node exists.
async fn open_node(spec: &NodeSpec, major: u32, minor: u32) -> Result<Node, FrontError> {
    let refused = |reason: String| FrontError::Refused { name: spec.name.clone(), reason };
    let fd = cuse::open_session().map_err(FrontError::NoCuse)?;
    let session = watch_readable(fd).map_err(FrontError::NoCuse)?;
    let asked = async {
        let mut buffer = [0u8; FUSE_MIN_READ_BUFFER];
        loop {
            let mut ready = session.readable().await.map_err(|e| refused(e.to_string()))?;
            match read_one(&session, &mut buffer) {
                Ok(bytes) => return Ok(bytes),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Err(refused(errno.to_string())),
            }
        }
    };
    let bytes = timeout(APPEARS_WITHIN, asked)
        .await
        .map_err(|_| refused("it asks nothing".to_owned()))??;
    let request = cuse::decode(&bytes).map_err(|e| refused(e.to_string()))?;
    let Operation::Init(init) = request.operation else {
        return Err(refused(format!("it begins with opcode {}", request.header.opcode)));
    };
    let reply = cuse::reply_init(request.header.unique, init, &spec.name, major, minor)?;
    cuse::write_reply(session.get_ref(), &reply).map_err(|errno| refused(errno.to_string()))?;
    let numbers = read_numbers(&spec.name).ok_or_else(|| {
        refused(format!("number {major}:{minor} or the name is taken; see the kernel's log"))
    })?;
    Ok(Node { spec: spec.clone(), numbers, session: Arc::new(session) })
}

/// Waits until the node is there under its own number, and udev is done with it.
async fn wait_for(node: &Node) -> Result<(), FrontError> {
    let name = || node.spec.name.clone();
    let (path, (maj, min)) = (node.path(), node.numbers);
    let udev_runs = Path::new("/run/udev/control").exists();
    let udev_record = PathBuf::from(format!("/run/udev/data/c{maj}:{min}"));
    let limit = Instant::now() + APPEARS_WITHIN;
    let is_ours = || {
        let found = std::fs::symlink_metadata(&path).ok()?;
        let rdev = found.rdev();
        let same = (major(rdev), minor(rdev)) == (maj.into(), min.into());
        Some((found.file_type().is_char_device() && same, found))
    };
    loop {
        match is_ours() {
            // The kernel keeps an older node of that name and says nothing.
            Some((false, _)) => return Err(FrontError::NameTaken { name: name() }),
            Some((true, found)) if !udev_runs || udev_record.exists() => {
                claim(&node.spec, &path, &found);
                return Ok(());
            }
            Some((true, found)) if Instant::now() >= limit => {
                tracing::warn!(node = node.spec.name, "udev does not handle the node");
                claim(&node.spec, &path, &found);
                return Ok(());
            }
            None if Instant::now() >= limit => {
                return Err(FrontError::NotAppeared { name: name() });
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}

/// Sees to owner and mode where udev's rule did not, as when our rules are not installed.
fn claim(spec: &NodeSpec, path: &Path, found: &std::fs::Metadata) {
    // Of a reservation the owner is a number, which need not have a name.
    let uid = match spec.owner.parse() {
        Ok(uid) => Some(Uid::from_raw(uid)),
        Err(_) => User::from_name(&spec.owner).ok().flatten().map(|u| u.uid),
    };
    let gid = Group::from_name(&spec.group).ok().flatten().map(|g| g.gid);
    let (Some(uid), Some(gid)) = (uid, gid) else {
        tracing::warn!(
            node = spec.name,
            owner = spec.owner,
            group = spec.group,
            "no such user or group: the node stays as it is; create it or change `nodes`"
        );
        return;
    };
    let as_wanted = found.uid() == uid.as_raw()
        && found.gid() == gid.as_raw()
        && found.mode() & 0o7777 == spec.mode.bits();
    if as_wanted {
        return;
    }
    let set =
        nix::unistd::chown(path, Some(uid), Some(gid)).map_err(io::Error::from).and_then(|()| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(spec.mode.bits());
            std::fs::set_permissions(path, mode)
        });
    if let Err(error) = set {
        tracing::warn!(node = spec.name, %error,
            "cannot set owner and mode of the node; are the udev rules of ipmi-mux installed?");
    }
}

fn device_path(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}

/// sysfs writes the slashes of a device name as exclamation marks.
fn class_dir(name: &str) -> PathBuf {
    Path::new("/sys/class/cuse").join(name.replace('/', "!"))
}

fn read_numbers(name: &str) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(class_dir(name).join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn remembered_major(runtime_dir: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(runtime_dir.join("major")).ok()?;
    text.trim().parse().ok().filter(|major| (1..MAX_MAJOR).contains(major))
}

/// Tells udev's rule who owns the node: `70-ipmi-mux.rules` imports this file when the node appears.
fn write_udev_properties(spec: &NodeSpec, runtime_dir: &Path) -> Result<(), FrontError> {
    let path = runtime_dir.join("nodes").join(&spec.name);
    let text = format!(
        "IPMI_MUX_OWNER={}\nIPMI_MUX_GROUP={}\nIPMI_MUX_MODE={}\n",
        spec.owner, spec.group, spec.mode
    );
    let write = || {
        std::fs::create_dir_all(path.parent().expect("a file in a directory"))?;
        std::fs::write(&path, text)
    };
    write().map_err(|source| FrontError::RuntimeFile { path: path.clone(), source })
}
