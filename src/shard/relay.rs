//! Responses of HTTP servers that are passed on as they are: the bytes are the client's, and the
//! gateway reads along only to know whether the answer was among them.

use std::time::Instant;

use bytes::Bytes;
use wire::http1;
use wire::rpc;
use wire::sse::EventParser;

use crate::backend::http::Sink;
use crate::exchange::{Kind, Reply};
use crate::frontend::answer::Body;
use crate::ids::{ConnId, ExchangeId};
use crate::refusal::Refusal;
use crate::shard::Shard;
use crate::shard::answer::{Outcome, event_text};

/// Ends a line and an event that were cut off, the latter as one of a type that nobody knows. Where
/// nothing was cut off it is a comment, and a type without data, which is none.
const CUT_OFF: &[u8] = b":\nevent: cut-off\n\n";

impl Shard {
    /// Begins to pass a response on.
    pub(super) fn relay(
        &mut self,
        key: ExchangeId,
        (status, content_type): (u16, Option<&[u8]>),
        body: http1::Body,
    ) -> Sink {
        let event_len_max = self.settings.message_len_max;
        let Some(exchange) = self.exchanges.get_mut(key) else { return Sink::Discard };
        let Reply::Pending(client) = exchange.reply else { return Sink::Discard };
        let body = match body {
            http1::Body::None => Body::Length(0),
            http1::Body::Length(len) => Body::Length(len),
            http1::Body::Chunked | http1::Body::UntilClose => Body::Chunked,
        };
        let has_events = status == 200 && Self::is_event_stream(content_type);
        let awaits = has_events && body == Body::Chunked && exchange.kind == Kind::Request;
        exchange.reply = Reply::Relaying(client);
        exchange.relayed = Some(status);
        exchange.relay_awaits = awaits;
        self.response_head(client, (status, content_type), body, None);
        Sink::Relay(awaits.then(|| Box::new(EventParser::new(event_len_max))))
    }

    /// A piece of it.
    pub(super) fn relay_part(
        &mut self,
        (conn, key): (ConnId, ExchangeId),
        (events, data): (&mut Option<Box<EventParser>>, &[u8]),
        now: Instant,
    ) {
        if data.is_empty() {
            return;
        }
        self.exchange_alive(key, now);
        if events.as_mut().is_some_and(|events| self.is_last_part(events, data)) {
            *events = None;
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.relay_awaits = false;
            }
        }
        if let Some(Reply::Relaying(client)) = self.exchanges.get(key).map(|it| it.reply) {
            self.body_bytes(client, data);
            self.stall_relay(client, conn, now);
        }
    }

    /// Whether the answer is in these bytes, or that cannot be told any more.
    fn is_last_part(&self, events: &mut EventParser, mut data: &[u8]) -> bool {
        loop {
            match events.next(&mut data) {
                Ok(Some(event)) => {
                    let kind = rpc::scan(event.data, self.rpc_limits()).map(|it| it.kind);
                    if matches!(kind, Ok(rpc::Kind::Response | rpc::Kind::ErrorResponse)) {
                        return true;
                    }
                }
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// It is complete.
    pub(super) fn relay_ends(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        if exchange.relay_awaits {
            return self.exchange_fail(key, Refusal::Died, now);
        }
        let status = exchange.relayed.unwrap_or(200);
        if let Reply::Relaying(client) = exchange.reply {
            self.body_end(client, now);
        }
        self.exchange_end(key, Outcome::Answered(status), now);
    }

    /// It will not be completed: the client gets this error as the last event of its stream. What
    /// is no such stream is cut off, so that nobody takes it for complete.
    pub(super) fn relay_fails(
        &mut self,
        (conn, key): (ConnId, ExchangeId),
        error: &[u8],
        now: Instant,
    ) {
        if !self.exchanges.get(key).is_some_and(|exchange| exchange.relay_awaits) {
            return self.client_lost_silently(conn, now);
        }
        self.body_chunk(conn, &Bytes::from_static(CUT_OFF));
        self.body_chunk(conn, &event_text(&[error]));
        self.body_end(conn, now);
    }
}
