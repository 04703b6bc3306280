//! A server has lost a session that its client still has: the session is set up again, without
//! the client, if nothing is lost by that.

use std::time::Instant;

use crate::exchange::{Kind, Via};
use crate::ids::{ExchangeId, SessionKey};
use crate::refusal::Refusal;
use crate::session::{Link, Revival};
use crate::shard::Shard;

impl Shard {
    /// The HTTP server does not know the session of this exchange any more.
    pub(super) fn session_lost(&mut self, key: SessionKey, exchange: ExchangeId, now: Instant) {
        let retried = self.exchanges.get(exchange).is_none_or(|exchange| exchange.retried);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let is_lost = retried || session.is_irreplaceable || !session.is_open;
        let (initialize, server) = (session.initialize.clone(), session.server);
        let Link::Http { id, revival, .. } = &mut session.link else { return };
        if let Some(revival) = revival {
            revival.waiting.push(exchange);
            return;
        }
        *id = None;
        if is_lost {
            self.session_end(key, "lost by the server", now);
            return;
        }
        let messages = session.initialized.iter().cloned();
        let steps = messages.chain(session.setup.iter().map(|setup| setup.message.clone()));
        *revival = Some(Revival { waiting: vec![exchange], steps: steps.collect() });
        session.questions.clear();
        match self.begin_own(Kind::Handshake, (Some(key), server), initialize, now) {
            Some(handshake) => self.http_send(handshake, now),
            None => self.revive_failed(key, now),
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
        if let Some(message) = revival.steps.pop_front() {
            match self.begin_own(Kind::Setup, (Some(key), server), message, now) {
                Some(step) => self.http_send(step, now),
                None => self.revive_failed(key, now),
            }
            return;
        }
        let waiting = slot.take().map(|revival| revival.waiting).unwrap_or_default();
        self.counters.revived += 1;
        for key in waiting {
            let Some(exchange) = self.exchanges.get_mut(key) else { continue };
            exchange.retried = true;
            exchange.via = Via::Nothing;
            // Only a notice with an id is an answer: to a question of the session that was lost.
            if exchange.kind == Kind::Notice && !exchange.id.is_empty() {
                self.notice_taken(key, now);
            } else {
                self.http_send(key, now);
            }
        }
    }

    /// It could not be set up again: the client must begin anew.
    pub(super) fn revive_failed(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Link::Http { revival, .. } = &mut session.link else { return };
        let waiting = revival.take().map(|revival| revival.waiting).unwrap_or_default();
        for exchange in waiting {
            self.exchange_fail(exchange, Refusal::UnknownSession, now);
        }
        self.session_end(key, "lost by the server", now);
    }
}
