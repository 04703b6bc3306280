//! The clients of the matrix: each carries messages over one transport and looks into none of them
//! further than that transport makes its clients look.

#![expect(clippy::disallowed_types, reason = "its connections have threads of their own")]

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use wire::binary::{Reason, StreamId, code};

use super::servers::Servers;
use crate::edges::http::{Event, Request, Wire};
use crate::edges::lines::Talk;
use crate::edges::link::{Peer, Told};
use crate::edges::rig::metric;
use crate::edges::ws::{Came, Socket};
use crate::support::{PATIENCE, until};

/// A client's end of a conversation.
pub(super) trait Client {
    /// Sends a message.
    fn send(&mut self, message: &str);

    /// The next message from the gateway; none: the gateway has ended the conversation.
    fn receive(&mut self) -> Option<String>;

    /// Gives up the request with this id.
    fn cancel(&mut self, id: &str) {
        self.send(&cancellation(id));
    }

    /// Nothing comes any more, except that lists have changed: of servers that have come back.
    fn until_the_end(&mut self) {
        while let Some(message) = self.receive() {
            assert!(message.contains("list_changed"), "{message}");
        }
    }

    /// Leaves as clients of this transport do; the gateway has to take it well.
    fn leave(self: Box<Self>);

    /// A number that the gateway of this client has counted.
    fn metric(&self, name: &str) -> u64;
}

fn cancellation(id: &str) -> String {
    let params = format!(r#"{{"requestId":{id}}}"#);
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#)
}

/// What the transports look at.
#[derive(serde::Deserialize)]
struct Peek<'a> {
    method: Option<String>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

impl<'a> Peek<'a> {
    fn of(message: &'a str) -> Self {
        serde_json::from_str(message).unwrap()
    }

    fn is_request(&self) -> bool {
        self.method.is_some() && self.id.is_some()
    }
}

/// Messages as they come, over however many connections; none: the last one is over.
struct Inbox {
    sender: Sender<Option<String>>,
    receiver: Receiver<Option<String>>,
}

impl Inbox {
    fn new() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }

    fn next(&self) -> Option<String> {
        self.receiver.recv_timeout(PATIENCE).expect("nothing came")
    }
}

/// Connections that end with their client, whoever reads from them.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    is_over: bool,
    streams: Vec<TcpStream>,
    /// Requests that the client has given up, by id.
    given_up: HashSet<String>,
}

impl Connections {
    /// Another one, as it is and to read messages from; none: the client is gone.
    fn open(&self, addr: SocketAddr) -> Option<(TcpStream, Wire)> {
        let stream = TcpStream::connect(addr).ok()?;
        let mut open = self.0.lock().unwrap();
        open.streams.push(stream.try_clone().unwrap());
        (!open.is_over).then(|| (stream.try_clone().unwrap(), Wire::new(stream)))
    }

    fn give_up(&self, id: &str) {
        self.0.lock().unwrap().given_up.insert(id.to_owned());
    }

    fn is_given_up(&self, id: &str) -> bool {
        let open = self.0.lock().unwrap();
        open.is_over || open.given_up.contains(id)
    }

    fn end(&self) {
        let mut open = self.0.lock().unwrap();
        open.is_over = true;
        for stream in &open.streams {
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }
}

/// Streamable HTTP with a session: POSTs, whose answers may be streams, and a GET stream. A
/// stream that ends too early is asked for again.
pub(super) struct LegacyHttp {
    addr: SocketAddr,
    admin: SocketAddr,
    path: String,
    session: String,
    inbox: Inbox,
    connections: Connections,
    /// For what is answered at once.
    wire: Wire,
}

impl LegacyHttp {
    pub(super) fn connect(servers: &Servers, path: &str) -> Box<dyn Client> {
        let addr = servers.rig.gateway.addr;
        let connections = Connections::default();
        Box::new(Self {
            addr,
            admin: servers.rig.gateway.admin,
            path: format!("/mcp{path}"),
            session: String::new(),
            inbox: Inbox::new(),
            wire: connections.open(addr).unwrap().1,
            connections,
        })
    }

