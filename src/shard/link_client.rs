//! Links of clients: how a connection comes to its link, at whatever shard that is, and what a
//! stream is opened for.

use std::time::Instant;

use rand_chacha::rand_core::Rng as _;
use wire::Decoded;
use wire::binary::{self, Hello, Link, LinkId, NotResumable, Reason, StreamId, code};

use crate::admission::entrance::Protocol;
use crate::frontend::channel::{Channel, Reader, Writer};
use crate::ids::{ConnId, Peer, ShardId, Socket};
use crate::limits;
use crate::shard::event::Action;
use crate::shard::link::{LinkConn, LinkName, Trunk};
use crate::shard::{Role, Shard};

impl Shard {
    /// Version 2 was agreed on: frames of a link follow on this connection.
    pub(super) fn link_begins(&mut self, conn: ConnId, now: Instant) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Role::Channel(channel) = &entry.role else { return };
        let mut link = LinkConn::new(None, Some(channel.peer), now);
        link.received = channel.received;
        self.counters.gathered -= channel.gathered as u64;
        entry.role = Role::Link(Box::new(link));
        self.wish_conn(conn, now + limits::HEAD_TIMEOUT);
    }

    /// A connection of another shard whose HELLO belongs here.
    pub(super) fn link_adopted(
        &mut self,
        socket: Socket,
        (peer, bytes): (Peer, &[u8]),
        now: Instant,
    ) -> bool {
        let entrance = self.settings.entrances.get(usize::from(peer.entrance.0));
        let is_spoken = entrance.is_some_and(|entrance| entrance.speaks(Protocol::Binary));
        if !is_spoken || !matches!(binary::hello(bytes), Ok(Decoded::Item { .. })) {
            return false;
        }
        let link = LinkConn::new(None, Some(peer), now);
        let Some(conn) = self.open(Role::Link(Box::new(link))) else {
            self.counters.accept_refused += 1;
            self.actions.push_back(Action::Discard { socket });
            return true;
        };
        self.current = Some(conn);
        self.counters.clients += 1;
        self.actions.push_back(Action::Receive { conn, socket });
        self.wish_conn(conn, now + limits::HEAD_TIMEOUT);
        self.link_takes(conn, bytes, now);
        true
    }

    /// What came in front of all frames: HELLO, once it is complete.
    pub(super) fn link_greeted(&mut self, conn: ConnId, now: Instant) {
        let Some(link) = self.link_conn_mut(conn) else { return };
        let front = std::mem::take(&mut link.front);
        let (hello, used) = match binary::hello(&front) {
            Ok(Decoded::Item { item, used }) => (item, used),
            Ok(Decoded::Incomplete) => {
                link.front = front;
                return;
            }
            Err(error) => {
                return self.link_refuses(conn, (error.code(), &error.to_string()), now);
            }
        };
        if let Some(to) = self.link_place(hello.link)
            && self.link_moves(conn, to, &front)
        {
            return;
        }
        let resumed = self.link_resumes(conn, &hello, now);
        let name = resumed.unwrap_or_else(|| self.link_accepts(conn, &hello, now));
        if let Some(link) = self.link_conn_mut(conn) {
            link.name = Some(name);
            link.is_up = true;
        }
        self.wish_conn(conn, now + self.settings.ping_interval);
        self.link_frames(name, front.get(used..).unwrap_or_default(), now);
    }

    /// The other shard where a link belongs: one that there may be is where its id says; a new one
    /// is where the one process is of the only server.
    fn link_place(&self, link: LinkId) -> Option<ShardId> {
        if link == LinkId::NONE {
            return self.home_of(self.settings.catalog.root()?);
        }
        let owner = owner_of(link, self.identity.shards);
        (owner != self.identity.id).then_some(owner)
    }

    /// Moves a connection to the shard of its link. Only what has nothing to send can move: nobody
    /// says HELLO before the answer to his offer has come.
    fn link_moves(&mut self, conn: ConnId, to: ShardId, front: &[u8]) -> bool {
        let is_idle = self.conns.get(conn).is_some_and(|entry| entry.output.is_empty());
        let peer = self.link_conn_mut(conn).and_then(|link| link.peer);
        let Some(peer) = peer.filter(|_| is_idle) else { return false };
        self.conns.remove(conn);
        self.counters.clients -= 1;
        self.counters.moved += 1;
        let bytes = front.to_vec();
        self.actions.push_back(Action::Move { conn, to, peer, bytes, moves: 1 });
        true
    }

    /// A link goes on with another connection.
    fn link_resumes(&mut self, conn: ConnId, hello: &Hello<'_>, now: Instant) -> Option<LinkName> {
        let name = LinkName::Client(hello.link);
        let trunk = self.links.get_mut(&name)?;
        // Nobody proves anything yet: the token has to be the same.
        match trunk.link.resume(hello, hello.token.as_bytes()) {
            Ok(()) => {
                if let Some(lost_at) = trunk.lost_at.take() {
                    self.lost_links.remove(&(lost_at, name));
                }
                let before = trunk.conn.replace(conn);
                trunk.sweep_at = None;
                self.counters.links_resumed += 1;
                if let Some(before) = before {
                    if let Some(entry) = self.conns.get_mut(before) {
                        let _unsent = entry.output.take();
                    }
                    self.link_conn_close(before, "resumed elsewhere", now);
                }
                Some(name)
            }
            Err(NotResumable::OtherOwner | NotResumable::OtherLink) => None,
            Err(NotResumable::Ended | NotResumable::BadSequence) => {
                self.link_over(name, "not resumable", now);
                None
            }
        }
    }

    /// A new link.
    fn link_accepts(&mut self, conn: ConnId, hello: &Hello<'_>, now: Instant) -> LinkName {
        let id = loop {
            let mut id = LinkId::NONE;
            self.random.fill_bytes(&mut id.0);
            if owner_of(id, self.identity.shards) == self.identity.id && id != LinkId::NONE {
                break id;
            }
        };
        let settings = self.link_settings();
        let link = Link::accept(id, hello.token.as_bytes(), settings, hello);
        let name = LinkName::Client(id);
        self.links.insert(name, Trunk::new(link, conn));
        self.link_drains(name, now);
        name
    }

    /// The connection of a link broke: it is kept for a while, as are not too many others.
    pub(super) fn link_kept(&mut self, name: LinkName, now: Instant) {
        self.wish_link(name, now + limits::LINK_KEEP_TIME);
        if let Some(lost_at) = self.links.get(&name).and_then(|trunk| trunk.lost_at) {
            self.lost_links.insert((lost_at, name));
            self.link_is_dirty(name);
        }
        if limits::LINKS_LOST_MAX < self.lost_links.len()
            && let Some((_, first)) = self.lost_links.first().copied()
        {
            self.link_over(first, "full", now);
        }
    }

    /// What links of clients without a connection keep counts.
    pub(super) fn link_weighs(&mut self, name: LinkName, now: Instant) {
        let Some(trunk) = self.links.get_mut(&name) else { return };
        let is_kept = matches!(name, LinkName::Client(_)) && trunk.lost_at.is_some();
        let len = trunk.link.queued_len() + trunk.link.gathered_len();
        let kept = if is_kept { len } else { 0 };
        self.lost_len = self.lost_len + kept - std::mem::replace(&mut trunk.kept, kept);
        while limits::LINKS_LOST_LEN_MAX < self.lost_len
            && let Some((_, first)) = self.lost_links.first().copied()
        {
            self.link_over(first, "full", now);
        }
    }

    /// Tells the client of a link that the gateway is being stopped, if it is.
    pub(super) fn link_drains(&mut self, name: LinkName, now: Instant) {
        let Some(deadline) = self.draining else { return };
        let left = deadline.saturating_duration_since(now).as_millis();
        if let Some(trunk) = self.links.get_mut(&name) {
            trunk.link.drain(u32::try_from(left).unwrap_or(u32::MAX));
        }
        self.link_is_dirty(name);
    }

    /// All links of clients: those without a connection are given up, for nobody is let in any
    /// more. Those with servers rest when nothing is left on them.
    pub(super) fn links_drain(&mut self, now: Instant) {
        let names: Vec<LinkName> = self.links.keys().copied().collect();
        for name in names {
            let has_conn = self.links.get(&name).is_some_and(|trunk| trunk.conn.is_some());
            match name {
                LinkName::Client(_) if !has_conn => self.link_over(name, "draining", now),
                LinkName::Client(_) => self.link_drains(name, now),
                LinkName::Server(_) => self.link_is_dirty(name),
            }
        }
        let begins = |conn: &ConnId| match self.conns.get(*conn).map(|entry| &entry.role) {
            Some(Role::Link(link)) => link.name.is_none(),
            _ => false,
        };
        let beginners: Vec<ConnId> = self.conns.keys().into_iter().filter(begins).collect();
        for conn in beginners {
            self.link_conn_close(conn, "draining", now);
        }
    }

    /// Refuses a connection that has no link.
    pub(super) fn link_refuses(&mut self, conn: ConnId, (code, why): (u16, &str), now: Instant) {
        let mut frame = Vec::new();
        binary::write_error(&mut frame, code, why);
        self.link_sends(conn, frame);
        let why = match code {
            code::TIMED_OUT => "idle",
            _ => "bad frame",
        };
        self.link_conn_close(conn, why, now);
    }

    /// A client opens a stream: a conversation with a server.
    pub(super) fn branch_opened(
        &mut self,
        (name, stream): (LinkName, StreamId),
        server: &str,
        has_session: bool,
        now: Instant,
    ) {
        let Some(trunk) = self.links.get(&name) else { return };
        let peer = trunk.conn.and_then(|conn| self.link_conn_mut(conn)).and_then(|link| link.peer);
        let Some(peer) = peer else { return };
        let entrance = self.settings.entrances.get(usize::from(peer.entrance.0));
        let default = entrance.and_then(|it| it.server).or_else(|| self.settings.catalog.root());
        let found = if server.is_empty() { default } else { self.settings.catalog.find(server) };
        let refused = match (found, has_session) {
            (Some(_), false) => None,
            (Some(_), true) => Some((Reason::UNKNOWN_SESSION, "sessions have no key here")),
            (None, _) if server.is_empty() => {
                Some((Reason::UNKNOWN_SERVER, "name a server: there is none by default"))
            }
            (None, _) => Some((Reason::UNKNOWN_SERVER, "no server has this name")),
        };
        let opened = match refused {
            Some(_) => None,
            None if limits::LINK_BRANCHES_MAX <= self.client_branches => None,
            None => {
                let parts = (Reader::Elsewhere(0), Writer::Stream);
                let channel = Channel::new(peer, found, parts, now);
                self.branch_open(Role::Channel(Box::new(channel)), (name, stream))
            }
        };
        self.client_branches += usize::from(opened.is_some());
        if opened.is_none()
            && let Some(trunk) = self.links.get_mut(&name)
        {
            let full = (Reason::OVERLOADED, "there are too many streams and connections");
            let (reason, why) = refused.unwrap_or(full);
            self.counters.refused += 1;
            trunk.link.close(stream, reason, why);
        }
    }
}

/// The shard that has the link of this id: what is made of chance says so as well.
fn owner_of(LinkId([high, low, ..]): LinkId, shards: u16) -> ShardId {
    ShardId(u16::from_be_bytes([high, low]) % shards.max(1))
}
