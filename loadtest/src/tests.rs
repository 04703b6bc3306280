//! The client, the fake server and the loads against each other, on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use crate::call::{Load, Options};
use crate::client::Client;
use crate::crowd::Crowd;
use crate::request::{self, Era};
use crate::server::{Server, Style};
use crate::target::Target;

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn start(style: Style) -> Server {
    Server::start(SocketAddr::from(ANY), 2, style).unwrap()
}

#[test]
fn a_client_opens_a_session_calls_and_ends_it() {
    for style in [Style::Json, Style::Events] {
        let server = start(style);
        let mut client = Client::connect(server.addr()).unwrap();
        let opened = client.initialize(request::LEGACY).unwrap();
        assert_eq!(opened.is_stream, style == Style::Events);
        assert_eq!(client.session(), Some("fake-0"));
        let answer = client.call("echo", r#"{"text":"a\nb"}"#, r#""id""#).unwrap();
        let expected =
            r#"{"jsonrpc":"2.0","id":"id","result":{"content":[{"type":"text","text":"a\nb"}]}}"#;
        assert_eq!(answer.messages(), [expected.as_bytes()]);
        assert_eq!(server.sessions(), 1);
        assert_eq!(client.delete().unwrap().status, 200);
        assert_eq!(server.sessions(), 0);
        let refused = client.another().unwrap().get_stream(None).map(|_| ());
        assert!(refused.unwrap_err().to_string().contains("405"));
        assert_eq!(client.post(b"{").unwrap().status, 400);
        let stranger = Client::connect(server.addr()).unwrap().call("echo", "{}", "1").unwrap();
        assert_eq!(stranger.status, 404);
    }
}

#[test]
fn a_progress_token_gets_a_note_for_each_step() {
    let server = start(Style::Json);
    let mut client = Client::connect(server.addr()).unwrap();
    client.initialize(request::LEGACY).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"progress","arguments":{"steps":2},"_meta":{"progressToken":"t"}}}"#;
    let answer = client.post(body.as_bytes()).unwrap();
    assert!(answer.is_stream);
    assert_eq!(answer.messages().len(), 3);
}

#[test]
fn a_load_counts_right_answers_only() {
    let server = start(Style::Json);
    for era in [Era::Legacy, Era::Modern] {
        let targets = vec![Target::at(server.addr()); 2];
        let options = Options { targets, era, connections: 8, sessions: 4, message_len: 200 };
        let mut load = Load::open(&options).unwrap();
        let burst = load.burst(Duration::from_millis(100), &[std::process::id()]).unwrap();
        assert_eq!((burst.errors, burst.first_error), (0, None));
        assert!(0 < burst.requests && 0 < burst.cpu_ns[0]);
        load.close().unwrap();
    }
    assert_eq!(server.sessions(), 0);
}

#[test]
fn a_crowd_checks_every_answer() {
    let server = start(Style::Json);
    let mut crowd = Crowd::connect(&Target::at(server.addr()), 20, 3).unwrap();
    crowd.open_sessions(7).unwrap();
    crowd.call_all(0, 20).unwrap();
    assert_eq!((crowd.calls, crowd.errors.count), (140, 0), "{:?}", crowd.errors.first);
    crowd.delete_half().unwrap();
    assert_eq!(server.sessions(), 10);
}
