// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection from its first byte to its last.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Server;
use super::export::{Attached, Export};
use super::exports::{Description, Exports, Grant, Opened, Peer};
use super::input::Input;
use super::job::Served;
use super::link::Link;
use super::socket::{SEND_TIMEOUT, Socket};
use super::tls;
use super::transmission::{self, Broken};
use crate::nbd::negotiation::{Agreed, Negotiation, Next, Offer, Offered, Refusal, Tls, Violation};
use crate::nbd::option::greeting;

/// How long a client may take to choose an export. A slow blade over a slow network needs a second or two.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(20);
/// What requests are best, bytes: the size of a page.
const PREFERRED_BLOCK: u32 = 4096;

#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the connection is lost while it is negotiated")]
    Lost(#[from] io::Error),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("the export is being taken away")]
    Cut,
    #[error("TLS")]
    Tls(#[source] io::Error),
    #[error("its certificate has no name")]
    Nameless,
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Serves a connection that was counted in as `place`.
pub(super) fn run(server: &Server, place: u64, socket: &Arc<Socket>) {
    let agreed = Connection::new(server, socket).negotiate();
    server.negotiated();
    let ended = match agreed {
        Ok(Some((served, input, mut ending))) => {
            let ended = transmission::serve(Arc::new(served), input);
            ending.in_order = matches!(ended, Ok(true));
            ended.map(drop).map_err(Ended::from)
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(place, error = &error as &dyn std::error::Error, "a connection ends");
        complain(server, socket, &error);
    }
    // Other descriptors of it may live on, such as that of --stdin's standard input.
    socket.cut();
    server.leave(place);
}

/// Of what an operator has to mend.
fn complain(server: &Server, socket: &Socket, error: &Ended) {
    let why = match error {
        Ended::Tls(error) if error.kind() == io::ErrorKind::InvalidData => {
            format!("its certificate or ours is not accepted: {error}")
        }
        Ended::Nameless => error.to_string(),
        Ended::Broken(Broken::Connection(error)) if error.kind() == io::ErrorKind::TimedOut => {
            format!("it took no answer for {} s", SEND_TIMEOUT.as_secs())
        }
        _ => return,
    };
    let from = socket.peer().ok().flatten().map_or_else(String::new, |from| from.ip().to_string());
    if server.complaints.may(&format!("{from} {why}"), Instant::now()) {
        tracing::warn!(from, why, "a client is cut off");
    }
}

/// What one peer may have.
struct View<'a> {
    exports: &'a dyn Exports,
    peer: &'a Peer,
}

impl Offer for View<'_> {
    type Export = Ending;

    fn names(&self) -> Vec<(String, String)> {
        self.exports.names(self.peer)
    }

    fn describe(&self, name: &str) -> Result<Offered<()>, Refusal> {
        Ok(offered((), self.exports.describe(self.peer, name)?))
    }

    fn open(&self, name: &str) -> Result<Offered<Ending>, Refusal> {
        let Opened { export, grant } = self.exports.open(self.peer, name)?;
        let description = Description::of(&export);
        Ok(offered(Ending { export, grant: Some(grant), in_order: true }, description))
    }
}

fn offered<E>(export: E, description: Description) -> Offered<E> {
    let Description { size, flags, text: description } = description;
    Offered { export, size, flags, description, preferred_block: PREFERRED_BLOCK }
}

/// An export that was taken, and is given back whatever becomes of the connection.
struct Ending {
    export: Arc<Export>,
    grant: Option<Box<dyn Grant>>,
    in_order: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            grant.ended(self.in_order);
        }
    }
}

struct Connection<'a> {
    server: &'a Server,
    link: Link,
    input: Input,
    peer: Peer,
    tls: Tls,
}

impl<'a> Connection<'a> {
    fn new(server: &'a Server, socket: &Arc<Socket>) -> Self {
        let is_far = socket
            .peer()
            .map(|peer| peer.is_some_and(|peer| !peer.ip().to_canonical().is_loopback()));
        let tls = match (&server.tls, is_far.as_ref()) {
            (None, Ok(false)) => Tls::Off,
            (Some(_), Ok(false)) => Tls::Offered,
            // Without a certificate nobody listens there, but a socket may be passed on.
            _ => Tls::Required,
        };
        Self {
            server,
            link: Link::plain(Arc::clone(socket)),
            input: Input::default(),
            peer: Peer::Local,
            tls,
        }
    }

    fn negotiate(mut self) -> Result<Option<(Served, Input, Ending)>, Ended> {
        self.link.socket().set_deadline(Some(Instant::now() + NEGOTIATION_TIMEOUT))?;
        self.link.send_all(&greeting())?;
        let mut negotiation = Negotiation::new(self.tls);
        let mut out = vec![];
        loop {
            let view = View { exports: &*self.server.exports, peer: &self.peer };
            let (used, next) = negotiation.handle(self.input.bytes(), &view, &mut out);
            self.input.consume(used);
            // Attached before the client is told that it has it: whoever cuts the export from now on, cuts this.
            if let Next::Serve(agreed) = next {
                let (served, input, mut ending) = self.attach(agreed)?;
                served.link.socket().set_deadline(None)?;
                ending.in_order = false;
                served.link.send_all(&out)?;
                return Ok(Some((served, input, ending)));
            }
            self.link.send_all(&out)?;
            out.clear();
            match next {
                Next::Read(wanted) => {
                    if !self.input.fill(&self.link, wanted)? {
                        return Ok(None);
                    }
                }
                Next::StartTls => {
                    self.start_tls()?;
                    negotiation.handle_tls();
                }
                Next::Serve(_) | Next::Done => return Ok(None),
                Next::Fail(violation) => return Err(violation.into()),
            }
        }
    }

    fn start_tls(&mut self) -> Result<(), Ended> {
        let config = self.server.tls.as_ref().ok_or(io::ErrorKind::Unsupported);
        let config = Arc::clone(config.map_err(io::Error::from)?);
        let certificate = self.link.start_tls(config, &mut self.input.ciphered);
        let certificate = certificate.map_err(Ended::Tls)?;
        self.peer = Peer::Certificate(tls::name_of(&certificate).ok_or(Ended::Nameless)?);
        Ok(())
    }

    fn attach(self, agreed: Agreed<Ending>) -> Result<(Served, Input, Ending), Ended> {
        let attached: Attached =
            agreed.export.export.attach(self.link.socket()).map_err(|_| Ended::Cut)?;
        tracing::debug!(peer = %self.peer, structured = agreed.structured, "an export is in use");
        let served = Served {
            link: self.link,
            attached,
            flags: agreed.flags,
            structured: agreed.structured,
            base_allocation: agreed.base_allocation,
        };
        Ok((served, self.input, agreed.export))
    }
}
