//! A server has lost a session that its client still has: the session is set up again, without
//! the client, if nothing is lost by that.

use std::time::Instant;

use wire::rpc;

use bytes::Bytes;

use crate::exchange::{Kind, Via};
use crate::ids::{ConnId, ExchangeId, SessionKey};
use crate::limits;
use crate::refusal::Refusal;
use crate::session::{Link, Revival};
use crate::shard::Shard;
use crate::upstream::catalog::EndpointId;

/// How servers that answer 400 instead of 404 say that they do not know a session.
const LOST_SESSION: [&str; 4] =
    ["no valid session", "session not found", "missing session id", "unknown session"];

impl Shard {
    /// The HTTP server does not know the session of this exchange any more.
    pub(super) fn session_lost(&mut self, key: SessionKey, exchange: ExchangeId, now: Instant) {
        if self.is_answer(exchange) {
            // The question went with the session that was lost.
            self.notice_taken(exchange, now);
            return;
        }
        let Some(sent) = self.exchanges.get_mut(exchange) else { return };
        let was_refused = std::mem::replace(&mut sent.retried, true);
        let used = sent.server_session.clone();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let is_lost = was_refused || session.is_irreplaceable || !session.is_open;
        if self.revival_takes(exchange, Some(key)) {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Link::Http { id, .. } = &mut session.link else { return };
        if used != *id {
            // While this was on its way, another exchange has had the session set up again.
            self.http_retry(exchange, now);
            return;
        }
        *id = None;
        if is_lost {
            self.session_end(key, "lost by the server", now);
            return;
        }
        if let Some((listen, conn)) = self.session_forgotten(key, now)
            && self.exchanges.get(listen).is_some_and(|it| it.reply.client().is_none())
        {
            self.listen_ends(listen, conn, now);
        }
        self.session_revive(key, (vec![exchange], None), now);
    }

    /// The server's half of a session is gone: what the server has asked there and what it was to
    /// go on with does not count any more. Returns the GET stream that it may still have.
    pub(super) fn session_forgotten(
        &mut self,
        key: SessionKey,
        now: Instant,
    ) -> Option<(ExchangeId, ConnId)> {
        let session = self.sessions.get_mut(key)?;
        session.questions.clear();
        let (exchanges, place) = (session.exchanges.clone(), session.parent);
        let Link::Http { listen, resume, .. } = &mut session.link else { return None };
        *resume = None;
        let listen = *listen;
        if let Some(place) = place {
            self.questions_lost(place, now);
        }
        for stale in exchanges {
            let Some(exchange) = self.exchanges.get_mut(stale) else { continue };
            exchange.last_event_id = None;
            let (is_unsent, is_resumed) = (exchange.via == Via::Nothing, exchange.is_resumed());
            if is_unsent && is_resumed {
                self.exchange_fail(stale, Refusal::Died, now);
            } else if is_unsent && self.is_answer(stale) {
                self.notice_taken(stale, now);
            }
        }
        let listen = listen?;
        match self.exchanges.get(listen)?.via {
            Via::Http(conn) => Some((listen, conn)),
            Via::Nothing | Via::Process(..) | Via::Leg(_) | Via::Union(_) => None,
        }
    }

    /// Whether the session of an exchange is still the one that it was sent in.
    pub(super) fn is_where_it_was(&self, key: ExchangeId) -> bool {
        let Some(exchange) = self.exchanges.get(key) else { return false };
        let session = exchange.session.and_then(|key| self.sessions.get(key));
        match session.map(|session| &session.link) {
            Some(Link::Http { endpoint, id, .. }) => {
                (*endpoint, id) == (exchange.endpoint, &exchange.server_session)
            }
            Some(Link::Process(_) | Link::Union(_)) | None => true,
        }
    }

    /// Sets a session up at an HTTP server that does not know it; these exchanges wait for it.
    /// `from`: the endpoint that it leaves because that cannot be connected.
    pub(super) fn session_revive(
        &mut self,
        key: SessionKey,
        (waiting, from): (Vec<ExchangeId>, Option<(EndpointId, Bytes)>),
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (initialize, server) = (session.initialize.clone(), session.server);
        let messages = session.initialized.iter().cloned();
        let steps = messages.chain(session.setup.iter().map(|setup| setup.message.clone()));
        let steps = steps.collect();
        let Link::Http { revival, .. } = &mut session.link else { return };
        *revival = Some(Revival { waiting, steps, from });
        match self.begin_own(Kind::Handshake, (Some(key), server), initialize, now) {
            Some(handshake) => self.http_send(handshake, now),
            None => self.revive_failed(key, Refusal::Full, now),
        }
    }

    /// While a session is being set up again, its exchanges wait.
    pub(super) fn revival_takes(&mut self, key: ExchangeId, session: Option<SessionKey>) -> bool {
        let Some(session) = session.and_then(|key| self.sessions.get_mut(key)) else {
            return false;
        };
        let Link::Http { revival: Some(revival), .. } = &mut session.link else { return false };
        if limits::SESSION_EXCHANGES_MAX <= revival.waiting.len() {
            // Those that have ended do not wait any more.
            revival.waiting.retain(|key| self.exchanges.get(*key).is_some());
        }
        revival.waiting.push(key);
        true
    }

    /// One step of the revival is done: the next, or everything that waited.
    pub(super) fn revive_next(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let server = session.server;
        let Link::Http { revival: slot, .. } = &mut session.link else { return };
        let Some(revival) = slot else { return };
        if revival.from.take().is_some() {
            let listen = self.session_moved(key, now);
            self.listen_follows(listen, now);
            return self.revive_next(key, now);
        }
        if let Some(message) = revival.steps.pop_front() {
            match self.begin_own(Kind::Setup, (Some(key), server), message, now) {
                Some(step) => self.http_send(step, now),
                None => self.revive_failed(key, Refusal::Full, now),
            }
            return;
        }
        let waiting = slot.take().map(|revival| revival.waiting).unwrap_or_default();
        let place = session.parent;
        self.counters.revived += 1;
        for key in waiting {
            self.http_retry(key, now);
        }
        if let Some(place) = place {
            self.member_restarted(place, now);
        }
    }

    /// Sends an exchange that the server has refused, or that has waited, to a session that the
    /// server knows.
    fn http_retry(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Nothing;
        exchange.last_event_id = None;
        if exchange.is_cancelled || exchange.is_resumed() {
            // The session that was to bring the rest of the answer is gone.
            return self.exchange_fail(key, Refusal::Died, now);
        }
        self.http_send(key, now);
    }

    /// Whether this is a client's answer to a question of the server: a notice with an id.
    pub(super) fn is_answer(&self, key: ExchangeId) -> bool {
        let exchange = self.exchanges.get(key);
        exchange.is_some_and(|it| it.kind == Kind::Notice && !it.id.is_empty())
    }

    /// It could not be set up again: the client must begin anew, unless the session may still be
    /// where it was before, and there again later. One that does not know that it has a session is
    /// told what went wrong.
    pub(super) fn revive_failed(&mut self, key: SessionKey, why: Refusal, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let refusal = if session.is_mute { why } else { Refusal::UnknownSession };
        let Link::Http { endpoint, id, revival, .. } = &mut session.link else { return };
        let (waiting, from) =
            revival.take().map(|revival| (revival.waiting, revival.from)).unwrap_or_default();
        if let Some((before, id_before)) = from {
            let there = endpoint.replace(before).zip(id.replace(id_before.clone()));
            let place = (session.server, session.revision);
            if let Some((there, id)) = there.filter(|(_, id)| *id != id_before) {
                // It was begun there.
                self.http_delete((place.0, there, place.1), id, now);
            }
            for exchange in waiting {
                self.exchange_fail(exchange, Refusal::Unreachable, now);
            }
            return;
        }
        for exchange in waiting {
            self.exchange_fail(exchange, refusal, now);
        }
        self.session_end(key, "lost by the server", now);
    }

    /// Whether the server has forgotten the session. 404 says so; some servers say 400 and a
    /// sentence about the session instead.
    pub(super) fn is_session_lost(&self, key: ExchangeId, (status, body): (u16, &[u8])) -> bool {
        let Some(exchange) = self.exchanges.get(key) else { return false };
        let has_id = exchange.server_session.is_some();
        let is_in_session = matches!(exchange.kind, Kind::Request | Kind::Notice | Kind::Listen);
        let says_so = || {
            let lower = body.to_ascii_lowercase();
            let has = |phrase: &&str| memchr::memmem::find(&lower, phrase.as_bytes()).is_some();
            // An error with the id of the request is about the request.
            let envelope = rpc::scan(body, self.rpc_limits()).ok();
            let id = envelope.and_then(|envelope| envelope.id).map(|id| id.get(body));
            id != Some(&exchange.id) && LOST_SESSION.iter().any(has)
        };
        has_id && is_in_session && (status == 404 || status == 400 && says_so())
    }
}
