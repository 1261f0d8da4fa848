// SPDX-License-Identifier: MIT OR Apache-2.0
//! A member as it runs: sockets, links, files and timers around [`crate::core`].
//!
//! One task holds the core and does what it says; each link has two tasks that read and write. A program
//! holds a [`Group`], and hears through [`Incoming`].

mod epoch;
mod identity;
mod link;
mod peers;
mod run;
pub mod settled;
mod sockets;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use secure_link::{Name, NodeId, NodeKey, Store};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use epoch::EpochError;
pub use link::Full;

use crate::core::records::{Change, TooMuch};
use crate::core::{Action, Core, LinkId, Notice, Replication, Status, Unfit};
use crate::report::Report;
use crate::wire::{Channel, MAX_PROGRAM, Message, Micros};

/// Things that happen and wait for the core.
const MAX_HAPPENED: usize = 1024;
/// Notices that a program may be behind; then it has to look at everything anew.
const MAX_NOTICES: usize = 1024;
/// Messages and calls that wait for the program; then their senders' links are not read.
const MAX_RECEIVED: usize = 64;

/// What a member needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program: its part of the group key, and as what it comes to the others.
    pub program: Name,
    /// Where it listens, over TCP and UDP, on all of this machine's addresses in the list.
    pub port: u16,
    /// The group's list, usually [`crate::list::PATH`].
    pub list: PathBuf,
    /// The program's folder for what has to be remembered.
    pub state: PathBuf,
    /// Keys and roster.
    pub store: Store,
    /// This machine's key.
    pub node: NodeKey,
    /// Whose records it holds.
    pub replication: Replication,
    /// Whether it can be the manager, if the list lets it.
    pub leads: bool,
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No part of the group key for this program.
    #[error("this machine is in no group as {0}; use `midplane key create` or `midplane key join`")]
    NoKey(Name),
    /// The keys cannot be read.
    #[error(transparent)]
    Store(#[from] secure_link::store::StoreError),
    /// The list cannot be read.
    #[error(transparent)]
    List(#[from] daemon_kit::config::ConfigError),
    /// This machine is not in it.
    #[error("{}: {name} is not in it; add it, or join under a name that is", list.display())]
    NotListed {
        /// This machine.
        name: Name,
        /// The list.
        list: PathBuf,
    },
    /// No epoch.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
}

/// The member has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the group's task has ended")]
pub struct Gone;

/// Why records were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// They would be too many.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// See there.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// Why a message was not sent, or a call not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no link to it, or it ended before the answer.
    #[error("{0} is not reached")]
    Away(String),
    /// See there.
    #[error(transparent)]
    Full(#[from] Full),
    /// More than [`MAX_PROGRAM`] bytes.
    #[error("a message has at most {MAX_PROGRAM} bytes")]
    Long,
    /// See there.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// A member, for its program. Copies are of the same.
#[derive(Debug, Clone)]
pub struct Group {
    commands: mpsc::Sender<Command>,
    clock: Clock,
}

/// The group's time, to be read without asking the task.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Milliseconds since 1970 by the group's time, as of the last beat.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let now = run::boot_clock() as i64 + self.0.load(Ordering::Relaxed);
        u64::try_from(now / 1000).unwrap_or(0)
    }
}

/// What comes to a program.
#[derive(Debug)]
pub struct Incoming {
    /// What changes; who misses some looks at everything anew.
    pub notices: broadcast::Receiver<Notice>,
    /// What members say to the program.
    pub messages: mpsc::Receiver<Received>,
    /// What members ask it.
    pub calls: mpsc::Receiver<Call>,
    /// What their settings ask ours: for [`settled::open`].
    pub settings: mpsc::Receiver<Call>,
}

/// A message to the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who says it.
    pub from: Name,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// A question to the program.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub from: Name,
    /// Its node key's id.
    pub node: NodeId,
    /// What it asks.
    pub bytes: Vec<u8>,
    link: LinkId,
    number: u64,
    to: mpsc::Sender<Happened>,
}

impl Call {
    /// Answers it. If the link has ended meanwhile, nobody hears.
    pub async fn answer(self, bytes: Vec<u8>) {
        let answer = Message::Answer(self.number, bytes);
        let _ = self.to.send(Happened::Answered(self.from, self.link, answer)).await;
    }
}

type Asked = Box<dyn FnOnce(&mut Core, Micros) -> Vec<Action> + Send>;

/// What the program wants of the task.
enum Command {
    Core(Asked),
    Send(Name, Vec<u8>, oneshot::Sender<Result<(), SendError>>),
    Call(Callee, Channel, Vec<u8>, oneshot::Sender<Result<Vec<u8>, SendError>>),
    Nodes(oneshot::Sender<Nodes>),
    Report(oneshot::Sender<Report>),
    Reload,
    Leave(oneshot::Sender<()>),
}

