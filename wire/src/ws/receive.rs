//! Bytes of a connection, cut anywhere, to messages and control frames.
//!
//! Not a connection: answering a ping or a close, and counting them, is the caller's. A message
//! that lies in the input as one piece is unmasked in place and lent from there. Another is
//! gathered in a vector, which grows with what has come, never with what was announced, and is
//! given away with the message.
//!
//! Invariants:
//! - The items are the same wherever the input is cut.
//! - Between messages the receiver owns no memory but the context of an inflater, if it was agreed
//!   to keep one.

use super::close::{self, Close};
use super::deflate::Inflater;
use super::error::WsError;
use super::extension::DeflateParams;
use super::frame::{HEADER_LEN_MAX, Header, Opcode, Role, Rules};
use super::mask::mask;
use super::utf8::Utf8;
use crate::Decoded;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

/// How much a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a message, both as it is sent and inflated.
    pub message_len_max: usize,
    /// Frames in a message: the length does not bound the empty ones.
    pub frames_max: u32,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// Something that the peer sent. What it holds is lent from the input if it came in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'i> {
    /// A whole message, and valid UTF-8.
    Text(Cow<'i, [u8]>),
    /// A whole message.
    Binary(Cow<'i, [u8]>),
    /// The peer wants a pong with the same bytes, 125 at most.
    Ping(Cow<'i, [u8]>),
    /// The answer to a ping, or to nothing.
    Pong(Cow<'i, [u8]>),
    /// The peer will send nothing more, and wants a close frame if it has not had one.
    Close(Option<Close<'i>>),
}

/// The receiving half of one connection.
#[derive(Debug)]
pub struct Receiver {
    role: Role,
    limits: Limits,
    inflater: Option<Box<Inflater>>,
    /// The front of a header that the input has cut.
    head: [u8; HEADER_LEN_MAX],
    head_len: usize,
    /// The frame whose payload comes next.
    frame: Option<Frame>,
    /// The message that has begun and not ended.
    message: Option<Message>,
    /// The front of a control frame's payload that the input has cut.
    control: Vec<u8>,
    end: Option<End>,
}

/// Why there is nothing more to read.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Failed(WsError),
}

/// A frame of which the header has been read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    key: Option<[u8; 4]>,
    /// Bytes of the payload that have been read, modulo the length of a key.
    phase: usize,
    /// Bytes of the payload that have not been read.
    remaining: u64,
}

#[derive(Debug)]
struct Message {
    kind: MessageKind,
    is_compressed: bool,
    frames: u32,
    /// Bytes as sent, announced so far.
    wire_len: u64,
    utf8: Utf8,
    /// What was gathered, inflated.
    bytes: Vec<u8>,
}

impl Receiver {
    /// A receiver at the front of a stream, right behind the handshake and what it agreed on.
    pub fn new(role: Role, limits: Limits, deflate: Option<DeflateParams>) -> Self {
        Self {
            role,
            limits,
            inflater: deflate.map(|params| Box::new(Inflater::new(role, params))),
            head: [0; HEADER_LEN_MAX],
            head_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            end: None,
        }
    }

    /// Reads from the front of `input`, and leaves what it has not read. `None` means that all is
    /// read and nothing is complete. After an error, every call returns it again; after a close
    /// frame, what follows is thrown away (RFC 6455 §5.5.1).
    pub fn next<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Item<'i>>, WsError> {
        match self.end {
            Some(End::Failed(error)) => return Err(error),
            Some(End::Closed) => {
                *input = &mut [];
                return Ok(None);
            }
            None => {}
        }
        let found = self.advance(input);
        let end = match &found {
            Ok(Some(Item::Close(_))) => End::Closed,
            Err(error) => End::Failed(*error),
            Ok(_) => return found,
        };
        self.end = Some(end);
        self.inflater = None;
        self.message = None;
        self.control = Vec::new();
        found
    }

    /// Bytes of memory that it owns, about, so that the caller can bound the sum over connections.
    pub fn memory_len(&self) -> usize {
        let gathered = self.message.as_ref().map_or(0, |message| message.bytes.capacity());
        let context = self.inflater.as_ref().map_or(0, |inflater| inflater.memory_len());
        gathered + self.control.capacity() + context
    }

    /// Reads until an item is complete, or to the end of `input`.
    fn advance<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Item<'i>>, WsError> {
        loop {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.take_header(input)? {
                    Some(header) => self.begin(header)?,
                    None => return Ok(None),
                },
            };
            let is_cut = (input.len() as u64) < frame.remaining;
            let part = take_part(input, frame.remaining);
            if let Some(key) = frame.key {
                mask(part, key, frame.phase);
                frame.phase = (frame.phase + part.len()) % key.len();
            }
            frame.remaining -= part.len() as u64;
            self.frame = is_cut.then_some(frame);
            let item = if frame.opcode.is_control() {
                self.take_control(frame, part)?
            } else {
                self.take_data(frame, part)?
            };
            if item.is_some() || is_cut {
                return Ok(item);
            }
        }
    }

    /// Takes a header, if the input has all of it.
    fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, WsError> {
        let rules = Rules {
            role: self.role,
            can_be_compressed: self.inflater.is_some(),
            is_in_message: self.message.is_some(),
        };
        if self.head_len == 0
            && let Decoded::Item { item, used } = Header::decode(input, rules)?
        {
            take_part(input, used as u64);
            return Ok(Some(item));
        }
        while let Some(slot) = self.head.get_mut(self.head_len) {
            let [byte] = take_part(input, 1) else { return Ok(None) };
            *slot = *byte;
            self.head_len += 1;
            let head = self.head.get(..self.head_len).unwrap_or_default();
            if let Decoded::Item { item, .. } = Header::decode(head, rules)? {
                self.head_len = 0;
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Begins a frame, if there may be one of this length.
    fn begin(&mut self, header: Header) -> Result<Frame, WsError> {
        let Header { is_final, opcode, key, len, .. } = header;
        let kind = match opcode {
            Opcode::Text => Some(MessageKind::Text),
            Opcode::Binary => Some(MessageKind::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        };
        if let Some(kind) = kind {
            self.message = Some(Message {
                kind,
                is_compressed: header.is_compressed,
                frames: 0,
                wire_len: 0,
                utf8: Utf8::default(),
                bytes: Vec::new(),
            });
        }
        if let Some(message) = &mut self.message
            && !opcode.is_control()
        {
            message.frames += 1;
            message.wire_len = message.wire_len.saturating_add(len);
            if (self.limits.message_len_max as u64) < message.wire_len {
                return Err(WsError::MessageTooLong);
            }
            if self.limits.frames_max < message.frames {
                return Err(WsError::TooManyFrames);
            }
        }
        Ok(Frame { opcode, is_final, key, phase: 0, remaining: len })
    }

    /// Takes a piece of a control frame's payload.
    fn take_control<'i>(
        &mut self,
        frame: Frame,
        part: &'i mut [u8],
    ) -> Result<Option<Item<'i>>, WsError> {
        let payload = if frame.remaining == 0 && self.control.is_empty() {
            Cow::Borrowed(&*part)
        } else {
            self.control.extend_from_slice(part);
            if frame.remaining != 0 {
                return Ok(None);
            }
            Cow::Owned(mem::take(&mut self.control))
        };
        Ok(Some(match frame.opcode {
            Opcode::Ping => Item::Ping(payload),
            Opcode::Close => Item::Close(close::decode(payload)?),
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                Item::Pong(payload)
            }
        }))
    }

    /// Takes a piece of a message.
    fn take_data<'i>(
        &mut self,
        frame: Frame,
        part: &'i mut [u8],
    ) -> Result<Option<Item<'i>>, WsError> {
        let Some(message) = &mut self.message else { return Err(WsError::UnexpectedContinuation) };
        let is_end = frame.is_final && frame.remaining == 0;
        let len_max = self.limits.message_len_max;
        let part = match &mut self.inflater {
            Some(inflater) if message.is_compressed => {
                message.inflate(inflater, part, is_end, len_max)?;
                &[]
            }
            _ => &*part,
        };
        if message.kind == MessageKind::Text && !message.utf8.push(part) {
            return Err(WsError::TextNotUtf8);
        }
        let is_alone = message.bytes.is_empty() && !message.is_compressed;
        if !(is_end && is_alone) {
            let rest = frame.is_final.then_some(frame.remaining);
            append(&mut message.bytes, part, rest);
        }
        if !is_end {
            return Ok(None);
        }
        if !message.utf8.is_whole() {
            return Err(WsError::TextNotUtf8);
        }
        let gathered = mem::take(&mut message.bytes);
        let payload = if is_alone { Cow::Borrowed(part) } else { Cow::Owned(gathered) };
        let kind = message.kind;
        self.message = None;
        Ok(Some(match kind {
            MessageKind::Text => Item::Text(payload),
            MessageKind::Binary => Item::Binary(payload),
        }))
    }
}

