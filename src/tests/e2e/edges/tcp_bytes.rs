//! What the predecessor's documents, its router and its probes say over TCP, as transcripts: every
//! byte of both sides. Where the gateway deliberately says something else, the test says why.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use super::rig::{Dir, Rig, script};
use crate::support::{PATIENCE, free_port};

/// A server whose answers have the predecessor's order, and numbers that do not survive a float.
const SERVER: &str = r#"
answer() { printf '{"jsonrpc":"2.0",%s,"id":%s}\n' "$1" "$id"; }
server='{"name":"sh","version":"1"}'
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  said=$(printf '%s' "$line" | sed 's/.*"arguments":\([^}]*}\).*/\1/')
  case "$line" in
    *'"method":"initialize"'*)
      answer '"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":'"$server}" ;;
    *'"method":"notifications/'*) ;;
    *'"wrong"'*) answer '"error":{"code":-32001,"message":"no"}' ;;
    *'"method":"tools/list"'*) answer '"result":{ "tools" : [] ,"next":9007199254740993}' ;;
    *) answer '"result":{"said":'"$said}" ;;
  esac
done
"#;

fn rig() -> (Rig, u16) {
    let dir = Dir::new();
    let path = dir.write("server.sh", SERVER);
    let port = free_port();
    let servers = script("ns", &path, &[]);
    (Rig::with(dir, &format!("listen.tcp = \"127.0.0.1:{port}\"\n{servers}"), |_| {}), port)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The bytes of a header: hexadecimal, and `<len>` for the length of the payload.
fn header(text: &str, payload_len: usize) -> Vec<u8> {
    let len = format!("{payload_len:08X}");
    let digits: String = text.replace("<len>", &len).split_whitespace().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}

/// Whether `text` is this, with `…` for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Plays a transcript. `C` is the client and `S` the gateway: a header, and behind `|` a payload.
/// `S closes`: without another byte. A line that begins with `>` goes on with the one before.
#[track_caller]
fn talk(stream: &mut TcpStream, transcript: &str) {
    let mut lines: Vec<String> = Vec::new();
    for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("> ") {
            Some(more) => lines.last_mut().unwrap().push_str(more),
            None => lines.push(line.to_owned()),
        }
    }
    for line in &lines {
        let (head, payload) = line.split_once('|').unwrap_or((line, ""));
        let (head, payload) = (head.trim(), payload.trim());
        match head.split_at(2) {
            ("C ", head) => {
                let bytes = [&header(head, payload.len()), payload.as_bytes()].concat();
                stream.write_all(&bytes).unwrap();
            }
            (_, "closes") => {
                let mut rest = Vec::new();
                let end = stream.read_to_end(&mut rest).map_err(|error| error.kind());
                // Who is closed with unread bytes on the way gets a reset.
                assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?} {rest:?}");
            }
            (_, head) => {
                let mut got = vec![0; header(head, 0).len()];
                stream.read_exact(&mut got).unwrap_or_else(|error| panic!("{line}: {error}"));
                let len = u32::from_be_bytes(got[got.len() - 4..].try_into().unwrap());
                let mut text = vec![0; usize::try_from(len).unwrap()];
                stream.read_exact(&mut text).unwrap();
                let text = String::from_utf8(text).unwrap();
                assert_eq!(got, header(head, text.len()), "{line}: {text}");
                assert!(is_like(&text, payload), "{line}\ngot {text}");
            }
        }
    }
}

