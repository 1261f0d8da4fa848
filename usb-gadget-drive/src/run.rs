// SPDX-License-Identifier: MIT OR Apache-2.0
//! `serve`: opens the sockets, and waits for the end.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use rustix::net::getsockname;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::args::ServeArgs;
use crate::config::{Config, DEFAULT_LISTEN};
use crate::link;
use crate::manager::{Managed, Manager, control};
use crate::serve::exports::{FixedShares, Share};
use crate::serve::{Server, tls};
use crate::source::cache::Cache;

/// How long what clients asked for may take when the server ends. Below systemd's 90 s.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until a signal, or until the client of `--stdin` is done.
///
/// # Errors
/// What is wrong at the start.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let inherited = kernel_abi::listen_fds::take()?;
    if !args.shares.is_empty() {
        return serve_fixed(args, inherited).await;
    }
    let config = Config::load(args.config.config.as_deref())?;
    let tls = args.tls.as_deref().or(config.tls.as_deref()).map(tls::load).transpose()?;
    std::fs::create_dir_all(&config.runtime_dir)
        .with_context(|| format!("cannot make {}", config.runtime_dir.display()))?;
    let socket = config.control_socket();
    let manager = Manager::start(config.shares, config.state_dir, Cache::new(config.cache))?;
    let ending = Arc::clone(&manager);
    let server = Server::new(Arc::new(Managed(Arc::clone(&manager))), tls.clone());
    let router = control::router(Arc::clone(&manager));
    let control = ControlServer::bind(&socket, router, Policy::system()).await?;
    let (stop_control, control_stops) = oneshot::channel::<()>();
    let control = tokio::spawn(control.run(async { drop(control_stops.await) }));
    if let Some((address, tls)) = config.agents.zip(tls) {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("agents: {address}"))?;
        tracing::info!(%address, "agents may connect");
        tokio::spawn(link::manager::accept(listener, tls, manager));
    }
    let sockets = Sockets {
        inherited,
        unix: [config.unix, args.unix.clone()].concat(),
        tcp: [config.listen, args.listen.clone()].concat(),
    };
    serve_until_signal(&server, sockets).await?;
    ending.end();
    drop(stop_control);
    let _ = control.await;
    Ok(())
}

/// What the command line names, without configuration, agents and leases.
async fn serve_fixed(args: &ServeArgs, inherited: Vec<OwnedFd>) -> anyhow::Result<()> {
    let tls = args.tls.as_deref().map(tls::load).transpose()?;
    let share = |named: &crate::args::NamedShare| {
        let (place, writable) = (named.place.clone(), named.writable);
        (named.name.clone(), Share { place, writable, description: String::new(), allow: vec![] })
    };
    let shares = FixedShares::new(args.shares.iter().map(share).collect());
    let server = Server::new(Arc::new(shares), tls);
    if args.stdin {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        return server.serve_one(socket).context("standard input is no connected socket");
    }
    let sockets = Sockets { inherited, unix: args.unix.clone(), tcp: args.listen.clone() };
    serve_until_signal(&server, sockets).await
}

struct Sockets {
    inherited: Vec<OwnedFd>,
    unix: Vec<PathBuf>,
    tcp: Vec<SocketAddr>,
}

async fn serve_until_signal(server: &Arc<Server>, mut sockets: Sockets) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    if sockets.inherited.is_empty() && sockets.unix.is_empty() && sockets.tcp.is_empty() {
        sockets.tcp.push(DEFAULT_LISTEN);
    }
    // What the configuration names as well is there already.
    let has = |address: &SocketAddr| {
        let bound = |socket: &OwnedFd| SocketAddr::try_from(getsockname(socket).ok()?).ok();
        sockets.inherited.iter().any(|socket| bound(socket).as_ref() == Some(address))
    };
    sockets.tcp.retain(|address| !has(address));
    for listener in sockets.inherited {
        server.listen(listener).context("LISTEN_FDS")?;
    }
    for path in &sockets.unix {
        server.listen_unix(path).with_context(|| path.display().to_string())?;
    }
    for address in sockets.tcp {
        let bound = server.listen_tcp(address).with_context(|| address.to_string())?;
        tracing::info!(address = %bound, "listening");
    }
    notify::ready("serving");
    let watchdog = Watchdog::from_env();
    let every = watchdog.as_ref().map_or(END_TIMEOUT, Watchdog::interval);
    let mut tick = tokio::time::interval(every);
    loop {
        tokio::select! {
            signal = signals.next() => if signal == Signal::Stop { break },
            _ = tick.tick() => if let Some(watchdog) = &watchdog { watchdog.kick() },
        }
    }
    notify::stopping();
    let ending = Arc::clone(server);
    if !tokio::task::spawn_blocking(move || ending.shut_down(END_TIMEOUT)).await? {
        tracing::warn!(
            left = server.connections(),
            "connections do not end: a device does not answer"
        );
    }
    for path in &sockets.unix {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
