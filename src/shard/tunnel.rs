//! Clients whose session, or whose server's only process, belongs to another shard.
//!
//! The connection moves to the owner of its session, with what was received. One that has moved
//! [`MOVES_MAX`] times mixes sessions of several owners; it stays, and each of its requests goes
//! through a tunnel: the bytes of the request to a connection at the owner that exists for this
//! request only, the bytes of the response back.

use std::time::Instant;

use bytes::Bytes;
use wire::http1::{LAST_CHUNK, RequestHead, write_chunk_head};

use crate::frontend::http::{Busy, Client, Near};
use crate::ids::{ConnId, Peer, ShardId};
use crate::limits;
use crate::message::{Era, Revision};
use crate::session::id::SessionId;
use crate::shard::client::Target;
use crate::shard::event::{Action, Letter};
use crate::shard::{Conn, Role, Shard};
use crate::upstream::catalog::{Isolation, ServerId};

/// How often a connection moves before it is taken for one that mixes sessions.
const MOVES_MAX: u8 = 2;

/// A complete request as it was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    /// Its head and, if that has a length, its body.
    pub(super) request: &'a [u8],
    /// Its body, decoded, if it was chunked.
    pub(super) chunked: Option<&'a Bytes>,
    /// What the client sent behind it.
    pub(super) behind: &'a [u8],
}

impl Shard {
    /// Hands a complete request to the shard that has its session, if that is another one.
    pub(super) fn hand_over(
        &mut self,
        conn: ConnId,
        (owner, target): (Option<ShardId>, Target),
        raw: Raw<'_>,
        now: Instant,
    ) -> bool {
        let Some(owner) = owner else { return false };
        let Some(client) = self.client_mut(conn) else { return false };
        if client.near.is_some() {
            // It is at the end of a tunnel already: the session is not where its id says.
            return false;
        }
        let (peer, moves) = (client.peer, client.moves);
        let mut bytes = raw.request.to_vec();
        if let Some(body) = raw.chunked {
            if !body.is_empty() {
                write_chunk_head(&mut bytes, body.len());
                bytes.extend_from_slice(body);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(LAST_CHUNK);
        }
        let is_idle = self.conns.get(conn).is_some_and(|entry| entry.output.is_empty());
        let is_stream = matches!(target, Target::Stream(_) | Target::Events);
        let may_move = moves < MOVES_MAX || is_stream;
        if is_idle && may_move && raw.chunked.is_none() && bytes.len() < limits::RECV_LEN {
            bytes.extend_from_slice(raw.behind);
            self.client_moves(conn, (owner, peer, moves), bytes);
            return true;
        }
        if is_stream {
            // It is not for one request only.
            return false;
        }
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::Tunnel(owner);
            client.requests += 1;
        }
        self.counters.tunnelled += 1;
        let letter = Letter::Forward { near: conn, peer, bytes: Bytes::from(bytes) };
        self.actions.push_back(Action::Mail { to: owner, letter });
        self.wish_conn(conn, now + limits::KEEP_ALIVE_TIMEOUT);
        true
    }

    /// The other shard that must serve a request: the one that has its session or, if one child
    /// process serves everybody, the one that has the process. So does a view with such a server.
    pub(super) fn owner_of(
        &self,
        head: &RequestHead<'_, '_>,
        server: Option<ServerId>,
    ) -> Option<ShardId> {
        let version = head.headers.get("mcp-protocol-version").and_then(Revision::parse);
        let is_modern = version.is_some_and(|revision| revision.era() == Era::Modern);
        let session = head.headers.get("mcp-session-id").filter(|_| !is_modern);
        let owner = match session {
            Some(id) => SessionId::parse(id)?.owner(self.identity.shards),
            None => {
                let server = server?;
                let members = self.view(server).filter(|_| is_modern);
                let members = members.iter().flat_map(|view| &view.members);
                if !members.map(|it| it.server).any(|member| self.upkeep(member).is_some()) {
                    let isolation = self.upkeep(server)?.isolation;
                    if !is_modern && isolation == Isolation::Session {
                        return None;
                    }
                }
                ShardId(server.0 % self.identity.shards.max(1))
            }
        };
        (owner != self.identity.id).then_some(owner)
    }

    /// The other shard that has the one process for all sessions of a server.
    pub(super) fn home_of(&self, server: ServerId) -> Option<ShardId> {
        self.home(server).filter(|home| *home != self.identity.id)
    }

    /// The shard, which may be this one, that has the one process for all sessions of a server.
    pub(super) fn home(&self, server: ServerId) -> Option<ShardId> {
        let isolation = self.upkeep(server)?.isolation;
        let home = ShardId(server.0 % self.identity.shards.max(1));
        (isolation == Isolation::Shared).then_some(home)
    }