/// SEED 1.5, the dialect that was documented, and probe 9.
#[test]
fn the_documented_exchange_of_the_12_byte_dialect() {
    let (rig, port) = rig();
    let mut stream = connect(port);
    talk(
        &mut stream,
        r#"
        C 4D435042 0001 0006 <len> | {"min_version":1,"max_version":1,"preferred_version":1,
        > "supported_versions":[1]}
        S 4D435042 0001 0007 00000014 | {"agreed_version":1}
        C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":1,"method":"initialize","params":{
        > "token":"eyJhbGciOiJIUzI1NiJ9.e30.x"}}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{"expiresAt":"20…Z",
        > "sessionId":"…"},"id":1}
        C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":2,"method":"tools/call","params":{
        > "name":"ns.tool","arguments":{}}}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{"said":{}},"id":2}
        C 4D435042 0001 0001 <len> | {"auth_token":"t","message":{"jsonrpc":"2.0",
        > "id":9007199254740993,"method":"tools/list"}}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{ "tools" : [] ,
        > "next":9007199254740993},"id":9007199254740993}
        C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":"x","method":"tools/call","params":{
        > "name":"wrong"}}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","error":{"code":-32001,"message":"no"},
        > "id":"x"}
        C 4D435042 0001 0004 00000000 |
        S 4D435042 0001 0004 00000000 |
        C 4D435042 0001 0004 <len> | {"check":"simple"}
        S 4D435042 0001 0004 00000000 |
        C 4D435042 0001 0003 <len> | {"type":"shutdown"}
        C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":3,"method":"tools/list"}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{…},"id":3}
        "#,
    );
    // The session lives as long as the connection, and is told about as the predecessor did: 32
    // hexadecimal digits.
    rig.until_metric("mcp_sessions_open ", 1);
    drop(stream);
    rig.until_metric("mcp_sessions_open ", 0);
    rig.check();
}

