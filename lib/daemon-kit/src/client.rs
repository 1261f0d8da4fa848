// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other end of [`crate::control`], for the verbs of a program: asks the daemon over its
//! socket and says in plain words why there is no answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::control::ErrorBody;
use crate::exit;
use crate::table::printable;

/// Time for a whole answer, or for the head of a stream; a daemon on its loop answers in
/// milliseconds, device commands within 5 s.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer taken into memory, bytes: far above any table of ours.
const ANSWER_LIMIT: usize = 16 << 20;
/// Largest line of a stream, bytes.
const LINE_LIMIT: usize = 1 << 20;

/// Why there is no answer, or the refusal that was the answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("{program} is not running ({reason}); start it with: systemctl start {program}")]
    NotRunning {
        /// The program asked.
        program: String,
        /// What was found instead.
        reason: String,
    },
    /// The socket cannot be opened.
    #[error("cannot connect to {program} on {}: {source}", socket.display())]
    Connect {
        /// The program asked.
        program: String,
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon answered no.
    #[error("{}{}", printable(error), remedy.as_ref().map_or(String::new(), |r| format!("; {}", printable(r))))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why.
        error: String,
        /// What helps.
        remedy: Option<String>,
    },
    /// No answer in time.
    #[error(
        "{program} did not answer within {} s, so it is not known whether it acted; see: journalctl -u {program}",
        limit.as_secs()
    )]
    Timeout {
        /// The program asked.
        program: String,
        /// How long it had.
        limit: Duration,
    },
    /// The connection ended before the answer did.
    #[error("{program} ended the connection ({reason}); see: journalctl -u {program}")]
    Lost {
        /// The program asked.
        program: String,
        /// What happened.
        reason: String,
    },
    /// The answer is not what this version expects.
    #[error(
        "{program} gave an answer that makes no sense here ({reason}); restart it if it was updated"
    )]
    Nonsense {
        /// The program asked.
        program: String,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// The code for a verb to exit with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { status: 429 | 503, .. } => exit::BUSY,
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                exit::BUSY
            }
            _ => exit::FAILED,
        }
    }
}

/// A client of one daemon. Each request has its own connection, so a lease lives as long as the
/// stream it came with.
#[derive(Debug, Clone)]
pub struct Client {
    program: String,
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the daemon of unit `program` on `socket`.
    pub fn new(program: impl Into<String>, socket: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), socket: socket.into(), timeout: DEFAULT_TIMEOUT }
    }

    /// The same with another time limit than 10 s for an answer.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// `GET`, decoded from JSON.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all requests.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.decode(&self.whole(Method::GET, path, Bytes::new()).await?)
    }

    /// `POST` of a JSON body, with the answer decoded from JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_json<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|err| self.nonsense(err))?;
        self.decode(&self.whole(Method::POST, path, body.into()).await?)
    }

    /// `GET` of plain text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.whole(Method::GET, path, Bytes::new()).await?;
        String::from_utf8(body.into()).map_err(|err| self.nonsense(err))
    }

    /// `GET` of a stream of lines, such as NDJSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_lines(&self, path: &str) -> Result<Lines, ClientError> {
        self.lines(Method::GET, path, Bytes::new()).await
    }

    /// `POST` of a JSON body, with a stream of lines as the answer. What it asks for may be held as long
    /// as the stream is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_lines<B: Serialize>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Lines, ClientError> {
        let body = serde_json::to_vec(body).map_err(|err| self.nonsense(err))?;
        self.lines(Method::POST, path, body.into()).await
    }

    async fn lines(&self, method: Method, path: &str, body: Bytes) -> Result<Lines, ClientError> {
        let answer = self.within_limit(self.send(method, path, body)).await?;
        Ok(Lines { client: self.clone(), answer, buffer: Vec::new(), searched: 0 })
    }

    async fn whole(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        self.within_limit(async {
            let answer = self.send(method, path, body).await?;
            self.collect(answer.body).await
        })
        .await
    }

    /// Sends a request and returns once the head of a good answer is there.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|err| self.no_entry(err))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|err| self.lost(err))?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // Its errors also reach the request.
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|err| self.nonsense(err))?;
        let response = sender.send_request(request).await.map_err(|err| self.lost(err))?;
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            return Ok(Answer { body, _driver: driver });
        }
        let text = self.collect(body).await?;
        let ErrorBody { error, remedy } = serde_json::from_slice(&text)
            .unwrap_or_else(|_| ErrorBody { error: parts.status.to_string(), remedy: None });
        Err(ClientError::Refused { status: parts.status.as_u16(), error, remedy })
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let collected = Limited::new(body, ANSWER_LIMIT).collect().await;
        Ok(collected.map_err(|err| self.lost(err))?.to_bytes())
    }

    async fn within_limit<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(self.timeout, work).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout { program: self.program.clone(), limit: self.timeout })
        })
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|err| self.nonsense(err))
    }

    fn no_entry(&self, source: io::Error) -> ClientError {
        let socket = self.socket.display();
        let reason = match source.kind() {
            io::ErrorKind::NotFound => format!("no {socket}"),
            io::ErrorKind::ConnectionRefused => format!("nobody answers on {socket}"),
            _ => {
                let (program, socket) = (self.program.clone(), self.socket.clone());
                return ClientError::Connect { program, socket, source };
            }
        };
        ClientError::NotRunning { program: self.program.clone(), reason }
    }

    fn lost(&self, reason: impl ToString) -> ClientError {
        ClientError::Lost { program: self.program.clone(), reason: reason.to_string() }
    }

    fn nonsense(&self, reason: impl ToString) -> ClientError {
        ClientError::Nonsense { program: self.program.clone(), reason: reason.to_string() }
    }
}

/// The body of an answer with the task that moves its bytes, which ends with it.
#[derive(Debug)]
struct Answer {
    body: Incoming,
    _driver: JoinSet<()>,
}

/// A stream of lines; dropping it ends the connection.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    answer: Answer,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` known to hold no line end.
    searched: usize,
}

impl Lines {
    /// The next line without its end; `None` after the last. Waits as long as it takes.
    /// Cancel safe.
    ///
    /// # Errors
    /// The connection broke, or the line is no text or longer than 1 MiB.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(self.searched + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.searched = 0;
                return match String::from_utf8(line) {
                    Ok(line) => Ok(Some(line)),
                    Err(err) => Err(self.client.nonsense(err)),
                };
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_LIMIT {
                return Err(self.client.nonsense("a line is longer than 1 MiB"));
            }
            match self.answer.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(err)) => return Err(self.client.lost(err)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.client.lost("in the middle of a line")),
            }
        }
    }
}
