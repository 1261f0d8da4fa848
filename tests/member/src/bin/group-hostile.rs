// SPDX-License-Identifier: MIT OR Apache-2.0
//! Root on one member, with everything that is on its disk, tries to be more than that. Each attempt is printed with
//! what became of it; exit status 1 if one succeeded.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use group::settings::change::{self, Proposal};
use group::settings::wire::{Envelope, Kind, Propose, Refusal};
use group::settings::{Change, Expect, MemberId, Order, OrderId, Origin, Reign};
use group::wire::{Channel, Class, Life, Message, Push, Record, Welcome};
use secure_link::stream::{LinkError, MAX_MESSAGE, Reader, Writer, connect};
use secure_link::{
    Dial, Endpoints, HandshakeError, Local, Met, Name, Newcomers, NodeKey, Refusal as NotLet,
    Session, Store, Versions,
};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(10);

/// Tries to be more than the member whose files it has.
#[derive(Debug, Parser)]
struct Args {
    /// The member's etc/midplane and var/lib/midplane are below this folder
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Its program's folder
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Whom to pass for
    #[arg(long)]
    victim: Name,
    /// Where another member listens
    target: SocketAddr,
}

struct Hostile {
    local: Local,
    store: Store,
    met: Met,
    target: SocketAddr,
    victim: (Name, MemberId),
}

struct Link {
    reader: Reader<OwnedReadHalf>,
    writer: Writer<OwnedWriteHalf>,
    /// What the target says of us.
    welcome: Welcome,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let store = Store::below(&args.root);
    let program: Name = "smbus-monitor".parse().context("a name")?;
    let file = store.program(&program)?.context("the member has no key")?;
    let local = Local {
        node: store.node()?.context("the member has no key of its own")?,
        keys: file.keys,
        group: file.group,
        program,
        versions: Versions::SPOKEN,
        name: file.name,
        addresses: vec![],
        note: vec![],
        newcomers: Newcomers::Admit,
    };
    let met = Met::new(&args.state);
    let roster = met.load()?;
    let victim = roster.by_name(&args.victim).context("the victim was never met")?.key.id();
    let victim = (args.victim, victim.into());
    let hostile = Hostile { local, store, met, target: args.target, victim };
    hostile.another_name().await.context("another's name")?;
    hostile.another_key().await.context("another key under its own name")?;
    hostile.link_attacks().await.context("over a link of its own")
}

fn refused(what: &str, how: impl std::fmt::Display) {
    println!("  {what}: {how}");
}

impl Hostile {
    async fn session(&self, local: &Local) -> Result<(TcpStream, Session), LinkError> {
        let mut stream = TcpStream::connect(self.target).await?;
        let role = local.program.clone();
        let endpoints =
            Endpoints { initiator: stream.local_addr()?, responder: stream.peer_addr()? };
        let dial = Dial { endpoints: Some(endpoints), ..Dial::new(local, role.clone(), role) };
        let mut roster = self.store.roster().unwrap_or_default();
        for member in self.met.load().unwrap_or_default().members() {
            roster.learn(self.local.identity(), member);
        }
        let local = Arc::new(local.clone());
        let session = connect(&mut stream, local, dial, || roster.clone()).await?;
        Ok((stream, session))
    }

    /// Whether the target says that the name is another's.
    async fn name_taken(&self, local: &Local) -> anyhow::Result<()> {
        match self.session(local).await {
            Err(LinkError::Handshake(HandshakeError::RefusedThere {
                refusal: NotLet::NameTaken,
                ..
            })) => Ok(()),
            other => bail!("{:?}", other.map(|session| session.1.peer)),
        }
    }

    async fn another_name(&self) -> anyhow::Result<()> {
        self.name_taken(&Local { name: self.victim.0.clone(), ..self.local.clone() }).await?;
        refused("to be the victim, with its own key", "refused, the name is another's");
        Ok(())
    }

    async fn another_key(&self) -> anyhow::Result<()> {
        self.name_taken(&Local { node: NodeKey::generate()?, ..self.local.clone() }).await?;
        refused("a second voice, by another key", "refused, its name has one key");
        Ok(())
    }

