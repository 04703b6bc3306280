//! The tools that need code.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::catalog::CATALOG;
use crate::changes::Change;
use crate::dialogue::{Asker, Turn, is_modern};
use crate::handler::{Session, Shared};
use crate::tasks;

pub(crate) async fn call(
    session: &Session,
    request: CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let CallToolRequestParams { name, arguments, input_responses, request_state, .. } = request;
    let arguments = arguments.unwrap_or_default();
    if let Some(result) = CATALOG.results.get(&*name) {
        return Ok(result.clone().into());
    }
    tasks::require_support(&name, cx)?;
    if let Some(dialogue) = CATALOG.dialogues.get(&*name) {
        let asker = Asker { arguments, responses: input_responses, state: request_state };
        return Ok(match dialogue.hold(asker, cx).await? {
            Turn::Ask(questions) => questions.into(),
            Turn::Answered(text) if &*name == "test_tool_with_task" => {
                tasks::answer_later(&session.shared.tasks, text)
            }
            Turn::Answered(text) => said(text),
            Turn::Failed(reason) => CallToolResult::error(vec![ContentBlock::text(reason)]).into(),
        });
    }
    if let Some(response) = tasks::call(&session.shared.tasks, &name, &arguments, cx).await {
        return response;
    }
    run(session, &name, &arguments, cx).await.map(said)
}

pub(crate) fn said(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

async fn run(
    session: &Session,
    name: &str,
    arguments: &JsonObject,
    cx: &RequestContext<RoleServer>,
) -> Result<String, ErrorData> {
    let text = |key: &str| {
        let value = arguments.get(key).and_then(Value::as_str).map(str::to_owned);
        value.ok_or_else(|| ErrorData::invalid_params(format!("{key} must be a string"), None))
    };
    let audience = &session.shared.audience;
    match name {
        "test_tool_with_logging" => {
            for line in ["Tool execution started", "Tool processing data"] {
                log(session, line, cx).await;
                sleep(Duration::from_millis(50)).await;
            }
            log(session, "Tool execution completed", cx).await;
        }
        "test_logging_tool" => log(session, "Asked for", cx).await,
        "test_tool_with_progress" => {
            for progress in [0.0, 50.0, 100.0] {
                report(progress, cx).await;
                sleep(Duration::from_millis(50)).await;
            }
        }
        "test_reconnection" => sleep(Duration::from_millis(100)).await,
        "test_custom_header" => return text("value"),
        "fixture_echo" => return text("text"),
        "test_trigger_tool_change" => audience.announce(Change::Tools).await,
        "test_trigger_prompt_change" => audience.announce(Change::Prompts).await,
        "fixture_touch" => audience.announce(Change::Resource(text("uri")?)).await,
        "fixture_slow" => {
            let ms = arguments.get("ms").and_then(Value::as_u64).unwrap_or_default();
            slow(&session.shared, Duration::from_millis(ms), cx).await?;
        }
        "fixture_cancelled" => {
            return Ok(session.shared.cancelled.load(Ordering::Relaxed).to_string());
        }
        _ => return Err(ErrorData::invalid_params(format!("Unknown tool: {name}"), None)),
    }
    Ok(format!("{name} is done"))
}

/// Logs at level info: if the session's level lets it, or if the request asks.
async fn log(session: &Session, line: &str, cx: &RequestContext<RoleServer>) {
    let level = if is_modern(cx) { cx.meta.log_level() } else { Some(*session.level.lock().await) };
    if matches!(level, Some(LoggingLevel::Debug | LoggingLevel::Info)) {
        let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(line));
        // A client that went away needs no log.
        drop(cx.peer.notify_logging_message(message.with_logger("conformance-server")).await);
    }
}

async fn report(progress: f64, cx: &RequestContext<RoleServer>) {
    if let Some(token) = cx.meta.get_progress_token() {
        let progress = ProgressNotificationParam::new(token, progress).with_total(100.0);
        // A client that went away needs no progress.
        drop(cx.peer.notify_progress(progress).await);
    }
}

/// A slow call, which counts if it is dropped before its end.
struct SlowCall<'a> {
    shared: &'a Shared,
    is_over: bool,
}

impl Drop for SlowCall<'_> {
    fn drop(&mut self) {
        self.shared.cancelled.fetch_add(u64::from(!self.is_over), Ordering::Relaxed);
    }
}

async fn slow(
    shared: &Shared,
    time: Duration,
    cx: &RequestContext<RoleServer>,
) -> Result<(), ErrorData> {
    let mut call = SlowCall { shared, is_over: false };
    for progress in [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0] {
        tokio::select! {
            () = sleep(time / 10) => report(progress, cx).await,
            () = cx.ct.cancelled() => return Err(ErrorData::internal_error("Cancelled", None)),
        }
    }
    call.is_over = true;
    Ok(())
}