    fn in_session(&self, request: Request) -> Request {
        let version = ("MCP-Protocol-Version", super::NEWEST_LEGACY);
        match &*self.session {
            "" => request,
            session => request.session(session).with(version.0, version.1),
        }
    }

    /// Gives away what comes in the answer to a request, and in what that is continued by. That
    /// is over with the answer to the request with this id; or, without one, when the gateway
    /// has nothing more to say.
    fn follow(&self, request: &Request, id: Option<String>) {
        let (addr, again) = (self.addr, self.in_session(Request::get(&self.path)));
        let (connections, sender) = (self.connections.clone(), self.inbox.sender.clone());
        let (first, (listening, is_listening)) = (request.bytes(), channel());
        let is_stream = id.is_none();
        spawn(move || {
            let (mut bytes, mut last, mut is_answered) = (first, None, false);
            while let Some((_, mut wire)) = connections.open(addr) {
                wire.send(bytes);
                let mut give = |data: String| {
                    is_answered |= Peek::of(&data).method.is_none();
                    drop(sender.send(Some(data)));
                };
                let head = wire.events(|event| {
                    listening.send(()).unwrap_or_default();
                    last = event.id.or(last.take());
                    if !event.data.is_empty() {
                        give(event.data);
                    }
                });
                match head {
                    Ok(head) if head.status() == 404 => break,
                    Ok(head) if !is_stream && head.is_json() => give(head.text().to_owned()),
                    Ok(_) | Err(_) => {}
                }
                let is_given_up = id.as_ref().is_some_and(|id| connections.is_given_up(id));
                if is_answered && !is_stream || is_given_up {
                    break;
                }
                sleep(Duration::from_millis(20));
                let again = again.clone();
                bytes = match &last {
                    Some(last) => again.with("Last-Event-ID", last),
                    None => again,
                }
                .bytes();
            }
            if is_stream {
                drop(sender.send(None));
            }
        });
        if is_stream {
            // The first event says that the gateway knows.
            is_listening.recv_timeout(PATIENCE).unwrap();
        }
    }
}

impl Client for LegacyHttp {
    fn send(&mut self, message: &str) {
        let peek = Peek::of(message);
        let request = self.in_session(Request::post(&self.path, message));
        if peek.is_request() && !self.session.is_empty() {
            return self.follow(&request, peek.id.map(|id| id.get().to_owned()));
        }
        let sender = &self.inbox.sender;
        self.wire.send(request.bytes());
        let give = |event: Event| {
            if !event.data.is_empty() {
                sender.send(Some(event.data)).unwrap();
            }
        };
        let head = self.wire.events(give).unwrap();
        if head.is_json() {
            sender.send(Some(head.text().to_owned())).unwrap();
        }
        match peek.method.as_deref() {
            Some("initialize") => self.session = head.get("mcp-session-id").to_owned(),
            Some("notifications/initialized") => {
                self.follow(&self.in_session(Request::get(&self.path)), None);
            }
            _ => assert_eq!(head.status(), 202, "{head:?}"),
        }
    }

    fn receive(&mut self) -> Option<String> {
        self.inbox.next()
    }

    fn cancel(&mut self, id: &str) {
        self.connections.give_up(id);
        self.send(&cancellation(id));
    }

    fn leave(mut self: Box<Self>) {
        let delete = Request::new("DELETE", &self.path).session(&self.session);
        assert_eq!(self.wire.ask(&delete).status(), 200);
        self.until_the_end();
    }

