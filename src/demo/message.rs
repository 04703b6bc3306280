//! JSON-RPC messages, one per line: what comes in, and how what goes out is written.
//!
//! Request ids are kept as they were spelled, so that an id echoes byte for byte.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// JSON-RPC: the line is not JSON.
pub(super) const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: JSON, but not a message we can take.
pub(super) const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC: no such method in this era.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC: the method's parameters are wrong.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC: our own limits or faults.
pub(super) const INTERNAL_ERROR: i64 = -32603;

/// The id of a client's request, as spelled on the wire.
#[derive(Clone, Debug)]
pub(super) struct RequestId {
    raw: String,
    /// The text of a string id: two spellings of one string are one id.
    text: Option<String>,
}

impl RequestId {
    /// Takes a string or an integer; MCP allows nothing else as an id.
    fn decode(raw: &RawValue) -> Option<Self> {
        let raw = raw.get();
        if raw.starts_with('"') {
            let text = serde_json::from_str(raw).ok()?;
            return Some(Self { raw: raw.to_owned(), text: Some(text) });
        }
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        let integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        integer.then(|| Self { raw: raw.to_owned(), text: None })
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        match (&self.text, &other.text) {
            (Some(mine), Some(theirs)) => mine == theirs,
            (None, None) => self.raw == other.raw,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.raw)
    }
}

/// A JSON-RPC error, before it is bound to an id.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Value>,
}

impl Fault {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub(super) fn with(code: i64, message: impl Into<String>, data: Value) -> Self {
        Self { code, message: message.into(), data: Some(data) }
    }
}

/// One decoded line.
#[derive(Debug)]
pub(super) enum Incoming {
    Request {
        id: RequestId,
        method: String,
        params: Map<String, Value>,
    },
    /// `subject` is the request a `notifications/cancelled` names.
    Notification {
        method: String,
        subject: Option<RequestId>,
    },
    /// The client's answer to our request `ask`.
    Response {
        ask: u64,
        outcome: Result<Value, Value>,
    },
    Malformed {
        id: Option<RequestId>,
        fault: Fault,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    jsonrpc: Option<String>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    result: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Cancelled<'a> {
    #[serde(borrow, rename = "requestId")]
    request_id: &'a RawValue,
}

impl Incoming {
    /// Decodes one line; whatever is wrong with it comes back as `Malformed`.
    pub(super) fn decode(line: &[u8]) -> Self {
        let malformed = |fault| Self::Malformed { id: None, fault };
        let envelope: Envelope<'_> = match serde_json::from_slice(line) {
            Ok(envelope) => envelope,
            Err(error) if error.is_data() => {
                let why = format!("not a JSON-RPC message: {error}");
                return malformed(Fault::new(INVALID_REQUEST, why));
            }
            Err(error) => return malformed(Fault::new(PARSE_ERROR, format!("not JSON: {error}"))),
        };
        let id = match envelope.id.map(RequestId::decode) {
            Some(None) => {
                let why = "a request id is a string or an integer";
                return malformed(Fault::new(INVALID_REQUEST, why));
            }
            Some(Some(id)) => Some(id),
            None => None,
        };
        if envelope.jsonrpc.as_deref() != Some("2.0") {
            let fault = Fault::new(INVALID_REQUEST, "\"jsonrpc\" must be \"2.0\"");
            return Self::Malformed { id, fault };
        }
        match (envelope.method, id) {
            (Some(method), Some(id)) => Self::request(id, method, envelope.params),
            (Some(method), None) => {
                let subject = envelope
                    .params
                    .and_then(|params| serde_json::from_str::<Cancelled<'_>>(params.get()).ok())
                    .and_then(|cancelled| RequestId::decode(cancelled.request_id));
                Self::Notification { method, subject }
            }
            (None, id) => Self::response(id, envelope.result, envelope.error),
        }
    }

    fn request(id: RequestId, method: String, params: Option<&RawValue>) -> Self {
        match params.map(|params| serde_json::from_str(params.get())) {
            None => Self::Request { id, method, params: Map::new() },
            Some(Ok(Value::Object(params))) => Self::Request { id, method, params },
            Some(_) => {
                let fault = Fault::new(INVALID_PARAMS, "params must be an object");
                Self::Malformed { id: Some(id), fault }
            }
        }
    }

    fn response(id: Option<RequestId>, result: Option<Value>, error: Option<Value>) -> Self {
        let ask = id.as_ref().and_then(|id| id.raw.parse().ok());
        match (ask, result, error) {
            (Some(ask), Some(result), None) => Self::Response { ask, outcome: Ok(result) },
            (Some(ask), None, Some(error)) => Self::Response { ask, outcome: Err(error) },
            // An answer to nothing we asked. It is not a request: it gets no reply.
            (None, Some(_), _) | (None, _, Some(_)) => {
                Self::Notification { method: String::new(), subject: None }
            }
            _ => Self::Malformed { id, fault: Fault::new(INVALID_REQUEST, "no method, no answer") },
        }
    }
}

/// The response to `id`.
pub(super) fn encode_reply(id: &RequestId, result: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// The error response to `id`, or to a message whose id could not be read.
pub(super) fn encode_fault(id: Option<&RequestId>, fault: &Fault) -> String {
    let mut error = json!({ "code": fault.code, "message": fault.message });
    if let (Some(error), Some(data)) = (error.as_object_mut(), &fault.data) {
        error.insert("data".into(), data.clone());
    }
    match id {
        Some(id) => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","id":null,"error":{error}}}"#),
    }
}

/// A notification without a subscription.
pub(super) fn encode_notification(method: &str, params: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
}

/// A notification on the subscription that request `id` opened.
pub(super) fn encode_tagged(method: &str, id: &RequestId, params: &Map<String, Value>) -> String {
    let mut line = format!(
        r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#
    );
    for (name, value) in params {
        line.push_str(&format!(",{}:{value}", json!(name)));
    }
    line.push_str("}}");
    line
}

/// A request of ours to the client (legacy only).
pub(super) fn encode_request(ask: u64, method: &str, params: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{ask},"method":"{method}","params":{params}}}"#)
}
