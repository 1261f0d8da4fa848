// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blade's serial console as a task.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_serial::{
    DataBits, FlowControl, SerialPort, SerialPortBuilderExt, SerialStream, StopBits,
};

use crate::config::format::{Flow, format};
use crate::config::lmc::Console;
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
pub fn start(console: Console) -> (mpsc::UnboundedSender<Order>, mpsc::Receiver<Said>) {
    // Bounded all the same: by the room that the core is told of, and its window of control messages.
    let (orders, waiting) = mpsc::unbounded_channel();
    let (said, hear) = mpsc::channel(READ_AHEAD);
    tokio::spawn(Task { console, said, orders: waiting }.run());
    (orders, hear)
}

struct Task {
    console: Console,
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
                Err(why) => why,
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

    fn open(&self) -> Result<SerialStream, String> {
        let Console { path, settings, flow } = &self.console;
        let words = |error: tokio_serial::Error| error.to_string();
        let name = path.to_string_lossy();
        let opened = tokio_serial::new(name, settings.baud).open_native_async();
        let mut tty = opened.map_err(|error| {
            format!("{error}; is it there, is the user in the group of the device, and does nothing else use it?")
        })?;
        set(&mut tty, *settings, *flow).map_err(words)?;
        let (real, flows) = is_set(&tty).map_err(words)?;
        if real != *settings {
            return Err(format!(
                "its driver has set {} baud {}, not {} baud {}; set `console_baud` and `console_format` to what both ends can do",
                real.baud,
                format(real),
                settings.baud,
                format(*settings)
            ));
        }
        if flows != *flow {
            return Err(format!(
                "its driver has no flow control {flow}; set `console_flow` to another"
            ));
        }
        Ok(tty)
    }

    /// Until the console or the daemon is gone.
    async fn serve(&mut self, mut tty: SerialStream) -> io::Result<()> {
        if self.said.send(Said::Up(self.console.settings)).await.is_err() {
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
                        self.set(&mut tty, settings)?;
                        if self.said.send(Said::Up(self.console.settings)).await.is_err() {
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

    /// As a client asks. What the driver does not take stays as it is, and that is told.
    fn set(&mut self, tty: &mut SerialStream, settings: ConsoleSettings) -> io::Result<()> {
        let done = set(tty, settings, self.console.flow);
        let (real, _) = is_set(tty)?;
        if done.is_err() || real != settings {
            let (console, error) = (self.console.path.display(), done.err());
            tracing::warn!(%console, ?error, ?settings, ?real, "the driver sets the line otherwise");
        }
        self.console.settings = real;
        Ok(())
    }
}

fn set(tty: &mut SerialStream, settings: ConsoleSettings, flow: Flow) -> tokio_serial::Result<()> {
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
    tty.set_stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One })?;
    tty.set_flow_control(match flow {
        Flow::None => FlowControl::None,
        Flow::RtsCts => FlowControl::Hardware,
        Flow::XonXoff => FlowControl::Software,
    })
}

/// How the driver has set the line: drivers take what they cannot do, and do something else.
fn is_set(tty: &SerialStream) -> tokio_serial::Result<(ConsoleSettings, Flow)> {
    let settings = ConsoleSettings {
        baud: tty.baud_rate()?,
        data_bits: match tty.data_bits()? {
            DataBits::Five => 5,
            DataBits::Six => 6,
            DataBits::Seven => 7,
            DataBits::Eight => 8,
        },
        parity: match tty.parity()? {
            tokio_serial::Parity::None => Parity::None,
            tokio_serial::Parity::Odd => Parity::Odd,
            tokio_serial::Parity::Even => Parity::Even,
        },
        stop_bits: if tty.stop_bits()? == StopBits::Two { 2 } else { 1 },
    };
    let flow = match tty.flow_control()? {
        FlowControl::None => Flow::None,
        FlowControl::Hardware => Flow::RtsCts,
        FlowControl::Software => Flow::XonXoff,
    };
    Ok((settings, flow))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    use super::*;
    use crate::config::format::with_format;

    /// A pty knows eight bits and no parity, whatever it is told.
    #[tokio::test]
    async fn what_the_driver_does_not_take_is_refused_in_words() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let path: PathBuf = format!("/proc/self/fd/{}", pair.slave.as_raw_fd()).into();
        let path = std::fs::read_link(path).unwrap();
        let first = |text: &'static str, flow| {
            let settings = with_format(ConsoleSettings::default(), text).unwrap();
            let (orders, mut said) = start(Console { path: path.clone(), settings, flow });
            async move {
                let first = said.recv().await.unwrap();
                drop(orders);
                // The task lets the device go before the next opens it; one that cannot open it tries for ever.
                while matches!(first, Said::Up(_)) && said.recv().await.is_some() {}
                first
            }
        };
        for text in ["8N1", "8N2"] {
            let told = first(text, Flow::XonXoff).await;
            assert!(matches!(told, Said::Up(settings) if format(settings) == text), "{told:?}");
        }
        let told = first("7E1", Flow::None).await;
        assert!(
            matches!(&told, Said::Down(why) if why.contains("has set 115200 baud 8N1, not 115200 baud 7E1")),
            "{told:?}"
        );
    }
}
