//! Asking the client: as requests of its own in a session, as rounds of
//! `input_required` results (multi round-trip requests) in the modern era.

use rmcp::ErrorData;
use rmcp::model::{
    ClientCapabilities, InputRequest, InputRequests, InputRequiredResult, InputResponses,
    JsonObject, RequestStateCodec,
};
use rmcp::service::{RequestContext, RoleServer, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::{CATALOG, Dialogue};

const KEY: &[u8] = b"a test server keeps no secret but needs 32 bytes";

/// What the client sent to be asked, or to answer.
pub(crate) struct Asker {
    pub(crate) arguments: JsonObject,
    pub(crate) responses: Option<InputResponses>,
    pub(crate) state: Option<String>,
}

pub(crate) enum Turn {
    /// The client is to answer these and come back.
    Ask(InputRequiredResult),
    /// All is answered: what to say.
    Answered(String),
    /// The client failed to answer within its session.
    Failed(String),
}

#[derive(Default, Serialize, Deserialize)]
struct Progress {
    round: usize,
    answers: InputResponses,
}

impl Dialogue {
    pub(crate) async fn hold(
        &self,
        asker: Asker,
        cx: &RequestContext<RoleServer>,
    ) -> Result<Turn, ErrorData> {
        if is_modern(cx) { self.hold_modern(asker, cx) } else { self.hold_legacy(asker, cx).await }
    }

    fn hold_modern(
        &self,
        asker: Asker,
        cx: &RequestContext<RoleServer>,
    ) -> Result<Turn, ErrorData> {
        let codec = RequestStateCodec::new_unchecked(KEY);
        let is_answer = !self.sealed || asker.state.is_some();
        let mut progress: Progress = match asker.state.as_deref() {
            Some(state) if self.sealed => codec.open_json(state).map_err(|_ignored| {
                ErrorData::invalid_params("requestState was not sealed here", None)
            })?,
            _ => Progress::default(),
        };
        let responses = asker.responses.unwrap_or_default();
        let asked = self.rounds.get(progress.round).map_or(&[] as &[String], Vec::as_slice);
        let capabilities = cx.client_capabilities().unwrap_or_default();
        let requests = self.requests(asked, &asker.arguments, &capabilities)?;
        if is_answer && requests.keys().all(|key| responses.get(key).is_some_and(Value::is_object))
        {
            progress.answers.extend(responses);
            progress.round += 1;
        }
        let Some(asked) = self.rounds.get(progress.round) else {
            return Ok(Turn::Answered(self.summary(&progress.answers)));
        };
        let requests = self.requests(asked, &asker.arguments, &capabilities)?;
        let sealed = self.sealed.then(|| codec.seal_json(&progress)).transpose();
        let state = sealed.map_err(|e| ErrorData::internal_error(e.to_string(), None))?;
        Ok(Turn::Ask(InputRequiredResult::new(Some(requests), state)))
    }

    async fn hold_legacy(
        &self,
        asker: Asker,
        cx: &RequestContext<RoleServer>,
    ) -> Result<Turn, ErrorData> {
        let mut answers = InputResponses::new();
        for name in self.rounds.iter().flatten() {
            match ask(CATALOG.question(name, &asker.arguments)?, cx).await {
                Ok(answer) => drop(answers.insert(name.clone(), answer)),
                Err(error) => return Ok(Turn::Failed(error.to_string())),
            }
        }
        Ok(Turn::Answered(self.summary(&answers)))
    }

    /// The requests of a round, of which the client must be capable.
    fn requests(
        &self,
        names: &[String],
        arguments: &JsonObject,
        capabilities: &ClientCapabilities,
    ) -> Result<InputRequests, ErrorData> {
        let mut requests = InputRequests::new();
        for name in names {
            let request = CATALOG.question(name, arguments)?;
            match missing(&request, capabilities) {
                None => drop(requests.insert(name.clone(), request)),
                Some(_) if self.lenient => {}
                Some(missing) => {
                    return Err(ErrorData::missing_required_client_capability(missing));
                }
            }
        }
        Ok(requests)
    }

    fn summary(&self, answers: &InputResponses) -> String {
        let parts: Vec<String> = answers.values().map(describe).collect();
        format!("{}: {}", self.label, parts.join("; "))
    }
}

pub(crate) fn is_modern(cx: &RequestContext<RoleServer>) -> bool {
    cx.protocol_version().is_some_and(|version| !version.has_initialize())
}

/// The capability that `request` needs and the client lacks.
fn missing(request: &InputRequest, has: &ClientCapabilities) -> Option<ClientCapabilities> {
    let builder = ClientCapabilities::builder();
    match request {
        InputRequest::CreateMessage(_) if has.sampling.is_none() => {
            Some(builder.enable_sampling().build())
        }
        InputRequest::Elicitation(_) if has.elicitation.is_none() => {
            Some(builder.enable_elicitation().build())
        }
        InputRequest::ListRoots(_) if has.roots.is_none() => Some(builder.enable_roots().build()),
        _ => None,
    }
}

async fn ask(
    request: InputRequest,
    cx: &RequestContext<RoleServer>,
) -> Result<Value, ServiceError> {
    let answer = match request {
        InputRequest::CreateMessage(it) => {
            serde_json::to_value(cx.peer.create_message(it.params).await?)
        }
        InputRequest::Elicitation(it) => {
            serde_json::to_value(cx.peer.create_elicitation(it.params).await?)
        }
        InputRequest::ListRoots(_) => serde_json::to_value(cx.peer.list_roots().await?),
        _ => Ok(Value::Null),
    };
    Ok(answer.unwrap_or_default())
}

/// What an answer of any kind says, in one line.
fn describe(answer: &Value) -> String {
    if let Some(action) = answer.get("action").and_then(Value::as_str) {
        let content = answer.get("content").map(Value::to_string).unwrap_or_default();
        return format!("action={action}, content={content}");
    }
    if let Some(roots) = answer.get("roots").and_then(Value::as_array) {
        let uris = roots.iter().filter_map(|root| root.get("uri").and_then(Value::as_str));
        return uris.collect::<Vec<_>>().join(", ");
    }
    let text = answer.pointer("/content/text").or_else(|| answer.pointer("/content/0/text"));
    text.and_then(Value::as_str).unwrap_or_default().to_owned()
}
