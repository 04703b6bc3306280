//! The modern era, 2026-07-28: every request carries its own `_meta`.
//!
//! Here is what only that era has: the check of `_meta`, `server/discover`, the
//! fields every result gets, subscriptions, and the state of a multi-round call.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value, json};

use super::legacy::{self, Topic};
use super::message::{Fault, INVALID_PARAMS, RequestId};
use super::resources;
use super::step::{Level, Question, World};

/// A client asked for something it did not declare to support.
const MISSING_CAPABILITY: i64 = -32021;
const UNSUPPORTED_VERSION: i64 = -32022;

const VERSION: &str = "2026-07-28";
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";
const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";
const TASKS_KEY: &str = "io.modelcontextprotocol/tasks";
const SUBSCRIPTION_KEY: &str = "io.modelcontextprotocol/subscriptionId";

/// What a modern request says about its client.
pub(super) struct Meta {
    pub(super) capabilities: Value,
    /// Without one, no log messages may be sent.
    pub(super) log_level: Option<Level>,
}

/// Does a request name its protocol version, as only modern ones do?
pub(super) fn is_modern(params: &Map<String, Value>) -> bool {
    params.get("_meta").is_some_and(|meta| meta.get(VERSION_KEY).is_some())
}

/// Checks the `_meta` of a modern request.
pub(super) fn check(params: &Map<String, Value>) -> Result<Meta, Fault> {
    let missing = |key: &str| {
        Fault::new(
            INVALID_PARAMS,
            format!("_meta must carry {key} (or initialize a session first)"),
        )
    };
    let meta = params.get("_meta").ok_or_else(|| missing(VERSION_KEY))?;
    let version = meta.get(VERSION_KEY).and_then(Value::as_str);
    let version = version.ok_or_else(|| missing(VERSION_KEY))?;
    if version != VERSION {
        return Err(Fault::with(
            UNSUPPORTED_VERSION,
            "Unsupported protocol version",
            json!({ "supported": [VERSION], "requested": version }),
        ));
    }
    let capabilities = meta.get(CAPABILITIES_KEY).filter(|value| value.is_object());
    let capabilities = capabilities.ok_or_else(|| missing(CAPABILITIES_KEY))?.clone();
    let log_level = match meta.get(LOG_LEVEL_KEY) {
        None => None,
        Some(level) => Some(level.as_str().and_then(Level::named).ok_or_else(|| {
            Fault::new(INVALID_PARAMS, format!("{LOG_LEVEL_KEY} is not a log level"))
        })?),
    };
    Ok(Meta { capabilities, log_level })
}

/// The body of a `DiscoverResult`.
pub(super) fn discover() -> Value {
    let mut capabilities = legacy::capabilities();
    if let (Some(ours), Value::Object(more)) = (capabilities.as_object_mut(), tasks_capability()) {
        ours.extend(more);
    }
    json!({
        "supportedVersions": [VERSION],
        "capabilities": capabilities,
        "instructions": legacy::INSTRUCTIONS,
    })
}

/// How either side declares the tasks extension.
pub(super) fn tasks_capability() -> Value {
    json!({ "extensions": { TASKS_KEY: {} } })
}

/// Do these capabilities declare it?
pub(super) fn declares_tasks(capabilities: &Value) -> bool {
    let extensions = capabilities.get("extensions");
    extensions.is_some_and(|extensions| extensions.get(TASKS_KEY).is_some())
}

/// The refusal of a request that needs capabilities its client lacks.
pub(super) fn missing_capability(why: String, capabilities: Value) -> Fault {
    Fault::with(MISSING_CAPABILITY, why, json!({ "requiredCapabilities": capabilities }))
}

/// The `inputRequests` that put `questions` to the client.
pub(super) fn input_requests(questions: &[Question]) -> Value {
    let request = |question: &Question| {
        let request = json!({ "method": question.method, "params": question.params });
        (question.key.to_owned(), request)
    };
    Value::Object(questions.iter().map(request).collect())
}