/// SEED 1.5, the dialect of the router, and probe 8. It writes a header in five pieces.
#[test]
fn the_exchange_of_the_router() {
    let (rig, port) = rig();
    let mut stream = connect(port);
    let payload =
        r#"{"max_version":1,"min_version":1,"preferred_version":1,"supported_versions":[1]}"#;
    for piece in ["4D435000", "0001", "0006", "00000000", "<len>"] {
        stream.write_all(&header(piece, payload.len())).unwrap();
    }
    stream.write_all(payload.as_bytes()).unwrap();
    talk(
        &mut stream,
        r#"
        S 4D435000 0001 0007 00000000 00000014 | {"agreed_version":1}
        C 4D435000 0001 0001 00000000 <len> | {"id":1,"timestamp":"2025-01-01T00:00:00Z",
        > "source":"local-router","target_namespace":"system","auth_token":"T","mcp_payload":{
        > "jsonrpc":"2.0","method":"initialize","params":{"protocolVersion":"2025-11-25",
        > "capabilities":{},"clientInfo":{"name":"c","version":"1"}},"id":1}}
        S 4D435000 0001 0002 00000000 <len> | {"mcp_payload":{"jsonrpc":"2.0","result":{
        > "protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh",
        > "version":"1"}},"id":1}}
        C 4D435000 0001 0001 00000000 <len> | {"id":null,"timestamp":"2025-01-01T00:00:00Z",
        > "source":"local-router","target_namespace":"system","auth_token":"T","mcp_payload":{
        > "jsonrpc":"2.0","method":"notifications/initialized"}}
        C 4D435000 0001 0001 00000000 <len> | {"id":2,"timestamp":"2025-01-01T00:00:00Z",
        > "source":"local-router","target_namespace":"system","auth_token":"T","mcp_payload":{
        > "jsonrpc":"2.0","method":"tools/call","params":{"arguments":{"a":1.0},"name":"t"},
        > "id":2}}
        S 4D435000 0001 0002 00000000 <len> | {"mcp_payload":{"jsonrpc":"2.0","result":{"said":{
        > "a":1.0}},"id":2}}
        C 4D435000 0001 0004 00000000 <len> | {}
        C 4D435000 0001 0001 00000000 <len> | {"mcp_payload":{"jsonrpc":"2.0",
        > "method":"tools/list","id":"a"}}
        S 4D435000 0001 0002 00000000 <len> | {"mcp_payload":{"jsonrpc":"2.0","result":
        > { "tools" : [] ,"next":9007199254740993},"id":"a"}}
        C 4D435000 0001 0001 00000000 <len> | {"id":3,"target_namespace":"nowhere",
        > "mcp_payload":{"jsonrpc":"2.0","method":"tools/list","id":3}}
        S 4D435000 0001 0002 00000000 <len> | {"mcp_payload":{"jsonrpc":"2.0","error":{
        > "code":-32603,"message":"Routing failed: [
        > router] UNAVAILABLE: no endpoints available for namespace: nowhere"},"id":3}}
        "#,
    );
    // The reserved bytes are not looked at.
    talk(
        &mut stream,
        r#"
        C 4D435000 0001 0001 DEADBEEF <len> | {"mcp_payload":{"jsonrpc":"2.0",
        > "method":"tools/list","id":4}}
        S 4D435000 0001 0002 00000000 <len> | {"mcp_payload":{…"id":4}}
        "#,
    );
    rig.check();
}

/// What is wrong once there was a negotiation, and does not end the connection.
const NEGOTIATED: &str = r#"
    C MAGIC 0001 0006 <len> | {"min_version":0,"max_version":1}
    S MAGIC 0001 0007 <len> | {"agreed_version":1}
    C MAGIC 0001 0006 <len> | {"min_version":1,"max_version":1}
    S MAGIC 0001 0005 <len> | Version already negotiated
    C MAGIC 0001 0002 <len> | {}
    S MAGIC 0001 0005 <len> | Unexpected response message from client
    C MAGIC 0001 0007 <len> | {"agreed_version":1}
    S MAGIC 0001 0005 <len> | Unexpected version ack from client
    C MAGIC 0001 0005 <len> | not JSON at all
    C MAGIC 0001 0003 <len> |
"#;

/// What is wrong before the 12-byte dialect has a token.
const UNAUTHORIZED: &str = r#"
    C MAGIC 0001 0001 <len> | {"jsonrpc":"2.0","id":2,"method":"tools/list"}
    S MAGIC 0001 0002 <len> | {"jsonrpc":"2.0","error":{"code":-32603,
    > "message":"Unauthorized: must initialize first"},"id":2}
    C MAGIC 0001 0001 <len> | {"jsonrpc":"2.0","id":3,"method":"initialize","params":{}}
    S MAGIC 0001 0002 <len> | {"jsonrpc":"2.0","error":{"code":-32603,"message":"[
    > tcp_handler] initialize: UNAUTHORIZED: missing authentication token"},"id":3}
    C MAGIC 0001 0001 <len> | {"jsonrpc":"2.0","id":4,"method":"initialize","params":{
    > "token":""}}
    S MAGIC 0001 0002 <len> | {"jsonrpc":"2.0","error":{"code":-32603,"message":"[
    > tcp_handler] initialize: UNAUTHORIZED: missing authentication token"},"id":4}
    C MAGIC 0001 0001 <len> | {"jsonrpc":"2.0","id":5,"method":"initialize","params":{
    > "token":"t"}}
    S MAGIC 0001 0002 <len> | {"jsonrpc":"2.0","result":{…},"id":5}
"#;

/// SEED probe 10.
#[test]
fn what_must_not_be_said_is_answered_in_the_documented_words() {
    let (rig, port) = rig();
    for (dialect, magic, reserved) in [(12, "4D435042", ""), (16, "4D435000", "00000000")] {
        // The frames are the same but for the magic and four reserved bytes.
        let talk = |transcript: &str| {
            let transcript = transcript.replace("MAGIC", magic).replace("<len>", "RESERVED <len>");
            // Version 2 begins in the 12-byte dialect only.
            let newest = if dialect == 12 { "2" } else { "1" };
            let transcript = transcript.replace("NEWEST", newest);
            talk(&mut connect(port), &transcript.replace("RESERVED", reserved));
        };
        talk(
            r#"
            C MAGIC 0001 0001 <len> | {"jsonrpc":"2.0","id":2,"method":"tools/list"}
            S MAGIC 0001 0005 <len> | Version negotiation required
            S closes
            "#,
        );
        talk(
            r#"
            C MAGIC 0001 0004 <len> |
            S MAGIC 0001 0005 <len> | Version negotiation required
            S closes
            "#,
        );
        talk(
            r#"
            C MAGIC 0001 0006 <len> | {"min_version":3,"max_version":4,"preferred_version":4,
            > "supported_versions":[3,4]}
            S MAGIC 0001 0005 <len> | Version negotiation failed: client speaks 3 to 4
            > , gateway 1 to NEWEST
            S closes
            "#,
        );
        // A range that begins above 1: the highest that both have, if the dialect has it.
        let range = r#"C MAGIC 0001 0006 <len> | {"min_version":2,"max_version":3,
            > "preferred_version":3,"supported_versions":[2,3]}
            "#;
        let answer = match dialect {
            12 => r#"S MAGIC 0001 0007 <len> | {"agreed_version":2}"#,
            _ => {
                r"S MAGIC 0001 0005 <len> | Version negotiation failed: client speaks 2 to 3
                > , gateway 1 to NEWEST
                S closes"
            }
        };
        talk(&(range.to_owned() + answer));
        for offer in ["", "[]", "{}", "null", r#"{"min_version":"1","max_version":1}"#, "{"] {
            let transcript = r"
            C MAGIC 0001 0006 <len> | OFFER
            S MAGIC 0001 0005 <len> | …
            S closes
            ";
            talk(&transcript.replace("OFFER", offer));
        }
        talk(&(NEGOTIATED.to_owned() + if dialect == 12 { UNAUTHORIZED } else { "" }));
    }
    rig.check();
}

/// SEED probe 10, the rest of it: the predecessor answers `Authentication failed` to a token that
/// is not good, and closes. There is no authentication yet, so there is no such token: any is taken
/// for good, as everywhere, and the documents say so.
#[test]
fn any_token_is_taken_for_good() {
    let (rig, port) = rig();
    for token in ["x", "Bearer x", "eyJhbGciOiJub25lIn0.e30.", r"\u0000", "ü"] {
        let transcript = r#"
            C 4D435042 0001 0006 <len> | {"min_version":1,"max_version":1}
            S 4D435042 0001 0007 00000014 | {"agreed_version":1}
            C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":1,"method":"initialize",
            > "params":{"token":"TOKEN"}}
            S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{"expiresAt":"…",
            > "sessionId":"…"},"id":1}
            "#;
        talk(&mut connect(port), &transcript.replace("TOKEN", token));
    }
    rig.check();
}

