//! Everything that the server offers and that needs no code: `catalog.json`.

use std::collections::HashMap;
use std::sync::LazyLock;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolResult, ContentBlock, InputRequest, JsonObject, Prompt, Resource, ResourceContents,
    ResourceTemplate, Tool,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[expect(clippy::expect_used, reason = "the catalog is part of the program")]
pub(crate) static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    serde_json::from_str(include_str!("catalog.json")).expect("catalog.json has this shape")
});

#[derive(Deserialize)]
pub(crate) struct Catalog {
    pub(crate) tools: Vec<Tool>,
    /// What a tool without code answers.
    pub(crate) results: HashMap<String, CallToolResult>,
    /// What a tool, prompt or resource asks of the client before it answers.
    pub(crate) dialogues: HashMap<String, Dialogue>,
    questions: HashMap<String, Value>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) templates: Vec<ResourceTemplate>,
    pub(crate) contents: HashMap<String, ResourceContents>,
    pub(crate) prompts: Vec<Prompt>,
    messages: HashMap<String, Value>,
}

#[derive(Deserialize)]
pub(crate) struct Dialogue {
    pub(crate) label: String,
    /// The questions of each round, by name.
    pub(crate) rounds: Vec<Vec<String>>,
    /// Whether progress travels in a sealed `requestState`.
    #[serde(default)]
    pub(crate) sealed: bool,
    /// Whether a question that the client cannot answer is left out.
    #[serde(default)]
    pub(crate) lenient: bool,
}

impl Catalog {
    pub(crate) fn question(
        &self,
        name: &str,
        arguments: &JsonObject,
    ) -> Result<InputRequest, ErrorData> {
        fill(self.questions.get(name), arguments)
    }

    /// The content of each message of a prompt; `None` where there is no such prompt.
    pub(crate) fn messages(
        &self,
        prompt: &str,
        arguments: &JsonObject,
    ) -> Option<Result<Vec<ContentBlock>, ErrorData>> {
        self.messages.get(prompt).map(|messages| fill(Some(messages), arguments))
    }
}

/// Replaces `{argument}` within the strings of `template`.
fn fill<T: DeserializeOwned>(
    template: Option<&Value>,
    arguments: &JsonObject,
) -> Result<T, ErrorData> {
    let mut text = template.map(Value::to_string).unwrap_or_default();
    for (name, value) in arguments {
        let escaped = value.as_str().map(|plain| Value::from(plain).to_string());
        let inner = escaped.as_deref().map_or("", |quoted| quoted.trim_matches('"'));
        text = text.replace(&format!("{{{name}}}"), inner);
    }
    serde_json::from_str(&text).map_err(|e| ErrorData::internal_error(e.to_string(), None))
}
