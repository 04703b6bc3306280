//! What inputs begin as: valid documents and streams of each format, behind the bytes that pick how
//! a property reads them.

use crate::binary::frame::{
    Facts, Frame, Hello, Limits, LinkId, Message, MessageKind, Open, StreamId, Welcome,
};
use crate::binary::v1::{self, Dialect, Kind};
use crate::json::generate::Chance;
use crate::sse::write_event;
use crate::ws::{self, DeflateParams, Deflater, Role};
use std::string::String;
use std::vec::Vec;

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const MESSAGES: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"n","arguments":{"a":1.50},"_meta":{"progressToken":"t"}}}"#,
    r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"n","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/logLevel":"debug"}}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.5}}"#,
    r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","_meta":{"io.modelcontextprotocol/subscriptionId":1}}}"#,
    r#"{"result":{"tools":[]},"id":-1,"jsonrpc":"2.0"}"#,
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no","data":[1,[2,[3]]]}}"#,
    r#"[{"jsonrpc":"2.0","method":"x"},{"jsonrpc":"2.0","id":1,"method":"y","params":{"uri":"u","cursor":"c"}}]"#,
    "{\r\n \"jsonrpc\" : \"2.0\" ,\n\t\"id\" : \"\\u0061\\ud83d\\ude00\", \"method\":\"ping\"}\n",
];

pub(super) fn json() -> Vec<Vec<u8>> {
    let mut chance = Chance(21);
    let documents = (0..20).map(|_| chance.document(4).into_bytes());
    documents.chain(texts(MESSAGES)).collect()
}

pub(super) fn rpc() -> Vec<Vec<u8>> {
    texts(MESSAGES)
}

