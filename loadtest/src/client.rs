//! A scripted MCP client: blocking, one connection, says exactly what it is told to.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use wire::http1::BodyDecoder;
use wire::sse::EventParser;

use crate::inbox::{Answer, EVENT_LEN_MAX, Inbox};
use crate::request;
use crate::target::Target;

/// How long an answer may take before a call fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection to an MCP endpoint.
#[derive(Debug)]
pub struct Client {
    target: Target,
    stream: TcpStream,
    inbox: Inbox,
    /// Received and not yet read.
    pending: Vec<u8>,
    session: Option<String>,
    version: String,
}

impl Client {
    /// Connects to the endpoint `/mcp` at an address.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        Self::open(Target::at(addr))
    }

    /// Connects to an endpoint.
    pub fn open(target: Target) -> io::Result<Self> {
        let stream = TcpStream::connect(target.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let version = request::LEGACY.to_owned();
        let inbox = Inbox::default();
        Ok(Self { target, stream, inbox, pending: Vec::new(), session: None, version })
    }

    /// Another connection in the same session.
    pub fn another(&self) -> io::Result<Self> {
        let mut client = Self::open(self.target.clone())?;
        client.session.clone_from(&self.session);
        client.version.clone_from(&self.version);
        Ok(client)
    }

    /// Opens a session: `initialize` and the notification behind it. The answer is to the first.
    pub fn initialize(&mut self, version: &str) -> io::Result<Answer> {
        version.clone_into(&mut self.version);
        self.session = None;
        let answer = self.post_with(&[], request::initialize(version).as_bytes())?;
        if answer.status != 200 {
            return Err(io::Error::other(format!("initialize: {}", answer.summary())));
        }
        self.session = answer.session_text();
        let noted = self.post(request::INITIALIZED.as_bytes())?;
        if noted.status != 202 {
            return Err(io::Error::other(format!("initialized: {}", noted.summary())));
        }
        Ok(answer)
    }

    /// Calls a tool; arguments and id are JSON.
    pub fn call(&mut self, tool: &str, arguments: &str, id: &str) -> io::Result<Answer> {
        self.post(request::call(tool, arguments, id).as_bytes())
    }

    /// Sends one message in the session.
    pub fn post(&mut self, body: &[u8]) -> io::Result<Answer> {
        let (session, version) = (self.session.clone(), self.version.clone());
        self.post_with(&request::session_headers(session.as_deref(), &version), body)
    }

    /// Sends one message with these headers and no session.
    pub fn post_with(&mut self, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let mut out = Vec::new();
        request::write_post(&mut out, &self.target, headers, body);
        self.send(&out)?;
        self.receive()
    }

    /// Sends any request in the session.
    pub fn request(&mut self, method: &str, body: &[u8]) -> io::Result<Answer> {
        let mut out = Vec::new();
        self.write_bare(&mut out, method, &[], body);
        self.send(&out)?;
        self.receive()
    }

    /// Ends the session.
    pub fn delete(&mut self) -> io::Result<Answer> {
        self.request("DELETE", b"")
    }

    /// Opens the session's stream, or resumes one behind an event. The connection is used up.
    pub fn get_stream(mut self, last_event: Option<&str>) -> io::Result<Stream> {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last_event.map(|id| ("last-event-id", id)));
        let mut out = Vec::new();
        self.write_bare(&mut out, "GET", &headers, b"");
        self.send(&out)?;
        Stream::open(self)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits for the next answer.
    pub fn receive(&mut self) -> io::Result<Answer> {
        loop {
            let mut input = &*self.pending;
            let whole = self.inbox.feed(&mut input).map_err(io::Error::other)?;
            let left = input.len();
            self.pending.drain(..self.pending.len() - left);
            if whole {
                return Ok(self.inbox.answer.clone());
            }
            if self.read_more()? == 0 {
                let whole = self.inbox.end().map_err(io::Error::other)?;
                let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "no answer");
                return whole.then(|| self.inbox.answer.clone()).ok_or_else(ended);
            }
        }
    }

    /// The session, once there is one.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    fn write_bare(&self, out: &mut Vec<u8>, method: &str, more: &[(&str, &str)], body: &[u8]) {
        let mut headers = request::session_headers(self.session.as_deref(), &self.version);
        headers.extend_from_slice(more);
        request::write(out, &self.target, method, &headers, body);
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut buf = [0; 4096];
        let len = self.stream.read(&mut buf)?;
        self.pending.extend_from_slice(buf.get(..len).unwrap_or_default());
        Ok(len)
    }
}

/// An event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id, if it sets one.
    pub id: Option<Vec<u8>>,
    /// Its data.
    pub data: Vec<u8>,
}

/// An open event stream.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    body: BodyDecoder,
    parser: EventParser,
    events: VecDeque<Event>,
}

impl Stream {
    fn open(mut client: Client) -> io::Result<Self> {
        loop {
            let mut input = &*client.pending;
            let whole = client.inbox.feed_head(&mut input).map_err(io::Error::other)?;
            let left = input.len();
            client.pending.drain(..client.pending.len() - left);
            if whole {
                break;
            }
            if client.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let answer = &client.inbox.answer;
        if answer.status != 200 || !answer.is_stream {
            return Err(io::Error::other(format!("not a stream: HTTP {}", answer.status)));
        }
        let body = client.inbox.take_body_decoder();
        let parser = EventParser::new(EVENT_LEN_MAX);
        Ok(Self { client, body, parser, events: VecDeque::new() })
    }

    /// Waits for the next event; none: the stream has ended.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        loop {
            let is_over = self.take_pending()?;
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if is_over || self.client.read_more()? == 0 {
                return Ok(None);
            }
        }
    }

    fn take_pending(&mut self) -> io::Result<bool> {
        let pending = std::mem::take(&mut self.client.pending);
        let mut input = &*pending;
        while !input.is_empty() {
            let part = self.body.decode(input).map_err(|e| io::Error::other(format!("{e:?}")))?;
            let mut data = part.data;
            while let Some(event) = self.parser.next(&mut data).map_err(io::Error::other)? {
                let (id, data) = (event.id.map(<[u8]>::to_vec), event.data.to_vec());
                self.events.push_back(Event { id, data });
            }
            if part.done {
                return Ok(true);
            }
            input = input.get(part.used..).unwrap_or_default();
        }
        Ok(false)
    }
}
