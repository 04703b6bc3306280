//! The opening handshake, both ends, and the negotiation of compression.

use super::super::{
    Acceptance, Connected, DeflateParams, DeflateSide, RequestError, ResponseError, accept_request,
    accept_response, write_request_fields,
};
use crate::Decoded;
use crate::http1::{self, HEAD_END, HeaderSlots, Limits, write_header, write_request_line};
use std::format;
use std::string::String;
use std::vec::Vec;

const LIMITS: Limits = Limits { head_len_max: 4096, target_len_max: 256 };

const NONCE: &[u8; 16] = b"the sample nonce";

const FIELDS: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// What a server with these subprotocols and wishes makes of a head.
fn accepted(
    head: &str,
    deflate: Option<DeflateParams>,
) -> Result<Acceptance<'static>, RequestError> {
    let slots = &mut HeaderSlots::new();
    let Ok(Decoded::Item { item, .. }) = http1::request(head.as_bytes(), slots, LIMITS) else {
        panic!("{head:?} is no head");
    };
    accept_request(&item, &["mcp", "other"], deflate)
}

fn get(fields: &str) -> String {
    format!("GET /chat HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[track_caller]
fn check_request(head: &str, want: RequestError, status: u16) {
    assert_eq!(accepted(head, None), Err(want), "{head:?}");
    assert_eq!(want.status(), status);
}

/// What a server that wants `wanted` answers to an offer.
#[track_caller]
fn check_offer(offer: &str, wanted: DeflateParams, want: Option<&str>) {
    let head = get(&format!("{FIELDS}Sec-WebSocket-Extensions: {offer}\r\n"));
    let acceptance = accepted(&head, Some(wanted)).unwrap();
    let mut out = Vec::new();
    acceptance.write_head(&mut out);
    let out = String::from_utf8(out).unwrap();
    let answer = out.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
    assert_eq!(answer, want, "{offer:?}");
    assert_eq!(acceptance.deflate.is_some(), want.is_some());
}

/// What a client that has offered `wanted` makes of the fields of an answer.
fn connected(
    status: &str,
    fields: &str,
    wanted: Option<DeflateParams>,
) -> Result<Connected<'static>, ResponseError> {
    let slots = &mut HeaderSlots::new();
    let head = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
    let Ok(Decoded::Item { item, .. }) = http1::response(head.as_bytes(), slots, LIMITS, false)
    else {
        panic!("{head:?} is no head");
    };
    accept_response(&item, NONCE, &["mcp", "other"], wanted)
}

#[test]
fn the_example_of_the_standard() {
    // RFC 6455 §1.3.
    let head = get(&format!(
        "{FIELDS}Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
    ));
    let acceptance = accepted(&head, None).unwrap();
    let mut out = Vec::new();
    acceptance.write_head(&mut out);
    let want = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
        connection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    assert_eq!(out, want);
}

#[test]
fn the_first_subprotocol_that_both_have() {
    let protocol = |fields: &str| {
        let head = get(&format!("{FIELDS}{fields}"));
        accepted(&head, None).map(|acceptance| acceptance.protocol)
    };
    assert_eq!(protocol(""), Ok(None));
    assert_eq!(protocol("Sec-WebSocket-Protocol: mcp\r\n"), Ok(Some("mcp")));
    assert_eq!(protocol("Sec-WebSocket-Protocol: x, other ,mcp\r\n"), Ok(Some("other")));
    assert_eq!(protocol("Sec-WebSocket-Protocol: x, MCP\r\n"), Ok(None));
    let lines = "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: mcp\r\n";
    assert_eq!(protocol(lines), Ok(Some("mcp")));
    let bad = "Sec-WebSocket-Protocol: mcp, a b\r\n";
    assert_eq!(protocol(bad), Err(RequestError::BadProtocol));
}

#[test]
fn lists_and_cases_that_are_allowed() {
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nconnection: upgrade"),
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
    ] {
        assert!(accepted(&get(&FIELDS.replace(from, to)), None).is_ok(), "{to}");
    }
}