    fn metric(&self, name: &str) -> u64 {
        metric(self.admin, name)
    }
}

impl Drop for LegacyHttp {
    fn drop(&mut self) {
        self.connections.end();
    }
}

/// Streamable HTTP of 2026-07-28: every message is a POST of its own.
pub(super) struct ModernHttp {
    addr: SocketAddr,
    admin: SocketAddr,
    path: String,
    inbox: Inbox,
    connections: Connections,
    /// By the ids of the requests that they are for.
    of_requests: HashMap<String, TcpStream>,
}

impl ModernHttp {
    pub(super) fn connect(servers: &Servers, path: &str) -> Box<dyn Client> {
        Box::new(Self {
            addr: servers.rig.gateway.addr,
            admin: servers.rig.gateway.admin,
            path: format!("/mcp{path}"),
            inbox: Inbox::new(),
            connections: Connections::default(),
            of_requests: HashMap::new(),
        })
    }
}

impl Client for ModernHttp {
    fn send(&mut self, message: &str) {
        let peek = Peek::of(message);
        let id = peek.id.unwrap().get().to_owned();
        let (stream, mut wire) = self.connections.open(self.addr).unwrap();
        if !peek.is_request() {
            // What is refused in an answer to no request is none of the messages.
            let request = Request::post(&self.path, message);
            let answer = wire.ask(&request.with("MCP-Protocol-Version", super::MODERN));
            assert_eq!(answer.json()["error"]["data"]["gateway"], "unexpected_response");
            return;
        }
        self.of_requests.insert(id.clone(), stream);
        let request = Request::modern(&self.path, message).bytes();
        let (connections, sender) = (self.connections.clone(), self.inbox.sender.clone());
        spawn(move || {
            wire.send(request);
            // Without data it is none to a browser.
            let give = |event: Event| {
                if !event.data.is_empty() {
                    drop(sender.send(Some(event.data)));
                }
            };
            match wire.events(give) {
                Ok(head) if head.is_json() => drop(sender.send(Some(head.text().to_owned()))),
                // A stream that is cut off: there is no way to go on with it.
                Err(_) if !connections.is_given_up(&id) => drop(sender.send(None)),
                Ok(_) | Err(_) => {}
            }
        });
    }

    fn receive(&mut self) -> Option<String> {
        self.inbox.next()
    }

    /// 2026-07-28, basic/patterns/cancellation: the client closes the stream.
    fn cancel(&mut self, id: &str) {
        self.connections.give_up(id);
        self.of_requests.remove(id).unwrap().shutdown(Shutdown::Both).unwrap();
    }

    /// There is nothing to leave.
    fn leave(self: Box<Self>) {}

    fn metric(&self, name: &str) -> u64 {
        metric(self.admin, name)
    }
}

impl Drop for ModernHttp {
    fn drop(&mut self) {
        self.connections.end();
    }
}

/// HTTP+SSE: a stream, and POSTs to where it says.
pub(super) struct Sse {
    admin: SocketAddr,
    target: String,
    inbox: Inbox,
    posts: Wire,
    connections: Connections,
}

impl Sse {
    pub(super) fn connect(servers: &Servers, path: &str) -> Box<dyn Client> {
        let connections = Connections::default();
        let (_, mut stream) = connections.open(servers.rig.gateway.addr).unwrap();
        stream.send(Request::get(&format!("/sse{path}")).bytes());
        let head = stream.head();
        assert_eq!(head.status(), 200, "{head:?}");
        let endpoint = stream.event().unwrap();
        assert_eq!(endpoint.name, "endpoint");
        let inbox = Inbox::new();
        let sender = inbox.sender.clone();
        spawn(move || {
            while let Ok(Some(event)) = stream.try_event() {
                drop(sender.send(Some(event.data)));
            }
            drop(sender.send(None));
        });
        Box::new(Self {
            admin: servers.rig.gateway.admin,
            target: endpoint.data,
            inbox,
            posts: connections.open(servers.rig.gateway.addr).unwrap().1,
            connections,
        })
    }
}

impl Client for Sse {
    fn send(&mut self, message: &str) {
        let answer = self.posts.ask(&Request::post(&self.target, message).without("Accept"));
        assert_eq!(answer.status(), 202, "{}", answer.text());
    }

    fn receive(&mut self) -> Option<String> {
        self.inbox.next()
    }

    /// There is no word for it: the stream is closed.
    fn leave(self: Box<Self>) {}

