//! Streams of a link: each has a place in the table of connections like a connection of its own,
//! but the driver does not know of it. Its role is that of a channel of a client, or that of a
//! process.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use wire::binary::{Facts, MessageKind, Reason, SendError, StreamId};
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
    /// Messages that are dealt with and for which no credit was given back, and their bytes.
    owed: (usize, usize),
    /// Bytes that the peer had taken when that was last looked at.
    taken: u64,
    /// Whether it is among those that the trunk holds.
    is_held: bool,
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
        let carrier = trunk.conn;
        if let Some(link) = carrier.and_then(|conn| self.link_conn_mut(conn)) {
            link.messages += 1;
        }
        if let LinkName::Server(server) = name {
            self.uplink_works(server);
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
        self.current = carrier;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let is_paused = entry.is_paused;
        if let Some(branch) = &mut entry.branch {
            branch.owed.0 += 1;
            branch.owed.1 += len;
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
            entry.branch = Some(Branch { name, stream, owed: (0, 0), taken: 0, is_held: false });
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

    /// Tells a client what it has not asked for. A request that it would not take is answered in
    /// its name: nobody else would ever do that.
    pub(super) fn branch_tells(&mut self, conn: ConnId, message: Vec<u8>, now: Instant) {
        if self.branch_fits(conn, message.len()) {
            let sent = self.branch_sends(conn, message);
            return self.branch_said(conn, sent, now);
        }
        self.counters.dropped += 1;
        let envelope = rpc::scan(&message, self.any_len());
        let envelope = envelope.ok().filter(|envelope| envelope.kind == rpc::Kind::Request);
        if let Some(id) = envelope.and_then(|envelope| envelope.id) {
            let mut answer = Vec::new();
            Refusal::TooLarge.write_error(&mut answer, id.get(&message), None);
            self.channel_message(conn, &Payload::Whole(Bytes::from(answer)), now);
        }
    }

    /// Sends an answer to a client.
    pub(super) fn branch_answers(&mut self, conn: ConnId, message: Vec<u8>, now: Instant) {
        let facts = Facts { method: "", name: "" };
        let sent = self.branch_queues(conn, (MessageKind::Response, facts), message);
        self.branch_said(conn, sent, now);
    }

    /// A conversation does not go on without a message that had no room.
    fn branch_said(&mut self, conn: ConnId, sent: Result<(), SendError>, now: Instant) {
        let Err(why) = sent else { return };
        self.counters.dropped += 1;
        if why == SendError::Overloaded {
            self.channel_lost(conn, "full", now);
        }
    }

    /// With our number in it a message may be longer than it came.
    pub(super) fn any_len(&self) -> rpc::Limits {
        rpc::Limits { len_max: usize::MAX, ..self.rpc_limits() }
    }

    /// Sends a message, whatever it is.
    pub(super) fn branch_sends(&mut self, conn: ConnId, message: Vec<u8>) -> Result<(), SendError> {
        let Ok(envelope) = rpc::scan(&message, self.any_len()) else { return Ok(()) };
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
        self.branch_queues(conn, (kind, Facts { method: &method, name: &name }), message)
    }

    fn branch_queues(
        &mut self,
        conn: ConnId,
        (kind, facts): (MessageKind, Facts<'_>),
        message: Vec<u8>,
    ) -> Result<(), SendError> {
        let name = self.branch(conn).map(|branch| branch.name).ok_or(SendError::NotOpen)?;
        let (trunk, stream) = self.trunk_of(conn).ok_or(SendError::NotOpen)?;
        let sent = trunk.link.send(stream, kind, facts, Cow::Owned(message));
        self.link_is_dirty(name);
        sent.map_err(|refused| refused.why)
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
        let (name, stream) = (branch.name, branch.stream);
        let (messages, len) = std::mem::take(&mut branch.owed);
        if messages != 0
            && let Some(trunk) = self.links.get_mut(&name)
        {
            trunk.link.release(stream, messages, len);
            self.link_is_dirty(name);
        }
    }

    /// The peer does not take what a stream has for it as it comes.
    pub(super) fn branch_holds(&mut self, conn: ConnId) {
        let Some(branch) = self.conns.get_mut(conn).and_then(|entry| entry.branch.as_mut()) else {
            return;
        };
        if let Some(trunk) = self.links.get_mut(&branch.name)
            && !std::mem::replace(&mut branch.is_held, true)
        {
            branch.taken = trunk.link.taken_len(branch.stream);
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
            let before = branch.taken;
            branch.is_held = false;
            if limits::OUTPUT_LOW < waiting {
                self.branch_holds(conn);
                let Some(entry) = self.conns.get_mut(conn) else { continue };
                if entry.branch.as_ref().is_some_and(|branch| before < branch.taken) {
                    entry.stalled_since = Some(now);
                }
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
        "fault" | "failed" => Reason::INTERNAL,
        // Its session is over, or nobody needs it.
        _ => Reason::DONE,
    }
}
