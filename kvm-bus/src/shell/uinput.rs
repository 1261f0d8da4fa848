// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blade's keyboard and pointer, made by uinput. They are there from the start: a system looks for keyboards when it
//! boots, and one that comes with each choice would be a new one each time. Where uinput is not there yet, they come
//! when it is.

use std::io;

use evdev::uinput::VirtualDevice;
use evdev::{
    AbsInfo, AbsoluteAxisCode, AttributeSet, EventType, InputEvent, KeyCode, RelativeAxisCode,
    UinputAbsSetup,
};

use crate::core::keys::{MOST_CODE, Pressed};
use crate::wire::Pointer;

const PLACE: &str = "/dev/uinput";

/// What there is of them.
#[derive(Debug)]
pub struct Keyboard {
    /// The blade they are named after, if any are wanted.
    blade: Option<String>,
    devices: Option<Devices>,
    why: String,
}

impl Keyboard {
    /// None yet; see [`Self::look`].
    #[must_use]
    pub fn new(wanted: bool, blade: &str) -> Self {
        Self { blade: wanted.then(|| blade.to_owned()), devices: None, why: String::new() }
    }

    /// Makes them if they are not there; where they go if they are there from now on.
    pub fn look(&mut self) -> Option<&'static str> {
        let blade = self.blade.as_ref().filter(|_| self.devices.is_none())?;
        match Devices::new(blade) {
            Ok(devices) => {
                tracing::info!("keyboard and pointer are made");
                self.devices = Some(devices);
                Some(PLACE)
            }
            Err(error) => {
                let why = error.to_string();
                if why != self.why {
                    tracing::warn!(%error, "no keyboard: is the module uinput loaded, and {PLACE} for this user? trying again");
                    self.why = why;
                }
                None
            }
        }
    }

    /// These keys are down, and no others.
    ///
    /// # Errors
    /// The kernel took none.
    pub fn keys(&mut self, pressed: Pressed) -> io::Result<()> {
        self.devices.as_mut().map_or(Ok(()), |devices| devices.keys(pressed))
    }

    /// Moves the pointer.
    ///
    /// # Errors
    /// The kernel took none.
    pub fn pointer(&mut self, pointer: Pointer) -> io::Result<()> {
        self.devices.as_mut().map_or(Ok(()), |devices| devices.pointer(pointer))
    }
}

/// Both devices; the kernel lets all keys go when they end.
#[derive(Debug)]
struct Devices {
    keyboard: VirtualDevice,
    pointer: VirtualDevice,
    pressed: Pressed,
    buttons: u8,
}

const BUTTONS: [KeyCode; 3] = [KeyCode::BTN_LEFT, KeyCode::BTN_MIDDLE, KeyCode::BTN_RIGHT];

impl Devices {
    fn new(blade: &str) -> io::Result<Self> {
        let keys: AttributeSet<KeyCode> = (1..=MOST_CODE).map(KeyCode::new).collect();
        let keyboard = VirtualDevice::builder()?
            .name(&format!("Midplane keyboard of {blade}"))
            .with_keys(&keys)?
            .build()?;
        let axis = |axis| UinputAbsSetup::new(axis, AbsInfo::new(0, 0, 32767, 0, 0, 0));
        let buttons: AttributeSet<KeyCode> = BUTTONS.into_iter().collect();
        let wheel: AttributeSet<RelativeAxisCode> =
            [RelativeAxisCode::REL_WHEEL].into_iter().collect();
        let pointer = VirtualDevice::builder()?
            .name(&format!("Midplane pointer of {blade}"))
            .with_keys(&buttons)?
            .with_absolute_axis(&axis(AbsoluteAxisCode::ABS_X))?
            .with_absolute_axis(&axis(AbsoluteAxisCode::ABS_Y))?
            .with_relative_axes(&wheel)?
            .build()?;
        Ok(Self { keyboard, pointer, pressed: Pressed::default(), buttons: 0 })
    }

    fn keys(&mut self, pressed: Pressed) -> io::Result<()> {
        let changes = self.pressed.changes_to(&pressed);
        let event =
            |(code, down): (u16, bool)| InputEvent::new(EventType::KEY.0, code, i32::from(down));
        let events: Vec<_> = changes.into_iter().map(event).collect();
        self.pressed = pressed;
        if events.is_empty() { Ok(()) } else { self.keyboard.emit(&events) }
    }

    fn pointer(&mut self, pointer: Pointer) -> io::Result<()> {
        let Pointer { buttons, x, y, wheel } = pointer;
        let at = |axis: AbsoluteAxisCode, at: u16| {
            InputEvent::new(EventType::ABSOLUTE.0, axis.0, i32::from(at.min(32767)))
        };
        let mut events = vec![at(AbsoluteAxisCode::ABS_X, x), at(AbsoluteAxisCode::ABS_Y, y)];
        for (bit, key) in BUTTONS.into_iter().enumerate() {
            let (now, before) = (buttons >> bit & 1, self.buttons >> bit & 1);
            if now != before {
                events.push(InputEvent::new(EventType::KEY.0, key.0, i32::from(now)));
            }
        }
        if wheel != 0 {
            let code = RelativeAxisCode::REL_WHEEL.0;
            events.push(InputEvent::new(EventType::RELATIVE.0, code, i32::from(wheel)));
        }
        self.buttons = buttons;
        self.pointer.emit(&events)
    }
}
