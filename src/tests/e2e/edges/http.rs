//! HTTP/1.1 by hand, both ends: what is sent is sent as it is, and what comes back is held to
//! RFC 9112 byte by byte. Neither end repairs anything.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer takes longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buf: Vec<u8>,
    is_chunked: bool,
    events: Vec<u8>,
}

/// The head of a message and, once read, its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) start: String,
    /// Names as they were sent, and values.
    pub(crate) fields: Vec<(String, String)>,
    /// The content.
    pub(crate) body: Vec<u8>,
}

/// How content is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Wire {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::new(TcpStream::connect(addr).unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buf: Vec::new(), is_chunked: false, events: Vec::new() }
    }

    /// Sends; the peer may have had enough already.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        drop(self.stream.write_all(bytes.as_ref()));
        self
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Message {
        self.send(request.bytes());
        self.answer()
    }

    /// Reads a whole answer.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Message {
        self.try_answer().unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; an error says what is wrong with it.
    pub(crate) fn try_answer(&mut self) -> Result<Message, String> {
        let mut message = self.try_head()?;
        message.body = self.body(&message)?;
        Ok(message)
    }

    /// Reads the head of an answer whose body is an event stream.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Message {
        self.try_head().unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_head(&mut self) -> Result<Message, String> {
        loop {
            let message = self.message(true)?.ok_or("closed without an answer")?;
            if message.status() != 100 {
                self.is_chunked = message.framing(true)? == Framing::Chunked;
                return Ok(message);
            }
        }
    }

    /// Reads a whole request; none: the peer closed instead of sending one.
    pub(crate) fn request(&mut self) -> Result<Option<Message>, String> {
        let Some(mut message) = self.message(false)? else { return Ok(None) };
        message.body = self.body_of(message.framing(false)?)?;
        Ok(Some(message))
    }

    fn message(&mut self, is_answer: bool) -> Result<Option<Message>, String> {
        let end = loop {
            if let Some(at) = find(&self.buf, b"\r\n\r\n") {
                break at;
            }
            if self.fill()? == 0 {
                return if self.buf.is_empty() { Ok(None) } else { Err("cut head".to_owned()) };
            }
        };
        let head: Vec<u8> = self.buf.drain(..end + 4).collect();
        Message::parse(&head[..end], is_answer).map(Some)
    }

    fn body(&mut self, message: &Message) -> Result<Vec<u8>, String> {
        self.body_of(message.framing(true)?)
    }

    fn body_of(&mut self, framing: Framing) -> Result<Vec<u8>, String> {
        match framing {
            Framing::Length(len) => self.take(len),
            Framing::UntilClose => {
                while self.fill()? != 0 {}
                Ok(std::mem::take(&mut self.buf))
            }
            Framing::Chunked => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk()? {
                    body.extend(chunk);
                }
                Ok(body)
            }
        }
    }

    /// A chunk; none: the last one, without trailers.
    fn chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        let line = self.line()?;
        let digits = |line: &str| line.bytes().all(|byte| byte.is_ascii_hexdigit());
        if line.is_empty() || !digits(&line) {
            return Err(format!("chunk size {line:?}"));
        }
        let len = usize::from_str_radix(&line, 16).map_err(|err| err.to_string())?;
        let data = self.take(len)?;
        if self.take(2)? != b"\r\n" {
            return Err("no CR LF behind a chunk".to_owned());
        }
        Ok((len != 0).then_some(data))
    }

    fn line(&mut self) -> Result<String, String> {
        let end = loop {
            if let Some(at) = find(&self.buf, b"\r\n") {
                break at;
            }
            if self.fill()? == 0 {
                return Err("cut line".to_owned());
            }
        };
        let line: Vec<u8> = self.buf.drain(..end + 2).take(end).collect();
        String::from_utf8(line).map_err(|err| err.to_string())
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, String> {
        while self.buf.len() < len {
            if self.fill()? == 0 {
                return Err(format!("cut body: {} of {len} bytes", self.buf.len()));
            }
        }
        Ok(self.buf.drain(..len).collect())
    }

    fn fill(&mut self) -> Result<usize, String> {
        let mut part = vec![0; 64 * 1024];
        let len = self.stream.read(&mut part).map_err(|err| err.to_string())?;
        self.buf.extend_from_slice(&part[..len]);
        Ok(len)
    }

    /// Reads so many bytes, whatever they are.
    pub(crate) fn read_exact(&mut self, to: &mut [u8]) {
        let bytes = self.take(to.len()).unwrap_or_else(|why| panic!("{why}"));
        to.copy_from_slice(&bytes);
    }

    /// Whether the peer closes now, without another byte. A reset is a close as well.
    pub(crate) fn is_closed(&mut self) -> bool {
        if !self.buf.is_empty() {
            return false;
        }
        match self.fill() {
            Ok(len) => len == 0,
            Err(why) => why.contains("reset"),
        }
    }

    /// The next event of a stream: its lines. None: the stream is complete.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Option<Event> {
        self.try_event().unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; an error says what is wrong with it.
    pub(crate) fn try_event(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(at) = find(&self.events, b"\n\n") {
                let text: Vec<u8> = self.events.drain(..at + 2).collect();
                match Event::parse(&text) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            if !self.is_chunked {
                return Err("not a stream".to_owned());
            }
            let Some(chunk) = self.chunk()? else { return Ok(None) };
            self.events.extend(chunk);
        }
    }

    /// Reads an answer; if it is a stream, gives every event in it away as it comes.
    pub(crate) fn events(&mut self, mut give: impl FnMut(Event)) -> Result<Message, String> {
        let mut answer = self.try_head()?;
        if answer.get("content-type").starts_with("text/event-stream") {
            while let Some(event) = self.try_event()? {
                give(event);
            }
        } else {
            answer.body = self.body(&answer)?;
        }
        Ok(answer)
    }

    /// The data of the next event that has some.
    #[track_caller]
    pub(crate) fn data(&mut self) -> Option<String> {
        loop {
            let event = self.event()?;
            if !event.data.is_empty() {
                return Some(event.data);
            }
        }
    }
}

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<String>,
    pub(crate) data: String,
}

