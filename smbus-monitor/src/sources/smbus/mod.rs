// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chips without a driver, read by SMBus transfers through `/dev/i2c-N`: those that the configuration names, at the
//! addresses it names, and no other. Nothing is scanned, as a quick write can spoil an EEPROM; nothing is taken from a
//! driver: an address that has one is refused by the kernel (`EBUSY`), and its values come by hwmon.

mod fru;
mod lm75;
mod pmbus;
mod register;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2cdev::core::I2CDevice;
use i2cdev::linux::{LinuxI2CDevice, LinuxI2CError};
use kernel_abi::i2c;

use super::{Source, Whose};
use crate::core::{Batch, Now};
use crate::metric::{Meta, Reading};

pub use fru::read_fru;

/// Where the kernel lists buses and devices.
pub const SYSFS: &str = "/sys/bus/i2c/devices";
/// Longest time that a transfer may take in the adapter's driver.
const PATIENCE: Duration = Duration::from_millis(200);
/// A chip that lost its arbitration is asked again so often.
const RETRIES: u8 = 2;

/// A chip of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Its name, the same after every start.
    pub name: String,
    /// Its bus.
    pub bus: Bus,
    /// Its address, 7 bits.
    pub address: u16,
    /// What it is.
    pub chip: ChipKind,
    /// Whose it is.
    pub whose: Whose,
    /// How often it is read.
    pub interval: Duration,
    /// Transfers with a checksum, where the adapter can.
    pub pec: bool,
}

/// A bus, by number or by its adapter's name; numbers may be others after a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// `/dev/i2c-N`.
    Number(u32),
    /// What stands in `/sys/bus/i2c/devices/i2c-N/name`, or how it begins.
    Named(String),
}

/// What a chip is.
#[derive(Debug, Clone, PartialEq)]
pub enum ChipKind {
    /// A thermometer whose register 0 has half degrees from bit 7 up, high byte first: LM75, TMP75, DS75.
    Lm75,
    /// A supply that speaks PMBus.
    Pmbus(pmbus::Setup),
    /// Registers of any chip.
    Registers(Vec<Register>),
}

pub use pmbus::{Quantity, Setup as PmbusSetup, USUAL};
pub use register::{MAX_REGISTERS, Register, Width};

/// Which bus of this machine it is now.
#[must_use]
pub fn find(bus: &Bus, sysfs: &Path) -> Option<u32> {
    let wanted = match bus {
        Bus::Number(number) => return Some(*number),
        Bus::Named(name) => name,
    };
    let entries = fs::read_dir(sysfs).ok()?.flatten();
    let numbers = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix("i2c-")?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        name.trim().starts_with(wanted.as_str()).then_some(number)
    });
    numbers.min()
}

/// Why a chip was not read.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// A driver has the address.
    #[error("a driver has address {1:#04x} of i2c-{0}; its values are among those of hwmon")]
    Driven(u32, u16),
    /// There is no such adapter.
    #[error("/dev/i2c-{0}: {1}; is module i2c-dev loaded, and may this user open it?")]
    Open(u32, io::Error),
    /// The transfer failed.
    #[error("i2c-{0} address {1:#04x}: {2}")]
    Transfer(u32, u16, io::Error),
    /// The adapter cannot do what the chip needs.
    #[error("the adapter of i2c-{0} cannot {1}")]
    Cannot(u32, &'static str),
    /// What came makes no sense.
    #[error("i2c-{0} address {1:#04x}: {2}")]
    Nonsense(u32, u16, String),
}

/// A chip that is open.
pub struct Open {
    bus: u32,
    address: u16,
    device: LinuxI2CDevice,
    functions: u64,
}

fn io_error(error: LinuxI2CError) -> io::Error {
    match error {
        LinuxI2CError::Errno(errno) => io::Error::from_raw_os_error(errno),
        LinuxI2CError::Io(error) => error,
    }
}

/// Whether a driver is bound to an address.
fn is_driven(sysfs: &Path, bus: u32, address: u16) -> bool {
    fs::symlink_metadata(sysfs.join(format!("{bus}-{address:04x}/driver"))).is_ok()
}

