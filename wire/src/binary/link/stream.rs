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

/// What a message counts for beside its bytes, where it waits: short ones take room as well.
pub(super) const MESSAGE_COST: usize = 256;

pub(super) struct Stream {
    /// What does not yet stand in the log, oldest first.
    pub(super) queue: VecDeque<Outgoing>,
    /// What the messages in the queue count for.
    pub(super) queued_len: usize,
    /// Where the stream stands in the link's turn.
    pub(super) place: Option<u64>,
    /// A message was refused because the queue was full.
    pub(super) wants_room: bool,
    /// We have closed it; CLOSE is in the queue.
    pub(super) is_closing: bool,
    /// Bytes of MESSAGE frames sent so far, and allowed so far.
    pub(super) spent: u64,
    limit: u64,
    /// The same of the peer.
    pub(super) got: u64,
    pub(super) granted: u64,
    /// What the messages count for that the user has and did not release.
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

impl Outgoing {
    /// What it counts for in the queue: the names and what is left of a message. One of the others
    /// is little, and there is one of a kind.
    fn cost(&self) -> usize {
        match self {
            Self::Open { .. } | Self::Close { .. } => 0,
            Self::Message { method, name, payload, at, .. } => {
                MESSAGE_COST + method.len() + name.len() + (payload.len() - at)
            }
        }
    }
}

/// The front of a message.
pub(super) struct Partial {
    pub(super) kind: MessageKind,
    pub(super) method: String,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// When it began, among those of the link.
    pub(super) age: u64,
    /// Whether a part has come since the last sweep.
    pub(super) has_grown: bool,
}

impl Partial {
    /// What it counts for.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len() + self.method.len() + self.name.len() + MESSAGE_COST
    }
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
            place: None,
            wants_room: false,
            is_closing: false,
            spent: 0,
            limit: theirs.into(),
            got: 0,
            granted: ours.into(),
            held: 0,
            partial: None,
        }
    }

    /// Queues what is to be sent.
    pub(super) fn push(&mut self, item: Outgoing) {
        self.queued_len += item.cost();
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
        self.queued_len -= self.queue.pop_front().map_or(0, |item| item.cost());
        step
    }

    /// Whether the user deals with what comes, and wants more of it.
    pub(super) const fn keeps_up(&self, window: u32) -> bool {
        self.held < window as usize && !self.is_closing
    }

    /// Takes note of a CREDIT; `true` when there is something to send.
    pub(super) fn raise_limit(&mut self, limit: u64) -> bool {
        self.limit = self.limit.max(limit);
        !self.queue.is_empty()
    }

    /// Whether the peer has used half of its window.
    pub(super) fn wants_credit(&self, window: u32) -> bool {
        self.granted - self.got <= u64::from(window / 2)
    }

    /// Bytes that may be sent.
    fn credit(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(self.spent)).unwrap_or(usize::MAX)
    }
}
