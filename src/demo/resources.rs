//! The resources and their templates.

use serde_json::{Value, json};

use super::samples;
use super::step::World;

/// The resource that `bump` changes.
pub(super) const COUNTER: &str = "demo://counter";

/// How many resources are on a page: few, so that clients meet a second one.
const PAGE_LEN: usize = 4;

/// A page of `resources/list`; none if the cursor is not one of ours.
pub(super) fn page(cursor: Option<&Value>) -> Option<Value> {
    let first = match cursor {
        None => 0,
        Some(cursor) => cursor.as_str()?.strip_prefix("from-")?.parse().ok()?,
    };
    let mut rest = list().into_iter().skip(first);
    let page: Vec<Value> = rest.by_ref().take(PAGE_LEN).collect();
    let is_page = first % PAGE_LEN == 0 && !page.is_empty();
    let mut result = json!({ "resources": page });
    if let (Some(result), Some(_)) = (result.as_object_mut(), rest.next()) {
        result.insert("nextCursor".into(), format!("from-{}", first + PAGE_LEN).into());
    }
    is_page.then_some(result)
}

fn list() -> [Value; 6] {
    [
        json!({
            "uri": "test://static-text",
            "name": "static-text",
            "title": "Static Text Resource",
            "description": "A static text resource for testing",
            "mimeType": "text/plain",
        }),
        json!({
            "uri": "test://static-binary",
            "name": "static-binary",
            "title": "Static Binary Resource",
            "description": "A static binary resource (image) for testing",
            "mimeType": "image/png",
        }),
        json!({
            "uri": "test://watched-resource",
            "name": "watched-resource",
            "title": "Watched Resource",
            "description": "A resource to subscribe to",
            "mimeType": "text/plain",
        }),
        json!({
            "uri": "demo://readme",
            "name": "readme",
            "description": "What this server is",
            "mimeType": "text/markdown",
        }),
        json!({
            "uri": "demo://pixel.png",
            "name": "pixel",
            "description": "One red pixel",
            "mimeType": "image/png",
        }),
        json!({
            "uri": COUNTER,
            "name": "counter",
            "description": "A number; the tool \"bump\" adds one",
            "mimeType": "text/plain",
        }),
    ]
}

/// What `resources/templates/list` lists.
pub(super) fn templates() -> Value {
    json!([
        {
            "uriTemplate": "test://template/{id}/data",
            "name": "template",
            "title": "Resource Template",
            "description": "A resource template with parameter substitution",
            "mimeType": "application/json",
        },
        {
            "uriTemplate": "demo://greeting/{name}",
            "name": "greeting",
            "description": "A greeting for that name",
            "mimeType": "text/plain",
        },
    ])
}

/// The contents of one resource, if there is one of that URI.
pub(super) fn read(uri: &str, world: &World) -> Option<Value> {
    let (kind, text) = match uri {
        "test://static-text" => {
            ("text/plain", "This is the content of the static text resource.".to_owned())
        }
        "test://static-binary" | "demo://pixel.png" => {
            return Some(json!([{ "uri": uri, "mimeType": "image/png", "blob": samples::PNG }]));
        }
        "test://watched-resource" => ("text/plain", "Watched resource content".to_owned()),
        "demo://readme" => ("text/markdown", README.to_owned()),
        COUNTER => ("text/plain", world.counter.to_string()),
        _ => from_template(uri)?,
    };
    Some(json!([{ "uri": uri, "mimeType": kind, "text": text }]))
}

const README: &str = "# Demo server\n\nTry the tools `echo`, `sleep`, `progress` and `ask`, or \
                      subscribe to `demo://counter` and call `bump`.\n";

fn from_template(uri: &str) -> Option<(&'static str, String)> {
    let variable = |value: &str| !value.is_empty() && !value.contains('/');
    if let Some(name) = uri.strip_prefix("demo://greeting/") {
        return variable(name).then(|| ("text/plain", format!("Hello, {name}!")));
    }
    let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
    let body = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
    variable(id).then(|| ("application/json", body.to_string()))
}
