// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operator's keyboard at this machine: read while it is there, and by nobody else meanwhile.

use std::path::PathBuf;
use std::time::Duration;

use evdev::{Device, EventType};
use tokio::sync::mpsc;

use super::Request;

const RETRY: Duration = Duration::from_secs(1);

/// Starts a thread that reads it.
pub(super) fn start(path: PathBuf, door: mpsc::Sender<Request>) -> std::io::Result<()> {
    let read = move || {
        let mut told = false;
        while !door.is_closed() {
            let error = match Device::open(&path).and_then(|mut device| {
                device.grab()?;
                Ok(device)
            }) {
                Ok(device) => {
                    tracing::info!(keyboard = %path.display(), "the operator's keyboard is there");
                    told = false;
                    let error = pass_on(device, &door);
                    let _ = door.blocking_send(Request::NoKeyboard);
                    error
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(keyboard = %path.display(), %error, "the operator's keyboard is away; trying again");
            }
            std::thread::sleep(RETRY);
        }
    };
    std::thread::Builder::new().name("keyboard".to_owned()).spawn(read).map(drop)
}

/// Until the keyboard is gone, or the daemon.
fn pass_on(mut device: Device, door: &mpsc::Sender<Request>) -> std::io::Error {
    loop {
        let events = match device.fetch_events() {
            Ok(events) => events,
            Err(error) => return error,
        };
        // A held key's repetitions are made anew by the blade's kernel.
        let keys = events.filter(|event| event.event_type() == EventType::KEY && event.value() < 2);
        for event in keys {
            if door.blocking_send(Request::Key(event.code(), event.value() == 1)).is_err() {
                return std::io::ErrorKind::BrokenPipe.into();
            }
        }
    }
}