/// What is in a frame is wrong, and not the frame: the predecessor ended the connection for a
/// payload that it could not parse. Here the request is answered, and the next one served, because
/// the frame says where it begins.
#[test]
fn a_payload_that_is_none_costs_one_answer() {
    let (rig, port) = rig();
    let mut stream = connect(port);
    talk(
        &mut stream,
        r#"
        C 4D435042 0001 0006 <len> | {"min_version":1,"max_version":1}
        S 4D435042 0001 0007 00000014 | {"agreed_version":1}
        C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":1,"method":"initialize","params":{
        > "token":"t"}}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{…},"id":1}
        "#,
    );
    for payload in
        ["", "{", "[]", "null", r#"{"id":1}"#, r#"{"jsonrpc":"2.0","id":1}"#, "\u{feff}{}"]
    {
        let transcript = r#"
        C 4D435042 0001 0001 <len> | PAYLOAD
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","id":null,"error":{"code":-32…}
        C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":2,"method":"tools/list"}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{…},"id":2}
        "#;
        talk(&mut stream, &transcript.replace("PAYLOAD", payload));
    }
    rig.check();
}

/// SEED probe 11: what the predecessor's process does not survive, and what closes a connection.
/// Each of these is refused as soon as the bytes that are wrong are there.
#[test]
fn what_is_no_frame_closes_the_connection_and_nothing_else() {
    let (rig, port) = rig();
    let offer = r#"C 4D435042 0001 0006 <len> | {"min_version":1,"max_version":1}
        S 4D435042 0001 0007 00000014 | {"agreed_version":1}"#;
    let mut witness = connect(port);
    talk(&mut witness, offer);
    for bytes in [
        // Wrong magic, as early as it shows.
        "4E",
        "4D435058",
        "474554202F20485454502F312E310D0A0D0A",
        // Header version 2, and 0.
        "4D435042 0002 0006 00000000",
        "4D435042 0000 0006 00000000",
        // Types that are none.
        "4D435042 0001 0009 00000000",
        "4D435042 0001 0000 00000000",
        // A length of 10 485 761, and the longest.
        "4D435042 0001 0006 00A00001",
        "4D435000 0001 0006 00000000 00A00001",
        "4D435042 0001 0001 FFFFFFFF",
    ] {
        for before in ["", offer] {
            let mut stream = connect(port);
            talk(&mut stream, before);
            stream.write_all(&header(bytes, 0)).unwrap();
            talk(&mut stream, "S closes");
        }
    }
    // The other dialect's magic, once one has been chosen.
    let mut stream = connect(port);
    talk(&mut stream, offer);
    stream.write_all(&header("4D435000", 0)).unwrap();
    talk(&mut stream, "S closes");
    // A header that is cut off, at each byte, and then the end.
    for head in ["4D435042 0001 0006 00000050", "4D435000 0001 0006 00000000 00000050"] {
        let head = header(head, 0);
        for len in 0..head.len() {
            let mut stream = connect(port);
            stream.write_all(&head[..len]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            talk(&mut stream, "S closes");
        }
    }
    talk(
        &mut witness,
        r#"C 4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":1,"method":"initialize",
        > "params":{"token":"t"}}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{…},"id":1}"#,
    );
    rig.until_metric("mcp_connections_open ", 1);
    rig.check();
}

