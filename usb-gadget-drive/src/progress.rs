// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person at a terminal sees while the daemon is busy for him.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use daemon_kit::client::{Client, ClientError};
use daemon_kit::table::printable;

use crate::arbiter::ShareName;
use crate::cli::{age, size};
use crate::manager::Copied;
use crate::manager::control::Work;

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(400);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Of the bar, characters.
const BAR: usize = 24;
/// Where a terminal does not say how wide it is.
const COLUMNS: usize = 80;
/// How a shell reports a process that was interrupted.
const INTERRUPTED: i32 = 130;

/// Waits for the daemon's answer. On a terminal it shows meanwhile what is being done with the share, and an interrupt
/// ends only the wait.
///
/// # Errors
/// Those of the answer.
pub async fn shown<T>(
    client: &Client,
    share: &ShareName,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    if !stderr().is_terminal() {
        return answer.await;
    }
    let (mut bar, begun) = (Bar::default(), Instant::now());
    let answer = tokio::select! {
        answer = answer => answer,
        () = bar.look(client, share) => unreachable!("it goes on for ever"),
        _ = tokio::signal::ctrl_c() => {
            bar.clear();
            eprintln!(
                "usb-gadget-drive: not waiting any longer; the server goes on with it, see: usb-gadget-drive shares"
            );
            std::process::exit(INTERRUPTED);
        }
    };
    bar.clear();
    if let (Ok(_), Some((_, first))) = (&answer, bar.first) {
        eprintln!("copied {} in {}", size(first.total), age(begun.elapsed().as_secs().max(1)));
    }
    answer
}

#[derive(Debug, Default)]
struct Bar {
    is_drawn: bool,
    /// When copying was seen first, and how far it was.
    first: Option<(Instant, Copied)>,
}

impl Bar {
    async fn look(&mut self, client: &Client, share: &ShareName) {
        tokio::time::sleep(PATIENCE).await;
        let path = format!("/v1/shares/{share}/work");
        loop {
            // An older daemon does not know, and a lost one is told of by the answer.
            let work: Vec<Work> = client.get_json(&path).await.unwrap_or_default();
            self.draw(share, work.first());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn draw(&mut self, share: &ShareName, work: Option<&Work>) {
        let Some(work) = work else { return };
        let text = match work.copied {
            None => format!("share {share} {}", printable(&work.what)),
            Some(now) => {
                let (begun, first) = *self.first.get_or_insert_with(|| (Instant::now(), now));
                line(now, now.done.saturating_sub(first.done), begun.elapsed())
            }
        };
        let width = rustix::termios::tcgetwinsize(stderr()).map_or(0, |size| size.ws_col.into());
        let width = if width == 0 { COLUMNS } else { width };
        // The last column makes some terminals begin a line.
        let text: String = text.chars().take(width - 1).collect();
        let _ = write!(stderr(), "\r{text}\x1b[K");
        self.is_drawn = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// How far it is, when `since` bytes of it took `took`.
fn line(Copied { done, total }: Copied, since: u64, took: Duration) -> String {
    let (done, total) = (done.min(total), total.max(1));
    let part = done as f64 / total as f64;
    let mut bar = "=".repeat((part * BAR as f64) as usize);
    if bar.len() < BAR {
        bar.push('>');
    }
    let percent = (part * 100.0) as u64;
    let mut text = format!("[{bar:BAR$}] {percent:3} %  {} of {}", size(done), size(total));
    let rate = since as f64 / took.as_secs_f64().max(0.001);
    if since > 0 && took >= LOOK {
        let left = ((total - done) as f64 / rate).ceil() as u64;
        text += &format!("  {}/s  {} left", size(rate as u64), age(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let at = |done, since, seconds| {
            line(Copied { done, total: 64 << 20 }, since, Duration::from_secs(seconds))
        };
        assert_eq!(at(0, 0, 0), "[>                       ]   0 %  0 B of 64.0 MiB");
        assert_eq!(
            at(32 << 20, 16 << 20, 2),
            "[============>           ]  50 %  32.0 MiB of 64.0 MiB  8.0 MiB/s  4s left"
        );
        assert_eq!(
            at(64 << 20, 64 << 20, 64),
            "[========================] 100 %  64.0 MiB of 64.0 MiB  1.0 MiB/s  0s left"
        );
        let odd = line(Copied { done: 9, total: 0 }, 9, Duration::ZERO);
        assert_eq!(odd, "[>                       ]   0 %  0 B of 1 B");
    }
}