#[test]
fn requests_that_are_no_handshake() {
    let edited = |from: &str, to: &str| get(&FIELDS.replace(from, to));
    check_request(&get(FIELDS).replace("GET", "POST"), RequestError::NotGet, 405);
    check_request(&get(FIELDS).replace("HTTP/1.1", "HTTP/1.0"), RequestError::NotHttp11, 400);
    let with_body = get(&format!("{FIELDS}Content-Length: 1\r\n"));
    check_request(&with_body, RequestError::HasBody, 400);
    for (from, to) in [
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket", "Upgrade: websockets"),
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
    ] {
        check_request(&edited(from, to), RequestError::NoUpgrade, 426);
    }
    let version = "Sec-WebSocket-Version: 13";
    for to in ["x: y", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 8"] {
        check_request(&edited(version, to), RequestError::BadVersion, 426);
    }
    let twice = format!("{version}\r\n{version}");
    check_request(&edited(version, &twice), RequestError::BadVersion, 426);
    assert!(RequestError::BadVersion.fields().contains(&("sec-websocket-version", "13")));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for to in ["x: y", "Sec-WebSocket-Key: ", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU="] {
        check_request(&edited(key, to), RequestError::BadKey, 400);
    }
    check_request(&edited(key, &format!("{key}\r\n{key}")), RequestError::BadKey, 400);
}

#[test]
fn offers_of_compression() {
    let all = DeflateParams::WITH_CONTEXT;
    let none = DeflateParams::WITHOUT_CONTEXT;
    let plain = Some("permessage-deflate");
    check_offer("permessage-deflate", all, plain);
    check_offer("permessage-deflate; client_max_window_bits", all, plain);
    check_offer("x-webkit, Permessage-Deflate ;client_max_window_bits = \"15\"", all, plain);
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    check_offer("permessage-deflate", none, Some(both));
    check_offer(both, all, Some(both));
    for bits in 8..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        check_offer(&offer, all, Some(&offer));
    }
    for bits in 8..15 {
        let offer = format!("permessage-deflate; client_max_window_bits={bits}");
        check_offer(&offer, all, Some(&offer));
    }
    let mut small = all;
    small.client.window_bits = 10;
    small.server.window_bits = 11;
    check_offer("permessage-deflate", small, Some("permessage-deflate; server_max_window_bits=11"));
    check_offer(
        "permessage-deflate; client_max_window_bits; server_max_window_bits=12",
        small,
        Some("permessage-deflate; server_max_window_bits=11; client_max_window_bits=10"),
    );
}

#[test]
fn an_offer_that_cannot_be_kept_is_passed_over() {
    let all = DeflateParams::WITH_CONTEXT;
    for parameter in [
        "server_max_window_bits",
        "server_max_window_bits=",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=+9",
        "server_max_window_bits=9; server_max_window_bits=9",
        "client_max_window_bits=0",
        "client_max_window_bits=\"1 0\"",
        "client_max_window_bits; client_max_window_bits=9",
        "server_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover=\"\"",
        "client_no_context_takeover; client_no_context_takeover",
        "Server_No_Context_Takeover",
        "x",
        "x=\"; \"",
    ] {
        let offer = format!("permessage-deflate; {parameter}");
        check_offer(&offer, all, None);
        let second = format!("{offer}, permessage-deflate; client_no_context_takeover");
        check_offer(&second, all, Some("permessage-deflate; client_no_context_takeover"));
    }
    for other in ["", ",", "x", "x-permessage-deflate", "\"permessage-deflate\"", "x; y=\"a, b\""] {
        check_offer(other, all, None);
    }
}

#[test]
fn the_two_ends_agree() {
    let sides = |server_bits, client_bits, no_context_takeover| DeflateParams {
        server: DeflateSide { no_context_takeover, window_bits: server_bits },
        client: DeflateSide { no_context_takeover, window_bits: client_bits },
    };
    let wishes = [
        None,
        Some(sides(15, 15, false)),
        Some(sides(15, 15, true)),
        Some(sides(10, 15, false)),
        Some(sides(15, 12, true)),
        Some(sides(8, 8, true)),
    ];
    for client in wishes {
        for server in wishes {
            let mut request = Vec::new();
            write_request_line(&mut request, "GET", "/");
            write_header(&mut request, "host", b"a");
            write_request_fields(&mut request, NONCE, &["mcp", "other"], client);
            request.extend_from_slice(HEAD_END);
            let acceptance = accepted(&String::from_utf8(request).unwrap(), server).unwrap();

            let mut response = Vec::new();
            acceptance.write_head(&mut response);
            let response = String::from_utf8(response).unwrap();
            let (_, fields) = response.split_once("\r\n").unwrap();
            let connected = connected("101 ", fields, client).unwrap();
            assert_eq!(connected.protocol, Some("mcp"));
            assert_eq!(connected.deflate.is_some(), client.is_some() && server.is_some());
            if let (Some(ours), Some(theirs)) = (connected.deflate, acceptance.deflate) {
                assert_eq!(ours.server, theirs.server);
                assert_eq!(ours.client, theirs.client);
            }
        }
    }
}

