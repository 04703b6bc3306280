//! The prompts, and the completion of their arguments.

use serde_json::{Value, json};

use super::message::{Fault, INVALID_PARAMS};
use super::samples;
use super::step::{Call, Next, Question, Step, World};

/// The prompt that `test_trigger_prompt_change` adds and removes.
const EXTRA: &str = "surprise_prompt";
const STYLES: [&str; 4] = ["brief", "formal", "friendly", "pirate"];
const NAMES: [&str; 6] = ["Ada", "Alan", "Barbara", "Edsger", "Grace", "Linus"];
const WORDS: [&str; 4] = ["paris", "park", "party", "test"];

/// An argument that must be given.
fn required(name: &str, description: &str) -> Value {
    json!({ "name": name, "description": description, "required": true })
}

fn prompt(name: &str, description: &str, arguments: &[Value]) -> Value {
    json!({ "name": name, "description": description, "arguments": arguments })
}

/// What `prompts/list` lists.
pub(super) fn list(world: &World) -> Vec<Value> {
    let style = json!({ "name": "style", "description": "How to greet", "required": false });
    let mut prompts = vec![
        prompt("greet", "Greets somebody", &[required("name", "Whom to greet"), style]),
        prompt("test_simple_prompt", "A simple prompt without arguments", &[]),
        prompt(
            "test_prompt_with_arguments",
            "A prompt with required arguments",
            &[required("arg1", "First test argument"), required("arg2", "Second test argument")],
        ),
        prompt(
            "test_prompt_with_embedded_resource",
            "A prompt that includes an embedded resource",
            &[required("resourceUri", "URI of the resource to embed")],
        ),
        prompt("test_prompt_with_image", "A prompt that includes image content", &[]),
        prompt("test_input_required_result_prompt", "A prompt that asks the user first", &[]),
    ];
    if world.extra_prompt {
        prompts.push(prompt(EXTRA, "Is here only every other time", &[]));
    }
    prompts
}

/// Runs one step of a `prompts/get`.
pub(super) fn step(call: &Call) -> Step {
    let listed = list(&call.world);
    let Some(prompt) = listed.iter().find(|prompt| prompt.get("name") == Some(&json!(call.name)))
    else {
        return invalid(format!("Unknown prompt: {}", call.name));
    };
    if let Some((name, value)) = call.arguments.iter().find(|(_, value)| !value.is_string()) {
        return invalid(format!("Argument \"{name}\" must be a string, not {value}"));
    }
    let arguments = prompt.get("arguments").and_then(Value::as_array).into_iter().flatten();
    let required = arguments.filter(|argument| argument.get("required") == Some(&json!(true)));
    for name in required.filter_map(|argument| argument.get("name")?.as_str()) {
        if !call.arguments.contains_key(name) {
            return invalid(format!("Argument \"{name}\" is missing"));
        }
    }
    render(call)
}

fn render(call: &Call) -> Step {
    let contents = match call.name.as_str() {
        "greet" => {
            let style = if call.text("style").is_empty() { "friendly" } else { call.text("style") };
            vec![text(&format!("Please write a {style} greeting for {}.", call.text("name")))]
        }
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (first, second) = (call.text("arg1"), call.text("arg2"));
            vec![text(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({
                "uri": call.text("resourceUri"),
                "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            });
            let embedded = json!({ "type": "resource", "resource": resource });
            vec![embedded, text("Please process the embedded resource above.")]
        }
        "test_prompt_with_image" => {
            let image = json!({ "type": "image", "data": samples::PNG, "mimeType": "image/png" });
            vec![image, text("Please analyze the image above.")]
        }
        "test_input_required_result_prompt" => {
            let message = "What context should the prompt use?";
            let question = Question::field("user_context", message, "context", "string");
            let Some(answer) = call.answer(&question) else {
                return Next::ask(question).into();
            };
            let given = answer.pointer("/content/context").and_then(Value::as_str);
            vec![text(&format!("Prompt with context: {}", given.unwrap_or("unknown")))]
        }
        _ => vec![text("You found the prompt that comes and goes.")],
    };
    let messages: Vec<Value> =
        contents.into_iter().map(|content| json!({ "role": "user", "content": content })).collect();
    Next::Done(json!({ "messages": messages })).into()
}

/// Completes the value of one prompt or template argument.
///
/// # Errors
///
/// If there is no such prompt or template, or the request is malformed.
pub(super) fn complete(reference: &Value, argument: &Value, world: &World) -> Result<Value, Fault> {
    let malformed = |why: &str| Fault::new(INVALID_PARAMS, why.to_owned());
    let member = |value: &Value, name: &str| value.get(name)?.as_str().map(str::to_owned);
    let (Some(name), Some(typed)) = (member(argument, "name"), member(argument, "value")) else {
        return Err(malformed("argument needs a name and a value"));
    };
    let words: &[&str] = match reference.get("type").and_then(Value::as_str) {
        Some("ref/prompt") => {
            let wanted = reference.get("name");
            if !list(world).iter().any(|prompt| prompt.get("name") == wanted) {
                return Err(malformed("ref names no prompt"));
            }
            match name.as_str() {
                "style" => &STYLES,
                "name" => &NAMES,
                "arg1" | "arg2" => &WORDS,
                _ => &[],
            }
        }
        Some("ref/resource") => match reference.get("uri").and_then(Value::as_str) {
            Some("demo://greeting/{name}") => &NAMES,
            Some("test://template/{id}/data") => &["123", "456"],
            _ => return Err(malformed("ref names no resource template")),
        },
        _ => return Err(malformed("ref must be a ref/prompt or a ref/resource")),
    };
    let typed = typed.to_lowercase();
    let values: Vec<&str> =
        words.iter().copied().filter(|word| word.to_lowercase().starts_with(&typed)).collect();
    Ok(json!({
        "completion": { "values": values, "total": values.len(), "hasMore": false },
    }))
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn invalid(why: String) -> Step {
    Next::Fail(Fault::new(INVALID_PARAMS, why)).into()
}
