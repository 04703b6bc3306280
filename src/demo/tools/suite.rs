//! The conformance suite's tools that answer at once or on their own time.
//!
//! Names and texts are the suite's (`@modelcontextprotocol/conformance`).

use std::time::Duration;

use serde_json::{Value, json};

use super::Tool;
use crate::demo::samples;
use crate::demo::step::{Call, Change, Level, Next, Note, Script, Step, text_result};

/// The pause the suite asks for between two notifications.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn tools() -> Vec<Tool> {
    let mut tools = content_tools();
    tools.extend(notifying_tools());
    tools.push(schema_tool());
    tools.push(header_tool());
    tools
}

fn content_tools() -> Vec<Tool> {
    vec![
        Tool::plain("test_simple_text", "Returns one text.", |_| {
            Next::text("This is a simple text response for testing.").into()
        }),
        Tool::plain("test_image_content", "Returns one image.", |_| content(&[image()])),
        Tool::plain("test_audio_content", "Returns one audio clip.", |_| {
            content(&[json!({ "type": "audio", "data": samples::WAV, "mimeType": "audio/wav" })])
        }),
        Tool::plain("test_embedded_resource", "Returns one embedded resource.", |_| {
            let text = "This is an embedded resource content.";
            content(&[embedded("test://embedded-resource", "text/plain", text)])
        }),
        Tool::plain("test_multiple_content_types", "Returns three kinds of content.", |_| {
            content(&[
                json!({ "type": "text", "text": "Multiple content types test:" }),
                image(),
                embedded(
                    "test://mixed-content-resource",
                    "application/json",
                    r#"{"test":"data","value":123}"#,
                ),
            ])
        }),
        Tool::plain("test_error_handling", "Always reports an error.", |_| {
            Next::error("This tool intentionally returns an error for testing").into()
        }),
    ]
}

fn notifying_tools() -> Vec<Tool> {
    vec![
        Tool::plain("test_tool_with_logging", "Logs three times.", with_logging),
        Tool::plain("test_tool_with_progress", "Reports progress three times.", with_progress),
        Tool::plain("test_reconnection", "Logs, then answers a little later.", reconnection),
        Tool::plain("test_logging_tool", "Logs once, if asked to.", |_| {
            let text = "Diagnostic trace logging activated".into();
            let note = Note::Log { level: Level::Info, text };
            Step { notes: vec![note], next: Next::text("Logging evaluated") }
        }),
        Tool::plain("test_trigger_tool_change", "Changes the list of tools.", |_| {
            Next::Change(Change::ToggleTool).into()
        }),
        Tool::plain("test_trigger_prompt_change", "Changes the list of prompts.", |_| {
            Next::Change(Change::TogglePrompt).into()
        }),
    ]
}

fn with_logging(_: &Call) -> Step {
    let texts = ["Tool execution started", "Tool processing data", "Tool execution completed"];
    let beat = |text: &str| Some(Note::Log { level: Level::Info, text: text.to_owned() });
    Next::Play(Script {
        beats: texts.into_iter().map(beat).collect(),
        pause: PAUSE,
        outcome: Ok(text_result("Tool with logging executed successfully")),
    })
    .into()
}

fn with_progress(_: &Call) -> Step {
    let beat = |progress| {
        let message = format!("Completed step {progress} of 100");
        Some(Note::Progress { progress, total: 100, message })
    };
    Next::Play(Script {
        beats: [0, 50, 100].into_iter().map(beat).collect(),
        pause: PAUSE,
        outcome: Ok(text_result("Tool with progress executed successfully")),
    })
    .into()
}

/// SEP-1699 has an HTTP server cut the stream here. We have no stream: all we can
/// do is be slow and noisy, so that whoever has one must open it.
fn reconnection(_: &Call) -> Step {
    let note = Note::Log { level: Level::Info, text: "Answering soon".into() };
    Next::Play(Script {
        beats: vec![Some(note)],
        pause: 4 * PAUSE,
        outcome: Ok(text_result("Reconnection test completed successfully.")),
    })
    .into()
}

/// SEP-1613, SEP-2106: a schema full of keywords that must survive every hop.
fn schema_tool() -> Tool {
    let name = "json_schema_2020_12_tool";
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": {
            "properties": { "contactMethod": { "const": "phone" } },
            "required": ["contactMethod"],
        },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    });
    let step = |call: &Call| {
        let arguments = Value::Object(call.arguments.clone());
        Next::text(format!("JSON Schema 2020-12 tool called with: {arguments}")).into()
    };
    Tool::plain(name, "Has an input schema with JSON Schema 2020-12 features.", step)
        .with("inputSchema", schema)
}

/// SEP-2243: arguments that clients mirror into `Mcp-Param-*` headers.
fn header_tool() -> Tool {
    let properties = json!({
        "region": { "type": "string", "x-mcp-header": "Region" },
        "priority": { "type": "integer", "x-mcp-header": "Priority" },
    });
    let step = |call: &Call| Next::text(format!("Region: {}", call.text("region"))).into();
    let description = "Has arguments that are mirrored into HTTP headers.";
    Tool::new("test_x_mcp_header", description, &properties, &["region"], step)
}

fn content(blocks: &[Value]) -> Step {
    Next::Done(json!({ "content": blocks })).into()
}

fn image() -> Value {
    json!({ "type": "image", "data": samples::PNG, "mimeType": "image/png" })
}

fn embedded(uri: &str, kind: &str, text: &str) -> Value {
    let resource = json!({ "uri": uri, "mimeType": kind, "text": text });
    json!({ "type": "resource", "resource": resource })
}
