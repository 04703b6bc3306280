//! The conformance suite's tools that need something from the client.
//!
//! Names, keys and texts are the suite's; all of them work in both eras.

use serde_json::{Value, json};

use super::Tool;
use super::general::sampled_text;
use crate::demo::step::{Call, Next, Note, Question, Step};

pub(super) fn tools() -> Vec<Tool> {
    let mut tools = single_tools();
    tools.extend(round_tools());
    tools
}

fn single_tools() -> Vec<Tool> {
    let prompt = json!({ "prompt": { "type": "string" } });
    let message = json!({ "message": { "type": "string" } });
    vec![
        Tool::new("test_sampling", "Asks the client's model.", &prompt, &["prompt"], sampling),
        Tool::new("test_elicitation", "Asks the user.", &message, &["message"], elicitation),
        Tool::plain("test_elicitation_sep1034_defaults", "A form with defaults.", |call| {
            filled(call, "Please review and update the form fields with defaults", &defaults())
        }),
        Tool::plain("test_elicitation_sep1330_enums", "A form with choices.", |call| {
            filled(call, "Please select options from the enum fields", &choices())
        }),
        Tool::plain("test_missing_capability", "Needs a client that samples.", |call| {
            if call.declares("sampling") {
                Next::text("Success").into()
            } else {
                Next::Require(json!({ "sampling": {} })).into()
            }
        }),
        Tool::plain("test_streaming_elicitation", "Reports progress, then asks.", streaming),
        Tool::plain("test_input_required_result_elicitation", "Asks for a name.", |call| {
            let question = Question::field("user_name", "What is your name?", "name", "string");
            match call.answer(&question) {
                Some(answer) => Next::text(format!("Hello, {}!", field(answer, "name"))).into(),
                None => Next::ask(question).into(),
            }
        }),
        Tool::plain("test_input_required_result_sampling", "Asks for a capital.", |call| {
            let question =
                Question::sample("capital_question", "What is the capital of France?", 100);
            match call.answer(&question) {
                Some(answer) => {
                    Next::text(format!("Sampling result: {}", sampled_text(answer))).into()
                }
                None => Next::ask(question).into(),
            }
        }),
        Tool::plain("test_input_required_result_list_roots", "Counts the roots.", |call| {
            let question = Question::roots("client_roots");
            match call.answer(&question) {
                Some(answer) => Next::text(format!("Found {} root(s)", count(answer))).into(),
                None => Next::ask(question).into(),
            }
        }),
    ]
}

fn round_tools() -> Vec<Tool> {
    vec![
        Tool::plain("test_input_required_result_request_state", "Remembers a state.", |call| {
            confirmed(call, "state-ok: requestState validated")
        }),
        Tool::plain("test_input_required_result_tampered_state", "Guards its state.", |call| {
            confirmed(call, "integrity-ok: state verified")
        }),
        Tool::plain(
            "test_input_required_result_multiple_inputs",
            "Asks three things at once.",
            multiple,
        ),
        Tool::plain("test_input_required_result_multi_round", "Asks twice.", multi_round),
        Tool::plain(
            "test_input_required_result_capabilities",
            "Asks only what the client can answer.",
            capabilities,
        ),
    ]
}

fn sampling(call: &Call) -> Step {
    let question = Question::sample("sample_request", call.text("prompt"), 100);
    match call.answer(&question) {
        None => Next::ask(question).into(),
        Some(answer) => Next::text(format!("LLM response: {}", sampled_text(answer))).into(),
    }
}

fn elicitation(call: &Call) -> Step {
    let schema = json!({
        "type": "object",
        "properties": { "response": { "type": "string", "description": "User's response" } },
        "required": ["response"],
    });
    let question = Question::form("response", call.text("message"), &schema);
    match call.answer(&question) {
        None => Next::ask(question).into(),
        Some(answer) => Next::text(format!("User response: {}", summary(answer))).into(),
    }
}

/// A form that is only shown: the result repeats what was filled in.
fn filled(call: &Call, message: &str, schema: &Value) -> Step {
    let question = Question::form("form", message, schema);
    match call.answer(&question) {
        None => Next::ask(question).into(),
        Some(answer) => Next::text(format!("Elicitation completed: {}", summary(answer))).into(),
    }
}

fn streaming(call: &Call) -> Step {
    let question = Question::field("confirm", "Please confirm", "ok", "boolean");
    if call.answer(&question).is_some() {
        return Next::text("Streaming complete").into();
    }
    let note = Note::Progress { progress: 50, total: 100, message: "Half way".into() };
    Step { notes: vec![note], next: Next::ask(question) }
}

