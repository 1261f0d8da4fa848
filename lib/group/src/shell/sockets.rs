// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where this member listens: on each of its own addresses, for links and for beats.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Happened;
use crate::core::MAX_NETWORKS;

/// One network.
#[derive(Debug, Default)]
struct Network {
    address: Option<IpAddr>,
    socket: Option<Arc<UdpSocket>>,
    /// Its tasks end with it.
    tasks: JoinSet<()>,
    complained: bool,
}

/// All networks.
#[derive(Debug)]
pub(super) struct Sockets {
    port: u16,
    networks: Vec<Network>,
    happened: mpsc::Sender<Happened>,
}

impl Sockets {
    pub fn new(port: u16, happened: mpsc::Sender<Happened>) -> Self {
        let networks = (0..MAX_NETWORKS).map(|_| Network::default()).collect();
        Self { port, networks, happened }
    }

    /// Listens on these addresses, one for each network. Those that are not there yet are tried again
    /// with the next call.
    pub async fn listen(&mut self, addresses: &[Option<IpAddr>]) {
        for (at, network) in self.networks.iter_mut().enumerate() {
            let address = addresses.get(at).copied().flatten();
            if network.address == address && (address.is_none() || network.socket.is_some()) {
                continue;
            }
            let complained = network.complained && network.address == address;
            *network = Network { address, complained, ..Network::default() };
            let Some(ip) = address else { continue };
            let place = SocketAddr::new(ip, self.port);
            match bind(place).await {
                Ok((listener, socket)) => {
                    tracing::info!(address = %place, network = at, "members may connect");
                    let socket = Arc::new(socket);
                    network.tasks.spawn(accept_all(listener, self.happened.clone()));
                    let receiving = receive_all(at, Arc::clone(&socket), self.happened.clone());
                    network.tasks.spawn(receiving);
                    network.socket = Some(socket);
                }
                Err(error) if !network.complained => {
                    network.complained = true;
                    tracing::warn!(address = %place, %error, "cannot listen; trying on");
                }
                Err(_) => {}
            }
        }
    }

    /// Sends a datagram over a network, or not: what does not fit the kernel's queue is lost like others.
    pub fn send(&self, network: usize, to: IpAddr, bytes: &[u8]) {
        if let Some(socket) = self.networks.get(network).and_then(|n| n.socket.as_ref()) {
            let _ = socket.try_send_to(bytes, SocketAddr::new(to, self.port));
        }
    }
}

async fn bind(place: SocketAddr) -> std::io::Result<(TcpListener, UdpSocket)> {
    Ok((TcpListener::bind(place).await?, UdpSocket::bind(place).await?))
}

async fn accept_all(listener: TcpListener, to: mpsc::Sender<Happened>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if to.send(Happened::Came(stream, from)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                // No descriptors are left, as a rule: others have to close theirs first.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn receive_all(network: usize, socket: Arc<UdpSocket>, to: mpsc::Sender<Happened>) {
    let mut buffer = [0; secure_link::datagram::MAX_DATAGRAM];
    loop {
        // An error is that of a datagram sent before: its port is closed.
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
        let datagram = Happened::Datagram(network, from, buffer[..len].to_vec());
        // Behind a full queue the kernel's fills and drops the rest.
        if to.send(datagram).await.is_err() {
            return;
        }
    }
}