impl Event {
    /// None: a comment.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut event = Self::default();
        let mut is_comment = true;
        for line in String::from_utf8(text.to_vec()).unwrap().lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            is_comment &= name.is_empty();
            match name {
                "event" => event.name = value,
                "id" => event.id = Some(value),
                "retry" => event.retry = Some(value),
                "data" => event.data.push_str(&value),
                _ => {}
            }
        }
        (!is_comment).then_some(event)
    }
}

impl Message {
    fn parse(head: &[u8], is_answer: bool) -> Result<Self, String> {
        let text = String::from_utf8(head.to_vec()).map_err(|err| err.to_string())?;
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let words: Vec<&str> = start.splitn(3, ' ').collect();
        let is_fine = match (is_answer, &words[..]) {
            (true, ["HTTP/1.1", status, _]) => status.len() == 3,
            (false, [method, target, "HTTP/1.1"]) => is_token(method) && target.starts_with('/'),
            _ => false,
        };
        if !is_fine {
            return Err(format!("start line {start:?}"));
        }
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(format!("field {line:?}"))?;
            let value = value.trim_matches([' ', '\t']);
            if !is_token(name) || value.chars().any(|char| char.is_control() && char != '\t') {
                return Err(format!("field {line:?}"));
            }
            fields.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self { start, fields, body: Vec::new() })
    }

    fn framing(&self, is_answer: bool) -> Result<Framing, String> {
        let lengths = self.all("content-length");
        let codings = self.all("transfer-encoding");
        match (&lengths[..], &codings[..]) {
            ([], []) if !is_answer || matches!(self.status(), 204 | 304) => Ok(Framing::Length(0)),
            ([], []) if self.all("connection") == ["close"] => Ok(Framing::UntilClose),
            ([len], []) if len.bytes().all(|byte| byte.is_ascii_digit()) => {
                len.parse().map(Framing::Length).map_err(|err| format!("length {err}"))
            }
            ([], ["chunked"]) => Ok(Framing::Chunked),
            _ => Err(format!("framing {lengths:?} {codings:?}")),
        }
    }

    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let is_it = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(is_it).map(|field| field.1.as_str()).collect()
    }

    /// The only value of a field, or nothing.
    pub(crate) fn get(&self, name: &str) -> &str {
        match &self.all(name)[..] {
            [] => "",
            [value] => value,
            many => panic!("{name} stands there {} times", many.len()),
        }
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Whether the body is a message by itself.
    pub(crate) fn is_json(&self) -> bool {
        self.get("content-type").starts_with("application/json")
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The JSON in the body, whether it is plain or the last event of a stream.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let text = self.payload();
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err}: {text:?}"))
    }

    /// The text of the message in the body.
    pub(crate) fn payload(&self) -> String {
        if !self.get("content-type").starts_with("text/event-stream") {
            return self.text().to_owned();
        }
        let events = self.text().split("\n\n").filter_map(|text| Event::parse(text.as_bytes()));
        events.map(|event| event.data).filter(|data| !data.is_empty()).last().unwrap_or_default()
    }
}

/// What headers of 2026-07-28 repeat.
#[derive(serde::Deserialize)]
struct Repeated {
    method: Option<String>,
    params: Option<Names>,
}

#[derive(serde::Deserialize)]
struct Names {
    name: Option<String>,
    uri: Option<String>,
}

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A POST as a client of 2025-11-25 sends it, without a session.
    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let request = Self::new("POST", target).with("Content-Type", "application/json");
        let request = request.with("Accept", "application/json, text/event-stream");
        Self { body: body.into(), ..request }
    }

    /// A GET that listens.
    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target).with("Accept", "text/event-stream")
    }

    pub(crate) fn new(method: &'static str, target: &str) -> Self {
        let host = ("Host".to_owned(), "127.0.0.1".to_owned());
        Self { method, target: target.to_owned(), fields: vec![host], body: Vec::new() }
    }

    /// A POST of 2026-07-28: the headers that repeat the body are made from it.
    pub(crate) fn modern(target: &str, body: &str) -> Self {
        let repeated: Repeated = serde_json::from_str(body).unwrap();
        let request = Self::post(target, body).with("MCP-Protocol-Version", "2026-07-28");
        let request = request.with("Mcp-Method", &repeated.method.unwrap_or_default());
        match repeated.params.and_then(|params| params.name.or(params.uri)) {
            Some(name) => request.with("Mcp-Name", &name),
            None => request,
        }
    }

    pub(crate) fn session(self, id: &str) -> Self {
        self.with("Mcp-Session-Id", id)
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a field.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|field| !field.0.eq_ignore_ascii_case(name));
        self
    }

    /// Replaces a field.
    pub(crate) fn set(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        let has = |name| self.fields.iter().any(|field| field.0.eq_ignore_ascii_case(name));
        let is_framed = has("content-length") || has("transfer-encoding");
        if (self.method == "POST" || !self.body.is_empty()) && !is_framed {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

fn is_token(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_fine)
}
