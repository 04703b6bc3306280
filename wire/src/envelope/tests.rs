//! What is found and what is refused, replies, and the property over a corpus.

use super::{Envelope, EnvelopeError, Form, PAYLOAD_END, PAYLOAD_HEAD, fuzz, members};
use super::{JsonError, read, string, write_reply_head};
use crate::json::generate::Chance;
use alloc::string::String;
use alloc::vec::Vec;
use std::format;

/// Form, message, namespace and token of a document; for errors, what they say.
#[track_caller]
fn check(document: &str, want: Result<(Form, &str, &str, &str), EnvelopeError>) {
    let bytes = document.as_bytes();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let found = read(bytes, 16).map(|envelope: Envelope| {
        let namespace = envelope.target_namespace.map(|it| text(&it.decode(bytes)));
        let token = envelope.auth_token.map(|it| text(&it.decode(bytes)));
        let message = text(envelope.message.get(bytes));
        (envelope.form, message, namespace.unwrap_or_default(), token.unwrap_or_default())
    });
    let want = want.map(|(form, message, namespace, token)| {
        (form, message.into(), namespace.into(), token.into())
    });
    assert_eq!(found, want, "{document}");
}

#[test]
fn the_message_is_found_in_each_form() {
    let bare = r#" {"jsonrpc":"2.0","id":1,"method":"ping"} "#;
    check(bare, Ok((Form::Bare, bare, "", "")));
    check("[1]", Ok((Form::Bare, "[1]", "", "")));
    check(
        r#"{"auth_token":"t\u0041","message": {"id": 9007199254740993} }"#,
        Ok((Form::Wrapped, r#"{"id": 9007199254740993}"#, "", "tA")),
    );
    check(
        r#"{"id":1,"timestamp":"x","source":"r","target_namespace":"ns","auth_token":"t",
            "mcp_payload":{"b":1.0,"a":[ ]}}"#,
        Ok((Form::Enveloped, r#"{"b":1.0,"a":[ ]}"#, "ns", "t")),
    );
}

#[test]
fn what_does_not_matter_may_be_anything() {
    let want = Ok((Form::Enveloped, "{}", "", ""));
    check(r#"{"mcp_payload":{}}"#, want);
    check(r#"{"timestamp":5,"source":null,"id":{},"mcp_payload":{},"more":[]}"#, want);
    check(r#"{"timestamp":5,"timestamp":6,"mcp_payload":{}}"#, want);
    check(r#"{"target_namespace":null,"auth_token":null,"message":null,"mcp_payload":{}}"#, want);
    let bare = r#"{"jsonrpc":"2.0","message":null}"#;
    check(bare, Ok((Form::Bare, bare, "", "")));
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let twice = |key| Err(EnvelopeError::DuplicateKey(key));
    check(r#"{"mcp_payload":{},"mcp_payload":{}}"#, twice("mcp_payload"));
    check(r#"{"mcp_payload":{},"mcp_\u0070ayload":null}"#, twice("mcp_payload"));
    let case = |key| Err(EnvelopeError::CaseVariant(key));
    check(r#"{"MCP_Payload":{}}"#, case("mcp_payload"));
    check(r#"{"auth_to\u212aen":"x","message":{}}"#, case("auth_token"));
    check(r#"{"jsonrpc":"2.0","mcp_payload":{}}"#, Err(EnvelopeError::Ambiguous));
    check(r#"{"message":{},"mcp_payload":{}}"#, Err(EnvelopeError::Ambiguous));
    check(r#"{"id":1,"timestamp":"x"}"#, Err(EnvelopeError::NoPayload));
    check(r#"{"id":1,"mcp_payload":null}"#, Err(EnvelopeError::NoPayload));
    check(
        r#"{"target_namespace":1,"message":{}}"#,
        Err(EnvelopeError::NotText("target_namespace")),
    );
    check(r#"{"message":{}"#, Err(EnvelopeError::Json(JsonError::Truncated(13))));
    check("{} {}", Err(EnvelopeError::Json(JsonError::Trailing(3))));
}

#[test]
fn members_of_any_object_are_found() {
    let params = br#"{"namespace":null,"token":"a","x":1}"#;
    let [token, namespace, other] = members(params, 8, ["token", "namespace", "y"]).unwrap();
    let token = string(params, token, "token").unwrap().unwrap();
    assert!(token.eq(params, "a"));
    assert_eq!(string(params, namespace, "namespace"), Ok(None));
    assert_eq!(other, None);
}

#[test]
fn replies_are_what_the_router_reads() {
    let mut out = Vec::new();
    write_reply_head(&mut out, Some(b"7"), "2025-01-01T00:00:00Z");
    out.extend_from_slice(br#"{"id": 7}"#);
    out.extend_from_slice(PAYLOAD_END);
    let want = r#"{"id":7,"timestamp":"2025-01-01T00:00:00Z","source":"gateway","#;
    assert_eq!(out, format!(r#"{want}"mcp_payload":{{"id": 7}}}}"#).as_bytes());
    out.clear();
    write_reply_head(&mut out, None, "\"");
    out.extend_from_slice(b"1}");
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&value["id"], &value["timestamp"]), (&serde_json::Value::Null, &"\"".into()));
    assert_eq!([PAYLOAD_HEAD, b"1", PAYLOAD_END].concat(), br#"{"mcp_payload":1}"#);
}

#[test]
fn the_property_holds_over_a_corpus() {
    // Found by the fuzzer.
    fuzz(b"\nnull");
    let mut chance = Chance(1);
    let keys = ["id", "auth_token", "message", "mcp_payload", "jsonrpc", "target_namespace", "x"];
    for _ in 0..20_000 {
        let mut document = String::from("{");
        for index in 0..chance.below(5) {
            document.push_str(if index == 0 { "" } else { "," });
            document.push_str(chance.blanks());
            document.push_str(&format!("\"{}\":{}", chance.pick(&keys), chance.document(2)));
        }
        document.push('}');
        let mut bytes = document.into_bytes();
        if chance.below(2) == 0 {
            chance.damage(&mut bytes);
        }
        fuzz(&bytes);
    }
}
