// SPDX-License-Identifier: MIT OR Apache-2.0
//! Take-over: the kernel's name `/dev/ipmiN` is served by us, the hardware's node is `/dev/ipmi-hw/N`.
//!
//! What needs root is here, as two verbs that the unit runs around the daemon. Which steps to take is
//! decided by pure functions from what is found; the rest carries them out.
//!
//! The kernel's node is moved, not made anew: devtmpfs removes with the device only the node that it
//! made itself (`dev_mynode` in `linux/drivers/base/devtmpfs.c`), and one of ours would outlive the
//! driver under a number that may be another's by then. A rename is also one step: a crash before or
//! after it leaves a state that [`put_back`] mends. A node is made, always under `/dev/ipmi-hw`, only where
//! the kernel's own is lost: where the driver came back while our node had its name, devtmpfs made
//! none and said nothing.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Group, Uid, chown};

/// Directory of the hardware's nodes while their names are taken over.
const HARDWARE: &str = "/dev/ipmi-hw";
/// Interfaces of the kernel's driver.
const CLASS: &str = "/sys/class/ipmi";
/// Group and mode that `70-ipmi-mux.rules` gives the kernel's node.
const NODE_GROUP: &str = "ipmi-mux";
const NODE_MODE: u32 = 0o660;

/// Take-over or its end failed.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// A step was refused.
    #[error("cannot {what}: {source}; this needs root, and is what the systemd unit runs")]
    Step {
        /// The step, with its paths.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The daemon was started without the step before it.
    #[error(
        "take_over is set, but {name} is not free for us: {reason}; start the daemon by `systemctl start ipmi-mux`, or run `ipmi-mux take-over` as root before it and `ipmi-mux put-back` after it"
    )]
    NotTakenOver {
        /// The kernel's name.
        name: String,
        /// What was found.
        reason: &'static str,
    },
}

/// What lies under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Missing,
    /// A character device with the interface's number.
    Kernels,
    /// A character device with a number that no device has.
    Dead,
    /// Anything else, such as a node that is being served.
    Other,
}

/// What is found of interface `ipmiN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Whether the driver has such an interface.
    present: bool,
    /// `/dev/ipmiN`.
    name: Found,
    /// `/dev/ipmi-hw/N`.
    hardware: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Rename the name to the hardware's node, replacing what is there.
    Hide,
    /// Rename the hardware's node to the name, replacing what is there.
    Restore,
    /// Make the hardware's node.
    Make,
    /// Owner and mode of the hardware's node.
    Own,
    /// Remove what lies at the hardware's node.
    RemoveHardware,
    /// Remove what lies under the name.
    RemoveName,
}

/// Frees the name and leaves the kernel's device at the hardware's node.
fn plan_take_over(state: State) -> Vec<Step> {
    match state {
        // Not ours to touch; the daemon says what is wrong.
        State { present: false, .. } | State { name: Found::Other, .. } => vec![],
        State { name: Found::Kernels, .. } => vec![Step::Hide, Step::Own],
        State { name: Found::Dead, .. } => [vec![Step::RemoveName], hardware_node(state)].concat(),
        State { name: Found::Missing, .. } => hardware_node(state),
    }
}

/// Gives the name back to the kernel's device.
fn plan_put_back(state: State) -> Vec<Step> {
    let clean = if state.hardware == Found::Missing { vec![] } else { vec![Step::RemoveHardware] };
    match state {
        State { present: false, .. } | State { name: Found::Kernels, .. } => clean,
        State { name: Found::Missing | Found::Dead, .. } => {
            [hardware_node(state), vec![Step::Restore]].concat()
        }
        // Served still, or somebody else's: the hardware's node is kept for the next time.
        State { name: Found::Other, .. } => vec![],
    }
}

/// The hardware's node is there, with its owner.
fn hardware_node(state: State) -> Vec<Step> {
    match state.hardware {
        Found::Kernels => vec![Step::Own],
        Found::Missing => vec![Step::Make, Step::Own],
        Found::Dead | Found::Other => vec![Step::RemoveHardware, Step::Make, Step::Own],
    }
}

/// Path of the hardware's node of `/dev/ipmiN` while that is taken over.
#[must_use]
pub fn hardware_path(number: u32) -> PathBuf {
    Path::new(HARDWARE).join(number.to_string())
}

fn name_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ipmi{number}"))
}

