//! What the log gets: one line per finished exchange, per closed connection, per event of a
//! process's life. Never a body, a header, a session id or a query.

use std::time::{Duration, Instant, SystemTime};

use wire::rpc::RpcError;

use crate::backend::stdio::Process;
use crate::exchange::{Exchange, Kind};
use crate::ids::{ConnId, Peer, ProcessId, UnionKey};
use crate::limits;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::shard::answer::Outcome;
use crate::shard::{Role, Shard};
use crate::telemetry::log::Line;
use crate::upstream::catalog::{EndpointId, ServerId};

impl Shard {
    /// Writes a line, unless there is no log or too much of it waits already.
    fn record(
        &mut self,
        event: &'static str,
        now: Instant,
        fill: impl for<'l> FnOnce(&Self, Line<'l>) -> Line<'l>,
    ) {
        let Some(format) = self.settings.log else { return };
        if limits::LOG_LEN_MAX < self.log.len() {
            self.counters.log_dropped += 1;
            return;
        }
        let mut log = std::mem::take(&mut self.log);
        let line = Line::new(&mut log, format, self.wall(now), event);
        let line = line.number("shard", u64::from(self.identity.id.0));
        fill(self, line).end();
        self.log = log;
    }

    pub(super) fn wall(&self, now: Instant) -> SystemTime {
        let (instant, wall) = self.settings.epoch;
        wall + now.saturating_duration_since(instant)
    }

    fn server_name(&self, server: ServerId) -> &str {
        self.settings.catalog.get(server).map_or("", |server| &server.name)
    }

    pub(super) fn report_exchange(&mut self, exchange: &Exchange, outcome: Outcome, now: Instant) {
        if matches!(exchange.kind, Kind::Delete | Kind::Setup | Kind::Learn | Kind::Line(_)) {
            return;
        }
        self.record("exchange", now, |shard, line| {
            let method = match exchange.kind {
                Kind::Listen | Kind::Open(_) => &b"(listen)"[..],
                Kind::Handshake => b"(initialize)",
                Kind::Probe => b"(probe)",
                _ => &*exchange.label.method,
            };
            let line = line.text("server", shard.server_name(exchange.server));
            let line = line.text("method", method);
            let line = match &exchange.label.name {
                Some(name) => line.text("name", name),
                None => line,
            };
            // Only where there are several.
            let line = match exchange.endpoint {
                Some(endpoint) => line.number("endpoint", u64::from(endpoint.0) + 1),
                None => line,
            };
            let line = match outcome {
                Outcome::Answered(status) => line
                    .text("outcome", if status < 400 { "ok" } else { "http_error" })
                    .number("status", u64::from(status)),
                Outcome::Error(code) => {
                    line.text("outcome", "error").text("code", code.to_string())
                }
                Outcome::Refused(refusal) => line.text("outcome", refusal.label()),
                Outcome::Cancelled => line.text("outcome", "cancelled"),
            };
            line.number("us", micros(now.saturating_duration_since(exchange.started)))
        });
    }

    pub(super) fn report_refusal(&mut self, conn: ConnId, refusal: Refusal, now: Instant) {
        let peer = self.client_mut(conn).map(|client| client.peer.address.to_string());
        self.record("refused", now, |_, line| {
            line.text("peer", peer.unwrap_or_default())
                .text("reason", refusal.label())
                .number("status", u64::from(refusal.status()))
        });
    }

    /// Somebody who may not come in.
    pub(super) fn report_stranger(&mut self, peer: Peer, now: Instant) {
        self.record("refused", now, |_, line| {
            line.text("peer", peer.address.to_string()).text("reason", "bad_user")
        });
    }

    pub(super) fn report_closed(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        // A stream is none.
        let entry = self.conns.get(conn).filter(|entry| entry.branch.is_none());
        let sent = entry.map_or(0, |entry| entry.sent);
        let (peer, requests, received, opened_at) = match entry.map(|entry| &entry.role) {
            Some(Role::Client(it)) if it.near.is_none() => {
                (it.peer, it.requests, it.received, it.opened_at)
            }
            Some(Role::Channel(it)) => (it.peer, it.messages, it.received, it.opened_at),
            Some(Role::Link(it)) => match it.peer {
                Some(peer) => (peer, it.messages, it.received, it.opened_at),
                None => return,
            },
            Some(Role::Client(_) | Role::Server(_) | Role::Process(_)) | None => return,
        };
        let open_for = now.saturating_duration_since(opened_at);
        self.record("closed", now, |_, line| {
            line.text("peer", peer.address.to_string())
                .text("reason", why)
                .number("requests", requests)
                .number("received", received)
                .number("sent", sent)
                .number("us", micros(open_for))
        });
    }

    pub(super) fn report_session(&mut self, session: &Session, why: &'static str, now: Instant) {
        let (server, revision) = (session.server, session.revision);
        self.record("session", now, |shard, line| {
            line.text("server", shard.server_name(server))
                .text("revision", revision.name())
                .text("ended", why)
        });
    }

    pub(super) fn report_process(&mut self, id: ProcessId, what: &str, now: Instant) {
        let server = self.processes.get(&id).map(|process| process.server);
        self.record("process", now, |shard, line| {
            line.text("server", server.map_or("", |server| shard.server_name(server)))
                .number("process", id.0)
                .text("what", what)
        });
    }

    /// Something about a member of a view.
    pub(super) fn report_member(
        &mut self,
        union: UnionKey,
        index: usize,
        what: &str,
        now: Instant,
    ) {
        let view = self.unions.get(union).and_then(|union| self.view(union.view));
        let name = view.and_then(|view| view.members.get(index)).map(|member| member.name.clone());
        self.record("member", now, |_, line| {
            line.text("server", name.unwrap_or_default()).text("what", what)
        });
    }

    /// Something has become of an endpoint, one of several.
    pub(super) fn report_endpoint(
        &mut self,
        (server, endpoint): (ServerId, EndpointId),
        what: &str,
        now: Instant,
    ) {
        self.record("endpoint", now, |shard, line| {
            let at = shard.endpoint(server, endpoint).map(|it| &*it.authority);
            line.text("server", shard.server_name(server))
                .number("endpoint", u64::from(endpoint.0) + 1)
                .text("at", at.unwrap_or_default())
                .text("what", what)
        });
    }

    /// A line of a process that is no message: its length and what is wrong with it.
    pub(super) fn report_line(
        &mut self,
        id: ProcessId,
        bytes: &[u8],
        error: &RpcError,
        now: Instant,
    ) {
        let process = self.processes.get(&id);
        let what = match process.is_none_or(Process::is_child) {
            true => "wrote a line that is not JSON-RPC to its standard output",
            false => "sent a message that is not JSON-RPC",
        };
        let server = process.map(|process| process.server);
        self.record("process", now, |shard, line| {
            line.text("server", server.map_or("", |server| shard.server_name(server)))
                .number("process", id.0)
                .text("what", what)
                .text("why", error.to_string())
                .number("len", bytes.len() as u64)
        });
    }

    pub(super) fn report_fault(&mut self, now: Instant) {
        self.record("fault", now, |_, line| {
            line.text("what", "a panic in the gateway; it cost one connection; please report it")
        });
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
