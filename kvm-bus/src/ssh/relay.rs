// SPDX-License-Identifier: MIT OR Apache-2.0
//! Between an SSH channel and the RMM's console socket.

use std::io;
use std::path::PathBuf;

use daemon_kit::client::Client;
use daemon_kit::table::printable;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::Person;
use super::place::Place;
use crate::attach::{Attach, Kind, MAX_DATA, Mode, Packets, What, packet};
use crate::shell::rmm::Status;
use crate::terminal::Session;

/// Longest answer in the menu.
const LONGEST: usize = 64;

pub(super) struct Relay {
    pub(super) person: Person,
    pub(super) place: Place,
    pub(super) size: watch::Receiver<(u8, u8)>,
    pub(super) console_socket: PathBuf,
    pub(super) control_socket: PathBuf,
}

impl Relay {
    pub(super) async fn run(self, channel: Channel<Msg>, client: Handle) {
        let id = channel.id();
        let mut stream = channel.into_stream();
        let done = self.serve(&mut stream).await;
        if let Err(error) = &done {
            let text = printable(&format!("{error:#}")).into_owned();
            let _ = stream.write_all(format!("[{text}]\r\n").as_bytes()).await;
        }
        let _ = client.exit_status_request(id, u32::from(done.is_err())).await;
        let _ = stream.shutdown().await;
        let _ = client.close(id).await;
    }

    async fn serve(mut self, stream: &mut ChannelStream<Msg>) -> anyhow::Result<()> {
        let (what, blade) = match self.place.clone() {
            Place::At(what, blade) => (what, blade),
            Place::Menu => match self.menu(stream).await? {
                Some(chosen) => chosen,
                None => return Ok(()),
            },
        };
        let who = format!("{} (ssh)", self.person.who);
        let size = *self.size.borrow_and_update();
        let read_only = self.person.spy;
        let attach = Attach { what, blade, mode: Mode::Write, read_only, who, replay: 20, size };
        let session = Session::open(&self.console_socket, &attach).await?;
        let how = if session.attached.writes { "" } else { ", only looking" };
        let blade = printable(session.attached.blade.as_deref().unwrap_or("nobody")).into_owned();
        let place = if what == What::Console { "console" } else { "screen" };
        stream.write_all(format!("[{place} of {blade}{how}; ^Ec. ends]\r\n").as_bytes()).await?;
        self.relay(stream, session, what).await?;
        Ok(())
    }

    async fn relay(
        &mut self,
        stream: &mut ChannelStream<Msg>,
        session: Session,
        what: What,
    ) -> io::Result<()> {
        let mut daemon = session.into_stream();
        let mut packets = Packets::default();
        let (mut from_daemon, mut from_client) = ([0; MAX_DATA], [0; MAX_DATA]);
        loop {
            tokio::select! {
                count = daemon.read(&mut from_daemon) => {
                    match count? {
                        0 => return Ok(()),
                        count => packets.push(&from_daemon[..count]),
                    }
                    while let Some((kind, data)) = packets.take().map_err(io::Error::other)? {
                        let text = || printable(&String::from_utf8_lossy(&data)).into_owned();
                        match kind {
                            Kind::Data => stream.write_all(&data).await?,
                            Kind::Notice if what == What::Screen => {
                                let line = format!("\x1b7\x1b[999;1H\x1b[0;7m {} \x1b[0m\x1b8", text());
                                stream.write_all(line.as_bytes()).await?;
                            }
                            Kind::Notice => stream.write_all(format!("[{}]\r\n", text()).as_bytes()).await?,
                            Kind::End => {
                                stream.write_all(format!("\r\n[{}]\r\n", text()).as_bytes()).await?;
                                return Ok(());
                            }
                            Kind::Size => {}
                        }
                    }
                }
                count = stream.read(&mut from_client) => match count? {
                    0 => return Ok(()),
                    count => daemon.write_all(&packet(Kind::Data, &from_client[..count])).await?,
                },
                Ok(()) = self.size.changed() => {
                    let (columns, rows) = *self.size.borrow_and_update();
                    daemon.write_all(&packet(Kind::Size, &[columns, rows])).await?;
                }
            }
        }
    }

    /// Shows the blades and asks which; none if the client has enough.
    async fn menu(
        &self,
        stream: &mut ChannelStream<Msg>,
    ) -> anyhow::Result<Option<(What, Option<String>)>> {
        loop {
            let client = Client::new("kvm-bus-rmm", &self.control_socket);
            let status: Status = client.get_json("/v1/status").await?;
            let mut text = "\r\n  slot  blade\r\n".to_owned();
            for blade in &status.blades {
                let state = match (blade.there, blade.coupled) {
                    (false, _) => "away",
                    (true, true) => "coupled",
                    (true, false) => "",
                };
                text += &format!("  {:>4}  {:16} {state}\r\n", blade.slot, printable(&blade.name));
            }
            text += "slot or name for its console, s and it for its screen, q to end: ";
            stream.write_all(text.as_bytes()).await?;
            let Some(answer) = read_line(stream).await? else { return Ok(None) };
            let answer = answer.trim();
            let known = |text: &str| {
                let found =
                    status.blades.iter().find(|b| b.name == text || b.slot.to_string() == text);
                found.map(|blade| blade.name.clone())
            };
            if answer == "q" {
                return Ok(None);
            }
            if let Some(blade) = known(answer) {
                return Ok(Some((What::Console, Some(blade))));
            }
            let screen = answer.strip_prefix("s").map(str::trim);
            if let Some(blade) = screen.filter(|blade| blade.is_empty() || known(blade).is_some()) {
                return Ok(Some((What::Screen, known(blade))));
            }
        }
    }
}

/// A line as it is typed; none at the end, or at Control-C or Control-D.
async fn read_line(stream: &mut ChannelStream<Msg>) -> io::Result<Option<String>> {
    let mut line = String::new();
    let mut buffer = [0; 64];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        for byte in &buffer[..count] {
            match byte {
                b'\r' | b'\n' => {
                    stream.write_all(b"\r\n").await?;
                    return Ok(Some(line));
                }
                3 | 4 => return Ok(None),
                8 | 127 if line.pop().is_some() => stream.write_all(b"\x08 \x08").await?,
                b' '..=b'~' if line.len() < LONGEST => {
                    line.push(char::from(*byte));
                    stream.write_all(&[*byte]).await?;
                }
                _ => {}
            }
        }
    }
}