/// Whom to ask.
enum Callee {
    Name(Name),
    Node(NodeId),
}

/// Who is who at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// This member.
    pub own: (Name, NodeId),
    /// Those that are linked.
    pub linked: Vec<(Name, NodeId)>,
    /// Members in the list, this one counted.
    pub of: usize,
    /// Those of the list that may lead, by the keys that are pinned to their names.
    pub lead: Vec<(Name, NodeId)>,
}

/// What tasks tell the one with the core.
#[derive(Debug)]
enum Happened {
    Connected(Name, Result<Box<(tokio::net::TcpStream, secure_link::Session)>, link::NoLink>),
    Knocked(Name, bool),
    Came(tokio::net::TcpStream, std::net::SocketAddr),
    Accepted(secure_link::gate::Place, Option<Box<(tokio::net::TcpStream, secure_link::Session)>>),
    Pinned(Vec<peers::Newcomer>, identity::Written),
    Datagram(usize, std::net::SocketAddr, Vec<u8>),
    Said(Name, LinkId, Box<Message>),
    Heard(Name, LinkId),
    Written(Name, LinkId),
    Answered(Name, LinkId, Message),
    Over(Name, LinkId, String),
    Resolved(Vec<crate::list::Resolved>),
    Persisted(u64),
}

impl Group {
    /// Starts a member in a task of this runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: Options) -> Result<(Self, Incoming), StartError> {
        let (commands, orders) = mpsc::channel(MAX_RECEIVED);
        let (notices, heard) = broadcast::channel(MAX_NOTICES);
        let (messages, received) = mpsc::channel(MAX_RECEIVED);
        let (calls, called) = mpsc::channel(MAX_RECEIVED);
        let (settings, asked) = mpsc::channel(MAX_RECEIVED);
        let clock = Clock::default();
        let programs = (messages, calls, settings);
        let member = run::Member::new(options, notices, programs, clock.clone()).await?;
        tokio::spawn(member.run(orders));
        let incoming =
            Incoming { notices: heard, messages: received, calls: called, settings: asked };
        Ok((Self { commands, clock }, incoming))
    }

    /// Looks at what is known.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Core, Micros) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        self.core(move |core, now| (look(core, now), vec![])).await
    }

    async fn core<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core, Micros) -> (R, Vec<Action>) + Send + 'static,
    ) -> Result<R, Gone> {
        let (answer, answered) = oneshot::channel();
        let asked: Asked = Box::new(move |core, now| {
            let (result, actions) = work(core, now);
            let _ = answer.send(result);
            actions
        });
        self.commands.send(Command::Core(asked)).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// All that can be seen.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn status(&self) -> Result<Status, Gone> {
        self.look(Core::status).await
    }

    /// What is shown to people.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn report(&self) -> Result<Report, Gone> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Report(answer)).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Changes this member's records, and tells the others. Keys that begin with `group.` are the group's own.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub async fn change(&self, changes: Vec<Change>) -> Result<(), ChangeError> {
        let changed = self.core(move |core, now| match core.change(now, changes) {
            Ok(actions) => (Ok(()), actions),
            Err(error) => (Err(error), vec![]),
        });
        Ok(changed.await??)
    }

    /// Notes a reason why this member cannot be the manager, or its end.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn set_unfit(&self, unfit: Unfit, is: bool) -> Result<(), Gone> {
        let event = crate::core::Event::Unfit(unfit, is);
        self.core(move |core, now| ((), core.handle(now, event))).await
    }

    /// Says something to a member's program; it arrives once, in order, or not at all if the link ends.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, to: &Name, bytes: Vec<u8>) -> Result<(), SendError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Send(to.clone(), bytes, answer);
        self.commands.send(command).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)?
    }

    /// Asks a member's program. The caller sets the time limit.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::Away`] also if the link ends before the answer.
    pub async fn call(&self, to: &Name, bytes: Vec<u8>) -> Result<Vec<u8>, SendError> {
        self.ask(Callee::Name(to.clone()), Channel::Program, bytes).await
    }

    async fn ask(
        &self,
        to: Callee,
        channel: Channel,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, SendError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Call(to, channel, bytes, answer);
        self.commands.send(command).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)?
    }

    /// Who is who.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn nodes(&self) -> Result<Nodes, Gone> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Nodes(answer)).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// The group's time.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Reads the list and the keys again now, not only when they are seen to have changed.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn reload(&self) -> Result<(), Gone> {
        self.commands.send(Command::Reload).await.map_err(|_| Gone)
    }

    /// Tells the others that this member stops, and stops.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave(done)).await.is_ok() {
            let _ = left.await;
        }
    }
}
