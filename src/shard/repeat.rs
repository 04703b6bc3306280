//! A server is lost before it has answered: what changes nothing is sent once more, everything
//! else is answered with an error at once. A tool that may have run is never called again.

use std::time::Instant;

use wire::rpc;

use crate::exchange::{Exchange, Kind, Reply, Via};
use crate::ids::ExchangeId;
use crate::message::Payload;
use crate::shard::Shard;
use crate::shard::post::Incoming;

impl Shard {
    /// Sends a request to an HTTP server once more, if that is safe. Returns whether it is.
    pub(super) fn http_repeats(&mut self, key: ExchangeId, now: Instant) -> bool {
        let is_draining = self.draining.is_some();
        let is_wanted = self.exchanges.get(key).is_some_and(is_wanted);
        is_wanted && !is_draining && self.http_repeats_any(key, now)
    }

    /// The same for whatever else is sent to such servers.
    pub(super) fn http_repeats_any(&mut self, key: ExchangeId, now: Instant) -> bool {
        let Some(exchange) = self.exchanges.get_mut(key).filter(|it| may_repeat(it)) else {
            return false;
        };
        exchange.repeated = true;
        exchange.via = Via::Nothing;
        exchange.last_event_id = None;
        exchange.resumed = 0;
        self.counters.repeated += 1;
        self.http_send(key, now);
        true
    }

    /// The same for a request to a process that died. Its session is set up again at the next one.
    pub(super) fn process_repeats(&mut self, key: ExchangeId, now: Instant) -> bool {
        let is_draining = self.draining.is_some();
        let Some(exchange) = self.exchanges.get_mut(key) else { return false };
        let may_repeat = is_wanted(exchange) && may_repeat(exchange);
        if is_draining || !may_repeat || exchange.message.is_empty() {
            return false;
        }
        let (message, headers) = (exchange.message.clone(), exchange.headers.clone());
        let (era, server, session) = (exchange.era, exchange.server, exchange.session);
        let can_be_set_up = session.is_none_or(|key| {
            let session = self.sessions.get(key);
            session.is_some_and(|session| session.is_open && !session.is_irreplaceable)
        });
        let Ok(envelope) = rpc::scan(&message, self.rpc_limits()) else { return false };
        let Some(exchange) = self.exchanges.get_mut(key).filter(|_| can_be_set_up) else {
            return false;
        };
        exchange.repeated = true;
        exchange.via = Via::Nothing;
        self.counters.repeated += 1;
        let (payload, envelope) = (&Payload::Whole(message), &envelope);
        let incoming = Incoming { server, session, era, payload, envelope, headers: &headers };
        self.stdio_send(key, &incoming, now);
        true
    }
}

/// Whether a client waits for the answer.
fn is_wanted(exchange: &Exchange) -> bool {
    exchange.kind == Kind::Request && exchange.reply != Reply::Nobody
}

/// Whether it changes nothing, was neither repeated before nor cancelled, and nothing of an answer
/// has reached the client that could not be followed by another.
fn may_repeat(exchange: &Exchange) -> bool {
    let is_begun = matches!(exchange.reply, Reply::Relaying(_) | Reply::Events(_));
    exchange.is_repeatable && !exchange.repeated && !exchange.is_cancelled && !is_begun
}
