// SPDX-License-Identifier: MIT OR Apache-2.0
//! One step on a LUN, for trying the library by hand and in the lab:
//!
//! ```text
//! lun UDC bind | remove
//! lun UDC state | eject | force-eject F.L
//! lun UDC insert F.L disk|cd FILE [ro]
//! ```
#![forbid(unsafe_code)]

use std::process::ExitCode;

use gadget::{Gadget, Identity, Insert, Kind, Layout, LunId};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match step(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lun: {error}");
            ExitCode::FAILURE
        }
    }
}

fn step(words: &[&str]) -> Result<(), Failure> {
    let [udc, verb, rest @ ..] = words else { return Err("UDC and a verb are needed".into()) };
    let gadget = Gadget::open(udc, Layout::default(), &Identity::from_seed(udc))?;
    match (*verb, rest) {
        ("bind", []) => gadget.bind()?,
        ("remove", []) => gadget.remove()?,
        ("state", [lun]) => println!("{:?}", gadget.lun(lun_id(lun)?)?),
        ("eject", [lun]) => gadget.eject(lun_id(lun)?)?,
        ("force-eject", [lun]) => gadget.force_eject(lun_id(lun)?)?,
        ("insert", [lun, kind, file, more @ ..]) => {
            let kind = if *kind == "cd" { Kind::Cd } else { Kind::Disk };
            let insert = Insert { file: file.into(), read_only: more == ["ro"], no_fua: false };
            println!("{:?}", gadget.insert(lun_id(lun)?, kind, &insert)?);
        }
        _ => return Err(format!("no such verb: {verb}").into()),
    }
    Ok(())
}

fn lun_id(text: &str) -> Result<LunId, Failure> {
    let (function, lun) = text.split_once('.').ok_or("a lun is written FUNCTION.LUN")?;
    Ok(LunId { function: function.parse()?, lun: lun.parse()? })
}
