//! The conformance suite's tools that run as tasks for clients that know tasks.
//!
//! For other clients they run like any slow tool, where that is allowed.

use std::time::Duration;

use serde_json::{Value, json};

use super::Tool;
use crate::demo::message::{Fault, INTERNAL_ERROR};
use crate::demo::modern;
use crate::demo::step::{Call, Next, Question, Script, Step, error_result, text_result};

/// The longest `slow_compute`.
const SECONDS_MAX: u64 = 600;

pub(super) fn tools() -> Vec<Tool> {
    let name = json!({ "name": { "type": "string" } });
    let compute = json!({
        "seconds": { "type": "integer", "minimum": 0, "maximum": SECONDS_MAX },
        "label": { "type": "string" },
    });
    let file = json!({ "filename": { "type": "string" } });
    vec![
        Tool::new("greet", "Greets at once.", &name, &["name"], |call| {
            Next::text(format!("Hello, {}!", call.text("name"))).into()
        }),
        Tool::new("slow_compute", "Takes that many seconds.", &compute, &["seconds"], compute_step),
        Tool::plain("failing_job", "Reports an error after a while. Only as a task.", |_| {
            let outcome = Ok(error_result("This job always fails."));
            task(true, after(Duration::from_millis(500), outcome))
        }),
        Tool::plain("protocol_error_job", "Breaks after a while.", |_| {
            let outcome = Err(Fault::new(INTERNAL_ERROR, "This job always breaks."));
            task(false, after(Duration::from_millis(200), outcome))
        }),
        Tool::new("confirm_delete", "Asks before it deletes.", &file, &["filename"], confirm),
        Tool::plain("multi_input", "Asks two things at one time.", multi_input),
        Tool::plain("test_tool_with_task", "Asks first, then runs as a task.", with_task),
    ]
}

fn task(required: bool, next: Next) -> Step {
    Next::Task { required, next: Box::new(next) }.into()
}

fn after(pause: Duration, outcome: Result<Value, Fault>) -> Next {
    Next::Play(Script { beats: vec![None], pause, outcome })
}

fn compute_step(call: &Call) -> Step {
    let seconds = call.count("seconds", 0);
    let text = format!("Computed {:?} in {seconds} s", call.text("label"));
    task(false, after(Duration::from_secs(seconds), Ok(text_result(text))))
}

fn confirm(call: &Call) -> Step {
    let file = call.text("filename");
    let question =
        Question::field("confirmation", &format!("Delete {file}?"), "confirm", "boolean");
    let Some(answer) = call.answer(&question) else {
        return task(false, Next::ask(question));
    };
    let confirmed = answer.pointer("/content/confirm") == Some(&Value::Bool(true));
    let text = if confirmed { format!("Deleted {file}") } else { format!("Kept {file}") };
    Next::text(text).into()
}

fn multi_input(call: &Call) -> Step {
    let first = Question::field("first_name", "What is your first name?", "name", "string");
    let second = Question::field("last_name", "What is your last name?", "name", "string");
    let name = |answer: &Value| {
        answer.pointer("/content/name").and_then(Value::as_str).unwrap_or("unknown").to_owned()
    };
    match (call.answer(&first).map(name), call.answer(&second).map(name)) {
        (Some(first), Some(second)) => Next::text(format!("Hello, {first} {second}!")).into(),
        _ => task(false, Next::Ask { questions: vec![first, second], state: None }),
    }
}

fn with_task(call: &Call) -> Step {
    if !call.declares_tasks() {
        return Next::Require(modern::tasks_capability()).into();
    }
    let question = Question::field("user_name", "What is your name?", "name", "string");
    let Some(answer) = call.answer(&question) else {
        return Next::ask(question).into();
    };
    let name = answer.pointer("/content/name").and_then(Value::as_str).unwrap_or("unknown");
    let result = text_result(format!("The task is done, {name}."));
    task(true, after(Duration::from_millis(300), Ok(result)))
}
