//! A client with an era: it says requests as its revision words them, and takes nothing for an
//! answer but what has the id of the request, byte by byte.

use serde_json::{Value, json};

use super::clients::Client;
use super::servers::{SERVERS, Servers};
use super::{Kind, MODERN};

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

pub(super) struct Talker {
    pub(super) client: Box<dyn Client>,
    kind: &'static Kind,
    /// What stands before the names of tools.
    prefix: String,
}

impl Talker {
    pub(super) fn connect(kind: &'static Kind, servers: &Servers, server: &str) -> Self {
        let client = (kind.connect)(servers, &format!("/{server}"));
        Self { client, kind, prefix: String::new() }
    }

    /// A client of all servers as one, that calls the tools of this one.
    pub(super) fn united(kind: &'static Kind, servers: &Servers, server: &str) -> Self {
        Self { client: (kind.connect)(servers, ""), kind, prefix: format!("{server}__") }
    }

    /// What a tool of the server is called here.
    pub(super) fn tool(&self, name: &str) -> String {
        match (&*self.prefix, name) {
            // Every server has the same resources: that of the first one counts.
            (prefix, "bump") if !prefix.is_empty() => format!("{}__bump", SERVERS[0].name),
            (prefix, name) => format!("{prefix}{name}"),
        }
    }

    /// Calls the tools of another server from now on.
    pub(super) fn turn_to(&mut self, server: &str) {
        self.prefix = format!("{server}__");
    }

    /// Opens a session, or asks who is there.
    #[track_caller]
    pub(super) fn open(&mut self) {
        if self.kind.is_modern() {
            let answer = self.ask("\"open\"", "server/discover", json!({}));
            assert_eq!(answer["result"]["supportedVersions"], json!([MODERN]), "{answer}");
            return;
        }
        let params = json!({
            "protocolVersion": self.kind.revision,
            "capabilities": self.capabilities(),
            "clientInfo": { "name": "matrix", "version": "1" },
        });
        let answer = self.ask("\"open\"", "initialize", params);
        assert_eq!(answer["result"]["protocolVersion"], self.kind.revision, "{answer}");
        self.client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    }

    fn capabilities(&self) -> Value {
        let mut capabilities = json!({ "sampling": {} });
        if self.kind.has_elicitation() {
            capabilities["elicitation"] = json!({});
        }
        capabilities
    }

    /// Sends a request with this id, which is JSON.
    pub(super) fn send(&mut self, id: &str, method: &str, mut params: Value) {
        if self.kind.is_modern() {
            params["_meta"][META_VERSION] = json!(MODERN);
            params["_meta"][META_CAPABILITIES] = self.capabilities();
        }
        self.client.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#
        ));
    }

    /// Sends a call of a tool.
    pub(super) fn send_call(&mut self, id: &str, tool: &str, arguments: &Value) {
        self.send(id, "tools/call", json!({ "name": self.tool(tool), "arguments": arguments }));
    }

    /// Sends a request and takes the next message for its answer.
    #[track_caller]
    pub(super) fn ask(&mut self, id: &str, method: &str, params: Value) -> Value {
        self.send(id, method, params);
        self.answer(id)
    }

    #[track_caller]
    pub(super) fn call(&mut self, id: &str, tool: &str, arguments: &Value) -> Value {
        self.send_call(id, tool, arguments);
        self.answer(id)
    }

    /// The next message.
    #[track_caller]
    pub(super) fn next(&mut self) -> String {
        self.client.receive().expect("the gateway has ended the conversation")
    }

    /// The next message, which has a method.
    #[track_caller]
    pub(super) fn said(&mut self, method: &str) -> Value {
        let text = self.next();
        let message: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(message["method"], method, "{text}");
        message
    }

    /// The next message, which answers the request with this id.
    #[track_caller]
    pub(super) fn answer(&mut self, id: &str) -> Value {
        let text = self.next();
        assert!(is_answer(&text, id), "no answer to {id}: {}", head(&text));
        serde_json::from_str(&text).unwrap()
    }

    /// The next messages, which answer the requests with these ids; in the order of the ids.
    #[track_caller]
    pub(super) fn answers(&mut self, ids: &[&str]) -> Vec<Value> {
        let mut answers = vec![Value::Null; ids.len()];
        for _ in ids {
            let text = self.next();
            let index = ids.iter().position(|id| is_answer(&text, id));
            let index = index.unwrap_or_else(|| panic!("no answer to {ids:?}: {}", head(&text)));
            assert!(answers[index].is_null(), "answered twice: {text}");
            answers[index] = serde_json::from_str(&text).unwrap();
        }
        answers
    }

    /// The answer to the request with this id, whatever lists have changed meanwhile.
    #[track_caller]
    pub(super) fn answer_among_changes(&mut self, id: &str) -> Value {
        loop {
            let text = self.next();
            if is_answer(&text, id) {
                return serde_json::from_str(&text).unwrap();
            }
            assert!(text.contains("list_changed"), "no answer to {id}: {}", head(&text));
        }
    }

    /// The next messages: an answer to the request with this id and one that has a method, in
    /// any order, because they need not come the same way.
    #[track_caller]
    pub(super) fn answer_and_said(&mut self, id: &str, method: &str) -> (Value, Value) {
        let mut texts = [self.next(), self.next()];
        texts.sort_by_key(|text| !is_answer(text, id));
        assert!(is_answer(&texts[0], id), "no answer to {id}: {texts:?}");
        let [answer, said] = texts.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(said["method"], method, "{said}");
        (answer, said)
    }
}

/// Whether a text is an answer, and to exactly this id.
fn is_answer(text: &str, id: &str) -> bool {
    let rest = text.strip_prefix(r#"{"jsonrpc":"2.0","id":"#);
    let rest = rest.and_then(|rest| rest.strip_prefix(id)).and_then(|rest| rest.strip_prefix(','));
    rest.is_some_and(|rest| rest.starts_with(r#""result":"#) || rest.starts_with(r#""error":"#))
}

/// As much of a text as one wants to read.
fn head(text: &str) -> String {
    text.chars().take(500).collect()
}

/// The text in the result of a tool.
#[track_caller]
pub(super) fn text(answer: &Value) -> &str {
    let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("{}", head(&answer.to_string())))
}
