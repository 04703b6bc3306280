//! The receiving half: bytes to frames, frames to events.
//!
//! A frame that came at once is read where it is; one that was cut is gathered first, and takes no
//! more room than has come. A message in one frame is lent to the caller; one in several is put
//! together and given away.

use super::stream::{MESSAGE_COST, Outgoing, Partial, Stream};
use super::{Link, Role, State};
use crate::Decoded;
use crate::binary::frame::{self, Frame, HEADER_LEN, Hello, LinkId, Message, MessageKind, Open};
use crate::binary::frame::{StreamId, Welcome};
use crate::binary::{FrameError, LinkError, Reason};
use alloc::borrow::Cow;
use alloc::vec::Vec;

/// An empty input buffer with more room than this gives it back.
const ROOM_KEPT: usize = 16 * 1024;

/// What happened on a link. It lives until the link is used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The link is set up: a client may open streams.
    Welcomed,
    /// The link goes on where it was.
    Resumed,
    /// The link was lost and is new. All streams are closed, with [`Reason::LINK_LOST`].
    NotResumed,
    /// The client has opened a stream.
    Opened {
        /// Its number.
        stream: StreamId,
        /// What for.
        open: Open<'a>,
    },
    /// A message has come. The caller gives its length back with [`Link::release`].
    Message {
        /// Where.
        stream: StreamId,
        /// What it is.
        kind: MessageKind,
        /// The sender's word for its method; empty when not told.
        method: &'a str,
        /// The sender's word for what it is about; empty when not told.
        name: &'a str,
        /// Its bytes.
        payload: Cow<'a, [u8]>,
    },
    /// A stream is closed: by the peer, or because too much of it has come that is not complete.
    Closed {
        /// Which.
        stream: StreamId,
        /// Why.
        reason: Reason,
        /// Why, in words.
        text: &'a str,
    },
    /// The stream has refused a message, and now has room for another.
    Writable {
        /// Which.
        stream: StreamId,
    },
    /// The server is about to stop, and opens no streams above the last.
    Draining {
        /// The last stream that it has accepted.
        last_stream: u32,
        /// How long it will go on.
        deadline_ms: u32,
    },
    /// The answer to a PING.
    Pong {
        /// What the PING had.
        token: [u8; 8],
    },
    /// The peer has ended the link.
    Ended {
        /// Why.
        code: u16,
        /// Why, in words.
        text: &'a str,
    },
    /// The peer has broken the rules. There is one last output.
    Failed {
        /// Which.
        error: LinkError,
    },
}

/// Where the bytes of a frame are.
enum Place<'a> {
    /// In what the caller has just passed.
    Passed(&'a [u8]),
    /// In the link's own buffer.
    Gathered,
}

/// What became of a frame.
enum Outcome {
    /// Nothing to tell.
    Silent,
    /// An event that needs nothing from the frame.
    Event(Event<'static>),
    /// An event that is all in the frame.
    Told,
    /// A message whose last part it was.
    Whole(StreamId, Partial),
}

/// Reads the HELLO at the front of a connection, on which version 2 was negotiated. The caller
/// then proves who it is, and makes a link ([`Link::accept`]) or gives the connection to one
/// ([`Link::resume`]).
pub fn hello(input: &[u8]) -> Result<Decoded<Hello<'_>>, LinkError> {
    // Only MESSAGE has a length that this bounds, and nobody says MESSAGE first.
    match Frame::decode(input, 1)? {
        Decoded::Incomplete => Ok(Decoded::Incomplete),
        Decoded::Item { item: Frame::Hello(item), used } if item.limits.are_valid() => {
            Ok(Decoded::Item { item, used })
        }
        Decoded::Item { item: Frame::Hello(_), .. } => Err(LinkError::BadLimits),
        Decoded::Item { .. } => Err(LinkError::Unexpected),
    }
}