pub(super) fn envelope() -> Vec<Vec<u8>> {
    let around = |message: &&str| {
        [
            String::from(*message),
            std::format!(
                r#"{{"id":1,"timestamp":"2025-01-01T00:00:00Z","source":"t","target_namespace":"system","auth_token":"T","mcp_payload":{message}}}"#
            ),
            std::format!(r#"{{"auth_token":"T","message":{message}}}"#),
        ]
    };
    MESSAGES.iter().flat_map(around).map(String::into_bytes).collect()
}

/// The same behind these bytes.
fn behind(front: &[u8], inputs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    inputs.into_iter().map(|input| [front, &input].concat()).collect()
}

/// Cut in the middle.
pub(super) fn http1() -> Vec<Vec<u8>> {
    let inputs = texts(&[
        "GET /mcp?x=1 HTTP/1.1\r\nHost: a:8080\r\nAccept: text/event-stream\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\n\r\nhello",
        "POST http://a/mcp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;x=\"y\"\r\nhello\r\n0\r\nA: b\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nOrigin: null\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        "5\r\nhello\r\n6;a=b;c\r\n world\r\n000\r\nTrailer: x\r\n\r\n",
    ]);
    behind(&[128], inputs)
}

/// Cut in the middle, and with long events.
pub(super) fn sse() -> Vec<Vec<u8>> {
    let mut written = Vec::new();
    write_event(&mut written, Some("message"), Some(b"7"), Some(1000), b"{\"a\":\n1}");
    write_event(&mut written, None, None, None, b"");
    let mut vectors = texts(&[
        "event: endpoint\ndata: /messages?session_id=x\n\n",
        "\u{feff}data: a\r\ndata: b\r\r: comment\n\nid: 1\nretry: 10\ndata\n\n",
        "data:x\n\nid\ndata: y\n\nid: a\0b\ndata: z\n\nretry: 1x\ndata: w\n\n",
        ":\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n",
    ]);
    vectors.push(written);
    behind(&[128, 200], vectors)
}

/// With lines of up to 20 bytes.
pub(super) fn lines() -> Vec<Vec<u8>> {
    let inputs =
        texts(&["{\"a\":1}\n\n{}\r\n", "a long line without an end", "\n\n\n", "x\ry\nz\n"]);
    behind(&[20], inputs)
}

/// Frames of both sides: to a server they are masked, and some are compressed.
pub(super) fn ws() -> Vec<Vec<u8>> {
    let text =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"text\":\"\u{20ac}\u{1f600} aaaaaaaa\"}}";
    let mut vectors = Vec::new();
    for (role, key) in [(Role::Client, Some([1, 2, 3, 4])), (Role::Server, None)] {
        for deflate in [None, Some(DeflateParams::WITH_CONTEXT)] {
            let mut deflater = deflate.map(|params| Deflater::new(role, params, 8));
            let mut out = Vec::new();
            for message in [text, "", &text.repeat(4)] {
                let kind = ws::MessageKind::Text;
                ws::write_message(&mut out, deflater.as_mut(), kind, message.as_bytes(), key);
                ws::write_ping(&mut out, b"ping", key);
            }
            ws::write_message(&mut out, None, ws::MessageKind::Binary, &[0xff; 130], key);
            ws::write_pong(&mut out, b"", key);
            ws::write_close(&mut out, Some(1000), "bye", key);
            // For the other end.
            let pick = u8::from(role == Role::Server) | if deflate.is_some() { 4 } else { 0 };
            vectors.push([&[pick, 128][..], &out].concat());
        }
    }
    // In pieces, with a control frame between them.
    vectors.push(
        b"\x01\x80\x01\x03\xe2\x82\xac\x89\x01p\x00\x01\xe2\x80\x02\x82\xac\x88\x00".to_vec(),
    );
    let masked =
        b"\0\x80\x01\x82\0\0\0\0\xe2\x82\x89\x81\0\0\0\0p\x80\x81\0\0\0\0\xac\x88\x80\0\0\0\0";
    vectors.push(masked.to_vec());
    vectors
}

/// Texts to compress, and compressed texts.
pub(super) fn deflate() -> Vec<Vec<u8>> {
    let mut vectors = texts(MESSAGES);
    for repeats in [1, 3, 20] {
        let text = MESSAGES.concat().repeat(repeats);
        let text = text.get(..4000).unwrap_or(&text);
        let mut deflater = Deflater::new(Role::Server, DeflateParams::WITHOUT_CONTEXT, 0);
        vectors.extend(deflater.compress(text.as_bytes()));
    }
    // RFC 7692 §7.2.3: one block, one without compression, a final one, two of them.
    for hello in [
        &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ] {
        vectors.push(hello.to_vec());
    }
    behind(&[0x66, 100], vectors)
}

pub(super) fn handshake() -> Vec<Vec<u8>> {
    let mut vectors = texts(&[
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, mcp\r\n\
            Sec-WebSocket-Extensions: x, permessage-deflate; server_max_window_bits=8\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; \
            server_no_context_takeover\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ]);
    let accept = {
        let mut head = b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec();
        let nonce = b"the sample nonce";
        let deflate = Some(DeflateParams::WITHOUT_CONTEXT);
        ws::write_request_fields(&mut head, nonce, &["mcp"], deflate);
        head.extend_from_slice(b"\r\n");
        let slots = &mut crate::http1::HeaderSlots::new();
        let limits = crate::http1::Limits { head_len_max: 4096, target_len_max: 100 };
        let Ok(crate::Decoded::Item { item, .. }) = crate::http1::request(&head, slots, limits)
        else {
            panic!("{}", head.escape_ascii());
        };
        let accepted = ws::accept_request(&item, &["mcp"], deflate).unwrap();
        let mut answer = Vec::new();
        accepted.write_head(&mut answer);
        answer.extend_from_slice(b"\r\n");
        vectors.push(head.clone());
        answer
    };
    vectors.push(accept);
    behind(&[0xdd], vectors)
}

pub(super) fn v1() -> Vec<Vec<u8>> {
    let mut vectors = Vec::new();
    for dialect in [Dialect::Short, Dialect::Long] {
        let mut out = Vec::new();
        v1::write_offer(&mut out, dialect, 2);
        vectors.push(out.clone());
        out.clear();
        v1::write_ack(&mut out, dialect, 1);
        vectors.push(out.clone());
        for message in MESSAGES {
            out.clear();
            v1::write_frame(&mut out, dialect, Kind::Request, message.as_bytes());
            vectors.push(out.clone());
        }
    }
    vectors
}

const LIMITS: Limits = Limits {
    window: 32 * 1024,
    frame_len_max: 1024,
    message_len_max: 4096,
    streams_max: 4,
    replay_len_max: 64 * 1024,
};

fn stream(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

fn message(number: u32, sequence: u64, kind: MessageKind, has_more: bool) -> Frame<'static> {
    let facts = (!has_more).then_some(Facts { method: "tools/call", name: "n" });
    let payload = MESSAGES[1].as_bytes();
    let message = Message { kind, facts, has_more, payload };
    Frame::Message { stream: stream(number), sequence, message }
}

pub(super) fn frames() -> Vec<Vec<u8>> {
    let link = LinkId([7; 16]);
    let open = Open { server: "a", session: "s", revision: "2025-11-25" };
    let all = [
        Frame::Hello(Hello { token: "t", agent: "a", link, received: 0, limits: LIMITS }),
        Frame::Welcome(Welcome { resumed: true, link, received: 3, limits: LIMITS, keep_ms: 9 }),
        Frame::Open { stream: stream(1), sequence: 1, open },
        message(1, 2, MessageKind::Request, false),
        message(1, 3, MessageKind::Response, true),
        Frame::Credit { stream: stream(1), limit: 100_000 },
        Frame::Close { stream: stream(1), sequence: 4, reason: 1, text: "bye" },
        Frame::Ack { received: 3 },
        Frame::Ping { token: [3; 8] },
    ];
    let encode = |frame: &Frame<'_>| {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    };
    all.iter().map(encode).collect()
}

/// Conversations of a peer, from the frame behind the handshake on.
pub(super) fn links() -> Vec<Vec<u8>> {
    let open = |number, sequence| {
        let open = Open { server: "a", session: "", revision: "" };
        Frame::Open { stream: stream(number), sequence, open }
    };
    let close =
        |number, sequence| Frame::Close { stream: stream(number), sequence, reason: 1, text: "" };
    let request = MessageKind::Request;
    let conversations: [&[Frame<'_>]; 4] = [
        &[open(1, 1), message(1, 2, request, false), close(1, 3), Frame::Ack { received: 0 }],
        &[open(1, 1), open(2, 2), message(2, 3, request, true), message(2, 4, request, false)],
        &[
            message(1, 1, MessageKind::Response, false),
            Frame::Credit { stream: stream(1), limit: 40_000 },
            Frame::Ping { token: [1; 8] },
        ],
        &[Frame::Ack { received: 1 }, message(2, 1, request, false), close(2, 2), close(1, 3)],
    ];
    let encode = |frames: &[Frame<'_>]| {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        out
    };
    let conversations = conversations.map(encode).to_vec();
    // To a server, and to a client.
    [behind(&[128], conversations.clone()), behind(&[129], conversations)].concat()
}