#[test]
fn a_client_lets_the_server_name_its_window() {
    let offer = |bits| {
        let mut out = Vec::new();
        let mut wanted = DeflateParams::WITHOUT_CONTEXT;
        wanted.client.window_bits = bits;
        write_request_fields(&mut out, NONCE, &[], Some(wanted));
        let out = String::from_utf8(out).unwrap();
        let offers = out.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
        String::from(offers.unwrap())
    };
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(offer(15), format!("{both}; client_max_window_bits"));
    assert_eq!(offer(14), format!("{both}; client_max_window_bits=14"));
}

#[test]
fn answers_to_a_client() {
    const GOOD: &str = "Upgrade: WebSocket\r\nConnection: upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let check = |fields: &str, want| assert_eq!(connected("101 x", fields, None), want, "{fields}");
    let fails = |fields: &str, want| check(fields, Err(want));
    check(GOOD, Ok(Connected { protocol: None, deflate: None }));
    let protocol = |names: &str| format!("{GOOD}Sec-WebSocket-Protocol: {names}\r\n");
    check(&protocol("other"), Ok(Connected { protocol: Some("other"), deflate: None }));
    for names in ["x", "mcp, other", "", "mcp\r\nSec-WebSocket-Protocol: mcp"] {
        fails(&protocol(names), ResponseError::BadProtocol);
    }
    fails(&GOOD.replace("WebSocket", "h2c"), ResponseError::NoUpgrade);
    fails(&GOOD.replace("Connection: upgrade", "Connection: close"), ResponseError::NoUpgrade);
    fails(&GOOD.replace("s3p", "S3p"), ResponseError::BadAccept);
    fails(&GOOD.replace("Accept", "X"), ResponseError::BadAccept);
    for status in [200, 301, 401, 426, 503] {
        let error = ResponseError::NotSwitching(status);
        assert_eq!(connected(&format!("{status} x"), GOOD, None), Err(error));
    }
    let extension = |value: &str| format!("{GOOD}Sec-WebSocket-Extensions: {value}\r\n");
    fails(&extension("permessage-deflate"), ResponseError::BadExtension);

    let mut wanted = DeflateParams::WITHOUT_CONTEXT;
    wanted.server.window_bits = 12;
    let with = |value: &str| connected("101 x", &extension(value), Some(wanted));
    let good = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
    let agreed = with(good).unwrap().deflate.unwrap();
    assert_eq!(agreed.server, DeflateSide { no_context_takeover: true, window_bits: 10 });
    assert_eq!(agreed.client, DeflateSide { no_context_takeover: true, window_bits: 15 });
    assert_eq!(with("").unwrap().deflate, None);
    for bad in [
        "x",
        "permessage-deflate; server_max_window_bits=12",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
        &format!("{good}; client_max_window_bits"),
        &format!("{good}; client_max_window_bits=16"),
        &format!("{good}; x"),
        &format!("{good}, {good}"),
        &format!("{good}, x"),
    ] {
        assert_eq!(with(bad), Err(ResponseError::BadExtension), "{bad}");
    }
    for own in [12, 15] {
        wanted.client.window_bits = own;
        let with = |value: &str| connected("101 x", &extension(value), Some(wanted));
        for bits in 8..=15 {
            let found = with(&format!("{good}; client_max_window_bits={bits}"));
            let found = found.map(|it| it.deflate.unwrap().client.window_bits);
            let want = if bits <= own { Ok(bits) } else { Err(ResponseError::BadExtension) };
            assert_eq!(found, want);
        }
        assert_eq!(with(good).unwrap().deflate.unwrap().client.window_bits, own);
    }
}
