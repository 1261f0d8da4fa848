// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our configurations of what was read: an RMM and an LMC for each console, all on this machine, in a chain of Unix
//! sockets. What is written is read again by what the daemons read it by.

use std::fmt::Write;
use std::path::Path;

use super::{Found, Kind, Placed};
use crate::config::{format::format, lmc, rmm};

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, without a folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The files, that of the RMM first.
///
/// # Errors
/// What was written is not what the daemons read: a fault of ours, told in words.
pub fn write(
    kind: Kind,
    file: &str,
    placed: &[Placed],
    base: Option<u16>,
    found: &Found,
) -> Result<Vec<File>, String> {
    let mut files = vec![File {
        name: "kvm-bus-rmm.toml".to_owned(),
        text: of_rmm(kind, file, placed, base, found),
    }];
    for (at, one) in placed.iter().enumerate() {
        let name = format!("kvm-bus-lmc-{}.toml", one.name);
        files.push(File { name, text: of_lmc(one, placed.get(at + 1)) });
    }
    for (number, File { name, text }) in files.iter().enumerate() {
        let path = Path::new(name);
        let read = if number == 0 {
            rmm::Config::parse(text, path).map(drop)
        } else {
            lmc::Config::parse(text, path).map(drop)
        };
        read.map_err(|error| format!("what was made is not valid: {error}"))?;
    }
    Ok(files)
}

/// Where a console's LMC waits for the one before it, in the folder that its unit has.
fn socket(of: &Placed) -> String {
    format!("{}-{}/up.sock", lmc::DEFAULT_RUNTIME_DIR, of.name)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn of_rmm(kind: Kind, file: &str, placed: &[Placed], base: Option<u16>, found: &Found) -> String {
    use daemon_kit::table::printable;
    let mut out = format!(
        "# The operator's end of the bus: kvm-bus-rmm.toml(5). Made by `kvm-bus import` from {kind}'s {}.\n",
        printable(file)
    );
    if !found.warnings.is_empty() {
        out += "#\n# What has no counterpart, or is otherwise here:\n";
        for warning in &found.warnings {
            let _ = writeln!(out, "#   {warning}");
        }
    }
    out += "\n[bus]\n# The consoles' ends are on this machine; each may move to another one, with a serial line to it.\n";
    if let Some(first) = placed.first() {
        let _ = writeln!(out, "near = {}", quoted(&format!("unix:{}", socket(first))));
    }
    if base.is_some() || found.log_size.is_some() {
        out += "\n[console]\n";
    }
    if let Some(base) = base {
        let _ = writeln!(out, "# Slot N is at this port plus N.\ntelnet = \"127.0.0.1:{base}\"");
    }
    if let Some(size) = found.log_size {
        let _ = writeln!(out, "log_size = {size}");
    }
    out
}

fn of_lmc(one: &Placed, next: Option<&Placed>) -> String {
    let Placed { slot, name, console } = one;
    let mut out =
        format!("# A blade's end of the bus: kvm-bus-lmc.toml(5). From {}.\n", console.at);
    let _ = writeln!(out, "slot = {slot}\nname = {}\n\n[bus]", quoted(name));
    let _ = writeln!(out, "up = {}", quoted(&format!("unix-listen:{}", socket(one))));
    if let Some(next) = next {
        let _ = writeln!(out, "down = {}", quoted(&format!("unix:{}", socket(next))));
    }
    let _ = writeln!(out, "\n[blade]\nconsole = {}", quoted(&console.device));
    let _ = writeln!(out, "console_baud = {}", console.settings.baud);
    let _ = writeln!(out, "console_format = \"{}\"", format(console.settings));
    let _ = writeln!(out, "console_flow = \"{}\"", console.flow);
    out += "# The line is all that this machine has of it.\nscreen = \"none\"\nkeyboard = \"none\"\npower = \"none\"\n";
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Device;
    use crate::config::format::Flow;
    use crate::import::{World, parse, place};
    use crate::shell::stream::Place;

    #[test]
    fn what_is_written_is_what_the_daemons_read() {
        let text = "connection: &a \n  accepter: telnet,tcp,localhost,2001\n  connector: serialdev,/dev/ttyS0,9600e71,rtscts\n\
            connection: &b\n  accepter: telnet,tcp,2002\n  connector: 'serialdev,/dev/x\"\\y'\n";
        let mut read = |_: &str| Err(String::new());
        let mut world = World { hosts: &[], read: &mut read };
        let mut found = parse(Kind::Ser2netYaml, text, "s\n.yaml", &mut world).unwrap();
        found.log_size = Some(65_536);
        let (placed, base) = place(&mut found);
        let files = write(Kind::Ser2netYaml, "s\n.yaml", &placed, base, &found).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["kvm-bus-rmm.toml", "kvm-bus-lmc-a.toml", "kvm-bus-lmc-b.toml"]);
        let rmm = rmm::Config::parse(&files[0].text, Path::new("r")).unwrap();
        let to_a = "/run/midplane/kvm-bus-lmc-a/up.sock";
        assert_eq!(rmm.bus[0], Some(Place::Unix(to_a.into())));
        assert_eq!(rmm.telnet, Some("127.0.0.1:2000".parse().unwrap()));
        assert_eq!(rmm.logs.size, 65_536);
        assert!(files[0].text.contains(":5: was reached from other machines"), "{}", files[0].text);
        let a = lmc::Config::parse(&files[1].text, Path::new("a")).unwrap();
        assert_eq!(a.bus[0], Some(Place::UnixListen(to_a.into())));
        assert_eq!(a.bus[1], Some(Place::Unix("/run/midplane/kvm-bus-lmc-b/up.sock".into())));
        let console = a.console.unwrap();
        assert_eq!((console.path.to_str(), console.flow), (Some("/dev/ttyS0"), Flow::RtsCts));
        assert_eq!((console.settings.baud, format(console.settings)), (9600, "7E1".to_owned()));
        assert_eq!((a.screen, a.keyboard, a.power), (Device::None, Device::None, Device::None));
        let b = lmc::Config::parse(&files[2].text, Path::new("b")).unwrap();
        assert_eq!((b.name.as_str(), b.bus[1].as_ref()), ("b", None));
        assert_eq!(b.console.unwrap().path.to_str(), Some("/dev/x\"\\y"));
    }
}
