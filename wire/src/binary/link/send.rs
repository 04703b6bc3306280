//! The sending half: messages to frames, frames to the log, and what is written next.
//!
//! Bytes leave in batches: first the frames without a number that are due, then what the log has.
//! A batch ends with a frame, so the next one may begin with anything.

use super::stream::{Outgoing, Step};
use super::{Event, Link, State};
use crate::binary::frame::{self, Facts, Frame, Message, MessageKind, StreamId};
use crate::binary::{Refused, SendError};
use alloc::borrow::Cow;
use alloc::vec::Vec;

/// Bytes in the log that are not yet written at which nothing more is put there: what waits in
/// the streams' queues can still be overtaken.
const AHEAD_LEN_MAX: usize = 64 * 1024;

impl Link {
    /// Sends a message on a stream, or gives it back. Facts that are too long are left out.
    pub fn send<'m>(
        &mut self,
        id: StreamId,
        kind: MessageKind,
        facts: Facts<'_>,
        payload: Cow<'m, [u8]>,
    ) -> Result<(), Refused<'m>> {
        if let Err(why) = self.may_send(id, payload.len()) {
            return Err(Refused { why, payload });
        }
        let is_long = frame::NAMES_LEN_MAX < frame::names_len(&[facts.method, facts.name]);
        let facts = if is_long { Facts { method: "", name: "" } } else { facts };
        // Nobody overtakes those that wait.
        let room = if self.turn.is_empty() { self.room() } else { 0 };
        let part_len_max = self.part_len_max();
        let has_room = self.queued_len < self.ours.queues_len_max;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(Refused { why: SendError::NotOpen, payload });
        };
        let message = Message { kind, facts: Some(facts), has_more: false, payload: &payload };
        if payload.len() <= part_len_max && stream.send_at_once(id, message, room, &mut self.log) {
            return Ok(());
        }
        if !has_room {
            return Err(Refused { why: SendError::Overloaded, payload });
        }
        let before = stream.queued_len;
        stream.push(Outgoing::Message {
            kind,
            method: facts.method.into(),
            name: facts.name.into(),
            payload: payload.into_owned(),
            at: 0,
        });
        self.queued_len += stream.queued_len - before;
        self.take_turn(id);
        Ok(())
    }

    fn may_send(&mut self, id: StreamId, len: usize) -> Result<(), SendError> {
        if self.state == State::Ended {
            return Err(SendError::Ended);
        }
        let queue_len_max = self.ours.queue_len_max;
        let stream = self.streams.get_mut(&id).filter(|stream| !stream.is_closing);
        let stream = stream.ok_or(SendError::NotOpen)?;
        if len == 0 {
            return Err(SendError::Empty);
        }
        if (self.theirs.message_len_max as usize) < len {
            return Err(SendError::TooLong);
        }
        if queue_len_max <= stream.queued_len {
            stream.wants_room = true;
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// What is to be written now, in this order; both empty when there is nothing. Streams are
    /// asked for more only when all of it was written.
    pub fn output(&mut self) -> [&[u8]; 2] {
        if self.state == State::Detached {
            return [&[], &[]];
        }
        if self.control.len() == self.control_sent && self.log.rest().is_empty() {
            self.control.clear();
            self.control_sent = 0;
            self.begin_batch();
        }
        [self.control.get(self.control_sent..).unwrap_or_default(), self.log.rest()]
    }

    /// Takes note that the first `len` bytes of [`Link::output`] were written, or moved to where
    /// they will be. Before anything else is received: it could be their acknowledgement.
    pub fn wrote(&mut self, len: usize) {
        let control = len.min(self.control.len() - self.control_sent);
        self.control_sent += control;
        self.log.wrote(len - control);
    }

    fn begin_batch(&mut self) {
        match self.state {
            State::Detached | State::Greeting => {}
            State::Ended => {
                if let Some((code, text)) = self.notices.error.take() {
                    Frame::Error { code, text: &text }.encode(&mut self.control);
                }
            }
            State::Attached => {
                self.fill();
                self.log.begin_batch();
                self.write_notices();
            }
        }
    }

    /// Moves frames from the queues to the log, one of each stream in turn.
    fn fill(&mut self) {
        let part_len_max = self.part_len_max();
        while let Some((_, id)) = self.turn.first_key_value() {
            let (id, room) = (*id, self.room());
            let Some(stream) = self.streams.get_mut(&id) else {
                self.turn.pop_first();
                continue;
            };
            let before = stream.queued_len;
            let step = stream.step(id, room, part_len_max, &mut self.log);
            self.queued_len -= before - stream.queued_len;
            match step {
                Step::NoRoom => return,
                Step::Idle => {
                    stream.place = None;
                    self.turn.pop_first();
                }
                Step::Sent => {
                    let has_room = stream.queued_len <= self.ours.queue_len_max / 2;
                    if has_room && core::mem::take(&mut stream.wants_room) {
                        self.events.push_back(Event::Writable { stream: id });
                    }
                    stream.place = None;
                    self.turn.pop_first();
                    self.take_turn(id);
                }
                Step::Closed => {
                    self.forget(id);
                }
            }
        }
    }

    /// Writes the frames without a number that are due.
    fn write_notices(&mut self) {
        let out = &mut self.control;
        let notices = &mut self.notices;
        if core::mem::take(&mut notices.is_draining)
            && let Some((last_stream, deadline_ms)) = self.draining
        {
            Frame::GoAway { last_stream, deadline_ms }.encode(out);
        }
        for id in core::mem::take(&mut notices.credit) {
            let Some(stream) = self.streams.get(&id) else { continue };
            Frame::Credit { stream: id, limit: stream.granted }.encode(out);
        }
        let is_late = self.theirs.replay_len_max as usize / 4 <= self.unacknowledged;
        let is_writing = !out.is_empty() || notices.ping.is_some() || notices.pong.is_some();
        let is_writing = is_writing || !self.log.rest().is_empty();
        if is_late || is_writing && 0 < self.unacknowledged {
            self.unacknowledged = 0;
            Frame::Ack { received: self.received }.encode(out);
        }
        if let Some(token) = notices.ping.take() {
            Frame::Ping { token }.encode(out);
        }
        if let Some(token) = notices.pong.take() {
            Frame::Pong { token }.encode(out);
        }
    }

    /// Lets a stream send when its turn comes.
    pub(super) fn take_turn(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.place.is_none() {
            stream.place = Some(self.next_place);
            self.turn.insert(self.next_place, id);
            self.next_place += 1;
        }
    }

    /// Bytes that may be put into the log now. This is where a peer that does not acknowledge,
    /// or does not read, stops us.
    fn room(&self) -> usize {
        if AHEAD_LEN_MAX <= self.log.unsent_len() {
            return 0;
        }
        (self.ours.limits.replay_len_max as usize).saturating_sub(self.log.len())
    }

    /// Bytes of payload in the frames that we send. A quarter of the log at most, so that it is
    /// never too full for a frame while the peer has no reason to acknowledge.
    fn part_len_max(&self) -> usize {
        let ours = &self.ours.limits;
        let max = self.theirs.frame_len_max.min(ours.frame_len_max).min(ours.replay_len_max / 4);
        max as usize
    }

    /// Appends all that is to be written now to `out`; for callers that keep their own output.
    pub fn write_to(&mut self, out: &mut Vec<u8>) {
        let [control, log] = self.output();
        let len = control.len() + log.len();
        out.extend_from_slice(control);
        out.extend_from_slice(log);
        self.wrote(len);
    }
}
