//! A server has lost a session that its client still has: the session is set up again, without
//! the client, if nothing is lost by that.

use std::time::Instant;

use wire::rpc;

use bytes::Bytes;

use crate::exchange::{Kind, Via};
use crate::ids::{ExchangeId, SessionKey};
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
        let sent = self.exchanges.get(exchange);
        let retried = sent.is_none_or(|exchange| exchange.retried);
        let used = sent.and_then(|exchange| exchange.server_session.clone());
        let Some(session) = self.sessions.get_mut(key) else { return };
        let is_lost = retried || session.is_irreplaceable || !session.is_open;
        let Link::Http { id, revival, resume, .. } = &mut session.link else { return };
        if let Some(revival) = revival {
            revival.waiting.push(exchange);
            return;
        }
        if !retried && used != *id {
            // While this was on its way, another exchange has had the session set up again.
            self.http_retry(exchange, now);
            return;
        }
        *id = None;
        *resume = None;
        if is_lost {
            self.session_end(key, "lost by the server", now);
            return;
        }
        session.questions.clear();
        let (place, exchanges) = (session.parent, session.exchanges.clone());
        if let Some(place) = place {
            self.questions_lost(place, now);
        }
        for stale in exchanges {
            let is_unsent = self.exchanges.get(stale).is_some_and(|e| e.via == Via::Nothing);
            if is_unsent && self.is_answer(stale) {
                self.notice_taken(stale, now);
            }
        }
        self.session_revive(key, (vec![exchange], None), now);
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
            self.session_moved(key, now);
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
        self.counters.revived += 1;
        for key in waiting {
            self.http_retry(key, now);
        }
    }

    /// Sends an exchange that the server has refused once more, to a session that it knows.
    fn http_retry(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.retried = true;
        exchange.via = Via::Nothing;
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
            (*endpoint, *id) = (Some(before), Some(id_before));
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