/// Adds to a result what every modern result to `method` carries.
pub(super) fn stamp(method: &str, result: &mut Value) {
    let Some(result) = result.as_object_mut() else { return };
    result.entry("resultType").or_insert_with(|| "complete".into());
    let meta = result.entry("_meta").or_insert_with(|| json!({}));
    if let Some(meta) = meta.as_object_mut() {
        meta.insert(SERVER_KEY.into(), legacy::server_info());
    }
    let (ttl_ms, scope) = match method {
        "server/discover" | "resources/list" | "resources/templates/list" => (60_000, "public"),
        // These two can change at any call of `toggle`.
        "tools/list" | "prompts/list" => (1_000, "public"),
        "resources/read" => (0, "private"),
        _ => return,
    };
    result.insert("ttlMs".into(), ttl_ms.into());
    result.insert("cacheScope".into(), scope.into());
}

/// An open `subscriptions/listen`.
pub(super) struct Listen {
    pub(super) id: RequestId,
    tools: bool,
    prompts: bool,
    uris: Vec<String>,
    tasks: Vec<String>,
}

impl Listen {
    /// Opens the subscription that request `id` asks for, as far as we can serve it.
    pub(super) fn open(
        id: RequestId,
        params: &Map<String, Value>,
        world: &World,
    ) -> Result<Self, Fault> {
        let Some(filter) = params.get("notifications").and_then(Value::as_object) else {
            return Err(Fault::new(INVALID_PARAMS, "params.notifications must be an object"));
        };
        let wants = |name: &str| filter.get(name) == Some(&Value::Bool(true));
        let names = |name: &str| {
            let names = filter.get(name).and_then(Value::as_array).into_iter().flatten();
            names.filter_map(Value::as_str)
        };
        let uris = names("resourceSubscriptions");
        let uris = uris.filter(|uri| resources::read(uri, world).is_some());
        let tasks = names("taskIds").take(legacy::SUBSCRIPTIONS_MAX);
        Ok(Self {
            id,
            tools: wants("toolsListChanged"),
            prompts: wants("promptsListChanged"),
            uris: uris.take(legacy::SUBSCRIPTIONS_MAX).map(str::to_owned).collect(),
            tasks: tasks.map(str::to_owned).collect(),
        })
    }

    /// The filter as honoured: the parameters of the acknowledgement.
    pub(super) fn acknowledgement(&self) -> Map<String, Value> {
        let mut filter = Map::new();
        for (name, wanted) in
            [("toolsListChanged", self.tools), ("promptsListChanged", self.prompts)]
        {
            if wanted {
                filter.insert(name.into(), true.into());
            }
        }
        for (name, names) in [("resourceSubscriptions", &self.uris), ("taskIds", &self.tasks)] {
            if !names.is_empty() {
                filter.insert(name.into(), json!(names));
            }
        }
        Map::from_iter([("notifications".to_owned(), Value::Object(filter))])
    }

    pub(super) fn wants(&self, topic: Topic) -> bool {
        match topic {
            Topic::Tools => self.tools,
            Topic::Prompts => self.prompts,
            Topic::Resource(uri) => self.uris.iter().any(|subscribed| subscribed == uri),
        }
    }

    pub(super) fn wants_task(&self, id: &str) -> bool {
        self.tasks.iter().any(|task| task == id)
    }

    /// The result that ends the subscription from our side.
    pub(super) fn farewell(&self) -> String {
        let id = &self.id;
        let server = legacy::server_info();
        let meta = format!(r#"{{"{SUBSCRIPTION_KEY}":{id},"{SERVER_KEY}":{server}}}"#);
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"_meta":{meta},"resultType":"complete"}}}}"#
        )
    }
}

/// Turns the state of call `name` into an opaque string.
pub(super) fn seal(name: &str, state: &Value) -> String {
    let body = state.to_string();
    format!("{:016x}.{body}", checksum(name, &body))
}

/// The state that [`seal`] made for call `name`.
///
/// # Errors
///
/// If it is not one, or somebody changed it.
pub(super) fn open(name: &str, sealed: &str) -> Result<Value, Fault> {
    let intact = sealed.split_once('.').filter(|(sum, body)| {
        sum.len() == 16 && u64::from_str_radix(sum, 16) == Ok(checksum(name, body))
    });
    intact
        .and_then(|(_, body)| serde_json::from_str(body).ok())
        .ok_or_else(|| Fault::new(INVALID_PARAMS, "requestState integrity check failed"))
}

/// Shows changes, and the same in every process of this program, so that a retry
/// may reach another one. It keeps no secret: a real server signs with a key.
fn checksum(name: &str, body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("mcp-gateway demo", name, body).hash(&mut hasher);
    hasher.finish()
}