    async fn link(&self) -> anyhow::Result<Link> {
        let (stream, session) = self.session(&self.local).await?;
        let (read, write) = stream.into_split();
        let mut reader = Reader::new(read, session.opener, MAX_MESSAGE);
        let writer = Writer::new(write, session.sealer);
        loop {
            let bytes = timeout(LIMIT, reader.next()).await??.context("no welcome")?;
            if let Message::Welcome(welcome) = Message::decode(&bytes)? {
                return Ok(Link { reader, writer, welcome });
            }
        }
    }

    async fn link_attacks(&self) -> anyhow::Result<()> {
        let mut link = self.link().await?;
        let life = link.welcome.yours.context("the target does not know this member")?;
        // An epoch that was used before, by another life.
        let old = Life { epoch: life.epoch, nonce: !life.nonce };
        link.say(&Message::Welcome(Welcome { life: old, ..link.welcome.clone() })).await?;
        let record = Record {
            key: "sensor".parse()?,
            version: 1,
            class: Class::Static,
            at: 0,
            value: b"of a life that is over"[..].into(),
        };
        let push = Push { life: old, from: 0, to: 1, last: true, set: vec![record], gone: vec![] };
        link.say(&Message::Push(push)).await?;
        refused("records of a life that is over", "said; nobody is to believe them");

        for (what, change) in self.changes() {
            let (kind, body) = change.encode();
            let user = "0".to_owned();
            let who = Origin { node: self.victim.1, user, role: "administrator".to_owned() };
            link.refuses(what, Kind::Propose, &Propose { id: [9; 16], who, kind, body }).await?;
        }
        // As the engine encodes them: term, node and whether it is committed; then what differs.
        let vote = ((1_000_000_u64, self.victim.1), false);
        link.refuses("a vote asked for in another's name", Kind::Vote, &(vote, None::<()>)).await?;
        let append = (vote, None::<()>, Vec::<Proposal>::new(), None::<()>);
        link.refuses("a log's entries in another's name", Kind::Append, &append).await?;

        // More than a message may have: the link ends, and nothing else.
        let _ = link.writer.send(&vec![1; MAX_MESSAGE + 1]).await;
        while let Ok(Some(_)) = timeout(LIMIT, link.reader.next()).await? {}
        refused("a message without end", "the link is ended");
        Ok(())
    }

    fn changes(&self) -> [(&'static str, Change); 2] {
        let order = Order {
            id: OrderId([7; 16]),
            to: self.victim.1,
            subject: "power".to_owned(),
            what: b"off".to_vec(),
            deadline: u64::MAX,
            expect_boot: None,
        };
        let (key, value) = ("hostile".to_owned(), vec![]);
        let set = change::Set { key, value, expect: Expect::Any };
        [
            ("an order in another's name", Change::Order(order)),
            ("a setting in another's name", Change::Set(set)),
        ]
    }
}

impl Link {
    async fn say(&mut self, message: &Message) -> anyhow::Result<()> {
        Ok(timeout(LIMIT, self.writer.send(&message.encode())).await??)
    }

    /// Asks something of the settings, which must be refused as said in another's name.
    async fn refuses(
        &mut self,
        what: &str,
        kind: Kind,
        request: &impl serde::Serialize,
    ) -> anyhow::Result<()> {
        let payload = postcard::to_stdvec(request)?;
        let request = Envelope { reign: Reign::default(), kind, payload }.encode();
        self.say(&Message::Call(1, Channel::Settings, request)).await?;
        loop {
            let bytes = timeout(LIMIT, self.reader.next()).await??.context("no answer")?;
            if let Message::Answer(1, bytes) = Message::decode(&bytes)? {
                let envelope = Envelope::decode(&bytes)?;
                ensure!(envelope.kind == Kind::Refusal, "{what}: not refused: {envelope:?}");
                let refusal: Refusal = envelope.payload()?;
                ensure!(refusal == Refusal::NotYou, "{what}: {refusal}");
                refused(what, refusal);
                return Ok(());
            }
        }
    }
}
