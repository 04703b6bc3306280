//! One stream of a link: what waits to be sent, what was received in part, and both credits.

use super::super::Reason;
use super::super::frame::names_len;
use super::super::frame::{Facts, Frame, HEADER_LEN, Message, MessageKind, Open, StreamId};
use super::log::Log;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// The smallest part of a message that is sent when credit is short. Below half the smallest
/// window together with the longest names, so that a receiver that keeps up never lets us wait.
const PART_LEN_MIN: usize = 1024;

/// What a queued message counts for beside its bytes.
const ENTRY_LEN: usize = 128;

pub(super) struct Stream {
    /// What does not yet stand in the log, oldest first.
    pub(super) queue: VecDeque<Outgoing>,
    /// Bytes in the queue.
    pub(super) queued_len: usize,
    /// Whether the stream stands in the link's turn.
    pub(super) in_turn: bool,
    /// A message was refused because the queue was full.
    pub(super) wants_room: bool,
    /// We have closed it; CLOSE is in the queue.
    pub(super) is_closing: bool,
    /// Bytes of MESSAGE frames sent so far, and allowed so far.
    spent: u64,
    limit: u64,
    /// The same of the peer.
    pub(super) got: u64,
    pub(super) granted: u64,
    /// Whether the peer is to be told of `granted`.
    pub(super) credit_due: bool,
    /// Bytes of messages that the user has and did not release.
    pub(super) held: usize,
    /// A message of which the end has not come.
    pub(super) partial: Option<Partial>,
}

/// Something that waits to be sent.
pub(super) enum Outgoing {
    Open { server: String, session: String, revision: String },
    Message { kind: MessageKind, method: String, name: String, payload: Vec<u8>, at: usize },
    Close { reason: Reason, text: String },
}

/// The front of a message.
pub(super) struct Partial {
    pub(super) kind: MessageKind,
    pub(super) method: String,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// What became of an attempt to send one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// One frame went to the log.
    Sent,
    /// CLOSE went to the log: the stream is over.
    Closed,
    /// There is nothing to send, or no credit for it.
    Idle,
    /// The log has no room.
    NoRoom,
}

impl Stream {
    /// A stream with the windows of the receiver and the sender.
    pub(super) fn new(ours: u32, theirs: u32) -> Self {
        Self {
            queue: VecDeque::new(),
            queued_len: 0,
            in_turn: false,
            wants_room: false,
            is_closing: false,
            spent: 0,
            limit: theirs.into(),
            got: 0,
            granted: ours.into(),
            credit_due: false,
            held: 0,
            partial: None,
        }
    }

    /// Queues what is to be sent.
    pub(super) fn push(&mut self, item: Outgoing) {
        if let Outgoing::Message { payload, .. } = &item {
            self.queued_len += payload.len() + ENTRY_LEN;
        }
        self.queue.push_back(item);
    }

    /// Puts a whole message straight into the log, if nothing speaks against it.
    pub(super) fn send_at_once(
        &mut self,
        id: StreamId,
        message: Message<'_>,
        room: usize,
        log: &mut Log,
    ) -> bool {
        let names = message.facts.map_or(0, |it| names_len(&[it.method, it.name]));
        let len = HEADER_LEN + names + message.payload.len();
        if !self.queue.is_empty() || self.credit() < len || room < len {
            return false;
        }
        log.push(|out, sequence| Frame::Message { stream: id, sequence, message }.encode(out));
        self.spent += len as u64;
        true
    }

    /// Tries to put the next frame into the log, which has `room` bytes left.
    pub(super) fn step(
        &mut self,
        id: StreamId,
        room: usize,
        part_len_max: usize,
        log: &mut Log,
    ) -> Step {
        let credit = self.credit();
        let step = match self.queue.front_mut() {
            None => return Step::Idle,
            Some(Outgoing::Open { server, session, revision }) => {
                let open = Open { server, session, revision };
                if room < HEADER_LEN + names_len(&[server, session, revision]) {
                    return Step::NoRoom;
                }
                log.push(|out, sequence| Frame::Open { stream: id, sequence, open }.encode(out));
                Step::Sent
            }
            Some(Outgoing::Message { kind, method, name, payload, at }) => {
                let facts = (*at == 0).then_some(Facts { method, name });
                let extra = HEADER_LEN + facts.map_or(0, |it| names_len(&[it.method, it.name]));
                let rest = payload.get(*at..).unwrap_or_default();
                let wanted = rest.len().min(part_len_max);
                if credit < extra + wanted.min(PART_LEN_MIN) {
                    return Step::Idle;
                }
                let len = wanted.min(credit - extra);
                if room < extra + len {
                    return Step::NoRoom;
                }
                let (part, has_more) = (rest.get(..len).unwrap_or_default(), len < rest.len());
                let message = Message { kind: *kind, facts, has_more, payload: part };
                log.push(|out, sequence| {
                    Frame::Message { stream: id, sequence, message }.encode(out);
                });
                *at += len;
                self.spent += (extra + len) as u64;
                self.queued_len -= len;
                if has_more {
                    return Step::Sent;
                }
                self.queued_len -= ENTRY_LEN;
                Step::Sent
            }
            Some(Outgoing::Close { reason, text }) => {
                if room < HEADER_LEN + names_len(&[text]) + 2 {
                    return Step::NoRoom;
                }
                let reason = reason.0;
                log.push(|out, sequence| {
                    Frame::Close { stream: id, sequence, reason, text }.encode(out);
                });
                Step::Closed
            }
        };
        self.queue.pop_front();
        step
    }

    /// Takes note of a CREDIT; `true` when there is something to send.
    pub(super) fn raise_limit(&mut self, limit: u64) -> bool {
        self.limit = self.limit.max(limit);
        !self.queue.is_empty()
    }

    /// Allows the peer `window` bytes from here on if it has used half of that; `true` when it is
    /// to be told.
    pub(super) fn grant(&mut self, window: u32) -> bool {
        let window = u64::from(window);
        if window / 2 < self.granted - self.got {
            return false;
        }
        self.granted = self.got + window;
        !core::mem::replace(&mut self.credit_due, true)
    }

    /// Bytes that may be sent.
    fn credit(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(self.spent)).unwrap_or(usize::MAX)
    }
}
