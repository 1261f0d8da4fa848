// SPDX-License-Identifier: MIT OR Apache-2.0
//! `serve ssh`: consoles and screens by SSH, one client at standard input. systemd starts a process for each connection, so
//! that what goes wrong with one, before or after it is known who it is, ends that one alone; the RMM is asked over its
//! sockets as by any program.

mod keys;
mod place;
mod relay;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use russh::keys::PublicKey;
use russh::server::{
    Auth, Config as SshConfig, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Pty};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::config::rmm::Config;
use keys::AuthorizedKeys;
use place::Place;

/// Until a client has said who it is.
const AUTH_LIMIT: Duration = Duration::from_secs(30);
/// A client that answers nothing for so long, three times, is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Wrong keys, and time that each costs.
const MOST_ATTEMPTS: usize = 6;
const REJECTION: Duration = Duration::from_secs(1);
/// Channels of one client: an operator has some consoles in one connection.
const MOST_CHANNELS: usize = 16;

/// What one who was let in may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// For others to see.
    who: String,
    /// Only looks.
    spy: bool,
}

struct Client {
    keys: AuthorizedKeys,
    console_socket: PathBuf,
    control_socket: PathBuf,
    user: String,
    person: Option<Person>,
    known: watch::Sender<bool>,
    channels: HashMap<ChannelId, Open>,
}

struct Open {
    channel: Option<Channel<Msg>>,
    /// Columns and rows of its terminal.
    size: watch::Sender<(u8, u8)>,
}

/// Serves the client at standard input.
///
/// # Errors
/// What is wrong at the start.
pub async fn serve(config: Config, host_key: PathBuf) -> anyhow::Result<()> {
    let keys = AuthorizedKeys::load(&config.authorized_keys)?;
    let host_key = keys::host_key(&host_key)?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let socket = std::net::TcpStream::from(socket);
    let peer =
        socket.peer_addr().context("standard input is no connection; use kvm-bus-ssh.socket")?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let ssh = SshConfig {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        keys: vec![host_key],
        auth_rejection_time: REJECTION,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: MOST_ATTEMPTS,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        ..SshConfig::default()
    };
    let (known, mut is_known) = watch::channel(false);
    let client = Client {
        keys,
        console_socket: config.console_socket(),
        control_socket: config.control_socket(),
        user: String::new(),
        person: None,
        known,
        channels: HashMap::new(),
    };
    let limit = async {
        let known = tokio::time::timeout(AUTH_LIMIT, is_known.wait_for(|known| *known)).await;
        if matches!(known, Ok(Ok(_))) {
            std::future::pending::<()>().await;
        }
    };
    let session = async {
        let running =
            russh::server::run_stream(Arc::new(ssh), TcpStream::from_std(socket)?, client).await;
        running.map_err(anyhow::Error::from)?.await.map_err(anyhow::Error::from)
    };
    tokio::select! {
        done = session => {
            if let Err(error) = done {
                // What a client sends is no fault of this machine.
                tracing::debug!(%peer, %error, "an SSH connection ended");
            }
        }
        () = limit => tracing::info!(%peer, "an SSH client did not say in time who it is"),
    }
    Ok(())
}

fn small(n: u32) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

impl Client {
    fn may(&self, key: &PublicKey) -> Option<Person> {
        self.keys.find(key)
    }

    fn begin(&mut self, id: ChannelId, place: Place, session: &Session) {
        let Some(person) = self.person.clone() else { return };
        let Some(open) = self.channels.get_mut(&id) else { return };
        let Some(channel) = open.channel.take() else { return };
        let relay = relay::Relay {
            person,
            place,
            size: open.size.subscribe(),
            console_socket: self.console_socket.clone(),
            control_socket: self.control_socket.clone(),
        };
        tokio::spawn(relay.run(channel, session.handle()));
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if self.may(offer.public_key).is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let Some(person) = self.may(key.public_key) else { return Ok(Auth::reject()) };
        tracing::info!(who = %person.who, as_user = user, "let in by SSH");
        self.user = user.chars().take(80).collect();
        self.person = Some(person);
        let _ = self.known.send(true);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: russh::server::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.person.is_none() || self.channels.len() >= MOST_CHANNELS {
            return Ok(());
        }
        let open = Open { size: watch::channel((0, 0)).0, channel: None };
        let id = channel.id();
        self.channels.insert(id, Open { channel: Some(channel), ..open });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get(&id) {
            open.size.send_replace((small(columns), small(rows)));
        }
        session.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get(&id) {
            open.size.send_replace((small(columns), small(rows)));
        }
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        self.begin(id, Place::of_user(&self.user), session);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        words: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match Place::of_words(&String::from_utf8_lossy(words)) {
            Some(place) => {
                session.channel_success(id)?;
                self.begin(id, place, session);
                Ok(())
            }
            None => session.channel_failure(id),
        }
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}