/// Asks for a confirmation, with a state that must come back.
fn confirmed(call: &Call, done: &str) -> Step {
    let question = Question::field("confirm", "Please confirm", "ok", "boolean");
    let state = json!({ "kind": "confirm" });
    match call.answer(&question) {
        Some(_) if call.state.as_ref() == Some(&state) => Next::text(done).into(),
        _ => Next::Ask { questions: vec![question], state: Some(state) }.into(),
    }
}

fn multiple(call: &Call) -> Step {
    let name = Question::field("user_name", "What is your name?", "name", "string");
    let greeting = Question::sample("greeting", "Generate a greeting", 50);
    let roots = Question::roots("client_roots");
    if let (Some(name), Some(greeting), Some(roots), Some(_)) =
        (call.answer(&name), call.answer(&greeting), call.answer(&roots), &call.state)
    {
        let (name, greeting) = (field(name, "name"), sampled_text(greeting));
        let text = format!("Name: {name}; Greeting: {greeting}; Roots: {}", count(roots));
        return Next::text(text).into();
    }
    let state = Some(json!({ "kind": "multiple-inputs" }));
    Next::Ask { questions: vec![name, greeting, roots], state }.into()
}

fn multi_round(call: &Call) -> Step {
    let first = Question::field("step1", "Step 1: What is your name?", "name", "string");
    let second =
        Question::field("step2", "Step 2: What is your favorite color?", "color", "string");
    let round = call.state.as_ref().and_then(|state| state.get("round")?.as_u64());
    if let (Some(1), Some(answer)) = (round, call.answer(&first)) {
        let state = json!({ "round": 2, "name": field(answer, "name") });
        return Next::Ask { questions: vec![second], state: Some(state) }.into();
    }
    if let (Some(2), Some(answer), Some(state)) = (round, call.answer(&second), &call.state) {
        let name = state.get("name").and_then(Value::as_str).unwrap_or("friend");
        let color = field(answer, "color");
        return Next::text(format!("Multi-round complete for {name} who likes {color}")).into();
    }
    Next::Ask { questions: vec![first], state: Some(json!({ "round": 1 })) }.into()
}

fn capabilities(call: &Call) -> Step {
    if !call.answers.is_empty() {
        let keys: Vec<&str> = call.answers.keys().map(String::as_str).collect();
        return Next::text(format!("capabilities-ok: received {}", keys.join(","))).into();
    }
    let mut questions = vec![
        Question::field("elicit_input", "Elicitation input", "value", "string"),
        Question::sample("sample_input", "Sample request", 50),
    ];
    questions.retain(|question| call.declares(question.capability()));
    if questions.is_empty() {
        return Next::text("No supported capabilities declared").into();
    }
    Next::Ask { questions, state: Some(json!({ "kind": "capabilities-test" })) }.into()
}

/// A text field of an accepted form.
fn field<'a>(answer: &'a Value, name: &str) -> &'a str {
    let value = answer.get("content").and_then(|content| content.get(name));
    value.and_then(Value::as_str).unwrap_or("unknown")
}

fn count(answer: &Value) -> usize {
    answer.get("roots").and_then(Value::as_array).map_or(0, Vec::len)
}

fn summary(answer: &Value) -> String {
    let action = answer.get("action").and_then(Value::as_str).unwrap_or("cancel");
    let content = answer.get("content").cloned().unwrap_or_else(|| json!({}));
    format!("action={action}, content={content}")
}

/// SEP-1034: every primitive type with a default.
fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "User name", "default": "John Doe" },
            "age": { "type": "integer", "description": "User age", "default": 30 },
            "score": { "type": "number", "description": "User score", "default": 95.5 },
            "status": {
                "type": "string",
                "description": "User status",
                "enum": ["active", "inactive", "pending"],
                "default": "active",
            },
            "verified": {
                "type": "boolean", "description": "Verification status", "default": true,
            },
        },
        "required": [],
    })
}

/// SEP-1330: the five ways to offer a choice.
fn choices() -> Value {
    let options = json!(["option1", "option2", "option3"]);
    let titled = |word: &str| {
        json!([
            { "const": "value1", "title": format!("First {word}") },
            { "const": "value2", "title": format!("Second {word}") },
            { "const": "value3", "title": format!("Third {word}") },
        ])
    };
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": {
                "type": "string", "description": "Select one option", "enum": options,
            },
            "titledSingle": {
                "type": "string",
                "description": "Select one option with titles",
                "oneOf": titled("Option"),
            },
            "legacyEnum": {
                "type": "string",
                "description": "Select one option (legacy)",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {
                "type": "array",
                "description": "Select multiple options",
                "minItems": 1,
                "maxItems": 3,
                "items": { "type": "string", "enum": options },
            },
            "titledMulti": {
                "type": "array",
                "description": "Select multiple options with titles",
                "minItems": 1,
                "maxItems": 3,
                "items": { "anyOf": titled("Choice") },
            },
        },
        "required": [],
    })
}
