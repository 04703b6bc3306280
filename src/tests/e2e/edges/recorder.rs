//! An HTTP server that writes down every request, and whatever about it was not strictly HTTP.
//!
//! Unless a test says otherwise it is an MCP server of both eras whose every tool returns its
//! arguments as they came, byte by byte.
#![expect(clippy::disallowed_types, reason = "its connections have threads of their own")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::http::{Message, Wire};
use crate::support::until;

/// What a server does with a request: the bytes it sends, and whether it goes on.
pub(crate) type Behaviour = dyn Fn(&Message, &mut TcpStream) -> After + Send + Sync;

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    /// Requests, with the number of their connection.
    seen: Vec<(usize, Message)>,
    /// What was wrong with what the gateway sent.
    wrong: Vec<String>,
    conns: usize,
}

impl Recorder {
    /// The echo server.
    pub(crate) fn echo() -> Self {
        Self::start(|request, stream| {
            let mut wire = Wire::new(stream.try_clone().unwrap());
            wire.send(echo(request));
            After::Keep
        })
    }

    /// A server that does something else.
    pub(crate) fn start(
        behaviour: impl Fn(&Message, &mut TcpStream) -> After + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Self { addr: listener.local_addr().unwrap(), notes: Arc::default() };
        let (server, behaviour) = (recorder.clone(), Arc::new(behaviour));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (server, behaviour) = (server.clone(), Arc::clone(&behaviour));
                thread::spawn(move || server.serve(stream, &*behaviour));
            }
        });
        recorder
    }

    fn serve(&self, mut stream: TcpStream, behaviour: &Behaviour) {
        let conn = {
            let mut notes = self.notes();
            notes.conns += 1;
            notes.conns
        };
        let mut wire = Wire::new(stream.try_clone().unwrap());
        wire.set_patience(std::time::Duration::from_secs(300));
        loop {
            match wire.request() {
                Ok(Some(request)) => {
                    self.notes().seen.push((conn, request.clone()));
                    if behaviour(&request, &mut stream) == After::Close {
                        return;
                    }
                }
                Ok(None) => return,
                Err(why) if why.contains("reset") => return,
                Err(why) => return self.notes().wrong.push(why),
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.notes().seen.iter().map(|(_, request)| request.clone()).collect()
    }

    /// All requests so far, each with the number of its connection.
    pub(crate) fn seen_on_conns(&self) -> Vec<(usize, Message)> {
        self.notes().seen.clone()
    }

    /// Forgets what was seen.
    pub(crate) fn clear(&self) {
        self.notes().seen.clear();
    }

    /// Waits for a request whose body has `text` in it.
    pub(crate) fn wait_for(&self, text: &str) -> Message {
        until(text, || self.find(text))
    }

    /// A request whose body has `text` in it.
    pub(crate) fn find(&self, text: &str) -> Option<Message> {
        let has = |request: &Message| super::http::find(&request.body, text.as_bytes()).is_some();
        self.notes().seen.iter().rev().map(|(_, request)| request).find(|r| has(r)).cloned()
    }

    /// Fails if the gateway sent anything that is not strictly HTTP.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.notes().wrong, Vec::<String>::new());
    }

    /// The URL for the configuration.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }
}

/// A plain answer.
pub(crate) fn answer(status: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend(body);
    bytes
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(rename = "protocolVersion", borrow)]
    version: Option<&'a RawValue>,
}

/// What the echo server says to a request.
pub(crate) fn echo(request: &Message) -> Vec<u8> {
    if !request.start.starts_with("POST ") {
        let is_delete = request.start.starts_with("DELETE ");
        return answer(if is_delete { "200 OK" } else { "405 Nope" }, "", b"");
    }
    let Ok(call) = serde_json::from_slice::<Call<'_>>(&request.body) else {
        return answer("400 Bad", "", b"");
    };
    let Some(id) = call.id.filter(|_| call.method.is_some()) else {
        return b"HTTP/1.1 202 Fine\r\nContent-Length: 0\r\n\r\n".to_vec();
    };
    if call.method.is_some_and(|method| method.get() == "\"initialize\"") {
        let version = call.params.and_then(|params| params.version).map_or("", RawValue::get);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":{version},"capabilities":
            {{"tools":{{}}}},"serverInfo":{{"name":"echo","version":"1"}}}}}}"#
        );
        return answer("200 OK", "Mcp-Session-Id: of-the-backend\r\n", body.as_bytes());
    }
    let arguments = call.params.and_then(|params| params.arguments).map_or("null", RawValue::get);
    let body =
        format!(r#"{{"result":{{"content":[],"echo":{arguments}}},"id":{id},"jsonrpc":"2.0"}}"#);
    answer("200 OK", "", body.as_bytes())
}
