//! Streams of a link: each has a place in the table of connections like a connection of its own,
//! but the driver does not know of it. Its role is that of a channel of a client, or that of a
//! process.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use wire::binary::{Facts, MessageKind, Reason, StreamId};
use wire::rpc;

use crate::ids::ConnId;
use crate::limits;
use crate::message::Payload;
use crate::refusal::Refusal;
use crate::shard::link::{LinkName, Trunk};
use crate::shard::{Role, Shard};

/// Which stream stands in the place of a connection.
#[derive(Debug)]
pub(super) struct Branch {
    name: LinkName,
    stream: StreamId,
    /// Bytes of messages that are dealt with and for which no credit was given back.
    owed: usize,
    /// Bytes that waited on the stream when that was last looked at.
    waited: usize,
}

impl Shard {
    /// A message on a stream.
    pub(super) fn branch_says(
        &mut self,
        (name, stream): (LinkName, StreamId),
        payload: Bytes,
        now: Instant,
    ) {
        let Some(trunk) = self.links.get_mut(&name) else { return };
        let Some(conn) = trunk.branches.get(&stream).copied() else { return };
        if let Some(link) = trunk.conn.and_then(|conn| self.link_conn_mut(conn)) {
            link.messages += 1;
        }
        let len = payload.len();
        self.current = Some(conn);
        match self.conns.get(conn).map(|entry| &entry.role) {
            Some(Role::Process(id)) => {
                let id = *id;
                self.process_line(id, &payload, now);
            }
            _ => self.channel_message(conn, &Payload::Whole(payload), now),
        }
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let is_paused = entry.is_paused;
        if let Some(branch) = &mut entry.branch {
            branch.owed += len;
        }
        if !is_paused {
            self.branch_pays(conn);
        }
    }

    /// Gives a stream a place in the table of connections.
    pub(super) fn branch_open(
        &mut self,
        role: Role,
        (name, stream): (LinkName, StreamId),
    ) -> Option<ConnId> {
        let conn = self.open(role)?;
        if let Some(entry) = self.conns.get_mut(conn) {
            entry.branch = Some(Branch { name, stream, owed: 0, waited: 0 });
        }
        if let Some(trunk) = self.links.get_mut(&name) {
            trunk.branches.insert(stream, conn);
        }
        Some(conn)
    }

    /// The place of a stream is empty: so the stream is closed, unless the peer has done that.
    pub(super) fn branch_closes(&mut self, conn: ConnId, branch: &Branch, why: &str) {
        let Branch { name, stream, .. } = *branch;
        let Some(trunk) = self.links.get_mut(&name) else { return };
        if trunk.branches.get(&stream) != Some(&conn) {
            // The peer has closed it; a new stream may have the number already.
            return;
        }
        trunk.branches.remove(&stream);
        trunk.held.retain(|other| *other != conn);
        let reason = close_reason(why);
        trunk.link.close(stream, reason, if reason == Reason::DONE { "" } else { why });
        self.link_is_dirty(name);
    }

    fn branch(&self, conn: ConnId) -> Option<&Branch> {
        self.conns.get(conn)?.branch.as_ref()
    }

    fn trunk_of(&mut self, conn: ConnId) -> Option<(&mut Trunk, StreamId)> {
        let Branch { name, stream, .. } = *self.conns.get(conn)?.branch.as_ref()?;
        Some((self.links.get_mut(&name)?, stream))
    }

    /// Sends a message, whatever it is.
    pub(super) fn branch_tells(&mut self, conn: ConnId, message: Vec<u8>) {
        // With our number in it a message may be longer than it came.
        let limits = rpc::Limits { len_max: usize::MAX, ..self.rpc_limits() };
        let Ok(envelope) = rpc::scan(&message, limits) else { return };
        let method = envelope.method.map(|text| text.decode(&message)).unwrap_or_default();
        let name = envelope.name.or(envelope.uri).filter(|_| envelope.method.is_some());
        let name = name.map(|text| text.decode(&message)).unwrap_or_default();
        let (method, name) = (String::from_utf8_lossy(&method), String::from_utf8_lossy(&name));
        let (method, name) = (method.into_owned(), name.into_owned());
        let kind = match envelope.kind {
            rpc::Kind::Request => MessageKind::Request,
            rpc::Kind::Notification => MessageKind::Notification,
            rpc::Kind::Response | rpc::Kind::ErrorResponse => MessageKind::Response,
        };
        self.branch_sends(conn, (kind, Facts { method: &method, name: &name }), message);
    }