/// SEED probe 11: a byte at a time, both dialects; the answer is the same to the byte.
#[test]
fn every_byte_may_come_by_itself() {
    let (rig, port) = rig();
    let drip = |lines: &[&str], answers: &str| {
        let mut stream = connect(port);
        for line in lines {
            let (head, payload) = line.split_once(" | ").unwrap();
            for byte in [&header(head, payload.len()), payload.as_bytes()].concat() {
                stream.write_all(&[byte]).unwrap();
            }
        }
        talk(&mut stream, answers);
    };
    let token = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"token":"t"}}"#;
    drip(
        &[
            r#"4D435042 0001 0006 <len> | {"min_version":1,"max_version":1}"#,
            &format!("4D435042 0001 0001 <len> | {token}"),
            r#"4D435042 0001 0001 <len> | {"jsonrpc":"2.0","id":2,"method":"tools/list"}"#,
        ],
        r#"
        S 4D435042 0001 0007 00000014 | {"agreed_version":1}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{…},"id":1}
        S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{ "tools" : [] ,
        > "next":9007199254740993},"id":2}
        "#,
    );
    let list = r#"{"mcp_payload":{"jsonrpc":"2.0","method":"tools/list","id":2}}"#;
    drip(
        &[
            r#"4D435000 0001 0006 00000000 <len> | {"min_version":1,"max_version":1}"#,
            &format!("4D435000 0001 0001 00000000 <len> | {list}"),
        ],
        r#"
        S 4D435000 0001 0007 00000000 00000014 | {"agreed_version":1}
        S 4D435000 0001 0002 00000000 <len> | {"mcp_payload":{"jsonrpc":"2.0","result":
        > { "tools" : [] ,"next":9007199254740993},"id":2}}
        "#,
    );
    rig.check();
}

