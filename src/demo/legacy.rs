//! The legacy era, 2024-11-05 to 2025-11-25: a session opened by `initialize`.
//!
//! Also what both eras say about this server: its name and capabilities.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::message::{Fault, INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND};
use super::resources;
use super::step::{Level, World};

/// No such resource; the modern era says `-32602` instead.
pub(super) const RESOURCE_NOT_FOUND: i64 = -32002;
/// Resources one client may be subscribed to.
pub(super) const SUBSCRIPTIONS_MAX: usize = 256;
/// What this server calls itself.
pub(super) const NAME: &str = "mcp-gateway-demo";
/// What a model should know about this server.
pub(super) const INSTRUCTIONS: &str =
    "A demo server. Try echo, add, sleep, progress, ask, sample, roots, log and large.";

/// Oldest first; a client that asks for another gets the last.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const NEWEST: &str = "2025-11-25";

/// Something a client can subscribe to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Topic {
    Tools,
    Prompts,
    Resource(&'static str),
}

impl Topic {
    /// The notification that tells of a change.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resource(_) => "notifications/resources/updated",
        }
    }

    /// Its parameters.
    pub(super) fn params(self) -> Map<String, Value> {
        match self {
            Self::Tools | Self::Prompts => Map::new(),
            Self::Resource(uri) => Map::from_iter([("uri".to_owned(), uri.into())]),
        }
    }
}

/// The one session of this process; a second `initialize` starts it afresh.
pub(super) struct Session {
    pub(super) capabilities: Value,
    pub(super) log_level: Level,
    version: &'static str,
    subscriptions: BTreeSet<String>,
}

impl Session {
    /// Opens a session as the parameters of `initialize` ask.
    pub(super) fn open(params: &Map<String, Value>) -> Result<Self, Fault> {
        let Some(requested) = params.get("protocolVersion").and_then(Value::as_str) else {
            return Err(Fault::new(INVALID_PARAMS, "protocolVersion must be a string"));
        };
        let version = VERSIONS.into_iter().find(|version| *version == requested);
        let capabilities = params.get("capabilities").filter(|value| value.is_object());
        Ok(Self {
            capabilities: capabilities.cloned().unwrap_or_else(|| json!({})),
            log_level: Level::Info,
            version: version.unwrap_or(NEWEST),
            subscriptions: BTreeSet::new(),
        })
    }

    /// Answers the methods that only a session has.
    pub(super) fn answer(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        world: &World,
    ) -> Result<Value, Fault> {
        match method {
            "logging/setLevel" => {
                let level = params.get("level").and_then(Value::as_str).and_then(Level::named);
                self.log_level =
                    level.ok_or_else(|| Fault::new(INVALID_PARAMS, "level is not a log level"))?;
            }
            "resources/subscribe" => {
                let uri = uri(params)?;
                if resources::read(uri, world).is_none() {
                    return Err(resource_not_found(RESOURCE_NOT_FOUND, uri));
                }
                if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
                    return Err(Fault::new(INTERNAL_ERROR, "too many subscriptions"));
                }
                self.subscriptions.insert(uri.to_owned());
            }
            "resources/unsubscribe" => {
                self.subscriptions.remove(uri(params)?);
            }
            _ => return Err(method_not_found(method)),
        }
        Ok(json!({}))
    }

    /// The `InitializeResult`.
    pub(super) fn greeting(&self) -> Value {
        json!({
            "protocolVersion": self.version,
            "capabilities": capabilities(),
            "serverInfo": server_info(),
            "instructions": INSTRUCTIONS,
        })
    }

    pub(super) fn wants(&self, topic: Topic) -> bool {
        match topic {
            Topic::Tools | Topic::Prompts => true,
            Topic::Resource(uri) => self.subscriptions.contains(uri),
        }
    }
}

/// The `ServerCapabilities` of either era.
pub(super) fn capabilities() -> Value {
    json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "subscribe": true },
        "completions": {},
        "logging": {},
    })
}

/// The `Implementation` of either era.
pub(super) fn server_info() -> Value {
    json!({ "name": NAME, "version": env!("CARGO_PKG_VERSION") })
}

/// The `uri` parameter.
pub(super) fn uri(params: &Map<String, Value>) -> Result<&str, Fault> {
    let uri = params.get("uri").and_then(Value::as_str);
    uri.ok_or_else(|| Fault::new(INVALID_PARAMS, "uri must be a string"))
}

/// The refusal of a resource we do not have; its code depends on the era.
pub(super) fn resource_not_found(code: i64, uri: &str) -> Fault {
    Fault::with(code, format!("Resource not found: {uri}"), json!({ "uri": uri }))
}

/// The refusal of a method this era does not have.
pub(super) fn method_not_found(method: &str) -> Fault {
    Fault::new(METHOD_NOT_FOUND, format!("Method not found: {method}"))
}
