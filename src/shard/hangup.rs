//! How conversations end: with their clients, by time, or because the gateway is stopped. Nobody is
//! cut off who still waits for an answer.

use std::time::Instant;

use crate::exchange::{Exchange, Kind, Via};
use crate::frontend::binary::Stage;
use crate::frontend::channel::Writer;
use crate::ids::{ConnId, ExchangeId, SessionKey};
use crate::limits;
use crate::shard::event::Action;
use crate::shard::{Role, Shard};

impl Shard {
    /// Requests of the client that are not answered.
    pub(super) fn channel_exchanges(&self, conn: ConnId) -> Vec<ExchangeId> {
        let Some(Role::Channel(channel)) = self.conns.get(conn).map(|entry| &entry.role) else {
            return Vec::new();
        };
        let sessions = channel.sessions().filter_map(|key| self.sessions.get(key));
        let of_sessions = sessions.flat_map(|session| &session.exchanges);
        of_sessions.chain(&channel.exchanges).copied().collect()
    }

    /// Whether the client has requests that are not answered and will be: a subscription goes on
    /// until it is given up.
    fn channel_waits(&self, conn: ConnId) -> bool {
        let Some(Role::Channel(channel)) = self.conns.get(conn).map(|entry| &entry.role) else {
            return false;
        };
        let sessions = channel.sessions().filter_map(|key| self.sessions.get(key));
        let of_sessions = sessions.flat_map(|session| &session.exchanges);
        of_sessions.chain(&channel.exchanges).any(|key| {
            self.exchanges.get(*key).is_some_and(|exchange| {
                let is_request = matches!(exchange.kind, Kind::Request | Kind::Initialize);
                is_request && !exchange.is_subscription
            })
        })
    }

    /// An exchange of this channel is over.
    pub(super) fn channel_left(&mut self, conn: ConnId, key: ExchangeId, now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        channel.exchanges.retain(|other| *other != key);
        self.channel_rests(conn, now);
    }

    /// Closes the channel if nobody has anything to say any more.
    pub(super) fn channel_rests(&mut self, conn: ConnId, now: Instant) {
        let is_draining = self.draining.is_some();
        let Some(channel) = self.channel_mut(conn) else { return };
        let why = match (channel.is_ended, is_draining) {
            (true, _) => "client closed",
            (false, true) => "draining",
            (false, false) => return,
        };
        if !self.channel_waits(conn) {
            self.channel_close(conn, why, now);
        }
    }

    /// The client will send no more. What it asked for is still answered, for a while.
    pub(super) fn channel_ended(&mut self, conn: ConnId, now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        if matches!(channel.writer, Writer::Frames(_) | Writer::Events { .. }) {
            // A WebSocket has a close frame for this; without one, it broke (RFC 6455 §7.1.5). And
            // who speaks HTTP and closes one direction is taken to close both.
            return self.channel_lost(conn, "client closed", now);
        }
        channel.is_ended = true;
        channel.heard_at = now;
        self.wish_conn(conn, now + limits::LAST_ANSWERS_TIME);
        self.channel_rests(conn, now);
    }

    pub(super) fn channel_tick(&mut self, conn: ConnId, now: Instant) {
        let is_paused = self.conns.get(conn).is_some_and(|entry| entry.is_paused);
        let Some(channel) = self.channel_mut(conn) else { return };
        if channel.is_stream() {
            return self.sse_tick(conn, now);
        }
        if is_paused {
            // It is we who do not listen.
            channel.heard_at = now;
        }
        let limit = match (channel.is_ended, channel.gathered, channel.writer.stage()) {
            (true, ..) => limits::LAST_ANSWERS_TIME,
            (false, _, Some((_, Stage::Negotiation))) => limits::HEAD_TIMEOUT,
            (false, 0, Some(_)) => limits::HEALTH_INTERVAL,
            (false, 0, None) => return self.socket_tick(conn, now),
            (false, ..) => limits::BODY_TIMEOUT,
        };
        let (at, is_ended, is_idle) =
            (channel.heard_at + limit, channel.is_ended, channel.gathered == 0);
        let stage = channel.writer.stage();
        if now < at {
            self.wish_conn(conn, at);
        } else if let (Some(stage @ (_, Stage::Authorization | Stage::Open)), true, false) =
            (stage, is_idle, is_ended)
        {
            self.binary_tick(conn, stage, now);
        } else {
            let why = if is_ended { "client closed" } else { "sends too slowly" };
            self.channel_close(conn, why, now);
        }
    }

    /// The connection broke, or the client must go: it will not read what it has not read.
    pub(super) fn channel_lost(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        if let Some(entry) = self.conns.get_mut(conn) {
            let unsent = entry.output.take();
            if let Role::Channel(channel) = &mut entry.role
                && let Writer::Frames(socket) = &mut channel.writer
            {
                // A frame may be cut: another would be read as the rest of it.
                socket.is_over |= !unsent.is_empty();
            }
        }
        self.channel_drop(conn, why, now);
    }

