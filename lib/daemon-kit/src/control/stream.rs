// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers that go on: NDJSON, one line as it comes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

/// An answer of lines, see [`lines`].
#[derive(Debug)]
pub struct Lines(mpsc::Receiver<Bytes>);

/// An answer that sends each line it is given, and stays open until the sender is dropped. At most
/// `waiting` lines wait for a peer that does not read. When the peer goes away the answer is dropped, and
/// sending fails.
#[must_use]
pub fn lines(waiting: usize) -> (LineSender, Lines) {
    let (sender, receiver) = mpsc::channel(waiting);
    (LineSender(sender), Lines(receiver))
}

impl From<mpsc::Receiver<Bytes>> for Lines {
    /// An answer of what comes through the channel: chunks of one or more whole lines each. It ends when
    /// the sender is dropped, and the channel closes when the peer goes away.
    fn from(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self(chunks)
    }
}

/// Where the lines of an answer go in.
#[derive(Debug)]
pub struct LineSender(mpsc::Sender<Bytes>);

/// A line was not sent: the peer is gone, or does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSent;

impl LineSender {
    /// Sends one line without waiting.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn send(&self, line: &impl Serialize) -> Result<(), NotSent> {
        let mut line = serde_json::to_vec(line).map_err(|_| NotSent)?;
        line.push(b'\n');
        self.0.try_send(line.into()).map_err(|_| NotSent)
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

impl IntoResponse for Lines {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(self)).into_response()
    }
}
