//! The predecessor's envelope on a WebSocket: recognised for each message, and answered in kind.

use serde_json::{Value, json};

use super::rig::{call, demo, initialize};
use super::websocket::rig_ws;
use super::ws::Socket;

pub(super) fn envelope(id: &Value, namespace: &str, payload: &str) -> String {
    format!(
        r#"{{"id":{id},"timestamp":"2025-01-01T00:00:00Z","source":"t","target_namespace":"{namespace}","mcp_payload":{payload}}}"#
    )
}

/// The payload of an answer, which has to be in an envelope.
#[track_caller]
fn payload(socket: &mut Socket, id: &Value) -> Value {
    let answer = socket.message();
    assert_eq!(answer["source"], "gateway", "{answer}");
    assert_eq!(&answer["id"], id, "{answer}");
    let time = answer["timestamp"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert!(answer.get("jsonrpc").is_none(), "{answer}");
    answer["mcp_payload"].clone()
}

/// SEED probes 1 and 7, without TLS.
#[test]
fn the_router_of_the_predecessor_is_served() {
    let (rig, ws) = rig_ws(&demo());
    let mut socket = Socket::with(ws, "/ws", None);
    socket.send(envelope(&json!(1), "system", &initialize("2025-11-25")));
    let opened = payload(&mut socket, &json!("init"));
    assert_eq!(opened["result"]["protocolVersion"], "2025-11-25", "{opened}");
    // A notification has no answer.
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    socket.send(envelope(&json!(2), "system", note));
    let list = r#"{"jsonrpc":"2.0","id":"list","method":"tools/list"}"#;
    socket.send(envelope(&json!(3), "system", list));
    assert!(payload(&mut socket, &json!("list"))["result"]["tools"].is_array());
    for (envelope_id, id) in
        [(json!("e"), json!("a")), (json!(9), json!(9_007_199_254_740_993_u64))]
    {
        let text = call("echo", &json!({"text": "x"})).replace("\"id\":7", &format!("\"id\":{id}"));
        socket.send(envelope(&envelope_id, "system", &text));
        let answer = payload(&mut socket, &id);
        assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&id, &json!("x")));
    }
    // Nobody can be asked or told anything; the server learns so at once.
    socket.send(envelope(&json!(3), "", &call("ask", &json!({"message": "Who?"}))));
    let answer = payload(&mut socket, &json!(7));
    assert!(answer["result"].is_object() || answer["error"].is_object(), "{answer}");
    rig.check();
}

#[test]
fn what_is_wrong_is_answered_in_the_envelope_that_it_came_in() {
    let (rig, ws) = rig_ws(&demo());
    let mut socket = Socket::with(ws, "/", None);
    socket.send(envelope(&json!("e"), "nowhere", &call("echo", &json!({"text": "x"}))));
    let answer = payload(&mut socket, &json!("e"));
    let words = answer["error"]["message"].as_str().unwrap();
    assert!(words.contains("no endpoints available for namespace: nowhere"), "{words}");
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));
    // Without `initialize` the gateway speaks for the client; numbers for times are fine.
    let text = envelope(&json!(4), "demo", &call("echo", &json!({"text": "y"})))
        .replace("\"2025-01-01T00:00:00Z\"", "17");
    socket.send(text);
    assert_eq!(payload(&mut socket, &json!(7))["result"]["content"][0]["text"], "y");
    // A bare message on the same connection is answered bare.
    socket.send(initialize("2025-11-25"));
    assert_eq!(socket.message()["result"]["protocolVersion"], "2025-11-25");
    // And one that only speaks of envelopes is no envelope.
    socket.send(call("echo", &json!({"text": "the key \"mcp_payload\": 1"})));
    let answer = socket.message();
    assert_eq!(answer["result"]["content"][0]["text"], "the key \"mcp_payload\": 1", "{answer}");
    socket.send(r#"{"mcp_payload":1,"mcp_payload":2}"#);
    assert_eq!(socket.message()["error"]["data"]["gateway"], "bad_envelope");
    rig.check();
}
