//! The tools: one table, their argument check, and the call that runs one.
//!
//! `general` holds what a person would try; `suite`, `input` and `background`
//! what the official conformance suite expects to find.

mod general;
mod suite;
mod input;
mod background;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::message::{Fault, INVALID_PARAMS};
use super::step::{Call, Next, Step, World};

/// The tool that `toggle` adds and removes.
const EXTRA: &str = "surprise";

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let mut tools = general::tools();
    tools.extend(suite::tools());
    tools.extend(input::tools());
    tools.extend(background::tools());
    tools
});

struct Tool {
    name: &'static str,
    /// What `tools/list` says.
    listing: Value,
    step: fn(&Call) -> Step,
}

impl Tool {
    /// A tool whose arguments are `properties`; those in `required` must be there.
    fn new(
        name: &'static str,
        description: &str,
        properties: &Value,
        required: &[&str],
        step: fn(&Call) -> Step,
    ) -> Self {
        let mut schema = json!({ "type": "object", "properties": properties });
        if let (Some(schema), false) = (schema.as_object_mut(), required.is_empty()) {
            schema.insert("required".into(), json!(required));
        }
        let listing = json!({ "name": name, "description": description, "inputSchema": schema });
        Self { name, listing, step }
    }

    /// A tool without arguments.
    fn plain(name: &'static str, description: &str, step: fn(&Call) -> Step) -> Self {
        Self::new(name, description, &json!({}), &[], step)
    }

    /// The same tool with one more field in its listing.
    fn with(mut self, field: &str, value: Value) -> Self {
        if let Some(listing) = self.listing.as_object_mut() {
            listing.insert(field.into(), value);
        }
        self
    }
}

/// The listings, in a fixed order.
pub(super) fn list(world: &World) -> Vec<Value> {
    let listed = TOOLS.iter().filter(|tool| tool.name != EXTRA || world.extra_tool);
    listed.map(|tool| tool.listing.clone()).collect()
}

/// Runs one step of a `tools/call`.
pub(super) fn step(call: &Call) -> Step {
    let listed = |tool: &&Tool| tool.name != EXTRA || call.world.extra_tool;
    let Some(tool) = TOOLS.iter().filter(listed).find(|tool| tool.name == call.name) else {
        let why = format!("Unknown tool: {}", call.name);
        return Next::Fail(Fault::new(INVALID_PARAMS, why)).into();
    };
    // SEP-1303: bad arguments are told to the model, which can mend them.
    match check(tool.listing.get("inputSchema").unwrap_or(&Value::Null), &call.arguments) {
        Ok(()) => (tool.step)(call),
        Err(why) => Next::error(format!("Invalid arguments for {}: {why}", tool.name)).into(),
    }
}

/// Checks arguments against the part of JSON Schema the table uses:
/// `required`, `additionalProperties: false`, and each property's `type`,
/// `enum`, `minimum`, `maximum`.
fn check(schema: &Value, arguments: &Map<String, Value>) -> Result<(), String> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !arguments.contains_key(name) {
            return Err(format!("\"{name}\" is missing"));
        }
    }
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, value) in arguments {
        match schema.get("properties").and_then(|properties| properties.get(name)) {
            Some(property) => check_property(name, property, value)?,
            None if closed => return Err(format!("\"{name}\" is not an argument")),
            None => {}
        }
    }
    Ok(())
}

fn check_property(name: &str, property: &Value, value: &Value) -> Result<(), String> {
    let kind = property.get("type").and_then(Value::as_str).unwrap_or_default();
    let fits = match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        _ => true,
    };
    if !fits {
        return Err(format!("\"{name}\" must be of type {kind}"));
    }
    if let Some(allowed) = property.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return Err(format!("\"{name}\" must be one of {}", json!(allowed)));
    }
    let limit = |bound| property.get(bound).and_then(Value::as_f64);
    let Some(number) = value.as_f64() else { return Ok(()) };
    if limit("minimum").is_some_and(|minimum| number < minimum)
        || limit("maximum").is_some_and(|maximum| number > maximum)
    {
        return Err(format!("\"{name}\" is out of range"));
    }
    Ok(())
}