    /// Sends an answer.
    pub(super) fn branch_answers(&mut self, conn: ConnId, message: Vec<u8>) {
        let facts = Facts { method: "", name: "" };
        self.branch_sends(conn, (MessageKind::Response, facts), message);
    }

    fn branch_sends(
        &mut self,
        conn: ConnId,
        (kind, facts): (MessageKind, Facts<'_>),
        message: Vec<u8>,
    ) {
        let Some(name) = self.branch(conn).map(|branch| branch.name) else { return };
        let Some((trunk, stream)) = self.trunk_of(conn) else { return };
        let is_taken = trunk.link.send(stream, kind, facts, Cow::Owned(message)).is_ok();
        self.counters.dropped += u64::from(!is_taken);
        self.link_is_dirty(name);
    }

    /// Whether the peer of a stream takes a message of so many bytes.
    pub(super) fn branch_fits(&mut self, conn: ConnId, len: usize) -> bool {
        self.trunk_of(conn).is_none_or(|(trunk, _)| trunk.link.fits(len))
    }

    /// Bytes that wait on a stream for its peer to take them.
    pub(super) fn branch_waiting(&self, conn: ConnId) -> usize {
        let Some(branch) = self.branch(conn) else { return 0 };
        self.links.get(&branch.name).map_or(0, |trunk| trunk.link.waiting_len(branch.stream))
    }

    /// Gives the credit back for what was dealt with.
    pub(super) fn branch_pays(&mut self, conn: ConnId) {
        let Some(branch) = self.conns.get_mut(conn).and_then(|entry| entry.branch.as_mut()) else {
            return;
        };
        let (name, stream, owed) = (branch.name, branch.stream, std::mem::take(&mut branch.owed));
        if owed != 0
            && let Some(trunk) = self.links.get_mut(&name)
        {
            trunk.link.release(stream, owed);
            self.link_is_dirty(name);
        }
    }

    /// The peer does not take what a stream has for it as it comes.
    pub(super) fn branch_holds(&mut self, conn: ConnId) {
        if let Some((trunk, _)) = self.trunk_of(conn)
            && !trunk.held.contains(&conn)
        {
            trunk.held.push(conn);
        }
    }

    /// Streams of which the peer has taken what waited: what feeds them goes on.
    pub(super) fn branches_go_on(&mut self, name: LinkName, now: Instant) {
        let Some(trunk) = self.links.get_mut(&name) else { return };
        for conn in std::mem::take(&mut trunk.held) {
            let waiting = self.branch_waiting(conn);
            let Some(entry) = self.conns.get_mut(conn) else { continue };
            let Some(branch) = &mut entry.branch else { continue };
            let before = std::mem::replace(&mut branch.waited, waiting);
            if limits::OUTPUT_LOW < waiting {
                if waiting < before {
                    entry.stalled_since = Some(now);
                }
                self.branch_holds(conn);
                continue;
            }
            entry.stalled_since = None;
            if std::mem::take(&mut entry.holds_producer) {
                self.release_producer(conn, now);
            }
        }
    }

    /// A fault of ours while a message of a stream was served: what came behind it on the
    /// connection is lost to us. The stream ends, and the link goes on with another connection, on
    /// which that comes again.
    pub(super) fn branch_gives_up(&mut self, conn: ConnId, now: Instant) {
        let carrier = self.trunk_of(conn).and_then(|(trunk, _)| trunk.conn);
        if let Some(Role::Process(id)) = self.conns.get(conn).map(|entry| &entry.role) {
            let id = *id;
            self.process_ended(id, Refusal::Died, now);
        } else {
            self.channel_lost(conn, "fault", now);
        }
        if let Some(carrier) = carrier {
            self.link_conn_lost(carrier, "fault", now);
        }
    }

    /// Has the peer of a stream taken nothing for too long?
    pub(super) fn branch_tick(&mut self, conn: ConnId, now: Instant) {
        let Some(since) = self.conns.get(conn).and_then(|entry| entry.stalled_since) else {
            return;
        };
        if since + limits::SEND_TIMEOUT <= now {
            self.channel_lost(conn, "reads too slowly", now);
        } else {
            self.wish_conn(conn, since + limits::SEND_TIMEOUT);
        }
    }
}

/// The reason of CLOSE for a reason of the log.
fn close_reason(why: &str) -> Reason {
    match why {
        "draining" => Reason::DRAINING,
        "full" | "reads too slowly" => Reason::OVERLOADED,
        "fault" => Reason::INTERNAL,
        // Its session is over, or nobody needs it.
        _ => Reason::DONE,
    }
}
