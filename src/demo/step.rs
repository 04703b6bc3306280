//! What a tool or prompt is asked, and what it may do next.
//!
//! A tool is one pure function from [`Call`] to [`Step`], written once for both
//! eras. When it needs something from the client it says `Ask`; the modern era
//! returns that as `input_required`, the legacy era turns it into requests of
//! our own, and both call the function again with the answers.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::message::Fault;
use super::modern;

/// How the request at hand was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Inside a session opened by `initialize`.
    Legacy,
    /// On its own, with everything in `_meta`.
    Modern,
}

/// Severities of RFC 5424, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    /// The level of that name, if there is one.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "notice" => Self::Notice,
            "warning" => Self::Warning,
            "error" => Self::Error,
            "critical" => Self::Critical,
            "alert" => Self::Alert,
            "emergency" => Self::Emergency,
            _ => return None,
        })
    }

    /// Its name on the wire.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// The part of the server that calls can see and change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct World {
    /// The value of `demo://counter`.
    pub(super) counter: u64,
    /// Is the tool `surprise` listed?
    pub(super) extra_tool: bool,
    /// Is the prompt `surprise_prompt` listed?
    pub(super) extra_prompt: bool,
}

/// A change a tool makes to the [`World`]; the server makes it and tells subscribers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Bump,
    ToggleTool,
    TogglePrompt,
}

/// Which of the two things with a name is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    Tool,
    Prompt,
}

/// One `tools/call` or `prompts/get`, with the answers collected so far.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) callee: Callee,
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
    /// The client's `ClientCapabilities` object.
    pub(super) capabilities: Value,
    /// Answers to the questions of the previous round.
    pub(super) answers: Map<String, Value>,
    /// What the previous round asked us to remember.
    pub(super) state: Option<Value>,
    /// Would a log message of this level and above reach the client?
    pub(super) log_level: Option<Level>,
    pub(super) world: World,
}

impl Call {
    /// The string argument of that name, empty if absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.arguments.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The integer argument of that name, `default` if absent.
    pub(super) fn count(&self, name: &str, default: u64) -> u64 {
        self.arguments.get(name).and_then(Value::as_u64).unwrap_or(default)
    }

    /// A usable answer to `question`, if the client gave one.
    pub(super) fn answer(&self, question: &Question) -> Option<&Value> {
        self.answers.get(question.key).filter(|answer| question.accepts(answer))
    }

    /// Did the client declare the tasks extension?
    pub(super) fn declares_tasks(&self) -> bool {
        modern::declares_tasks(&self.capabilities)
    }

    /// The capabilities that `questions` need and the client lacks.
    pub(super) fn undeclared(&self, questions: &[Question]) -> Map<String, Value> {
        let needed = questions.iter().map(Question::capability);
        let missing = needed.filter(|capability| !self.declares(capability));
        missing.map(|capability| (capability.to_owned(), json!({}))).collect()
    }

    /// Did the client declare `capability`?
    pub(super) fn declares(&self, capability: &str) -> bool {
        match self.capabilities.get(capability).and_then(Value::as_object) {
            // A client may do url elicitation only; we only ever send forms.
            Some(modes) if capability == "elicitation" => {
                modes.contains_key("form") || !modes.contains_key("url")
            }
            Some(_) => true,
            None => false,
        }
    }
}

/// Something only the client can tell.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Its name among the `inputRequests` of a round.
    pub(super) key: &'static str,
    pub(super) method: &'static str,
    pub(super) params: Value,
}

impl Question {
    /// A form with the given `requestedSchema`.
    pub(super) fn form(key: &'static str, message: &str, schema: &Value) -> Self {
        let params = json!({ "message": message, "requestedSchema": schema });
        Self { key, method: "elicitation/create", params }
    }

    /// A form of one required field.
    pub(super) fn field(key: &'static str, message: &str, name: &str, kind: &str) -> Self {
        let schema = json!({
            "type": "object",
            "properties": { name: { "type": kind } },
            "required": [name],
        });
        Self::form(key, message, &schema)
    }

    /// A prompt for the client's model.
    pub(super) fn sample(key: &'static str, prompt: &str, tokens_max: u64) -> Self {
        let message = json!({ "role": "user", "content": { "type": "text", "text": prompt } });
        let params = json!({ "messages": [message], "maxTokens": tokens_max });
        Self { key, method: "sampling/createMessage", params }
    }

    /// The client's roots.
    pub(super) fn roots(key: &'static str) -> Self {
        Self { key, method: "roots/list", params: json!({}) }
    }

    /// The capability a client must have declared to be asked this.
    pub(super) fn capability(&self) -> &'static str {
        match self.method {
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => "elicitation",
        }
    }

    /// Is `answer` of the right shape? A wrong one is asked for again.
    fn accepts(&self, answer: &Value) -> bool {
        match self.method {
            "sampling/createMessage" => answer.get("content").is_some(),
            "roots/list" => answer.get("roots").is_some_and(Value::is_array),
            _ => answer.get("action").is_some_and(Value::is_string),
        }
    }
}

/// Something the client may want to hear while a call is running.
#[derive(Clone, Debug)]
pub(super) enum Note {
    Progress { progress: u64, total: u64, message: String },
    Log { level: Level, text: String },
}

/// A slow call: a pause after each beat, then the outcome.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) beats: Vec<Option<Note>>,
    pub(super) pause: Duration,
    pub(super) outcome: Result<Value, Fault>,
}

/// What a call does now: notes first, then `next`.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) notes: Vec<Note>,
    pub(super) next: Next,
}

impl From<Next> for Step {
    fn from(next: Next) -> Self {
        Self { notes: Vec::new(), next }
    }
}

/// How a [`Step`] ends.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// The call is over.
    Done(Value),
    /// The call is over with a JSON-RPC error.
    Fail(Fault),
    /// The call cannot go on without the client's answers.
    Ask { questions: Vec<Question>, state: Option<Value> },
    /// The call needs client capabilities that were not declared.
    Require(Value),
    /// The call takes time; a worker plays it.
    Play(Script),
    /// The call may go on as a task, and must if `required`.
    Task { required: bool, next: Box<Self> },
    /// The call changes the world; the server words the result.
    Change(Change),
}

impl Next {
    /// A tool result of one text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Done(text_result(text))
    }

    /// A tool result that reports an error to the model.
    pub(super) fn error(text: impl Into<String>) -> Self {
        Self::Done(error_result(text))
    }

    /// One question, nothing to remember.
    pub(super) fn ask(question: Question) -> Self {
        Self::Ask { questions: vec![question], state: None }
    }
}

/// A `CallToolResult` of one text.
pub(super) fn text_result(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

/// A `CallToolResult` that reports an error to the model.
pub(super) fn error_result(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }], "isError": true })
}
