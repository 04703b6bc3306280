//! Tests of the envelope scanner.

use super::*;
use crate::json::JsonError;
use crate::json::generate::Chance;
use alloc::format;
use alloc::string::{String, ToString as _};
use serde_json::Value;

const LIMITS: Limits = Limits { depth_max: 128, len_max: 1 << 20 };

const CALL: &str = concat!(
    r#"{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"weather","#,
    r#""arguments":{"city":"Oslo","name":"not this"},"_meta":{"#,
    r#""progressToken":"p-1"}}}"#,
);

const MODERN: &str = concat!(
    r#"{"method":"resources/read","params":{"uri":"file:///a","cursor":"","#,
    r#""taskId":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{"roots":{}},"#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"#,
    r#""io.modelcontextprotocol/logLevel":"info","#,
    r#""io.modelcontextprotocol/subscriptionId":"s-1","progressToken":-3}},"#,
    r#""jsonrpc":"2.0","id":"a"}"#,
);

const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"#,
    r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","#,
    r#""version":"1"}}}"#,
);

const PROGRESS: &str = concat!(
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"#,
    r#""progressToken":12345678901234567890,"progress":0.5}}"#,
);

const CANCELLED: &str = concat!(
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x","#,
    r#""reason":"no"}}"#,
);

const INITIALIZED: &str = concat!(
    r#"{"result":{"protocolVersion":"2025-06-18","_meta":{"#,
    r#""io.modelcontextprotocol/subscriptionId":9}},"jsonrpc":"2.0","#,
    r#""id":9007199254740993}"#,
);

const FAILURE: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"no"}}"#;

const VALID: [&str; 7] = [CALL, MODERN, INITIALIZE, PROGRESS, CANCELLED, INITIALIZED, FAILURE];

#[track_caller]
fn read(text: &str) -> Envelope {
    scan(text.as_bytes(), LIMITS).unwrap_or_else(|err| panic!("{err}: {text}"))
}

/// Compares a fact with what the document says there, `None` being absent.
#[track_caller]
fn check(text: &str, fact: impl Fn(Envelope) -> Option<Span>, want: Option<&str>) {
    let span = fact(read(text));
    let token = span.map(|span| core::str::from_utf8(span.get(text.as_bytes())).unwrap());
    assert_eq!(token, want, "{text}");
}

fn token(text: Option<Text>) -> Option<Span> {
    text.map(Text::token)
}