impl Link {
    /// Reads from the front of `bytes` to the next event. `None` means that all is read and there
    /// is nothing to tell. Without bytes it tells what else there is: [`Event::Writable`].
    pub fn receive<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8]) -> Option<Event<'a>> {
        if core::mem::take(&mut self.is_lent) {
            self.clear_input();
        }
        let (place, outcome) = loop {
            if let Some(event) = self.events.pop_front() {
                // A stream that is being closed has nothing more to tell.
                let is_over = |it: &StreamId| self.streams.get(it).is_none_or(|it| it.is_closing);
                if matches!(&event, Event::Writable { stream } if is_over(stream)) {
                    continue;
                }
                return Some(event);
            }
            if matches!(self.state, State::Detached | State::Ended) {
                *bytes = &[];
                return None;
            }
            let place = match self.next_frame(bytes) {
                Ok(Some(place)) => place,
                Ok(None) => return None,
                Err(error) => {
                    self.fail(error.into());
                    continue;
                }
            };
            let outcome = match place {
                Place::Passed(frame) => self.handle_bytes(frame),
                Place::Gathered => {
                    let gathered = core::mem::take(&mut self.input);
                    let outcome = self.handle_bytes(&gathered);
                    self.input = gathered;
                    outcome
                }
            };
            match outcome {
                Err(error) => self.fail(error),
                Ok(Outcome::Silent) => {}
                Ok(told) => break (place, told),
            }
            if matches!(place, Place::Gathered) {
                self.clear_input();
            }
        };
        self.is_lent = matches!(place, Place::Gathered);
        match outcome {
            Outcome::Silent => None,
            Outcome::Event(event) => Some(event),
            Outcome::Whole(stream, Partial { kind, method, name, bytes, .. }) => {
                self.facts = (method, name);
                let (method, name) = (self.facts.0.as_str(), self.facts.1.as_str());
                Some(Event::Message { stream, kind, method, name, payload: Cow::Owned(bytes) })
            }
            Outcome::Told => match place {
                Place::Passed(frame) => told(frame),
                Place::Gathered => told(&self.input),
            },
        }
    }

    fn clear_input(&mut self) {
        self.input.clear();
        if ROOM_KEPT < self.input.capacity() {
            self.input = Vec::new();
        }
    }

    /// Takes one frame from the front of `bytes`, and of what came before; `None` when it is not
    /// whole and all of `bytes` was kept.
    fn next_frame<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Place<'a>>, FrameError> {
        let len_max = self.ours.limits.frame_len_max;
        if self.input.is_empty()
            && let Some(len) = frame::len(bytes, len_max)?
            && let Some((frame, rest)) = bytes.split_at_checked(len)
        {
            *bytes = rest;
            return Ok(Some(Place::Passed(frame)));
        }
        loop {
            let known_len = frame::len(&self.input, len_max)?;
            let wanted = known_len.unwrap_or(HEADER_LEN) - self.input.len();
            if known_len.is_some() && wanted == 0 {
                return Ok(Some(Place::Gathered));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            let (front, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            self.input.extend_from_slice(front);
            *bytes = rest;
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Outcome, LinkError> {
        match Frame::decode(bytes, self.ours.limits.frame_len_max)? {
            Decoded::Item { item, used } => self.handle(item, used),
            Decoded::Incomplete => Ok(Outcome::Silent),
        }
    }

    fn handle(&mut self, frame: Frame<'_>, len: usize) -> Result<Outcome, LinkError> {
        if self.state == State::Greeting {
            return match frame {
                Frame::Welcome(welcome) => self.welcomed(welcome).map(Outcome::Event),
                Frame::Error { .. } => Ok(self.ended()),
                _ => Err(LinkError::Unexpected),
            };
        }
        if let Some(sequence) = frame.sequence()
            && !self.count(sequence, len)?
        {
            return Ok(Outcome::Silent);
        }
        match (frame, self.role) {
            (Frame::Open { stream, .. }, Role::Server) => self.opened(stream),
            (Frame::Message { stream, message, .. }, _) => self.message(stream, message, len),
            (Frame::Close { stream, .. }, _) => self.closed(stream),
            (Frame::Credit { stream, limit }, _) => {
                self.raise_limit(stream, limit).map(|()| Outcome::Silent)
            }
            (Frame::Ack { received }, _) => {
                let is_sent = self.log.acknowledge(received);
                is_sent.then_some(Outcome::Silent).ok_or(LinkError::BadAck(received))
            }
            (Frame::Ping { token }, _) => {
                self.notices.pong = Some(token);
                Ok(Outcome::Silent)
            }
            (Frame::Pong { token }, _) => Ok(Outcome::Event(Event::Pong { token })),
            (Frame::GoAway { last_stream, deadline_ms }, Role::Client) => {
                self.draining = Some((last_stream, deadline_ms));
                Ok(Outcome::Event(Event::Draining { last_stream, deadline_ms }))
            }
            (Frame::Error { .. }, _) => Ok(self.ended()),
            (Frame::Hello(_) | Frame::Welcome(_), _)
            | (Frame::Open { .. }, Role::Client)
            | (Frame::GoAway { .. }, Role::Server) => Err(LinkError::Unexpected),
        }
    }

    /// Whether a numbered frame is new; it counts as received from here on.
    fn count(&mut self, sequence: u64, len: usize) -> Result<bool, LinkError> {
        if sequence <= self.received {
            return Ok(false);
        }
        if sequence != self.received + 1 {
            return Err(LinkError::BadSequence(sequence));
        }
        self.received = sequence;
        self.unacknowledged += len;
        Ok(true)
    }

    fn raise_limit(&mut self, id: StreamId, limit: u64) -> Result<(), LinkError> {
        let Some(stream) = self.streams.get_mut(&id) else { return self.check_was_opened(id) };
        if stream.raise_limit(limit) {
            self.take_turn(id);
        }
        Ok(())
    }

    fn welcomed(&mut self, welcome: Welcome) -> Result<Event<'static>, LinkError> {
        if welcome.resumed {
            if welcome.link != self.id || self.id == LinkId::NONE {
                return Err(LinkError::Unexpected);
            }
            if !self.log.resume(welcome.received) {
                return Err(LinkError::BadAck(welcome.received));
            }
            self.attach();
            return Ok(Event::Resumed);
        }
        if !welcome.limits.are_valid() || welcome.link == LinkId::NONE {
            return Err(LinkError::BadLimits);
        }
        let is_first = self.id == LinkId::NONE;
        self.clear();
        self.log = super::Log::new();
        (self.received, self.highest, self.draining) = (0, 0, None);
        (self.id, self.theirs) = (welcome.link, welcome.limits);
        self.ours.keep_ms = welcome.keep_ms;
        self.attach();
        Ok(if is_first { Event::Welcomed } else { Event::NotResumed })
    }

    fn ended(&mut self) -> Outcome {
        self.clear();
        self.lost();
        self.state = State::Ended;
        Outcome::Told
    }

    fn opened(&mut self, id: StreamId) -> Result<Outcome, LinkError> {
        if id.get() <= self.highest {
            return Err(LinkError::BadStream(id));
        }
        if self.ours.limits.streams_max as usize <= self.streams.len() {
            return Err(LinkError::TooManyStreams);
        }
        self.highest = id.get();
        let mut stream = Stream::new(self.ours.limits.window, self.theirs.window);
        if self.draining.is_none() {
            self.streams.insert(id, stream);
            return Ok(Outcome::Told);
        }
        stream.is_closing = true;
        stream.push(Outgoing::Close { reason: Reason::DRAINING, text: "".into() });
        self.streams.insert(id, stream);
        self.take_turn(id);
        Ok(Outcome::Silent)
    }

    fn closed(&mut self, id: StreamId) -> Result<Outcome, LinkError> {
        match self.forget(id) {
            Some(stream) if stream.is_closing => Ok(Outcome::Silent),
            Some(_) => Ok(Outcome::Told),
            None => self.check_was_opened(id).map(|()| Outcome::Silent),
        }
    }

    fn check_was_opened(&self, id: StreamId) -> Result<(), LinkError> {
        if id.get() <= self.highest { Ok(()) } else { Err(LinkError::BadStream(id)) }
    }

    fn message(
        &mut self,
        id: StreamId,
        message: Message<'_>,
        len: usize,
    ) -> Result<Outcome, LinkError> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.check_was_opened(id).map(|()| Outcome::Silent);
        };
        stream.got += len as u64;
        if stream.granted < stream.got {
            return Err(LinkError::WindowExceeded(id));
        }
        if stream.is_closing {
            return Ok(Outcome::Silent);
        }
        let before = stream.partial.as_ref().map_or(0, |partial| partial.bytes.len());
        if (self.ours.limits.message_len_max as usize) < before + message.payload.len() {
            return Err(LinkError::MessageTooLong(id));
        }
        let outcome = match (stream.partial.take(), message.facts) {
            (None, Some(_)) if !message.has_more => {
                stream.held += message.payload.len() + MESSAGE_COST;
                Outcome::Told
            }
            (None, Some(facts)) => {
                let partial = Partial {
                    kind: message.kind,
                    method: facts.method.into(),
                    name: facts.name.into(),
                    bytes: message.payload.to_vec(),
                    age: self.next_age,
                    has_grown: true,
                };
                self.next_age += 1;
                self.partials_len += partial.len();
                if stream.keeps_up(self.ours.limits.window) {
                    self.partials.insert(partial.age, id);
                }
                stream.partial = Some(partial);
                self.partial_grown(id)
            }
            (Some(mut partial), None) if partial.kind == message.kind => {
                partial.bytes.extend_from_slice(message.payload);
                self.partials_len += message.payload.len();
                if message.has_more {
                    partial.has_grown = true;
                    stream.partial = Some(partial);
                    self.partial_grown(id)
                } else {
                    stream.held += partial.bytes.len() + MESSAGE_COST;
                    self.partial_gone(id, &partial);
                    Outcome::Whole(id, partial)
                }
            }
            _ => return Err(LinkError::Unexpected),
        };
        self.grant(id);
        Ok(outcome)
    }

    /// A part has come, not the last: its stream is closed if all of them are too much, unless it
    /// is the one that goes on in any case.
    fn partial_grown(&mut self, id: StreamId) -> Outcome {
        let is_oldest = self.partials.first_key_value().is_some_and(|(_, oldest)| *oldest == id);
        if self.partials_len <= self.ours.partials_len_max || is_oldest {
            return Outcome::Silent;
        }
        Outcome::Event(self.partial_refused(id, "too much has come of messages without their ends"))
    }

    fn partial_refused(&mut self, stream: StreamId, text: &'static str) -> Event<'static> {
        let reason = Reason::OVERLOADED;
        self.close(stream, reason, text);
        Event::Closed { stream, reason, text }
    }

    /// Closes the streams whose incomplete messages have not grown since the last call although
    /// they may, which [`Self::receive`] tells. Walks the streams.
    pub fn sweep(&mut self) {
        let mut stuck = Vec::new();
        for id in self.partials.values().filter(|id| !self.starved.contains(*id)) {
            let partial = self.streams.get_mut(id).and_then(|stream| stream.partial.as_mut());
            if partial.is_some_and(|it| !core::mem::take(&mut it.has_grown)) {
                stuck.push(*id);
            }
        }
        for id in stuck {
            let event = self.partial_refused(id, "a message did not come to its end in time");
            self.events.push_back(event);
        }
    }

    /// Drops the incomplete message of a stream.
    pub(super) fn drop_partial(&mut self, id: StreamId) {
        let partial = self.streams.get_mut(&id).and_then(|stream| stream.partial.take());
        if let Some(partial) = partial {
            self.partial_gone(id, &partial);
        }
    }

    /// An incomplete message is no more: others may get credit.
    fn partial_gone(&mut self, id: StreamId, partial: &Partial) {
        self.partials_len -= partial.len();
        self.partials.remove(&partial.age);
        self.starved.remove(&id);
        if self.partials_len <= self.ours.partial_len_max {
            for id in core::mem::take(&mut self.starved) {
                self.grant(id);
            }
        } else if let Some((_, oldest)) = self.partials.first_key_value() {
            self.grant(*oldest);
        }
    }

    /// Raises what the peer may send on a stream, if it keeps up and there is room.
    pub(super) fn grant(&mut self, id: StreamId) {
        let window = self.ours.limits.window;
        let may_grow = |it: &&mut Stream| it.keeps_up(window) && it.wants_credit(window);
        let Some(stream) = self.streams.get_mut(&id).filter(may_grow) else { return };
        // One whose user does not keep up would keep the others waiting: it is not among them.
        let has_room = self.partials_len <= self.ours.partial_len_max
            || self.partials.first_key_value().is_some_and(|(_, oldest)| *oldest == id);
        if stream.partial.is_some() && !has_room {
            self.starved.insert(id);
            return;
        }
        self.starved.remove(&id);
        stream.granted = stream.got + u64::from(window);
        self.notices.credit.insert(id);
    }
}

/// The event that a frame is.
fn told(bytes: &[u8]) -> Option<Event<'_>> {
    let Ok(Decoded::Item { item, .. }) = Frame::decode(bytes, u32::MAX) else { return None };
    Some(match item {
        Frame::Open { stream, open, .. } => Event::Opened { stream, open },
        Frame::Message { stream, message, .. } => {
            let facts = message.facts?;
            let payload = Cow::Borrowed(message.payload);
            let (kind, method, name) = (message.kind, facts.method, facts.name);
            Event::Message { stream, kind, method, name, payload }
        }
        Frame::Close { stream, reason, text, .. } => {
            Event::Closed { stream, reason: Reason(reason), text }
        }
        Frame::Error { code, text } => Event::Ended { code, text },
        _ => return None,
    })
}
