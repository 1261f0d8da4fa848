// SPDX-License-Identifier: MIT OR Apache-2.0
//! A segment of the bus as a task: opens its line whenever that is there, gives what it reads, and takes one frame at a
//! time, so that what is urgent waits for no more than the frame that is under way.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::stream::{Place, Stream};

/// Between two attempts to open a line.
const RETRY: Duration = Duration::from_secs(1);
/// Pieces read that wait for the daemon's loop, of at most 4 KiB each.
const READ_AHEAD: usize = 64;
const READ_SIZE: usize = 4096;
/// Between two looks at whether a frame has left.
const LOOK: Duration = Duration::from_millis(1);

/// What a segment tells the daemon.
#[derive(Debug)]
pub enum Told {
    /// The line is open, with so many bits per second.
    Up(u32),
    /// It is not, and why.
    Down(String),
    /// Bytes came.
    Bytes(Vec<u8>),
    /// It takes the next frame.
    Free,
}

/// The same with the segment's number.
pub type ByLine = (usize, Told);

/// The daemon's end of a segment.
#[derive(Debug)]
pub struct Line {
    /// Where it goes.
    pub place: Place,
    frames: mpsc::Sender<Vec<u8>>,
    free: bool,
    /// Its speed while it is open.
    pub baud: Option<u32>,
    /// Why it is not open.
    pub why: Option<String>,
    /// Bytes that came.
    pub bytes: u64,
}

impl Line {
    /// Starts the task. What it tells comes with `number`.
    #[must_use]
    pub fn start(number: usize, place: Place, told: mpsc::Sender<(usize, Told)>) -> Self {
        let (frames, waiting) = mpsc::channel(1);
        let task = Task { number, place: place.clone(), told, frames: waiting };
        tokio::spawn(task.run());
        Self { place, frames, free: false, baud: None, why: None, bytes: 0 }
    }

    /// The channel for what lines tell.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<ByLine>, mpsc::Receiver<ByLine>) {
        mpsc::channel(READ_AHEAD)
    }

    /// Notes what the task told, and gives bytes back.
    pub fn heard(&mut self, told: Told) -> Option<Vec<u8>> {
        match told {
            Told::Up(baud) => {
                tracing::info!(line = %self.place, baud, "line is open");
                (self.free, self.baud, self.why) = (true, Some(baud), None);
            }
            Told::Down(why) => {
                if self.why.as_ref() != Some(&why) {
                    tracing::warn!(line = %self.place, %why, "line is not there; trying again");
                }
                (self.free, self.baud, self.why) = (false, None, Some(why));
            }
            Told::Free => self.free = self.baud.is_some(),
            Told::Bytes(bytes) => {
                self.bytes += bytes.len() as u64;
                return Some(bytes);
            }
        }
        None
    }

    /// Gives it the next frame, if it takes one and there is one.
    pub fn fill(&mut self, next: impl FnOnce() -> Option<Vec<u8>>) {
        if self.free
            && let Some(frame) = next()
        {
            self.free = self.frames.try_send(frame).is_err();
        }
    }
}

struct Task {
    number: usize,
    place: Place,
    told: mpsc::Sender<(usize, Told)>,
    frames: mpsc::Receiver<Vec<u8>>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let why = match Stream::open(&self.place).await {
                Ok(stream) => match self.serve(stream).await {
                    Ok(()) => return,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        "the other end has closed it".to_owned()
                    }
                    Err(error) => error.to_string(),
                },
                Err(why) => why,
            };
            // A frame that was given meanwhile is lost with the line.
            while self.frames.try_recv().is_ok() {}
            if self.tell(Told::Down(why)).await.is_none() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    /// Nobody listens when the daemon ends.
    async fn tell(&self, told: Told) -> Option<()> {
        self.told.send((self.number, told)).await.ok()
    }

    /// Until the line is gone, or the daemon.
    async fn serve(&mut self, mut stream: Stream) -> io::Result<()> {
        if self.tell(Told::Up(stream.baud())).await.is_none() {
            return Ok(());
        }
        let mut buffer = vec![0; READ_SIZE];
        let mut sending: Option<Vec<u8>> = None;
        loop {
            tokio::select! {
                count = stream.read(&mut buffer) => match count? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => {
                        let bytes = buffer[..count].to_vec();
                        if self.tell(Told::Bytes(bytes)).await.is_none() {
                            return Ok(());
                        }
                    }
                },
                frame = self.frames.recv(), if sending.is_none() => match frame {
                    Some(frame) => sending = Some(frame),
                    None => return Ok(()),
                },
                () = sleep(LOOK), if sending.is_some() => {}
            }
            if let Some(frame) = &mut sending {
                let wrote = stream.write(frame)?;
                frame.drain(..wrote);
                if frame.is_empty() && stream.is_free()? {
                    sending = None;
                    if self.tell(Told::Free).await.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }
}
