//! Back-pressure: a client that reads slowly slows down its server, and nobody else.
//!
//! A producer that works for one client alone is paused at `OUTPUT_HIGH` and resumed at
//! `OUTPUT_LOW`. A process that works for several cannot be paused for one of them; there the
//! slow client is dropped instead.

use std::time::Instant;

use crate::backend::stdio::User;
use crate::exchange::{Reply, Via};
use crate::frontend::http::Busy;
use crate::ids::{ConnId, SessionKey};
use crate::limits;
use crate::session::Link;
use crate::shard::{Role, Shard};

impl Shard {
    /// A relayed response: its connection is paused while the client does not keep up.
    pub(super) fn stall_relay(&mut self, client: ConnId, server: ConnId, now: Instant) {
        if self.is_behind(client, now) {
            self.pause(server);
        }
    }

    /// A stream of a session: all that feed it are paused while the client does not keep up.
    pub(super) fn stall_check(&mut self, client: ConnId, session: SessionKey, now: Instant) {
        if !self.is_behind(client, now) {
            return;
        }
        if self.feeds(session).is_empty() && self.is_far_behind(client) {
            self.client_lost(client, "reads too slowly", now);
            return;
        }
        for conn in self.feeds(session) {
            self.pause(conn);
        }
    }

    /// A client that hears everything on one connection: while it does not keep up, it is not
    /// listened to either, and what feeds it is paused.
    pub(super) fn stall_channel(&mut self, client: ConnId, now: Instant) {
        if !self.is_behind(client, now) {
            return;
        }
        let feeds = self.channel_feeds(client);
        if feeds.is_empty() && self.is_far_behind(client) {
            self.channel_lost(client, "reads too slowly", now);
            return;
        }
        self.pause(client);
        for conn in feeds {
            self.pause(conn);
        }
    }

    /// A stream of a process that serves everybody.
    pub(super) fn stall_drop(&mut self, client: ConnId, now: Instant) {
        if self.is_behind(client, now) && self.is_far_behind(client) {
            self.client_lost(client, "reads too slowly", now);
        }
    }

    fn is_behind(&mut self, client: ConnId, now: Instant) -> bool {
        let unread = self.unread(client);
        let Some(entry) = self.conns.get_mut(client) else { return false };
        if unread <= limits::OUTPUT_HIGH {
            return false;
        }
        entry.holds_producer = true;
        entry.stalled_since.get_or_insert(now);
        self.branch_holds(client);
        self.wish_conn(client, now + limits::SEND_TIMEOUT);
        true
    }

    pub(super) fn is_far_behind(&self, client: ConnId) -> bool {
        self.settings.message_len_max + limits::OUTPUT_SHARED_MAX < self.unread(client)
    }

    /// Bytes that the client has not taken, those in a tunnel and on a stream included.
    fn unread(&self, client: ConnId) -> usize {
        let Some(entry) = self.conns.get(client) else { return 0 };
        let near = match &entry.role {
            Role::Client(client) => client.near,
            Role::Channel(_) | Role::Server(_) | Role::Process(_) | Role::Link(_) => None,
        };
        entry.output.len() + self.branch_waiting(client) + near.map_or(0, |near| near.in_tunnel)
    }

    /// Bytes that the driver has not sent, over all connections. Asked for large answers only.
    pub(super) fn unread_total(&self) -> usize {
        let outputs = self.conns.values().map(|entry| entry.output.len()).sum::<usize>();
        outputs + self.links.values().map(|trunk| trunk.link.queued_len()).sum::<usize>()
    }

    /// The connections that bring events for a session and for nobody else.
    pub(super) fn feeds(&self, key: SessionKey) -> Vec<ConnId> {
        let Some(session) = self.sessions.get(key) else { return Vec::new() };
        let of_exchange = |key: &crate::ids::ExchangeId| {
            let exchange = self.exchanges.get(*key)?;
            match (exchange.via, exchange.reply) {
                (Via::Http(conn), Reply::Stream(_) | Reply::Channel(_) | Reply::Leg(..)) => {
                    Some(conn)
                }
                _ => None,
            }
        };
        let mut feeds: Vec<ConnId> = session.exchanges.iter().filter_map(of_exchange).collect();
        if let Link::Process(Some(id)) = session.link
            && self.processes.get(&id).is_some_and(|process| process.user == User::Session(key))
        {
            feeds.extend(self.process_conn(id));
        }
        if let Link::Union(union) = session.link
            && let Some(union) = self.unions.get(union)
        {
            let members = union.members.iter().filter_map(|member| member.session);
            feeds.extend(members.flat_map(|key| self.feeds(key)));
        }
        feeds
    }

    /// The client has read: what feeds it may go on.
    pub(super) fn release_producer(&mut self, client: ConnId, now: Instant) {
        if self.channel_mut(client).is_some() {
            for conn in self.channel_feeds(client) {
                self.resume(conn);
            }
            for key in self.channel_exchanges(client) {
                // Whoever was to answer could not get through to us.
                self.exchange_alive(key, now);
            }
            self.resume(client);
            return;
        }
        let busy = self.client_mut(client).map(|client| client.busy);
        match busy {
            Some(Busy::Exchange(key)) => {
                let via = |key| self.exchanges.get(key).map(|exchange| exchange.via);
                let via = match via(key) {
                    Some(Via::Leg(leg)) => via(leg),
                    other => other,
                };
                if let Some(Via::Http(conn)) = via {
                    self.resume(conn);
                }
            }
            Some(Busy::Stream(session, _)) => {
                for conn in self.feeds(session) {
                    self.resume(conn);
                }
                let exchanges = self.sessions.get(session).map(|it| it.exchanges.clone());
                for key in exchanges.unwrap_or_default() {
                    // One slow stream has kept the session's process from answering the others.
                    self.exchange_alive(key, now);
                }
            }
            Some(Busy::No | Busy::Tunnel(_)) | None => {}
        }
    }
}