/// Whether the driver has interface `ipmiN`, whatever lies under its name.
#[must_use]
pub fn is_present(number: u32) -> bool {
    device(number).is_some()
}

/// For the daemon: the name is free and the hardware's node there.
///
/// # Errors
/// [`TakeOverError::NotTakenOver`] with what to do.
pub fn check_taken_over(number: u32) -> Result<(), TakeOverError> {
    let name = name_path(number);
    let reason = match (fs::symlink_metadata(&name), fs::symlink_metadata(hardware_path(number))) {
        (Ok(_), _) => "it is still the kernel's, or another program serves it",
        // The driver went in the meantime: opening the hardware's node says so.
        (Err(_), Err(_)) if is_present(number) => "there is no node of the hardware",
        _ => return Ok(()),
    };
    Err(TakeOverError::NotTakenOver { name: name.display().to_string(), reason })
}

/// Frees `/dev/ipmiN` for the daemon; the hardware's node is `/dev/ipmi-hw/N` then. Needs root. Does
/// nothing where there is no such interface, or where the name is not the kernel's node.
///
/// # Errors
/// The step that failed; [`put_back`] mends what was done of it.
pub fn take_over(number: u32) -> Result<(), TakeOverError> {
    carry_out(number, plan_take_over)
}

/// Gives all interfaces of the kernel their names back, where nobody serves them, and removes
/// `/dev/ipmi-hw`. Needs root. May run at any time and any number of times.
///
/// # Errors
/// The first step that failed; the other interfaces are done all the same.
pub fn put_back() -> Result<(), TakeOverError> {
    let mut numbers: Vec<u32> = names(CLASS)
        .filter_map(|name| name.strip_prefix("ipmi")?.parse().ok())
        .chain(names(HARDWARE).filter_map(|name| name.parse().ok()))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut outcome = Ok(());
    for number in numbers {
        outcome = outcome.and(carry_out(number, plan_put_back));
    }
    // Not empty where a name is still served.
    let _ = fs::remove_dir(HARDWARE);
    outcome
}

