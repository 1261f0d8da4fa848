// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Prometheus is told: at `/metrics` of the control socket, and over TCP where the configuration says so.

mod lmc;
mod rmm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use daemon_kit::metrics::{Metrics, MetricsServer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use super::lmc::LineStatus;
pub use lmc::OfLmc;
pub use rmm::OfRmm;

type Label = (&'static str, String);
type Counts = Family<[Label; 1], Counter>;
type Gauges = Family<[Label; 1], Gauge>;

/// The server over TCP, if there is one. It ends with this.
#[derive(Debug)]
pub struct Server(Option<JoinHandle<()>>);

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// The address is taken or not of this machine.
    pub async fn start(listen: Option<SocketAddr>, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let Some(listen) = listen else { return Ok(Self(None)) };
        let server = MetricsServer::bind(listen, Arc::clone(metrics)).await?;
        tracing::info!(%listen, "metrics");
        Ok(Self(Some(tokio::spawn(server.run()))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Sets a counter to what somebody else has counted.
fn set(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

fn gauge(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

fn add(registry: &mut Registry, counts: &[(&str, &str, &Counts)]) {
    for (name, help, family) in counts {
        registry.register(*name, *help, Family::clone(family));
    }
}

/// Figures of the lines of a bus, by their names.
#[derive(Debug, Default)]
pub struct Lines {
    up: Gauges,
    frames_sent: Counts,
    bytes_sent: Counts,
    frames_dropped: Counts,
    frames_received: Counts,
    bytes_received: Counts,
    frames_refused: Family<[Label; 2], Counter>,
}

impl Lines {
    fn new(registry: &mut Registry) -> Self {
        let lines = Self::default();
        registry.register("line_up", "Whether a line is open", lines.up.clone());
        add(
            registry,
            &[
                ("frames_sent", "Frames sent by a line", &lines.frames_sent),
                ("bytes_sent", "Bytes of them", &lines.bytes_sent),
                ("frames_dropped", "Frames given up, as too many waited", &lines.frames_dropped),
                ("frames_received", "Good frames from a line", &lines.frames_received),
                ("bytes_received", "Bytes from a line", &lines.bytes_received),
            ],
        );
        let help = "What came from a line and was no good frame";
        registry.register("frames_refused", help, lines.frames_refused.clone());
        lines
    }

    /// Takes what there is.
    pub fn look(&self, lines: &[LineStatus]) {
        for line in lines {
            let of = [("line", line.name.clone())];
            self.up.get_or_create(&of).set(line.baud.is_some().into());
            set(&self.frames_sent.get_or_create(&of), line.sent.frames);
            set(&self.bytes_sent.get_or_create(&of), line.sent.bytes);
            set(&self.frames_dropped.get_or_create(&of), line.sent.dropped);
            set(&self.frames_received.get_or_create(&of), line.received.frames);
            set(&self.bytes_received.get_or_create(&of), line.received.bytes);
            for (why, count) in [
                ("damaged", line.errors.damaged),
                ("too-long", line.errors.too_long),
                ("version", line.errors.version),
                ("fields", line.errors.fields),
            ] {
                let of = [("line", line.name.clone()), ("why", why.to_owned())];
                set(&self.frames_refused.get_or_create(&of), count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::queue::PortCounts;
    use crate::shell::lmc::Received;
    use crate::wire::Errors;

    pub(super) fn line() -> LineStatus {
        LineStatus {
            name: "near".to_owned(),
            place: "x".to_owned(),
            baud: Some(9600),
            error: None,
            sent: PortCounts { frames: 5, bytes: 60, dropped: 1 },
            received: Received { frames: 4, bytes: 44 },
            errors: Errors { damaged: 2, ..Errors::default() },
        }
    }

    pub(super) fn has(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.encode().unwrap();
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line}:\n{text}");
        }
    }
}