    /// Ends the conversation in good order.
    pub(super) fn channel_close(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        self.sse_end(conn);
        self.channel_drop(conn, why, now);
    }

    /// What the channel waited for is cancelled, its session ends.
    fn channel_drop(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        if self.channel_mut(conn).is_none() {
            return;
        }
        self.socket_says_why(conn, why);
        self.report_closed(conn, why, now);
        let Some(mut entry) = self.conns.remove(conn) else { return };
        let Role::Channel(channel) = entry.role else { return };
        self.streams.forget(conn);
        self.holders.forget_stream(conn);
        self.counters.gathered -= channel.gathered as u64;
        if let Some(branch) = &entry.branch {
            self.client_branches -= 1;
            self.branch_closes(conn, branch, why);
        } else {
            self.counters.clients -= 1;
            self.actions.push_back(Action::Close { conn, rest: entry.output.take() });
        }
        let sessions: Vec<SessionKey> = channel.sessions().collect();
        for key in channel.exchanges {
            self.exchange_cancel(key, now);
        }
        for session in sessions {
            self.session_end(session, why, now);
        }
    }

    /// The connections that bring something for this client and for nobody else.
    pub(super) fn channel_feeds(&self, conn: ConnId) -> Vec<ConnId> {
        let Some(Role::Channel(channel)) = self.conns.get(conn).map(|entry| &entry.role) else {
            return Vec::new();
        };
        let via_http = |exchange: &Exchange| match exchange.via {
            Via::Http(conn) => Some(conn),
            Via::Nothing | Via::Process(..) | Via::Leg(_) | Via::Union(_) => None,
        };
        let mut feeds: Vec<ConnId> = channel
            .exchanges
            .iter()
            .filter_map(|key| self.exchanges.get(*key).and_then(via_http))
            .collect();
        feeds.extend(channel.sessions().flat_map(|key| self.feeds(key)));
        feeds
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::entrance::{Entrance, Protocol};
    use crate::shard::event::Event;
    use crate::shard::settings::Settings;
    use crate::tests::settings;
    use crate::upstream::catalog::{Target, Transport};

    /// A shard with one client that speaks lines, and its connection.
    fn shard(now: Instant) -> (Shard, ConnId) {
        let target = Target::Http(Transport::Http, settings::endpoint("127.0.0.1").into());
        let entrances = vec![Entrance::of(Protocol::Lines)];
        let settings = Settings { entrances, ..settings::settings(vec![settings::server(target)]) };
        let mut shard = settings::shard(settings, 0, 1, now);
        let (conn, _) = settings::accept(&mut shard, now);
        (shard, conn)
    }

    fn tell(shard: &mut Shard, event: Event<'_>, now: Instant) -> Vec<Action> {
        shard.handle(event, now);
        std::iter::from_fn(|| shard.poll()).collect()
    }

    fn is_closed(actions: &[Action]) -> bool {
        actions.iter().any(|action| matches!(action, Action::Close { .. }))
    }

    #[test]
    fn a_client_that_is_not_listened_to_is_not_late() {
        let mut now = Instant::now();
        let (mut shard, conn) = shard(now);
        // Each line is answered with an error; the last is not complete.
        let mut bytes = [&b"x\n".repeat(4000)[..], b"{"].concat();
        let actions = tell(&mut shard, Event::Received { conn, bytes: &mut bytes }, now);
        assert!(actions.iter().any(|action| matches!(action, Action::Pause { .. })));
        // It reads slowly.
        for _ in 0..6 {
            now += Duration::from_secs(20);
            shard.output(conn).unwrap().consume(1000);
            let mut actions = tell(&mut shard, Event::Sent { conn }, now);
            actions.extend(tell(&mut shard, Event::Woke, now));
            assert!(!is_closed(&actions), "{actions:?}");
        }
        // Once it has caught up, it is listened to again, and the clock runs.
        let len = shard.output(conn).unwrap().len();
        shard.output(conn).unwrap().consume(len);
        let actions = tell(&mut shard, Event::Sent { conn }, now);
        assert!(actions.iter().any(|action| matches!(action, Action::Resume { .. })));
        now += limits::BODY_TIMEOUT + Duration::from_secs(1);
        assert!(is_closed(&tell(&mut shard, Event::Woke, now)));
        assert_eq!((shard.clients(), shard.counters().gathered), (0, 0));
    }

    #[test]
    fn a_client_that_does_not_read_at_all_is_closed() {
        let now = Instant::now();
        let (mut shard, conn) = shard(now);
        let mut bytes = b"x\n".repeat(4000);
        assert!(!is_closed(&tell(&mut shard, Event::Received { conn, bytes: &mut bytes }, now)));
        let later = now + limits::SEND_TIMEOUT;
        assert!(is_closed(&tell(&mut shard, Event::Woke, later)));
    }
}