impl Open {
    /// Opens a chip, unless a driver has it.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn new(bus: u32, address: u16, pec: bool) -> Result<Self, BusError> {
        if is_driven(Path::new(SYSFS), bus, address) {
            return Err(BusError::Driven(bus, address));
        }
        let path = PathBuf::from(format!("/dev/i2c-{bus}"));
        let device = LinuxI2CDevice::new(path, address).map_err(|error| match io_error(error) {
            error if error.kind() == io::ErrorKind::ResourceBusy => BusError::Driven(bus, address),
            error => BusError::Open(bus, error),
        });
        let mut device = device?;
        let errno = |errno| BusError::Open(bus, io::Error::from(errno));
        let functions = i2c::functions(&device).map_err(errno)?;
        i2c::set_patience(&device, PATIENCE, RETRIES).map_err(errno)?;
        if pec && functions & i2c::I2C_FUNC_SMBUS_PEC != 0 {
            device.set_smbus_pec(true).map_err(|error| BusError::Open(bus, io_error(error)))?;
        }
        Ok(Self { bus, address, device, functions })
    }

    fn check<T>(&self, result: Result<T, LinuxI2CError>) -> Result<T, BusError> {
        result.map_err(|error| match io_error(error) {
            error if error.kind() == io::ErrorKind::ResourceBusy => {
                BusError::Driven(self.bus, self.address)
            }
            error => BusError::Transfer(self.bus, self.address, error),
        })
    }

    fn needs(&self, function: u64, what: &'static str) -> Result<(), BusError> {
        if self.functions & function == 0 { Err(BusError::Cannot(self.bus, what)) } else { Ok(()) }
    }

    /// Read Byte (SMBus 6.5.5).
    ///
    /// # Errors
    /// [`BusError`]; so for all.
    pub fn byte(&mut self, command: u8) -> Result<u8, BusError> {
        self.needs(i2c::I2C_FUNC_SMBUS_READ_BYTE_DATA, "read bytes")?;
        let read = self.device.smbus_read_byte_data(command);
        self.check(read)
    }

    /// Read Word: the low byte comes first.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn word(&mut self, command: u8) -> Result<u16, BusError> {
        self.needs(i2c::I2C_FUNC_SMBUS_READ_WORD_DATA, "read words")?;
        let read = self.device.smbus_read_word_data(command);
        self.check(read)
    }

    /// Write Byte.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn write_byte(&mut self, command: u8, value: u8) -> Result<(), BusError> {
        let written = self.device.smbus_write_byte_data(command, value);
        self.check(written)
    }

    /// Block Read: at most 32 bytes.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn block(&mut self, command: u8) -> Result<Vec<u8>, BusError> {
        self.needs(i2c::I2C_FUNC_SMBUS_READ_BLOCK_DATA, "read blocks")?;
        let read = self.device.smbus_read_block_data(command);
        self.check(read)
    }

    fn nonsense(&self, what: impl Into<String>) -> BusError {
        BusError::Nonsense(self.bus, self.address, what.into())
    }
}

/// A kind of chip, which says what it measures and reads it.
trait Chip: Send {
    /// Its metrics, whose ids begin with `prefix`.
    fn metas(&self, prefix: &str, interval_ms: u32) -> Vec<Meta>;

    /// Reads it once: for each meta a value, or why there is none. An error is for all.
    fn read(&mut self, open: &mut Open) -> Result<Vec<Result<f64, String>>, BusError>;
}

/// A chip as a source.
pub struct SmbusSource {
    device: Device,
    bus: u32,
    name: String,
    metas: Vec<std::sync::Arc<Meta>>,
    chip: Box<dyn Chip>,
    open: Option<Open>,
    told: Option<String>,
}

impl SmbusSource {
    /// On the bus that it was found to be on.
    #[must_use]
    pub fn new(device: Device, bus: u32) -> Self {
        let chip: Box<dyn Chip> = match &device.chip {
            ChipKind::Lm75 => Box::new(lm75::Lm75),
            ChipKind::Pmbus(setup) => Box::new(pmbus::Pmbus::new(setup.clone())),
            ChipKind::Registers(all) => Box::new(register::Registers(all.clone())),
        };
        let name = format!("smbus/{}", device.name);
        let metas = chip.metas(&name, super::ms(device.interval));
        let metas = metas.into_iter().map(std::sync::Arc::new).collect();
        Self { device, bus, name, metas, chip, open: None, told: None }
    }

    fn values(&mut self) -> Result<Vec<Result<f64, String>>, BusError> {
        let Device { address, pec, .. } = self.device;
        // A driver that binds while the file is open does not close it.
        if is_driven(Path::new(SYSFS), self.bus, address) {
            return Err(BusError::Driven(self.bus, address));
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(self.bus, address, pec)?,
        };
        let open = self.open.insert(open);
        self.chip.read(open)
    }
}

impl Source for SmbusSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn whose(&self) -> Whose {
        self.device.whose
    }

    fn interval(&self) -> Duration {
        self.device.interval
    }

    fn read(&mut self, _: Now) -> Batch {
        let readings = match self.values() {
            Ok(values) => {
                self.told = None;
                let pair = self.metas.iter().zip(values);
                let each = pair.map(|(meta, value)| match value {
                    Ok(value) => Reading::new(meta, value),
                    Err(why) => Reading::failed(meta, why),
                });
                each.collect()
            }
            Err(error) => {
                // Opened anew the next time: the adapter may be another one.
                self.open = None;
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    tracing::warn!(device = self.name, %error, "not read");
                    self.told = Some(text);
                }
                self.metas.iter().map(|meta| Reading::failed(meta, &error)).collect()
            }
        };
        Batch { source: self.name.clone(), readings, complete: false }
    }
}