fn names(directory: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn carry_out(number: u32, plan: fn(State) -> Vec<Step>) -> Result<(), TakeOverError> {
    let device = device(number);
    let state = State {
        present: device.is_some(),
        name: look(&name_path(number), device),
        hardware: look(&hardware_path(number), device),
    };
    for step in plan(state) {
        perform(step, number, device)
            .map_err(|(what, source)| TakeOverError::Step { what, source })?;
    }
    Ok(())
}

fn perform(step: Step, number: u32, device: Option<u64>) -> Result<(), (String, io::Error)> {
    let (name, hardware) = (name_path(number), hardware_path(number));
    let (shown_name, shown) = (name.display(), hardware.display());
    match step {
        Step::Hide => in_directory(|| fs::rename(&name, &hardware))
            .map_err(|e| (format!("move {shown_name} to {shown}"), e)),
        Step::Restore => {
            fs::rename(&hardware, &name).map_err(|e| (format!("move {shown} to {shown_name}"), e))
        }
        Step::Make => in_directory(|| {
            // The interface went in the meantime.
            let device = device.ok_or(io::ErrorKind::NotFound)?;
            Ok(mknod(&hardware, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, device)?)
        })
        .map_err(|e| (format!("make {shown}"), e)),
        Step::Own => own(&hardware).map_err(|e| (format!("set owner and mode of {shown}"), e)),
        Step::RemoveHardware => {
            fs::remove_file(&hardware).map_err(|e| (format!("remove {shown}"), e))
        }
        Step::RemoveName => fs::remove_file(&name).map_err(|e| (format!("remove {shown_name}"), e)),
    }
}

/// Does something that needs the directory.
fn in_directory(act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    fs::create_dir_all(HARDWARE)?;
    // The unit's umask is narrower.
    fs::set_permissions(HARDWARE, PermissionsExt::from_mode(0o755))?;
    act()
}

fn own(path: &Path) -> io::Result<()> {
    let group = Group::from_name(NODE_GROUP).ok().flatten();
    let (gid, mode) = group.map_or((Gid::from_raw(0), 0o600), |group| (group.gid, NODE_MODE));
    chown(path, Some(Uid::from_raw(0)), Some(gid))?;
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

/// Device number of interface `ipmiN`, where the driver has it.
fn device(number: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("{CLASS}/ipmi{number}/dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn look(path: &Path, device: Option<u64>) -> Found {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Missing,
        Ok(found) if found.file_type().is_char_device() => look_at_device(&found, device),
        _ => Found::Other,
    }
}

fn look_at_device(found: &Metadata, device: Option<u64>) -> Found {
    let number = found.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    if Some(number) == device {
        Found::Kernels
    } else if Path::new(&format!("/sys/dev/char/{major}:{minor}")).exists() {
        Found::Other
    } else {
        Found::Dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: [Found; 4] = [Found::Missing, Found::Kernels, Found::Dead, Found::Other];

    /// What a step makes of a state; none where it would fail.
    fn after(mut state: State, step: Step) -> Option<State> {
        match step {
            Step::Hide => {
                state.hardware = state.name;
                state.name = Found::Missing;
            }
            Step::Restore if state.hardware == Found::Missing => return None,
            Step::Restore => {
                state.name = state.hardware;
                state.hardware = Found::Missing;
            }
            Step::Make if !state.present || state.hardware != Found::Missing => return None,
            Step::Make => state.hardware = Found::Kernels,
            Step::Own if state.hardware == Found::Missing => return None,
            Step::Own => {}
            Step::RemoveHardware => state.hardware = Found::Missing,
            Step::RemoveName => state.name = Found::Missing,
        }
        Some(state)
    }

    /// The states that a plan goes through, the first and the last among them.
    fn through(state: State, plan: fn(State) -> Vec<Step>) -> Vec<State> {
        let mut states = vec![state];
        for step in plan(state) {
            let last = states[states.len() - 1];
            states.push(after(last, step).unwrap_or_else(|| panic!("{step:?} fails in {last:?}")));
        }
        states
    }

    fn states() -> impl Iterator<Item = State> {
        [true, false].into_iter().flat_map(|present| {
            ANY.into_iter().flat_map(move |name| {
                ANY.into_iter().map(move |hardware| State { present, name, hardware }).filter(|s| {
                    s.present || (s.name != Found::Kernels && s.hardware != Found::Kernels)
                })
            })
        })
    }

    #[test]
    fn take_over_frees_the_kernels_name_and_no_other() {
        for state in states() {
            let end = through(state, plan_take_over).pop().unwrap();
            if !state.present || state.name == Found::Other {
                assert_eq!(end, state, "{state:?} is not ours");
            } else {
                assert_eq!((end.name, end.hardware), (Found::Missing, Found::Kernels), "{state:?}");
            }
        }
        let usual = State { present: true, name: Found::Kernels, hardware: Found::Missing };
        assert_eq!(
            plan_take_over(usual),
            [Step::Hide, Step::Own],
            "the kernel's own node is moved"
        );
    }

    #[test]
    fn put_back_mends_what_a_crash_leaves_at_any_point() {
        for begin in states() {
            for crashed in through(begin, plan_take_over) {
                // Put-back may crash as well, and is then run again.
                for half in through(crashed, plan_put_back) {
                    let end = through(half, plan_put_back).pop().unwrap();
                    let wanted = match begin {
                        State { name: Found::Other, .. } => continue,
                        State { present: true, .. } => (Found::Kernels, Found::Missing),
                        State { name, .. } => (name, Found::Missing),
                    };
                    assert_eq!(
                        (end.name, end.hardware),
                        wanted,
                        "{begin:?} by {crashed:?}, {half:?}"
                    );
                    assert_eq!(plan_put_back(end), [], "and again is nothing to do");
                }
            }
        }
    }

    #[test]
    fn what_somebody_serves_is_left_alone() {
        for state in states().filter(|s| s.name == Found::Other) {
            let end = through(state, plan_put_back).pop().unwrap();
            assert_eq!(end.name, Found::Other);
            assert!(end.hardware == state.hardware || !state.present);
        }
    }

    #[test]
    fn the_driver_comes_back_while_we_have_its_name() {
        // The old interface's node under another number than the new one's; our node went with us.
        for hardware in [Found::Dead, Found::Other, Found::Kernels, Found::Missing] {
            let state = State { present: true, name: Found::Missing, hardware };
            let end = through(state, plan_put_back).pop().unwrap();
            assert_eq!((end.name, end.hardware), (Found::Kernels, Found::Missing), "{hardware:?}");
        }
    }
}