#[test]
fn each_fact_comes_from_its_place() {
    let kinds = VALID.map(|text| read(text).kind);
    let [call, modern, initialize, progress, cancelled, initialized, failure] = kinds;
    assert_eq!([call, modern, initialize], [Kind::Request; 3]);
    assert_eq!([progress, cancelled], [Kind::Notification; 2]);
    assert_eq!([initialized, failure], [Kind::Response, Kind::ErrorResponse]);

    check(CALL, |e| e.id, Some("17"));
    check(CALL, |e| token(e.method), Some("\"tools/call\""));
    check(CALL, |e| token(e.name), Some("\"weather\""));
    check(CALL, |e| e.progress_token, Some("\"p-1\""));
    check(CALL, |e| e.notified_token, None);
    check(CALL, |e| token(e.meta_version), None);
    let (_, params) = CALL.split_once("\"params\":").unwrap();
    let params = params.strip_suffix('}').unwrap();
    check(CALL, |e| e.params, Some(params));

    check(MODERN, |e| e.id, Some("\"a\""));
    check(MODERN, |e| token(e.name), None);
    check(MODERN, |e| token(e.uri), Some("\"file:///a\""));
    check(MODERN, |e| token(e.cursor), Some("\"\""));
    check(MODERN, |e| token(e.task_id), Some("\"t\""));
    check(MODERN, |e| token(e.meta_version), Some("\"2026-07-28\""));
    check(MODERN, |e| e.meta_capabilities, Some(r#"{"roots":{}}"#));
    check(MODERN, |e| e.meta_client_info, Some(r#"{"name":"c","version":"1"}"#));
    check(MODERN, |e| e.meta_log_level, Some("\"info\""));
    check(MODERN, |e| e.subscription_id, Some("\"s-1\""));
    check(MODERN, |e| e.progress_token, Some("-3"));

    check(INITIALIZE, |e| token(e.protocol_version), Some("\"2025-11-25\""));
    check(INITIALIZE, |e| token(e.result_version), None);
    check(PROGRESS, |e| e.notified_token, Some("12345678901234567890"));
    check(PROGRESS, |e| e.progress_token, None);
    check(PROGRESS, |e| e.id, None);
    check(CANCELLED, |e| e.request_id, Some("\"x\""));

    check(INITIALIZED, |e| e.id, Some("9007199254740993"));
    check(INITIALIZED, |e| token(e.result_version), Some("\"2025-06-18\""));
    check(INITIALIZED, |e| token(e.protocol_version), None);
    check(INITIALIZED, |e| e.subscription_id, Some("9"));
    check(FAILURE, |e| e.id, Some("null"));
    check(FAILURE, |e| e.error, Some(r#"{"code":-32601,"message":"no"}"#));
    assert_eq!(read(FAILURE).error_code, Some(-32601));
}

#[test]
fn ids_keep_their_type_and_digits() {
    for id in
        ["\"a\"", "\"\"", "0", "-1", "9007199254740993", "12345678901234567890", "\"\\u0031\""]
    {
        check(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#), |e| e.id, Some(id));
        check(&format!(r#"{{"id": {id} ,"result":1,"jsonrpc":"2.0"}}"#), |e| e.id, Some(id));
    }
}

#[test]
fn keys_and_values_count_after_unescaping() {
    let text = concat!(
        r#"{"json\u0072pc":"2\u002e0","\u0069d":1,"m\u0065thod":"tools\/call","#,
        r#""params":{"n\u0061me":"\u0061"}}"#,
    );
    check(text, |e| e.id, Some("1"));
    let envelope = read(text);
    assert!(envelope.method.unwrap().eq(text.as_bytes(), "tools/call"));
    assert!(!envelope.method.unwrap().eq(text.as_bytes(), "tools\\/call"));
    assert_eq!(&*envelope.name.unwrap().decode(text.as_bytes()), b"a");
    assert!(read(CALL).method.unwrap().eq(CALL.as_bytes(), "tools/call"));
}

#[test]
fn values_of_another_type_are_no_facts() {
    let text = concat!(
        r#"{"jsonrpc":"2.0","method":"m","params":{"name":1,"uri":null,"cursor":[],"#,
        r#""taskId":{},"protocolVersion":true,"_meta":"x","progress":{"#,
        r#""progressToken":1}}}"#,
    );
    let envelope = read(text);
    let texts = [envelope.name, envelope.uri, envelope.cursor, envelope.task_id];
    assert_eq!(texts, [None; 4]);
    assert_eq!(envelope.protocol_version, None);
    assert_eq!(envelope.progress_token, None);
    for code in ["1.5", "\"1\"", "1e3", "99999999999999999999", "null"] {
        let text = format!(r#"{{"jsonrpc":"2.0","error":{{"code":{code}}}}}"#);
        assert_eq!((read(&text).error_code, read(&text).id), (None, None), "{code}");
    }
    check(r#"{"jsonrpc":"2.0","error":"odd"}"#, |e| e.error, Some("\"odd\""));
    check(r#"{"jsonrpc":"2.0","id":1,"result":null}"#, |e| e.result, Some("null"));
}

/// `members` follow `"jsonrpc":"2.0"`.
#[track_caller]
fn refuse(members: &str, want: RpcError) {
    let text = format!(r#"{{"jsonrpc":"2.0",{members}}}"#);
    assert_eq!(scan(text.as_bytes(), LIMITS), Err(want), "{text}");
    assert!(!want.to_string().is_empty());
    fuzz(text.as_bytes());
}

#[test]
fn a_bad_envelope_is_refused_for_its_reason() {
    let whole = |text: &str| scan(text.as_bytes(), LIMITS).unwrap_err();
    assert_eq!(whole("[]"), RpcError::NotAnObject);
    assert_eq!(whole("17"), RpcError::NotAnObject);
    assert_eq!(whole("nope"), RpcError::Json(JsonError::Unexpected(0)));
    assert_eq!(whole(r#"{"id":1,"method":"m"}"#), RpcError::BadVersion);
    assert_eq!(whole(r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#), RpcError::BadVersion);
    assert_eq!(whole(r#"{"jsonrpc":"2.00","id":1,"method":"m"}"#), RpcError::BadVersion);
    for id in ["1.0", "1e3", "-0.5", "true", "[]", "{}"] {
        refuse(&format!(r#""id":{id},"method":"m""#), RpcError::BadId);
    }
    refuse(r#""id":null,"method":"m""#, RpcError::NullId);
    refuse(r#""id":null,"result":{}"#, RpcError::NullId);
    refuse(r#""result":{}"#, RpcError::ResultWithoutId);
    refuse(r#""id":1"#, RpcError::Shapeless);
    refuse(r#""id":1,"method":null"#, RpcError::BadMethod);
    refuse(r#""id":1,"result":1,"error":{}"#, RpcError::ResultAndError);
    refuse(r#""id":1,"method":"m","result":1"#, RpcError::MethodAndAnswer);
    refuse(r#""id":1,"method":"m","error":{}"#, RpcError::MethodAndAnswer);
    for params in ["[]", "null", "1", "\"x\""] {
        refuse(&format!(r#""method":"m","params":{params}"#), RpcError::BadParams);
    }
    for token in ["null", "1.5", "1e2", "{}", "[1]", "false"] {
        let bad = |members: &str, key| {
            refuse(&format!(r#""method":"m","params":{{{members}}}"#), RpcError::BadToken(key));
        };
        bad(&format!(r#""requestId":{token}"#), "params.requestId");
        bad(&format!(r#""progressToken":{token}"#), "params.progressToken");
        bad(&format!(r#""_meta":{{"progressToken":{token}}}"#), "_meta.progressToken");
    }
    let key = "io.modelcontextprotocol/protocolVersion";
    let meta = format!(r#""method":"m","params":{{"_meta":{{"{key}":1}}}}"#);
    refuse(&meta, RpcError::BadMetaString(key));
}

#[test]
fn a_key_that_is_read_stands_once() {
    for (members, key) in [
        (r#""id":1,"method":"m","id":1"#, "id"),
        (r#""id":1,"method":"m","\u0069d":1"#, "id"),
        (r#""jsonrpc":"2.0","method":"m""#, "jsonrpc"),
        (r#""method":"m","params":{},"params":{}"#, "params"),
        (r#""method":"m","params":{"name":"a","name":1}"#, "name"),
        (r#""method":"m","params":{"arguments":{},"arguments":{}}"#, "arguments"),
        (r#""method":"m","params":{"_meta":{},"_meta":{}}"#, "_meta"),
        (
            r#""method":"m","params":{"_meta":{"progressToken":1,"progressToken":1}}"#,
            "progressToken",
        ),
        (r#""id":1,"result":{"_meta":1,"_meta":{}}"#, "_meta"),
        (r#""id":1,"error":{"code":1,"code":1}"#, "code"),
    ] {
        refuse(members, RpcError::DuplicateKey(key));
    }
    let levels = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"id":1,"method":"m","#,
        r#""arguments":{"a":1,"a":2},"x":1,"x":2}}"#,
    );
    assert_eq!(read(levels).kind, Kind::Request, "other keys and levels are the server's business");
}

#[test]
fn a_key_that_go_would_read_stands_in_its_case() {
    for (members, key) in [
        (r#""ID":1,"method":"m""#, "id"),
        (r#""method":"m","Method":"n""#, "method"),
        (r#""METHOD":"m""#, "method"),
        (r#""id":1,"method":"m","para\u006dS":{}"#, "params"),
        (r#""id":1,"method":"m","paramſ":{}"#, "params"),
        (r#""id":1,"method":"m","re\u017fult":{}"#, "result"),
        (r#""method":"m","params":{"name":"a","Name":"b"}"#, "name"),
        (r#""method":"m","params":{"Name":"b","name":"a"}"#, "name"),
        (r#""method":"m","params":{"Name":"b","NAME":"a"}"#, "name"),
        (r#""method":"m","params":{"taſkId":"b","taskId":"a"}"#, "taskId"),
        (r#""method":"m","params":{"progressToKen":1,"progressToken":1}"#, "progressToken"),
    ] {
        refuse(members, RpcError::CaseVariant(key));
    }
    let alone =
        r#"{"jsonrpc":"2.0","method":"m","params":{"Name":"b","names":1,"nam":2,"námé":3}}"#;
    check(alone, |e| token(e.name), None);
}

#[test]
fn every_key_is_found_by_its_name() {
    use super::key::Level;
    for level in [Level::Message, Level::Params] {
        for key in level.folding() {
            assert_eq!(level.find(key.name().as_bytes()), Some(*key));
        }
    }
}

#[test]
fn codes_follow_from_the_kind_of_fault() {
    assert_eq!(RpcError::Json(JsonError::Truncated(3)).code(), -32700);
    assert_eq!(RpcError::TooLong { len: 2, len_max: 1 }.code(), -32700);
    assert_eq!(RpcError::NullId.code(), -32600);
    assert_eq!(RpcError::EmptyBatch.code(), -32600);
    assert_eq!(RpcError::BadParams.code(), -32602);
    assert_eq!(RpcError::BadToken("x").code(), -32602);
    let err = RpcError::DuplicateKey("id");
    assert_eq!(err.to_string(), "send the key `id` only once");
}

#[test]
fn limits_hold() {
    let bytes = CALL.as_bytes();
    let len = bytes.len();
    assert!(scan(bytes, Limits { len_max: len, depth_max: 3 }).is_ok());
    let err = scan(bytes, Limits { len_max: len - 1, depth_max: 3 });
    assert_eq!(err, Err(RpcError::TooLong { len, len_max: len - 1 }));
    let err = scan(bytes, Limits { len_max: len, depth_max: 2 });
    assert!(matches!(err, Err(RpcError::Json(JsonError::TooDeep(_)))), "{err:?}");
    let err = document(b"[1,2]", Limits { len_max: 4, depth_max: 2 });
    assert_eq!(err, Err(RpcError::TooLong { len: 5, len_max: 4 }));
}

#[test]
fn no_prefix_of_a_message_is_a_message() {
    for text in VALID {
        for end in 0..text.len() {
            let prefix = &text.as_bytes()[..end];
            assert!(scan(prefix, LIMITS).is_err(), "{}", String::from_utf8_lossy(prefix));
            assert!(document(prefix, LIMITS).is_err());
        }
        fuzz(text.as_bytes());
    }
}

#[test]
fn a_batch_is_whole_or_nothing() {
    let batch = format!(" [{CALL},\n{PROGRESS}]");
    assert_eq!(document(batch.as_bytes(), LIMITS), Ok(Document::Batch));
    let kinds = json::elements(batch.as_bytes(), 128)
        .map(|span| scan(span.unwrap().get(batch.as_bytes()), LIMITS).unwrap().kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [Kind::Request, Kind::Notification]);
    assert_eq!(document(CALL.as_bytes(), LIMITS), Ok(Document::Message(read(CALL))));
    assert_eq!(document(b"[ ]", LIMITS), Err(RpcError::EmptyBatch));
    for bad in [r#"[{"jsonrpc":"2.0"},]"#, "[1", "[1]]"] {
        assert_eq!(document(bad.as_bytes(), LIMITS).map_err(RpcError::code), Err(-32700), "{bad}");
    }
}

#[test]
fn splicing_changes_the_spans_and_nothing_else() {
    let envelope = read(CALL);
    let bytes = CALL.as_bytes();
    let (id, name) = (envelope.id.unwrap(), envelope.name.unwrap().token());
    let method = envelope.method.unwrap().token();
    let same: [(Span, &[u8]); 3] =
        [(name, name.get(bytes)), (id, id.get(bytes)), (method, method.get(bytes))];
    let mut out = b"kept".to_vec();
    splice(&mut out, bytes, &same);
    assert_eq!(out, [b"kept", bytes].concat());

    let mut out = Vec::new();
    let place = Span { start: 1, end: 1 };
    splice(
        &mut out,
        bytes,
        &[(name, b"\"w\""), (id, b"\"g-9\""), (place, b"\"a\":1,"), (place, b" ")],
    );
    let want = CALL.replace("17", "\"g-9\"").replace("\"weather\"", "\"w\"");
    assert_eq!(String::from_utf8(out.clone()).unwrap(), want.replacen('{', "{\"a\":1, ", 1));
    let text = String::from_utf8(out).unwrap();
    check(&text, |e| e.id, Some("\"g-9\""));
    check(&text, |e| token(e.name), Some("\"w\""));
}

#[test]
fn line_breaks_become_blanks() {
    let text = CALL.replace(',', ",\r\n");
    let envelope = read(&text);
    assert!(envelope.has_line_breaks && !read(CALL).has_line_breaks);
    let mut out = b"\n".to_vec();
    write_line_safe(&mut out, text.as_bytes(), &[(envelope.id.unwrap(), b"[\n1]")]);
    let want = CALL.replace(',', ",  ").replace("17", "[ 1]");
    assert_eq!(String::from_utf8(out).unwrap(), format!("\n{want}"));
    assert!(read(&format!("{CALL}\n")).has_line_breaks, "also behind the message");
}

/// A message with members in any order, spelled in any way, with unknown ones among them.
fn random_message(chance: &mut Chance) -> String {
    let id = chance.pick(&["\"id\":7", "\"\\u0069d\": \"x\\n\"", "\"id\" : -900719925474099300"]);
    let meta = object(
        chance,
        &[
            r#""progressToken":"p""#,
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#,
            r#""io.modelcontextprotocol\/clientCapabilities":{"a":[]}"#,
            r#""io.modelcontextprotocol/clientInfo":{}"#,
            r#""io.modelcontextprotocol/subscriptionId":5"#,
        ],
    );
    let meta = format!("\"_meta\":{meta}");
    let inside = [&meta, r#""name":"t\u0041""#, r#""uri":"u""#, r#""protocolVersion":"v""#];
    let inside = object(chance, &[&inside[..], &[r#""requestId":1"#, r#""cursor":1"#]].concat());
    let body = match chance.below(3) {
        0 => [String::from("\"method\":\"tools/call\""), format!("\"params\":{inside}")],
        1 => [format!("\"result\":{inside}"), String::from("\"x\":{}")],
        _ => [String::from("\"error\":{\"code\":-32000}"), String::from("\"x\":[]")],
    };
    let mut members = [r#""jsonrpc":"2.0""#, id, &body[0], &body[1]];
    let swap = (chance.below(4), chance.below(4));
    members.swap(swap.0, swap.1);
    let blank = chance.blanks();
    format!("{{{blank}{}{blank}}}", members.join(&format!(",{blank}")))
}

/// An object of some of `members`, and one more.
fn object(chance: &mut Chance, members: &[&str]) -> String {
    let extra = format!("\"extra\":{}", chance.document(3));
    let mut chosen: Vec<&str> = members.to_vec();
    chosen.retain(|_| chance.below(2) == 0);
    chosen.insert(chance.below(chosen.len() + 1), &extra);
    format!("{{{}}}", chosen.join(","))
}

/// `serde_json` reads a message into a tree; the envelope must say what the tree says.
#[test]
fn the_facts_are_those_that_serde_json_reads() {
    let mut chance = Chance(3);
    for _ in 0..2000 {
        let text = random_message(&mut chance);
        let tree: Value = serde_json::from_str(&text).unwrap();
        let envelope = read(&text);
        let parse = |span: Span| serde_json::from_slice(span.get(text.as_bytes())).unwrap();
        let raw = |span: Option<Span>, at: &str| {
            assert_eq!(span.map(parse).as_ref(), tree.pointer(at), "{at} of {text}");
        };
        let string = |span: Option<Text>, at: &str| {
            let value =
                span.map(|span| String::from_utf8(span.decode(text.as_bytes()).into()).unwrap());
            assert_eq!(
                value.as_deref(),
                tree.pointer(at).and_then(Value::as_str),
                "{at} of {text}"
            );
        };
        raw(envelope.id, "/id");
        raw(envelope.params, "/params");
        raw(envelope.result, "/result");
        raw(envelope.error, "/error");
        raw(envelope.request_id, "/params/requestId");
        raw(envelope.notified_token, "/params/progressToken");
        raw(envelope.progress_token, "/params/_meta/progressToken");
        let meta = "/params/_meta/io.modelcontextprotocol~1";
        raw(envelope.meta_capabilities, &format!("{meta}clientCapabilities"));
        raw(envelope.meta_client_info, &format!("{meta}clientInfo"));
        raw(envelope.meta_log_level, &format!("{meta}logLevel"));
        let level = if envelope.result.is_some() { "result" } else { "params" };
        let subscription = "_meta/io.modelcontextprotocol~1subscriptionId";
        raw(envelope.subscription_id, &format!("/{level}/{subscription}"));
        string(envelope.method, "/method");
        string(envelope.name, "/params/name");
        string(envelope.uri, "/params/uri");
        string(envelope.cursor, "/params/cursor");
        string(envelope.protocol_version, "/params/protocolVersion");
        string(envelope.result_version, "/result/protocolVersion");
        string(envelope.meta_version, &format!("{meta}protocolVersion"));
        let code = tree.pointer("/error/code").and_then(Value::as_i64);
        assert_eq!(envelope.error_code, code);
        assert_eq!(envelope.has_line_breaks, text.contains(['\n', '\r']));
        let mut bytes = text.into_bytes();
        for _ in 0..4 {
            fuzz(&bytes);
            chance.damage(&mut bytes);
        }
    }
}
