//! The bytes of one connection to whole HTTP answers.

use std::fmt;

use wire::Decoded;
use wire::http1::{self, Body, BodyDecoder, BodyError, HeadError, HeaderSlots};
use wire::sse::EventParser;

const LIMITS: http1::Limits = http1::Limits { head_len_max: 64 * 1024, target_len_max: 8 * 1024 };

/// The largest event that is read.
pub(crate) const EVENT_LEN_MAX: usize = 64 * 1024 * 1024;

/// One answer. The buffers are used again for the next.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Mcp-Session-Id`, or nothing.
    pub session: Vec<u8>,
    /// Whether the body is `text/event-stream`.
    pub is_stream: bool,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// Calls with each message: the body, or the data of each event that has some.
    pub fn each_message(&self, mut take: impl FnMut(&[u8])) {
        if !self.is_stream {
            if !self.body.is_empty() {
                take(&self.body);
            }
            return;
        }
        let mut parser = EventParser::new(EVENT_LEN_MAX);
        let mut input = &*self.body;
        while let Ok(Some(event)) = parser.next(&mut input) {
            if !event.data.is_empty() {
                take(event.data);
            }
        }
    }

    /// All messages.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        self.each_message(|message| messages.push(message.to_vec()));
        messages
    }

    /// The session as text.
    pub fn session_text(&self) -> Option<String> {
        let text = (!self.session.is_empty()).then(|| self.session.clone())?;
        String::from_utf8(text).ok()
    }

    /// Status and body, for a report.
    pub fn summary(&self) -> String {
        let body = self.body.get(..200).unwrap_or(&self.body);
        format!("HTTP {} {}", self.status, String::from_utf8_lossy(body))
    }
}

/// Why the bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The head.
    Head(HeadError),
    /// The framing of the body.
    Body(BodyError),
    /// The connection ended inside an answer.
    Cut,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => write!(f, "not an HTTP head: {error:?}"),
            Self::Body(error) => write!(f, "not an HTTP body: {error:?}"),
            Self::Cut => f.write_str("the connection ended inside an answer"),
        }
    }
}

impl std::error::Error for Broken {}

/// What has been received of the next answer.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The answer, whole when [`Self::feed`] has said so.
    pub answer: Answer,
    head: Vec<u8>,
    body: Option<BodyDecoder>,
}

impl Inbox {
    /// Takes bytes from the front of `input` until an answer is whole (true) or there are no more.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<bool, Broken> {
        while !input.is_empty() {
            if self.body.is_none() && !self.take_head(input)? {
                return Ok(false);
            }
            if self.take_body(input)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same, but returns when the head is whole; the body comes with later calls.
    pub(crate) fn feed_head(&mut self, input: &mut &[u8]) -> Result<bool, Broken> {
        if self.body.is_some() { Ok(true) } else { self.take_head(input) }
    }

    /// The connection has ended: true if that completes an answer.
    pub fn end(&mut self) -> Result<bool, Broken> {
        match self.body.take() {
            None if self.head.is_empty() => Ok(false),
            Some(body) if body.is_complete_at_close() => Ok(true),
            None | Some(_) => Err(Broken::Cut),
        }
    }

    fn take_head(&mut self, input: &mut &[u8]) -> Result<bool, Broken> {
        if self.head.is_empty() {
            let used = self.read_head(input)?;
            if let Some(used) = used {
                *input = input.get(used..).unwrap_or_default();
                return Ok(true);
            }
            self.head.extend_from_slice(input);
            *input = &[];
            return Ok(false);
        }
        // Rare: a head in pieces. The old bytes are known to be no whole head.
        let mut head = std::mem::take(&mut self.head);
        let old_len = head.len();
        head.extend_from_slice(input);
        if let Some(used) = self.read_head(&head)? {
            *input = input.get(used.saturating_sub(old_len)..).unwrap_or_default();
            return Ok(true);
        }
        self.head = head;
        *input = &[];
        Ok(false)
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        let slots = &mut HeaderSlots::new();
        let decoded = http1::response(bytes, slots, LIMITS, false).map_err(Broken::Head)?;
        let Decoded::Item { item, used } = decoded else { return Ok(None) };
        self.answer.status = item.status;
        self.answer.keep_alive = item.keep_alive;
        self.answer.session.clear();
        self.answer.body.clear();
        self.answer.session.extend_from_slice(item.headers.get("mcp-session-id").unwrap_or(b""));
        let kind = item.headers.get("content-type").unwrap_or(b"");
        self.answer.is_stream = kind.starts_with(b"text/event-stream");
        self.body = Some(BodyDecoder::new(item.body));
        Ok(Some(used))
    }

    /// True when the answer is whole. Informational answers are passed over.
    fn take_body(&mut self, input: &mut &[u8]) -> Result<bool, Broken> {
        let Some(body) = &mut self.body else { return Ok(false) };
        loop {
            let part = body.decode(input).map_err(Broken::Body)?;
            self.answer.body.extend_from_slice(part.data);
            *input = input.get(part.used..).unwrap_or_default();
            if part.done {
                self.body = None;
                return Ok(200 <= self.answer.status);
            }
            if input.is_empty() {
                return Ok(false);
            }
        }
    }

    /// What reads the body, once the head is whole. The inbox forgets this answer.
    pub(crate) fn take_body_decoder(&mut self) -> BodyDecoder {
        self.body.take().unwrap_or_else(|| BodyDecoder::new(Body::None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nmcp-session-id: s\r\n\r\n{}\
        HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
        b\r\ndata: {1}\n\n\r\n5\r\n:\n\n\n\n\r\n0\r\n\r\nHTTP/1.1 202 Accepted\r\n\
        content-length: 0\r\n\r\n";

    fn read(parts: &[&[u8]]) -> Vec<(u16, Vec<Vec<u8>>)> {
        let mut inbox = Inbox::default();
        let mut answers = Vec::new();
        for mut part in parts.iter().copied() {
            while !part.is_empty() {
                if inbox.feed(&mut part).unwrap() {
                    answers.push((inbox.answer.status, inbox.answer.messages()));
                }
            }
        }
        answers
    }

    #[test]
    fn answers_are_the_same_wherever_the_bytes_are_cut() {
        let whole = read(&[TWO]);
        let expected =
            vec![(200, vec![b"{}".to_vec()]), (200, vec![b"{1}".to_vec()]), (202, vec![])];
        assert_eq!(whole, expected);
        for cut in 0..TWO.len() {
            assert_eq!(read(&[&TWO[..cut], &TWO[cut..]]), expected, "cut at {cut}");
        }
    }
}