    fn metric(&self, name: &str) -> u64 {
        metric(self.admin, name)
    }
}

impl Drop for Sse {
    fn drop(&mut self) {
        self.connections.end();
    }
}

/// WebSocket: a text message is a message.
pub(super) struct WebSocket {
    admin: SocketAddr,
    socket: Socket,
}

impl WebSocket {
    pub(super) fn connect(servers: &Servers, path: &str) -> Box<dyn Client> {
        let socket = Socket::open(servers.rig.gateway.addr, &format!("/mcp{path}"));
        Box::new(Self { admin: servers.rig.gateway.admin, socket })
    }
}

impl Client for WebSocket {
    fn send(&mut self, message: &str) {
        self.socket.send(message);
    }

    fn receive(&mut self) -> Option<String> {
        loop {
            match self.socket.next() {
                Came::Text(text) => return Some(text),
                Came::Ping(_) | Came::Pong(_) => {}
                Came::Close(..) | Came::End => return None,
            }
        }
    }

    fn leave(mut self: Box<Self>) {
        self.socket.close(1000);
        assert_eq!(self.socket.end(), Some(1000));
    }

    fn metric(&self, name: &str) -> u64 {
        metric(self.admin, name)
    }
}

/// The TCP binary protocol, version 2: a stream of a link.
pub(super) struct Tcp {
    admin: SocketAddr,
    peer: Peer,
    stream: StreamId,
}

impl Tcp {
    pub(super) fn connect(servers: &Servers, path: &str) -> Box<dyn Client> {
        let mut peer = Peer::new(servers.tcp_port);
        let stream = peer.open(path.trim_start_matches('/'));
        Box::new(Self { admin: servers.rig.gateway.admin, peer, stream })
    }
}

impl Client for Tcp {
    fn send(&mut self, message: &str) {
        self.peer.send(self.stream, message);
        // The rest of a large one goes when the gateway has room for it.
        assert!(self.peer.flush());
    }

    fn receive(&mut self) -> Option<String> {
        match self.peer.next() {
            Told::Message(stream, text) if stream == self.stream => Some(text),
            Told::Closed(..) | Told::Ended(..) | Told::Lost => None,
            told => panic!("{told:?}"),
        }
    }

    fn leave(mut self: Box<Self>) {
        self.peer.link.close(self.stream, Reason::DONE, "");
        self.peer.link.end(code::DONE, "");
        self.peer.flush();
        self.until_the_end();
    }

    fn metric(&self, name: &str) -> u64 {
        metric(self.admin, name)
    }
}

/// Lines on the standard streams of `mcp-gateway stdio`, which is a gateway for this client alone.
pub(super) struct Lines {
    child: Child,
    talk: Talk,
    admin: SocketAddr,
}

impl Lines {
    pub(super) fn connect(servers: &Servers, path: &str) -> Box<dyn Client> {
        let log = servers.next_file("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
        command.args(["stdio", "--admin", "127.0.0.1:0", "--log", "json"]);
        if let Some(server) = path.strip_prefix('/') {
            command.args(["--server", server]);
        }
        command.arg("--config").arg(servers.rig.dir.join("gateway.toml"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let admin = until("the admin listener", || admin_of(&log));
        Box::new(Self { child, talk: Talk::new(to, from), admin })
    }
}

/// The admin listener that a log tells of.
fn admin_of(log: &Path) -> Option<SocketAddr> {
    let log = fs::read_to_string(log).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.into_iter().find(|line| line["event"] == "admin")?;
    let (_, rest) = line["message"].as_str()?.split_once("http://")?;
    rest.split(['/', ' ']).next()?.parse().ok()
}

impl Client for Lines {
    fn send(&mut self, message: &str) {
        self.talk.say(message);
    }

    fn receive(&mut self) -> Option<String> {
        self.talk.line()
    }

    fn leave(mut self: Box<Self>) {
        self.talk.finish();
        self.until_the_end();
        let status = until("the end of the gateway", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }

    fn metric(&self, name: &str) -> u64 {
        metric(self.admin, name)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}
