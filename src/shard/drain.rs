//! The end: nothing new comes in, what is in flight may finish, everything is stopped.

use std::time::Instant;

use crate::exchange::Reply;
use crate::frontend::http::Busy;
use crate::ids::{ConnId, ExchangeId, ProcessId, SessionKey, UnionKey};
use crate::limits;
use crate::refusal::Refusal;
use crate::session::replay::GET_STREAM;
use crate::shard::event::Action;
use crate::shard::{Shard, Timer, is_client};
use crate::timers::Wish;

/// How far a shard is with its drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rest {
    /// It has work.
    #[default]
    Working,
    /// It has none, and says so.
    Resting,
    /// It has told its thread to end.
    Gone,
}

impl Shard {
    /// Begins the drain, or brings its end forward.
    pub(super) fn drain(&mut self, deadline: Instant, now: Instant) {
        self.draining = Some(deadline);
        let mut wish = Wish::default();
        self.timers.wish(Timer::Drain, &mut wish, deadline);
        self.links_drain(now);
        for conn in self.client_conns() {
            self.channel_rests(conn, now);
            let Some(client) = self.client_mut(conn) else { continue };
            client.framing.keep_alive = false;
            match client.busy {
                // Its next request may be on its way: closing now would reset that.
                Busy::No => self.wish_conn(conn, now + limits::DRAIN_IDLE_TIME),
                // A GET stream has no end of its own: its client is told to connect again.
                Busy::Stream(session, GET_STREAM) => self.stream_reconnects(session, conn, now),
                Busy::Exchange(key) => self.listen_reconnects(key, conn, now),
                _ => {}
            }
        }
    }

    fn stream_reconnects(&mut self, key: SessionKey, conn: ConnId, now: Instant) {
        let stream = self.sessions.get_mut(key).and_then(|s| s.replay.get(GET_STREAM));
        if let Some(stream) = stream {
            stream.client = None;
        }
        self.body_bytes(conn, b"retry: 1000\n\n");
        self.body_end(conn, now);
    }

    /// Nor has `subscriptions/listen` (2026-07-28): its stream ends, and the client asks again.
    fn listen_reconnects(&mut self, key: ExchangeId, conn: ConnId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let is_begun = matches!(exchange.reply, Reply::Relaying(_) | Reply::Events(_));
        if exchange.is_subscription && is_begun {
            self.exchange_cancel(key, now);
            self.body_end(conn, now);
        }
    }

    /// After each event of a drain: is there still something to wait for?
    pub(super) fn drain_step(&mut self, now: Instant) {
        let Some(deadline) = self.draining else { return };
        if self.rest == Rest::Gone {
            return;
        }
        if deadline <= now {
            self.drain_hard(now);
        }
        if (self.counters.clients != 0 || !self.tunnels.is_empty()) && now < deadline {
            self.rests(false);
            return;
        }
        let unions: Vec<UnionKey> = self.callers.values().copied().collect();
        for union in unions {
            self.union_end(union, now);
        }
        let sessions = self.sessions.keys();
        for session in sessions {
            self.session_end(session, "draining", now);
        }
        let mut processes: Vec<ProcessId> = self.processes.keys().copied().collect();
        processes.sort_by_key(|id| id.0);
        for process in processes {
            let state = self.processes.get(&process).map(|process| process.state);
            if state != Some(crate::backend::stdio::State::Stopping) {
                self.process_stop(process, now);
            }
        }
        if deadline + limits::STOP_GRACE * 3 <= now {
            self.rest = Rest::Gone;
            self.actions.push_back(Action::Quit);
            return;
        }
        self.rests(self.processes.is_empty() && self.exchanges.is_empty());
    }

    /// Says whether there is nothing left to do, if that has changed. Until all shards have
    /// drained, one of them may still send a connection to where its session is.
    fn rests(&mut self, is_over: bool) {
        let rest = if is_over { Rest::Resting } else { Rest::Working };
        if self.rest != rest {
            self.rest = rest;
            self.actions.push_back(if is_over { Action::Rest } else { Action::Rouse });
        }
    }

    /// The deadline has passed: what is still open is cut off.
    fn drain_hard(&mut self, now: Instant) {
        for key in self.exchanges.keys() {
            self.exchange_fail(key, Refusal::Draining, now);
        }
        for conn in self.client_conns() {
            self.client_lost(conn, "draining", now);
            self.channel_lost(conn, "draining", now);
            self.link_conn_lost(conn, "draining", now);
        }
        let mut wish = Wish::default();
        self.timers.wish(Timer::Drain, &mut wish, now + limits::STOP_GRACE);
    }

    fn client_conns(&self) -> Vec<ConnId> {
        let is_client = |conn: &ConnId| self.conns.get(*conn).is_some_and(is_client);
        self.conns.keys().into_iter().filter(is_client).collect()
    }
}
