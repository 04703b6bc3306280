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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wire::binary::frame::{Frame, Message};
    use wire::binary::v1::{Dialect, write_offer};
    use wire::binary::{self, Event, Limits, Link, Open, Settings};

    use super::*;
    use crate::admission::entrance::{Entrance, Protocol};
    use crate::shard::event::{Action, Event as Told};
    use crate::tests::settings;
    use crate::upstream::catalog::{Isolation, Target};

    const SETTINGS: Settings = Settings {
        limits: Limits {
            window: 32 * 1024,
            frame_len_max: 16 * 1024,
            message_len_max: 16 << 20,
            streams_max: 16_384,
            replay_len_max: 1 << 20,
        },
        keep_ms: 0,
        queue_len_max: usize::MAX,
        queues_len_max: usize::MAX,
        partial_len_max: usize::MAX,
        partials_len_max: usize::MAX,
    };

    /// A shard whose server is never started.
    fn shard(now: Instant) -> Shard {
        shard_that_pings(limits::PING_INTERVAL, now)
    }

    fn shard_that_pings(ping_interval: Duration, now: Instant) -> Shard {
        let target = Target::Stdio(settings::command(Isolation::Session));
        let entrances = vec![Entrance::of(Protocol::Binary)];
        let settings = settings::settings(vec![settings::server(target)]);
        let settings = crate::shard::settings::Settings { entrances, ping_interval, ..settings };
        settings::shard(settings, 0, 1, now)
    }

    fn tell(shard: &mut Shard, event: Told<'_>, now: Instant) -> Vec<Action> {
        shard.handle(event, now);
        std::iter::from_fn(|| shard.poll()).collect()
    }

    /// A connection that becomes that of a link.
    fn negotiated(shard: &mut Shard, now: Instant) -> ConnId {
        let (conn, _) = settings::accept(shard, now);
        let mut offer = Vec::new();
        write_offer(&mut offer, Dialect::Short, binary::VERSION);
        tell(shard, Told::Received { conn, bytes: &mut offer }, now);
        shard.output(conn).unwrap().take();
        conn
    }

    /// A client, and the lengths of what it did not read.
    struct Guest {
        conn: ConnId,
        link: Link,
        unread: Vec<(StreamId, usize)>,
        closed: Vec<(StreamId, Reason)>,
        is_slow: bool,
    }

    impl Guest {
        fn new(shard: &mut Shard, now: Instant) -> Self {
            let conn = negotiated(shard, now);
            let link = Link::connect(SETTINGS, "", "").unwrap();
            let (unread, closed) = (Vec::new(), Vec::new());
            let mut guest = Self { conn, link, unread, closed, is_slow: false };
            guest.run(shard, now);
            guest
        }

        /// Until nothing is left to be said.
        fn run(&mut self, shard: &mut Shard, now: Instant) {
            loop {
                let mut bytes = Vec::new();
                self.link.write_to(&mut bytes);
                let back = shard.output(self.conn).unwrap().take();
                if bytes.is_empty() && back.is_empty() {
                    return;
                }
                if !back.is_empty() {
                    self.hears(&back.into_iter().flatten().collect::<Vec<u8>>());
                    tell(shard, Told::Sent { conn: self.conn }, now);
                }
                tell(shard, Told::Received { conn: self.conn, bytes: &mut bytes }, now);
            }
        }

        fn hears(&mut self, bytes: &[u8]) {
            let mut rest = bytes;
            let mut read = Vec::new();
            while let Some(event) = self.link.receive(&mut rest) {
                match event {
                    Event::Message { stream, payload, .. } => read.push((stream, payload.len())),
                    Event::Closed { stream, reason, .. } => self.closed.push((stream, reason)),
                    Event::Failed { error } => panic!("{error:?}"),
                    _ => {}
                }
            }
            self.unread.extend(read);
            if !self.is_slow {
                self.reads(usize::MAX);
            }
        }

        /// Deals with so many messages.
        fn reads(&mut self, count: usize) {
            for (stream, len) in self.unread.drain(..count.min(self.unread.len())) {
                self.link.release(stream, 1, len);
            }
        }

        fn opens(&mut self, count: usize) -> Vec<StreamId> {
            let open = Open { server: "", session: "", revision: "" };
            (0..count).map(|_| self.link.open(open).unwrap()).collect()
        }

        /// The places of its streams.
        fn branches(&self, shard: &Shard) -> Vec<ConnId> {
            let trunk = &shard.links[&LinkName::Client(self.link.id())];
            trunk.branches.values().copied().collect()
        }
    }

    #[test]
    fn streams_of_clients_leave_room_for_connections() {
        let now = Instant::now();
        let mut shard = shard(now);
        let most = limits::LINK_STREAMS_MAX as usize;
        let mut guests = [0; 3].map(|_| Guest::new(&mut shard, now));
        for guest in &mut guests[..2] {
            guest.opens(most);
            guest.run(&mut shard, now);
            assert_eq!((guest.branches(&shard).len(), guest.closed.len()), (most, 0));
        }
        assert_eq!(most * 2, limits::LINK_BRANCHES_MAX);
        let [first, _, third] = &mut guests;
        let late = third.opens(1)[0];
        third.run(&mut shard, now);
        assert_eq!(third.closed, [(late, Reason::OVERLOADED)]);
        settings::accept(&mut shard, now);
        // There is room again, and the link goes on.
        first.link.close(StreamId::new(1).unwrap(), Reason::DONE, "");
        first.run(&mut shard, now);
        third.opens(1);
        third.run(&mut shard, now);
        assert_eq!((third.branches(&shard).len(), third.closed.len()), (1, 1));
    }

    /// It would take minutes if each looked for itself among all.
    #[test]
    fn many_streams_can_be_slow_at_once() {
        let now = Instant::now();
        let mut shard = shard(now);
        let mut guest = Guest::new(&mut shard, now);
        guest.opens(16_384);
        guest.run(&mut shard, now);
        let branches = guest.branches(&shard);
        for _ in 0..20 {
            for _ in 0..20 {
                branches.iter().for_each(|conn| shard.branch_holds(*conn));
            }
            let name = LinkName::Client(guest.link.id());
            assert_eq!(shard.links[&name].held.len(), branches.len());
            shard.branches_go_on(name, now);
            assert!(shard.links[&name].held.is_empty(), "nothing waits");
        }
    }

    #[test]
    fn a_conversation_ends_whose_message_has_no_room_on_the_link() {
        let now = Instant::now();
        let mut shard = shard(now);
        let mut guest = Guest::new(&mut shard, now);
        guest.is_slow = true;
        let streams = guest.opens(6);
        guest.run(&mut shard, now);
        let branches = guest.branches(&shard);
        let large = vec![b'x'; limits::MESSAGE_LEN];
        for conn in &branches[..5] {
            shard.channel_write(*conn, &[&large], now);
        }
        let is_open = |shard: &Shard, at: usize| shard.conns.get(branches[at]).is_some();
        let open: Vec<usize> = (0..6).filter(|at| is_open(&shard, *at)).collect();
        assert_eq!(open, [0, 1, 2, 3, 5]);
        tell(&mut shard, Told::Woke, now);
        guest.run(&mut shard, now);
        assert_eq!(guest.closed, [(streams[4], Reason::OVERLOADED)]);
        shard.channel_write(branches[5], &[b"{}"], now);
        tell(&mut shard, Told::Woke, now);
        guest.run(&mut shard, now);
        assert!(guest.unread.contains(&(streams[5], 2)));
    }

    /// What is put behind it does not hide what was taken.
    #[test]
    fn a_client_that_reads_steadily_is_not_stalled() {
        let mut now = Instant::now();
        let mut shard = shard(now);
        let mut guest = Guest::new(&mut shard, now);
        guest.is_slow = true;
        guest.opens(1);
        guest.run(&mut shard, now);
        let conn = guest.branches(&shard)[0];
        let message = vec![b'x'; 10_000];
        for _ in 0..40 {
            shard.channel_write(conn, &[&message], now);
        }
        guest.run(&mut shard, now);
        for _ in 0..10 {
            now += limits::SEND_TIMEOUT / 3;
            guest.reads(2);
            for _ in 0..4 {
                shard.channel_write(conn, &[&message], now);
            }
            guest.run(&mut shard, now);
            tell(&mut shard, Told::Woke, now);
            guest.run(&mut shard, now);
            assert_eq!(guest.closed, []);
        }
        // Who takes nothing is closed.
        for _ in 0..4 {
            now += limits::SEND_TIMEOUT / 3;
            tell(&mut shard, Told::Woke, now);
            guest.run(&mut shard, now);
        }
        assert_eq!(guest.closed, [(StreamId::new(1).unwrap(), Reason::OVERLOADED)]);
    }

    #[test]
    fn a_client_hears_why_its_link_ends_behind_what_it_has_not_read() {
        let now = Instant::now();
        let mut shard = shard(now);
        let mut guest = Guest::new(&mut shard, now);
        guest.is_slow = true;
        guest.opens(4);
        guest.run(&mut shard, now);
        for conn in guest.branches(&shard) {
            shard.channel_write(conn, &[&vec![b'x'; 100_000]], now);
        }
        tell(&mut shard, Told::Woke, now);
        assert!(limits::OUTPUT_LOW < shard.output(guest.conn).unwrap().len());
        let mut bytes = [0xff; 20];
        let actions = tell(&mut shard, Told::Received { conn: guest.conn, bytes: &mut bytes }, now);
        let rest = actions.into_iter().find_map(|action| match action {
            Action::Close { rest, .. } => Some(rest),
            _ => None,
        });
        guest.hears(&rest.unwrap().into_iter().flatten().collect::<Vec<u8>>());
        assert!(guest.link.has_ended());
    }

    #[test]
    fn links_without_a_connection_do_not_keep_too_much() {
        let now = Instant::now();
        let mut shard = shard(now);
        let large = vec![b'x'; limits::MESSAGE_LEN];
        let lost = |shard: &mut Shard| {
            let mut guest = Guest::new(shard, now);
            guest.opens(4);
            guest.run(shard, now);
            for conn in guest.branches(shard) {
                shard.channel_write(conn, &[&large], now);
            }
            tell(shard, Told::Broken { conn: guest.conn }, now);
            LinkName::Client(guest.link.id())
        };
        let names: Vec<LinkName> = (0..4).map(|_| lost(&mut shard)).collect();
        let kept: Vec<bool> = names.iter().map(|name| shard.links.contains_key(name)).collect();
        assert_eq!(kept.iter().filter(|is_kept| **is_kept).count(), 3);
        assert!((3 << 26..limits::LINKS_LOST_LEN_MAX).contains(&shard.lost_len));
        for name in names {
            shard.link_over(name, "full", now);
        }
        assert_eq!((shard.lost_len, shard.client_branches), (0, 0));
    }

    /// What comes behind a message on the connection is not the fault of its stream.
    #[test]
    fn a_fault_behind_a_message_costs_the_link() {
        let now = Instant::now();
        let mut shard = shard(now);
        let mut guest = Guest::new(&mut shard, now);
        let stream = guest.opens(1)[0];
        guest.run(&mut shard, now);
        shard.current = Some(guest.conn);
        let name = LinkName::Client(guest.link.id());
        shard.branch_says((name, stream), Bytes::from_static(b"{}"), now);
        assert_eq!(shard.current, Some(guest.conn));
        guest.run(&mut shard, now);
    }

    #[test]
    fn a_message_that_does_not_go_on_ends_its_conversation() {
        let mut now = Instant::now();
        let mut shard = shard(now);
        let mut guest = Guest::new(&mut shard, now);
        let stream = guest.opens(2)[0];
        guest.run(&mut shard, now);
        let [first, second] = guest.branches(&shard)[..] else { panic!("two streams") };
        let facts = Some(Facts { method: "", name: "" });
        let message = Message { kind: MessageKind::Request, facts, has_more: true, payload: b"{" };
        let mut bytes = Vec::new();
        Frame::Message { stream, sequence: 3, message }.encode(&mut bytes);
        tell(&mut shard, Told::Received { conn: guest.conn, bytes: &mut bytes }, now);
        assert_ne!(shard.counters().gathered, 0);
        // The client is there.
        for _ in 0..8 {
            now += limits::BODY_TIMEOUT / 3;
            let mut bytes = Vec::new();
            Frame::Ping { token: [0; 8] }.encode(&mut bytes);
            tell(&mut shard, Told::Received { conn: guest.conn, bytes: &mut bytes }, now);
            tell(&mut shard, Told::Woke, now);
        }
        assert!(shard.conns.get(first).is_none() && shard.conns.get(second).is_some());
        assert_eq!(shard.counters().gathered, 0);
    }

    #[test]
    fn a_message_is_not_late_because_its_connection_was_lost() {
        let mut now = Instant::now();
        let interval = limits::BODY_TIMEOUT / 4;
        let mut shard = shard_that_pings(interval, now);
        let mut guest = Guest::new(&mut shard, now);
        let stream = guest.opens(1)[0];
        guest.run(&mut shard, now);
        let facts = Facts { method: "", name: "" };
        let message = Cow::Owned(vec![b' '; 100_000]);
        guest.link.send(stream, MessageKind::Request, facts, message).unwrap();
        let mut bytes = Vec::new();
        guest.link.write_to(&mut bytes);
        bytes.truncate(17_000);
        tell(&mut shard, Told::Received { conn: guest.conn, bytes: &mut bytes }, now);
        // It is looked for once.
        for _ in 0..4 {
            now += interval;
            tell(&mut shard, Told::Received { conn: guest.conn, bytes: &mut [] }, now);
            tell(&mut shard, Told::Woke, now);
        }
        tell(&mut shard, Told::Broken { conn: guest.conn }, now);
        now += limits::LINK_KEEP_TIME / 2;
        guest.link.lost();
        guest.link.reconnect("", "").unwrap();
        guest.conn = negotiated(&mut shard, now);
        // HELLO comes, and what is sent again takes its time.
        let mut bytes = guest.link.output().concat();
        guest.link.wrote(bytes.len());
        tell(&mut shard, Told::Received { conn: guest.conn, bytes: &mut bytes }, now);
        now += interval;
        tell(&mut shard, Told::Woke, now);
        guest.run(&mut shard, now);
        assert_eq!(guest.closed, []);
        assert_eq!((guest.unread.len(), shard.counters().gathered), (0, 0));
    }
}
