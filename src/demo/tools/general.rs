//! Tools to play with: echo and arithmetic, time, size, and each thing a server
//! can ask of a client.

use std::time::Duration;

use serde_json::{Value, json};

use super::{EXTRA, Tool};
use crate::demo::step::{Call, Change, Level, Next, Note, Question, Script, Step, text_result};

/// The largest text `large` returns.
const LARGE_LEN_MAX: u64 = 16 * 1024 * 1024;
/// The longest `sleep`, and the longest interval of `progress`.
const PAUSE_MS_MAX: u64 = 600_000;
/// The most steps of `progress`.
const STEPS_MAX: u64 = 1_000;

pub(super) fn tools() -> Vec<Tool> {
    let mut tools = quick_tools();
    tools.extend(client_tools());
    tools
}

fn quick_tools() -> Vec<Tool> {
    let text = json!({ "text": { "type": "string", "description": "What to return" } });
    let numbers = json!({ "a": { "type": "number" }, "b": { "type": "number" } });
    let sum = json!({
        "type": "object",
        "properties": { "sum": { "type": "number" } },
        "required": ["sum"],
    });
    let ms = json!({ "ms": {
        "type": "integer", "minimum": 0, "maximum": PAUSE_MS_MAX,
        "description": "How long, in milliseconds",
    } });
    let steps = json!({
        "steps": { "type": "integer", "minimum": 1, "maximum": STEPS_MAX, "default": 5 },
        "interval": {
            "type": "integer", "minimum": 0, "maximum": PAUSE_MS_MAX, "default": 200,
            "description": "Milliseconds between two steps",
        },
    });
    let bytes = json!({ "bytes": { "type": "integer", "minimum": 0, "maximum": LARGE_LEN_MAX } });
    let harmless = json!({ "readOnlyHint": true, "openWorldHint": false });
    vec![
        Tool::new("echo", "Returns its text.", &text, &["text"], echo)
            .with("annotations", harmless.clone()),
        Tool::new("add", "Adds two numbers.", &numbers, &["a", "b"], add)
            .with("outputSchema", sum)
            .with("annotations", harmless),
        Tool::new("sleep", "Answers later; can be cancelled.", &ms, &["ms"], sleep),
        Tool::new("progress", "Reports progress while it runs.", &steps, &[], progress),
        Tool::new("large", "Returns a text of that many bytes.", &bytes, &["bytes"], large),
        Tool::plain("bump", "Adds one to the resource demo://counter.", |_| {
            Next::Change(Change::Bump).into()
        }),
        Tool::plain("toggle", "Adds the tool \"surprise\", or removes it.", |_| {
            Next::Change(Change::ToggleTool).into()
        }),
        Tool::plain(EXTRA, "Is here only every other time.", |_| {
            Next::text("You found the tool that comes and goes.").into()
        }),
    ]
}

fn client_tools() -> Vec<Tool> {
    let message = json!({ "message": { "type": "string", "description": "What to ask the user" } });
    let prompt = json!({ "prompt": { "type": "string", "description": "What to ask the model" } });
    let entry = json!({
        "level": {
            "type": "string",
            "enum": [
                "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency",
            ],
        },
        "message": { "type": "string" },
    });
    vec![
        Tool::new("ask", "Asks the user, by elicitation.", &message, &["message"], ask),
        Tool::new("sample", "Asks the client's model.", &prompt, &["prompt"], sample),
        Tool::plain("roots", "Lists the client's roots.", roots),
        Tool::new("log", "Sends a log message.", &entry, &["message"], log),
    ]
}

fn echo(call: &Call) -> Step {
    Next::text(call.text("text")).into()
}

fn add(call: &Call) -> Step {
    let (left, right) = (call.arguments.get("a"), call.arguments.get("b"));
    let whole = |number: Option<&Value>| number.and_then(Value::as_i64);
    let real = |number: Option<&Value>| number.and_then(Value::as_f64).unwrap_or_default();
    let sum = match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.checked_add(right).map(Value::from),
        _ => None,
    };
    let sum = sum.unwrap_or_else(|| json!(real(left) + real(right)));
    if sum.is_null() {
        return Next::error("The sum is too large.").into();
    }
    Next::Done(json!({
        "content": [{ "type": "text", "text": sum.to_string() }],
        "structuredContent": { "sum": sum },
    }))
    .into()
}

fn sleep(call: &Call) -> Step {
    let ms = call.count("ms", 0);
    let outcome = Ok(text_result(format!("Slept {ms} ms.")));
    Next::Play(Script { beats: vec![None], pause: Duration::from_millis(ms), outcome }).into()
}

fn progress(call: &Call) -> Step {
    let steps = call.count("steps", 5);
    let beat = |step| Note::Progress {
        progress: step,
        total: steps,
        message: format!("Step {step} of {steps}"),
    };
    Next::Play(Script {
        beats: (1..=steps).map(|step| Some(beat(step))).collect(),
        pause: Duration::from_millis(call.count("interval", 200)),
        outcome: Ok(text_result(format!("Took {steps} steps."))),
    })
    .into()
}

fn large(call: &Call) -> Step {
    let Ok(len) = usize::try_from(call.count("bytes", 0)) else {
        return Next::error("Too large.").into();
    };
    let mut text = "abcdefghijklmnopqrstuvwxyz0123456789".repeat(len / 36 + 1);
    text.truncate(len);
    Next::text(text).into()
}

fn ask(call: &Call) -> Step {
    let question = Question::field("answer", call.text("message"), "answer", "string");
    let Some(answer) = call.answer(&question) else {
        return Next::ask(question).into();
    };
    let said = answer.pointer("/content/answer").and_then(Value::as_str);
    match (answer.get("action").and_then(Value::as_str), said) {
        (Some("accept"), Some(said)) => Next::text(format!("The user said: {said}")).into(),
        (Some("accept"), None) => Next::error("The answer is missing.").into(),
        (action, _) => Next::text(format!("No answer: {}", action.unwrap_or("cancel"))).into(),
    }
}

fn sample(call: &Call) -> Step {
    let question = Question::sample("completion", call.text("prompt"), 200);
    match call.answer(&question) {
        None => Next::ask(question).into(),
        Some(answer) => Next::text(format!("The model said: {}", sampled_text(answer))).into(),
    }
}

/// The text of a `CreateMessageResult`, whose content is one block or several.
pub(super) fn sampled_text(answer: &Value) -> &str {
    let one = answer.pointer("/content/text");
    let first = || answer.pointer("/content/0/text");
    one.or_else(first).and_then(Value::as_str).unwrap_or("(no text)")
}

fn roots(call: &Call) -> Step {
    let question = Question::roots("roots");
    let Some(answer) = call.answer(&question) else {
        return Next::ask(question).into();
    };
    let roots = answer.get("roots").and_then(Value::as_array).into_iter().flatten();
    let uris: Vec<&str> = roots.filter_map(|root| root.get("uri")?.as_str()).collect();
    Next::text(format!("{} root(s)\n{}", uris.len(), uris.join("\n"))).into()
}

fn log(call: &Call) -> Step {
    let level = Level::named(call.text("level")).unwrap_or(Level::Info);
    let heard = call.log_level.is_some_and(|threshold| level >= threshold);
    let result = if heard { "Sent." } else { "Not sent: below the client's level." };
    let note = Note::Log { level, text: call.text("message").to_owned() };
    Step { notes: vec![note], next: Next::text(result) }
}