impl Message {
    /// Takes a compressed piece.
    fn inflate(
        &mut self,
        inflater: &mut Inflater,
        part: &[u8],
        is_end: bool,
        len_max: usize,
    ) -> Result<(), WsError> {
        let len = self.bytes.len();
        let mut result = inflater.push(part, &mut self.bytes, len_max);
        if is_end && result.is_ok() {
            result = inflater.end(&mut self.bytes, len_max);
        }
        // First, so that the error is the same wherever the input is cut.
        let end = self.bytes.len().min(len_max);
        let inflated = self.bytes.get(len..end).unwrap_or_default();
        if self.kind == MessageKind::Text && !self.utf8.push(inflated) {
            return Err(WsError::TextNotUtf8);
        }
        result
    }
}

/// The front of the input, `len` bytes or all there is.
fn take_part<'i>(input: &mut &'i mut [u8], len: u64) -> &'i mut [u8] {
    let all = mem::take(input);
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(all.len());
    let (front, rest) = all.split_at_mut_checked(len).unwrap_or_default();
    *input = rest;
    front
}

/// Appends a piece of a message that has `rest` bytes behind it, if that is known. The vector at
/// most doubles, and does not grow beyond the message.
fn append(bytes: &mut Vec<u8>, part: &[u8], rest: Option<u64>) {
    if bytes.capacity() - bytes.len() < part.len() {
        let rest = rest.map_or(usize::MAX, |rest| usize::try_from(rest).unwrap_or(usize::MAX));
        let more = bytes.len().max(part.len()).min(part.len().saturating_add(rest));
        bytes.reserve_exact(more);
    }
    bytes.extend_from_slice(part);
}