/// SEED probe 12: fifty requests in one write, fifty answers in any order, in both dialects.
#[test]
fn fifty_requests_in_one_write_have_fifty_answers() {
    let (rig, port) = rig();
    let call = |id: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","arguments":{{"a":{id}}}}}}}"#
        )
    };
    let result =
        |id: usize| format!(r#"{{"jsonrpc":"2.0","result":{{"said":{{"a":{id}}}}},"id":{id}}}"#);
    let token = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"token":"t"}}"#;
    for (magic, reserved, around) in
        [("4D435042", "", ""), ("4D435000", "00000000", "{\"mcp_payload\":")]
    {
        let end = if around.is_empty() { "" } else { "}" };
        let frame = |kind: &str, payload: &str| {
            let head = header(&format!("{magic} 0001 {kind} {reserved} <len>"), payload.len());
            [&head, payload.as_bytes()].concat()
        };
        let mut stream = connect(port);
        stream.write_all(&frame("0006", r#"{"min_version":1,"max_version":1}"#)).unwrap();
        let mut got = vec![0; frame("0007", r#"{"agreed_version":1}"#).len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, frame("0007", r#"{"agreed_version":1}"#));
        if around.is_empty() {
            stream.write_all(&frame("0001", token)).unwrap();
            talk(
                &mut stream,
                r#"S 4D435042 0001 0002 <len> | {"jsonrpc":"2.0","result":{…},"id":1}"#,
            );
        }
        let requests = (100..150).map(|id| frame("0001", &format!("{around}{}{end}", call(id))));
        stream.write_all(&requests.collect::<Vec<_>>().concat()).unwrap();
        let mut expected: Vec<Vec<u8>> =
            (100..150).map(|id| frame("0002", &format!("{around}{}{end}", result(id)))).collect();
        while let Some(len) = expected.first().map(Vec::len) {
            // All are of one length.
            let mut got = vec![0; len];
            stream.read_exact(&mut got).unwrap();
            let at = expected.iter().position(|it| *it == got);
            expected.swap_remove(at.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&got))));
        }
    }
    rig.check();
}

/// The longest frame there is, and one byte more.
#[test]
fn ten_mebibytes_are_a_frame() {
    let (rig, port) = rig();
    let mut stream = connect(port);
    talk(
        &mut stream,
        r#"
        C 4D435000 0001 0006 00000000 <len> | {"min_version":1,"max_version":1}
        S 4D435000 0001 0007 00000000 00000014 | {"agreed_version":1}
        "#,
    );
    let message = r#"{"mcp_payload":{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let padded = format!("{message}{}}}", " ".repeat(10_485_760 - message.len() - 1));
    assert_eq!(padded.len(), 10_485_760);
    stream.write_all(&header("4D435000 0001 0001 00000000 00A00000", 0)).unwrap();
    stream.write_all(padded.as_bytes()).unwrap();
    talk(
        &mut stream,
        r#"S 4D435000 0001 0002 00000000 <len> | {"mcp_payload":{…"result":{…},"id":1}}"#,
    );
    stream.write_all(&header("4D435000 0001 0001 00000000 00A00001", 0)).unwrap();
    talk(&mut stream, "S closes");
    rig.check();
}

/// SEED probe 11: a thousand connections that have nothing to say.
#[test]
fn a_thousand_idle_connections_hinder_nobody() {
    let (rig, port) = rig();
    let offer = r#"C 4D435042 0001 0006 <len> | {"min_version":1,"max_version":1}
        S 4D435042 0001 0007 00000014 | {"agreed_version":1}"#;
    let mut idle: Vec<TcpStream> = (0..1000).map(|_| connect(port)).collect();
    rig.until_metric("mcp_connections_open ", 1000);
    for stream in idle.iter_mut().step_by(10) {
        talk(stream, offer);
    }
    let mut stream = connect(port);
    talk(&mut stream, offer);
    drop(idle);
    rig.until_metric("mcp_connections_open ", 1);
    rig.check();
}