    pub(super) fn client_moves(
        &mut self,
        conn: ConnId,
        (to, peer, moves): (ShardId, Peer, u8),
        bytes: Vec<u8>,
    ) {
        let Some(entry) = self.conns.remove(conn) else { return };
        if let Role::Client(client) = entry.role {
            self.counters.gathered -= client.gathered as u64;
        }
        self.counters.clients -= 1;
        self.counters.moved += 1;
        let moves = moves.saturating_add(1);
        self.actions.push_back(Action::Move { conn, to, peer, bytes, moves });
    }

    pub(super) fn mail(&mut self, from: ShardId, letter: Letter, now: Instant) {
        match letter {
            Letter::Forward { near, peer, bytes } => {
                self.tunnel_forward((from, near, peer), &bytes, now);
            }
            Letter::Back { near, bytes } => {
                self.current = Some(near);
                // What was sent at once is not reported by the driver.
                self.near_sent(near);
                let Some(client) = self.client_mut(near) else { return };
                if client.busy == Busy::Tunnel(from) {
                    client.tunnelled += bytes.len();
                    self.write(near, |output| output.push_whole(bytes));
                }
            }
            Letter::Done { near, keep_alive } => {
                self.current = Some(near);
                let Some(client) = self.client_mut(near) else { return };
                if client.busy == Busy::Tunnel(from) {
                    client.framing.keep_alive &= keep_alive;
                    self.client_done(near, now);
                }
            }
            Letter::Taken { near, len } => self.tunnel_taken((from, near), len, now),
            Letter::Gone { near } => {
                if let Some(conn) = self.tunnels.get(&(from, near)).copied() {
                    self.current = Some(conn);
                    self.client_lost(conn, "client closed", now);
                }
            }
        }
    }

    /// A request arrives through a tunnel.
    fn tunnel_forward(
        &mut self,
        (shard, near, peer): (ShardId, ConnId, Peer),
        bytes: &[u8],
        now: Instant,
    ) {
        let mut client = Client::new(peer, now);
        client.near = Some(Near { shard, conn: near, in_tunnel: 0 });
        let Some(conn) = self.open(Role::Client(Box::new(client))) else {
            let letter = Letter::Done { near, keep_alive: false };
            self.actions.push_back(Action::Mail { to: shard, letter });
            return;
        };
        self.current = Some(conn);
        self.tunnels.insert((shard, near), conn);
        self.client_received(conn, bytes, now);
    }

    /// Output of the end of a tunnel goes back in letters.
    pub(super) fn flush_tunnel(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let chunks = entry.output.take();
        let Role::Client(client) = &mut entry.role else { return };
        let Some(near) = &mut client.near else { return };
        for bytes in chunks {
            near.in_tunnel += bytes.len();
            let letter = Letter::Back { near: near.conn, bytes };
            self.actions.push_back(Action::Mail { to: near.shard, letter });
        }
    }

    /// The response is complete: the end of the tunnel is no longer needed.
    pub(super) fn tunnel_done(&mut self, conn: ConnId, keep_alive: bool, now: Instant) {
        self.flush_tunnel(conn);
        let Some(near) = self.client_mut(conn).and_then(|client| client.near) else { return };
        if !keep_alive {
            self.client_close(conn, "answered", now);
            return;
        }
        let Some(Conn { role: Role::Client(client), .. }) = self.conns.remove(conn) else { return };
        self.counters.gathered -= client.gathered as u64;
        self.tunnels.remove(&(near.shard, near.conn));
        let letter = Letter::Done { near: near.conn, keep_alive };
        self.actions.push_back(Action::Mail { to: near.shard, letter });
    }

    /// The client has read bytes that came through the tunnel.
    fn tunnel_taken(&mut self, near: (ShardId, ConnId), len: usize, now: Instant) {
        let Some(conn) = self.tunnels.get(&near).copied() else { return };
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Role::Client(client) = &mut entry.role else { return };
        let Some(near) = &mut client.near else { return };
        near.in_tunnel = near.in_tunnel.saturating_sub(len);
        let is_low = near.in_tunnel <= limits::OUTPUT_LOW;
        entry.stalled_since = None;
        if is_low && std::mem::take(&mut entry.holds_producer) {
            self.release_producer(conn, now);
        }
    }

    /// The near end passed bytes on: the far end may send as many again.
    pub(super) fn near_sent(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let unread = entry.output.len();
        let Role::Client(client) = &mut entry.role else { return };
        let Busy::Tunnel(shard) = client.busy else { return };
        let Some(len) = client.tunnelled.checked_sub(unread).filter(|len| *len != 0) else {
            return;
        };
        client.tunnelled = unread;
        let letter = Letter::Taken { near: conn, len };
        self.actions.push_back(Action::Mail { to: shard, letter });
    }

    /// The client at the near end is gone.
    pub(super) fn tunnel_deserted(&mut self, shard: ShardId, conn: ConnId) {
        let letter = Letter::Gone { near: conn };
        self.actions.push_back(Action::Mail { to: shard, letter });
    }
}
