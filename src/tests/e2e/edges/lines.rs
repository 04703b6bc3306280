//! A client that says one message per line, on a Unix socket or on the streams of a process.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::rig::{META, initialize};
use crate::support::{PATIENCE, until};

pub(crate) struct Talk {
    to: Option<Box<dyn Write + Send>>,
    lines: Receiver<String>,
    /// Another thread reads from it: closing our end of it is not enough.
    socket: Option<UnixStream>,
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            socket.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }
}

impl Talk {
    pub(crate) fn new(to: impl Write + Send + 'static, from: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8(line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { to: Some(Box::new(to)), lines, socket: None }
    }

    /// Connects to a Unix socket.
    pub(crate) fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        let socket = Some(stream.try_clone().unwrap());
        let mut talk = Self::new(stream.try_clone().unwrap(), stream);
        talk.socket = socket;
        talk
    }

    /// Connects and opens a session.
    pub(crate) fn open(path: &Path) -> Self {
        let mut talk = Self::unix(path);
        talk.initialize("2025-11-25");
        talk
    }

    #[track_caller]
    pub(crate) fn initialize(&mut self, version: &str) {
        let answer = self.ask(&initialize(version));
        assert_eq!(answer["id"], "init", "{answer}");
        assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
        self.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    }

    #[track_caller]
    pub(crate) fn say(&mut self, message: &str) {
        assert!(self.try_say(format!("{message}\n").as_bytes()), "the other end is gone");
    }

    pub(crate) fn try_say(&mut self, bytes: &[u8]) -> bool {
        let to = self.to.as_mut().unwrap();
        to.write_all(bytes).and_then(|()| to.flush()).is_ok()
    }

    /// The next line; none: the other end has closed.
    #[track_caller]
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing came"),
        }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn hear(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("a message");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Says something and hears the next message, whatever that is.
    #[track_caller]
    pub(crate) fn ask(&mut self, message: &str) -> Value {
        self.say(message);
        self.hear()
    }

    /// Calls a tool in a session and hears the next message.
    #[track_caller]
    pub(crate) fn call(&mut self, id: &Value, tool: &str, arguments: &Value) -> Value {
        self.ask(&call(id, tool, arguments))
    }

    /// The text that the next message, an answer with that id, has.
    #[track_caller]
    pub(crate) fn text(&self, id: &Value) -> String {
        let answer = self.hear();
        assert_eq!(answer["id"], *id, "{answer}");
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Nothing more comes.
    #[track_caller]
    pub(crate) fn is_quiet(&self, time: Duration) {
        let heard = self.lines.recv_timeout(time);
        assert!(heard.is_err(), "{heard:?}");
    }

    /// Waits until the other end closes; nothing more may come before.
    #[track_caller]
    pub(crate) fn closed(&self) {
        until("the end", || match self.lines.recv_timeout(Duration::from_millis(10)) {
            Ok(line) => panic!("not the end: {line}"),
            Err(RecvTimeoutError::Disconnected) => Some(()),
            Err(RecvTimeoutError::Timeout) => None,
        });
    }

    /// Ends what we say.
    pub(crate) fn finish(&mut self) {
        self.to = None;
        if let Some(socket) = &self.socket {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }
}

/// A call of a tool in a session.
pub(crate) fn call(id: &Value, tool: &str, arguments: &Value) -> String {
    let params = json!({ "name": tool, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

/// A call of a tool in the modern era.
pub(crate) fn modern(id: &Value, tool: &str, arguments: &Value) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},{META}}}}}"#
    )
}

/// The reason that an error of the gateway has.
pub(crate) fn reason(answer: &Value) -> &str {
    answer.pointer("/error/data/gateway").and_then(Value::as_str).unwrap_or_default()
}
