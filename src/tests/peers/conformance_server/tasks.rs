//! The tools of the tasks extension (SEP-2663).

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult,
    JsonObject,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::task_manager::{TaskContext, TaskExit, TaskFuture, TaskManager, TaskOptions};
use serde_json::Value;
use tokio::time::sleep;

use crate::catalog::CATALOG;
use crate::tools::said;

/// These make no sense without a task.
const ONLY_AS_TASK: [&str; 4] =
    ["failing_job", "confirm_delete", "multi_input", "test_tool_with_task"];

pub(crate) fn require_support(
    name: &str,
    cx: &RequestContext<RoleServer>,
) -> Result<(), ErrorData> {
    if ONLY_AS_TASK.contains(&name) && !supports_tasks(cx) {
        let needed = ClientCapabilities::builder().enable_tasks().build();
        return Err(ErrorData::missing_required_client_capability(needed));
    }
    Ok(())
}

/// Calls `name`, where it is one of these tools.
pub(crate) async fn call(
    tasks: &TaskManager,
    name: &str,
    arguments: &JsonObject,
    cx: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let text = |key, default: &str| {
        arguments.get(key).and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    let work: Box<dyn FnOnce(TaskContext) -> TaskFuture + Send> = match name {
        "greet" => return Some(Ok(said(format!("Hello, {}!", text("name", "friend"))))),
        "slow_compute" => {
            let seconds = arguments.get("seconds").and_then(Value::as_f64).unwrap_or(1.0);
            let (time, label) = (Duration::from_secs_f64(seconds), text("label", "compute"));
            if !supports_tasks(cx) {
                sleep(time).await;
                return Some(Ok(said(label)));
            }
            Box::new(move |task| Box::pin(compute(task, time, label)))
        }
        "protocol_error_job" if !supports_tasks(cx) => return Some(Err(broken())),
        "protocol_error_job" => Box::new(|_| {
            Box::pin(async {
                sleep(Duration::from_millis(200)).await;
                Err(TaskExit::Error(broken()))
            })
        }),
        "failing_job" => Box::new(|_| {
            Box::pin(async {
                sleep(Duration::from_millis(200)).await;
                Ok(CallToolResult::error(vec![ContentBlock::text("This job fails")]))
            })
        }),
        "confirm_delete" => {
            let file = text("filename", "file");
            Box::new(move |task| Box::pin(confirm(task, file)))
        }
        "multi_input" => Box::new(|task| Box::pin(ask_twice(task))),
        _ => return None,
    };
    let task = tasks.spawn(TaskOptions::default(), work);
    Some(Ok(CreateTaskResult::new(task).into()))
}

/// A task that says `text`.
pub(crate) fn answer_later(tasks: &TaskManager, text: String) -> CallToolResponse {
    let task = tasks.spawn(TaskOptions::default(), |_| Box::pin(async { succeed(text) }));
    CreateTaskResult::new(task).into()
}

fn supports_tasks(cx: &RequestContext<RoleServer>) -> bool {
    cx.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks())
}

fn broken() -> ErrorData {
    ErrorData::internal_error("This job breaks", None)
}

fn succeed(text: String) -> Result<CallToolResult, TaskExit> {
    Ok(CallToolResult::success(vec![ContentBlock::text(text)]))
}

async fn compute(
    task: TaskContext,
    time: Duration,
    label: String,
) -> Result<CallToolResult, TaskExit> {
    tokio::select! {
        () = task.cancelled() => Err(TaskExit::Cancelled),
        () = sleep(time) => succeed(label),
    }
}

async fn confirm(task: TaskContext, file: String) -> Result<CallToolResult, TaskExit> {
    let question = CATALOG.question("confirm", &JsonObject::new())?;
    let answer = task.request_input("confirm", question).await?;
    succeed(format!("{file}: {answer}"))
}

async fn ask_twice(task: TaskContext) -> Result<CallToolResult, TaskExit> {
    let question = CATALOG.question("value", &JsonObject::new())?;
    let first = task.request_input("first", question.clone());
    let second = task.request_input("second", question);
    let (first, second) = tokio::try_join!(first, second)?;
    succeed(format!("{first} and {second}"))
}
