// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blade's serial console as a task.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_serial::{DataBits, SerialPort, SerialPortBuilderExt, SerialStream, StopBits};

use crate::wire::{ConsoleSettings, Parity};

/// Bytes that wait to be written: what a slow console takes in a third of a second.
pub const WRITE_AHEAD: usize = 4096;
/// Pieces read that wait for the daemon's loop.
const READ_AHEAD: usize = 16;
const READ_SIZE: usize = 4096;
const RETRY: Duration = Duration::from_secs(1);
/// Until a console that takes nothing is asked again.
const LOOK: Duration = Duration::from_millis(2);
/// A break, longer than a character at 110 baud.
const BREAK: Duration = Duration::from_millis(300);

/// What the console tells the daemon.
#[derive(Debug)]
pub enum Said {
    /// It is open.
    Up(ConsoleSettings),
    /// It is not, and why.
    Down(String),
    /// It said this.
    Bytes(Vec<u8>),
    /// So many bytes were written.
    Wrote(usize),
}

/// What it is told.
#[derive(Debug)]
pub enum Order {
    /// Write.
    Write(Vec<u8>),
    /// Hold the line at break.
    Break,
    /// Set the line.
    Set(ConsoleSettings),
}

/// Starts the task.
#[must_use]
pub fn start(
    path: PathBuf,
    settings: ConsoleSettings,
) -> (mpsc::UnboundedSender<Order>, mpsc::Receiver<Said>) {
    // Bounded all the same: by the room that the core is told of, and its window of control messages.
    let (orders, waiting) = mpsc::unbounded_channel();
    let (said, hear) = mpsc::channel(READ_AHEAD);
    tokio::spawn(Task { path, settings, said, orders: waiting }.run());
    (orders, hear)
}

struct Task {
    path: PathBuf,
    settings: ConsoleSettings,
    said: mpsc::Sender<Said>,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let why = match self.open() {
                Ok(tty) => match self.serve(tty).await {
                    Ok(()) => return,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let mut lost = 0;
            while let Ok(order) = self.orders.try_recv() {
                if let Order::Write(bytes) = order {
                    lost += bytes.len();
                }
            }
            let told = self.said.send(Said::Down(why)).await;
            if told.is_err() || self.said.send(Said::Wrote(lost)).await.is_err() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    fn open(&self) -> tokio_serial::Result<SerialStream> {
        let name = self.path.to_string_lossy();
        let mut tty = tokio_serial::new(name, self.settings.baud).open_native_async()?;
        set(&mut tty, self.settings)?;
        Ok(tty)
    }

    /// Until the console or the daemon is gone.
    async fn serve(&mut self, mut tty: SerialStream) -> io::Result<()> {
        self.settings.baud = tty.baud_rate()?;
        if self.said.send(Said::Up(self.settings)).await.is_err() {
            return Ok(());
        }
        let mut buffer = vec![0; READ_SIZE];
        let mut writing: Vec<u8> = vec![];
        let mut break_until: Option<Instant> = None;
        loop {
            tokio::select! {
                count = tty.read(&mut buffer) => match count? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => if self.said.send(Said::Bytes(buffer[..count].to_vec())).await.is_err() {
                        return Ok(());
                    }
                },
                order = self.orders.recv() => match order {
                    Some(Order::Write(bytes)) => writing.extend(bytes),
                    Some(Order::Break) => {
                        tty.set_break()?;
                        break_until = Some(Instant::now() + BREAK);
                    }
                    Some(Order::Set(settings)) => {
                        if let Err(error) = set(&mut tty, settings) {
                            tracing::warn!(console = %self.path.display(), %error, "cannot set the line");
                        }
                        self.settings = ConsoleSettings { baud: tty.baud_rate()?, ..settings };
                        if self.said.send(Said::Up(self.settings)).await.is_err() {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                () = sleep(LOOK), if !writing.is_empty() => {}
                () = sleep_until(break_until.unwrap_or_else(Instant::now)), if break_until.is_some() => {
                    break_until = None;
                    tty.clear_break()?;
                }
            }
            if !writing.is_empty() && break_until.is_none() {
                let wrote = match tty.try_write(&writing) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    wrote => wrote?,
                };
                writing.drain(..wrote);
                if wrote > 0 && self.said.send(Said::Wrote(wrote)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn set(tty: &mut SerialStream, settings: ConsoleSettings) -> tokio_serial::Result<()> {
    tty.set_baud_rate(settings.baud)?;
    tty.set_data_bits(match settings.data_bits {
        5 => DataBits::Five,
        6 => DataBits::Six,
        7 => DataBits::Seven,
        _ => DataBits::Eight,
    })?;
    tty.set_parity(match settings.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Odd => tokio_serial::Parity::Odd,
        Parity::Even => tokio_serial::Parity::Even,
    })?;
    tty.set_stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One })
}
