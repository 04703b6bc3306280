//! Servers by HTTP with one endpoint or several: what becomes of sessions and requests if they are
//! lost, moved or cancelled at the worst moment.

use crate::ids::ConnId;
use crate::limits;
use crate::shard::event::{Answer, Event};
use crate::tests::servers::{
    CANCELLED, INITIALIZE, NOTE, World, all, asks, call, events, place, result, united,
};
use crate::tests::settings;
use crate::upstream::catalog::{Endpoint, Endpoints, Target, Transport};

#[test]
fn a_stream_that_a_newer_session_has_overtaken_does_not_end_that() {
    let (mut world, session) = World::opened(&[1]);
    world.ask("GET", &session, "");
    let stream = world.find("GET ");
    // While it is asked for, a request finds that the session is gone; and once more.
    world.loses(&session, (2, "a"));
    world.revive("s2");
    let done = world.find("\"a\"");
    world.answer(done, "200 OK", &result(2, "a"));
    world.forget(stream);
    let stream = world.find("GET ");
    assert!(world.read(stream).contains("mcp-session-id: s2"));
    world.post(&session, &call(3, "b"));
    let lost = world.find("\"b\"");
    world.forget(lost);
    world.revive("s3");
    let done = world.find("\"b\"");
    world.answer(done, "200 OK", &result(3, "b"));
    world.forget(stream);
    let stream = world.find("GET ");
    assert!(world.read(stream).contains("mcp-session-id: s3"));
    // But to be refused the newest is to be refused for good.
    world.forget(stream);
    assert_eq!(world.shard.counters().sessions, 0);
}

#[test]
fn who_goes_another_way_leaves_the_connection_to_the_next() {
    let mut world = World::new(vec![Endpoint { conns_max: 1, ..place(1) }]);
    let (one, other) = (world.open(1, "s1"), world.open(1, "t1"));
    for number in [2, 3, 4] {
        world.post(&one, &call(number, &format!("a{number}")));
    }
    let client = world.post(&other, &call(5, "b"));
    // The first and the second are refused; the third waits for the session, not for a connection.
    let server = world.find("\"a2\"");
    world.forget(server);
    world.find("\"a3\"");
    world.forget(server);
    world.find("\"b\"");
    world.answer(server, "200 OK", &result(5, "b"));
    assert!(world.read(client).contains("\"said\":\"b\""));
    world.find("\"initialize\"");
}

#[test]
fn an_answer_that_is_to_be_gone_on_with_ends_with_its_session() {
    for is_due in [false, true] {
        let (mut world, session) = World::opened(&[1]);
        let client = world.post(&session, &call(2, "long"));
        let server = world.find("\"long\"");
        world.stream(server, "e1");
        world.tell(Event::Ended { conn: server });
        if is_due {
            world.passes(limits::RESUME_PAUSE);
            world.connect(1);
            let resumed = world.find("GET ");
            assert!(world.read(resumed).contains("last-event-id: e1"));
            world.forget(resumed);
        } else {
            world.loses(&session, (3, "x"));
        }
        world.revive("s2");
        // The server that is set up again knows nothing of it.
        let get = world.ask("GET", &session, "");
        let _answer = (world.read(client), world.read(get));
        world.passes(limits::RESUME_PAUSE);
        assert_eq!(world.found("last-event-id"), None, "{is_due}");
        assert_eq!(world.shard.counters().in_flight, 1 + u64::from(!is_due), "{is_due}");
    }
}

#[test]
fn an_answer_of_a_session_that_is_gone_is_not_gone_on_with_in_the_next() {
    let (mut world, session) = World::opened(&[1]);
    world.post(&session, &call(2, "long"));
    let long = world.find("\"long\"");
    world.loses(&session, (3, "x"));
    world.revive("s2");
    let done = world.find("\"x\"");
    world.answer(done, "200 OK", &result(3, "x"));
    // The server still works on it, until it does not.
    world.stream(long, "e1");
    world.tell(Event::Ended { conn: long });
    world.passes(limits::RESUME_PAUSE);
    assert_eq!(world.found("GET "), None);
    assert_eq!(world.shard.counters().in_flight, 0);
}

#[test]
fn a_stream_ends_with_its_session_and_the_next_begins_at_its_beginning() {
    let (mut world, session) = World::opened(&[1]);
    let client = world.ask("GET", &session, "");
    let stream = world.find("GET ");
    world.stream(stream, "e1");
    world.loses(&session, (2, "x"));
    world.revive("s2");
    // The client is told, for nobody would speak to it there any more.
    assert!(world.read(client).ends_with("0\r\n\r\n"));
    world.ask("GET", &session, "");
    let stream = match world.found("GET ") {
        Some(stream) => stream,
        None => world.connect(1),
    };
    let head = world.read(stream);
    assert!(head.contains("mcp-session-id: s2") && !head.contains("last-event-id"), "{head}");
}

#[test]
fn a_session_does_not_move_while_an_answer_is_to_be_gone_on_with() {
    let (mut world, session) = World::opened(&[1, 2]);
    world.post(&session, &call(2, "long"));
    let server = world.find("\"long\"");
    world.stream(server, "e1");
    world.tell(Event::Ended { conn: server });
    // It is time to ask for the rest, and that is being dialled.
    world.passes(limits::RESUME_PAUSE);
    let client = world.post(&session, &call(3, "x"));
    world.hang_up(1);
    let dials: Vec<ConnId> = world.conns.iter().map(|(conn, ..)| *conn).collect();
    let conn = *dials.last().unwrap();
    world.tell(Event::Broken { conn });
    assert!(world.read(client).contains("server_unreachable"));
    assert!(world.conns.iter().all(|(_, at, _)| *at == 1));
}

#[test]
fn what_is_cancelled_before_it_was_sent_is_sent_nowhere() {
    let (mut world, session) = World::opened(&[1, 2]);
    world.hang_up(1);
    let client = world.post(&session, &call(7, "x"));
    let dialled = world.dialled(1);
    world.post(&session, CANCELLED);
    assert!(world.read(client).ends_with("0\r\n\r\n"), "its client does not wait");
    assert!(world.conns.iter().all(|(conn, ..)| *conn != dialled));
    // Nor is the cancellation: no server has what it is about, and the session stays.
    assert!(world.conns.is_empty());
    world.post(&session, &call(8, "y"));
    world.connect(1);
    world.find("\"y\"");
    assert_eq!((world.found("\"x\""), world.found("notifications/cancelled")), (None, None));
    assert_eq!(world.shard.counters().failed_over, 0);
}

/// The same in a batch.
#[test]
fn what_a_batch_cancels_before_it_was_sent_is_sent_nowhere() {
    let mut world = World::new(vec![place(1)]);
    let session = world.open_in("2025-03-26", (1, "s1"));
    world.hang_up(1);
    world.post(&session, &call(7, "x"));
    world.post(&session, &format!("[{CANCELLED}]"));
    assert!(world.conns.is_empty());
}

#[test]
fn what_is_cancelled_is_not_sent_again_with_a_new_session() {
    let (mut world, session) = World::opened(&[1]);
    let client = world.post(&session, &call(7, "x"));
    let server = world.find("\"x\"");
    world.post(&session, CANCELLED);
    world.connect(1);
    let notice = world.find("notifications/cancelled");
    world.answer(notice, "202 Accepted", "");
    world.forget(server);
    world.revive("s2");
    assert_eq!(world.found("\"x\""), None);
    assert!(world.read(client).ends_with("0\r\n\r\n"));
}

/// The same if the connection breaks, for what could be repeated.
#[test]
fn what_is_cancelled_is_not_repeated() {
    let (mut world, session) = World::opened(&[1]);
    world.post(&session, r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#);
    let server = world.find("tools/list");
    world.post(&session, CANCELLED);
    world.tell(Event::Ended { conn: server });
    world.connect(1);
    assert_eq!(world.found("tools/list"), None);
    assert_eq!(world.shard.counters().repeated, 0);
}

#[test]
fn an_endpoint_that_answers_on_old_connections_is_as_good_as_others() {
    let mut world = World::new(vec![place(1), place(2)]);
    for number in [1, 2] {
        world.ask_modern("x");
        let server = world.connect(number);
        world.answer(server, "200 OK", &result(9, "x"));
    }
    // A second connection to the first cannot be had; the request is answered by the other.
    world.ask_modern("busy");
    let busy = world.find("\"busy\"");
    world.ask_modern("y");
    let server = world.find("\"y\"");
    world.answer(server, "200 OK", &result(9, "y"));
    world.ask_modern("z");
    world.refuse(1);
    let server = world.find("\"z\"");
    world.answer(server, "200 OK", &result(9, "z"));
    assert_eq!(world.shard.counters().endpoints_failing, 1);
    // What the old one says meanwhile does not make it better.
    world.answer(busy, "200 OK", &result(9, "busy"));
    assert_eq!(world.shard.counters().endpoints_failing, 1);
    world.passes(limits::ENDPOINT_PAUSE * 2);
    let mut counts = [0, 0];
    for _ in 0..10 {
        world.ask_modern("again");
        let server = world.find("\"again\"");
        let at = world.conns.iter().find(|(conn, ..)| *conn == server).unwrap().1;
        counts[usize::from(at) - 1] += 1;
        world.answer(server, "200 OK", &result(9, "again"));
    }
    assert_eq!((counts, world.shard.counters().endpoints_failing), ([5, 5], 0));
}

#[test]
fn a_session_without_an_id_leaves_nothing_where_it_was() {
    let mut world = World::new(vec![place(1), place(2)]);
    let session = world.open(1, "");
    let client = world.ask("GET", &session, "");
    let stream = world.find("GET ");
    world.stream(stream, "e1");
    let others: Vec<ConnId> = world.conns.iter().map(|(conn, ..)| *conn).collect();
    for conn in others.into_iter().filter(|conn| *conn != stream) {
        world.tell(Event::Ended { conn });
    }
    world.post(&session, &call(2, "x"));
    world.refuse(1);
    world.connect(2);
    world.find("\"x\"");
    // Its stream is asked for anew, at the new place, from its beginning.
    assert!(world.read(client).ends_with("0\r\n\r\n"));
    world.ask("GET", &session, "");
    world.connect(2);
    let stream = world.find("GET ");
    assert!(!world.read(stream).contains("last-event-id"));
}

#[test]
fn a_session_that_ends_on_its_way_ends_at_both_places() {
    let (mut world, session) = World::opened(&[1, 2]);
    world.hang_up(1);
    world.post(&session, &call(2, "x"));
    world.refuse(1);
    // The other has begun to answer.
    let server = world.connect(2);
    world.say(server, "HTTP/1.1 200 OK\r\nmcp-session-id: s2\r\ncontent-length: 999\r\n\r\n{");
    world.ask("DELETE", &session, "");
    let mut ended: Vec<&str> = Vec::new();
    for number in [1, 2] {
        let server = world.connect(number);
        let text = world.read(server);
        assert!(text.starts_with("DELETE "), "{text}");
        ended.extend(["s1", "s2"].iter().find(|id| text.contains(&format!("session-id: {id}"))));
    }
    assert_eq!(ended, ["s1", "s2"]);
}

#[test]
fn a_move_that_fails_leaves_nothing_behind() {
    let (mut world, session) = World::opened(&[1, 2]);
    world.hang_up(1);
    let client = world.post(&session, &call(2, "x"));
    world.refuse(1);
    let server = world.connect(2);
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}"#;
    world.answer(server, "200 OK\r\nmcp-session-id: s2", error);
    assert!(world.read(client).contains("server_unreachable"));
    let server = world.find("DELETE ");
    assert!(world.read(server).contains("session-id: s2"));
    // It is where it was.
    world.passes(limits::ENDPOINT_PAUSE * 2);
    world.post(&session, &call(3, "y"));
    world.connect(1);
    let server = world.find("\"y\"");
    assert!(world.read(server).contains("session-id: s1"));
}

#[test]
fn who_has_ended_while_he_waited_takes_no_place_in_the_queue() {
    let mut world = World::new(vec![Endpoint { conns_max: 1, ..place(1) }]);
    world.ask_modern("first");
    let server = world.connect(1);
    for _ in 0..limits::SERVER_WAITING_MAX {
        let conn = world.ask_modern("gone");
        world.tell(Event::Ended { conn });
    }
    let client = world.ask_modern("second");
    assert_eq!(world.read(client), "");
    world.answer(server, "200 OK", &result(9, "first"));
    world.find("\"second\"");
}

#[test]
fn the_name_of_an_endpoint_that_is_gone_is_looked_up_again_although_others_are_there() {
    let mut world = World::new(vec![settings::endpoint("far"), place(2)]);
    let found = |world: &mut World, number: u8| {
        let (ticket, host) = world.asked.pop().unwrap();
        assert_eq!(host, "far");
        let answer = Answer::Resolved(vec![([127, 0, 0, number], 1).into()]);
        world.tell(Event::Answered { ticket, answer });
    };
    world.ask_modern("x");
    found(&mut world, 1);
    world.refuse(1);
    let server = world.connect(2);
    world.answer(server, "200 OK", &result(9, "x"));
    world.passes(limits::ENDPOINT_PAUSE * 2);
    world.ask_modern("y");
    found(&mut world, 3);
    world.connect(3);
    world.find("\"y\"");
}

#[test]
fn an_endpoint_that_tls_cannot_be_set_up_for_is_one_that_is_gone() {
    let mut world = World::new(vec![Endpoint { tls: true, ..place(1) }, place(2)]);
    world.ask_modern("x");
    world.connect(2);
    world.find("\"x\"");
    assert_eq!(world.shard.counters().endpoints_failing, 1);
    // And if there is no other, it is said.
    let mut world = World::new(vec![Endpoint { tls: true, ..place(1) }]);
    let client = world.ask_modern("x");
    assert!(world.read(client).contains("server_unreachable"));
    // The same by WebSocket.
    let both = vec![Endpoint { tls: true, ..place(1) }, place(2)];
    let mut world = World::of(Target::WebSocket(all(both)));
    world.post("", INITIALIZE);
    world.connect(2);
}

#[test]
fn a_conversation_begins_where_there_is_room() {
    // An event stream leaves a connection for messages, so one has room for none.
    let narrow = |number| Endpoint { conns_max: 1, ..place(number) };
    let ways: [fn(Endpoints) -> Target; 2] =
        [|all| Target::Http(Transport::Sse, all), Target::WebSocket];
    for (way, free) in ways.into_iter().zip([3, 2]) {
        let mut world = World::of(way(all(vec![narrow(1), narrow(2), place(3)])));
        if free == 2 {
            // Two WebSockets: the first endpoint is full when its turn comes again.
            world.post("", INITIALIZE);
            world.post("", INITIALIZE);
            world.post("", INITIALIZE);
            world.connect(1);
            world.post("", INITIALIZE);
            assert_eq!(world.conns.iter().filter(|(_, at, _)| *at == 1).count(), 1);
            assert_eq!(world.conns.iter().filter(|(_, at, _)| *at == 2).count(), 1);
            assert_eq!(world.conns.iter().filter(|(_, at, _)| *at == 3).count(), 2);
            continue;
        }
        world.post("", INITIALIZE);
        world.connect(3);
    }
    // And if the one that is chosen cannot be connected, those without room are passed over.
    let four = vec![place(1), narrow(2), place(3)];
    let mut world = World::of(Target::Http(Transport::Sse, all(four)));
    world.post("", INITIALIZE);
    world.refuse(1);
    world.connect(3);
}

#[test]
fn a_socket_that_is_over_leaves_room_for_another() {
    let narrow = Endpoint { conns_max: 1, ..place(1) };
    let mut world = World::of(Target::WebSocket(all(vec![narrow])));
    for is_connected in [true, false, true] {
        let client = world.post("", INITIALIZE);
        if is_connected {
            world.connect(1);
            world.hang_up(1);
        } else {
            world.refuse(1);
        }
        assert!(world.read(client).contains("server_unreachable"));
        world.passes(limits::ENDPOINT_PAUSE * 60);
    }
}

#[test]
fn a_member_that_is_set_up_again_has_forgotten_what_it_asked_and_offers_what_it_likes() {
    let (mut world, session, listener) = united();
    asks(&mut world, &session);
    world.read(listener);
    world.post(&session, &call(8, "x__y"));
    let lost = match world.found("tools/call") {
        Some(lost) => lost,
        None => world.connect(1),
    };
    world.forget(lost);
    world.revive("s2");
    let heard = world.read(listener);
    assert!(heard.contains("notifications/cancelled"), "{heard}");
    assert!(heard.contains("notifications/tools/list_changed"), "{heard}");
    // A late answer to it goes nowhere.
    world.post(&session, r#"{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}"#);
    assert_eq!(world.found("\"roots\""), None);
}

/// A server dies in the middle of an event stream. In both eras its client is told, and the stream
/// has an end.
#[test]
fn an_event_stream_whose_server_dies_ends_with_an_error() {
    let died = r#""error":{"code":-32603,"#;
    for part in ["", ": alive\r\n\r", "data: {\"jsonrpc\":", "id: 1\r\ndata: {}\r\n"] {
        let mut world = World::new(vec![place(1)]);
        let client = world.ask_modern("x");
        let server = world.connect(1);
        world.stream(server, "e1");
        world.say_more(server, part);
        world.tell(Event::Ended { conn: server });
        let answer = world.read(client);
        let error = events(&answer).pop().unwrap();
        assert!(error.contains(r#""id":9"#) && error.contains(died), "{part}: {answer}");
        assert!(error.contains("server_died"), "{answer}");
        assert!(answer.ends_with("0\r\n\r\n"), "{part}: {answer}");
        assert_eq!(events(&answer).len(), 2, "{part}: {answer}");
    }
    let (mut world, session) = World::opened(&[1]);
    let client = world.post(&session, &call(9, "x"));
    let server = world.find("\"x\"");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    world.say(server, &format!("{head}data: {NOTE}\r\n\r\n"));
    world.tell(Event::Ended { conn: server });
    let answer = world.read(client);
    let error = events(&answer).pop().unwrap();
    assert!(error.contains(r#""id":9"#) && error.contains("server_died"), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[test]
fn an_event_stream_that_is_cut_off_behind_the_answer_has_no_other() {
    let mut world = World::new(vec![place(1)]);
    let client = world.ask_modern("x");
    let server = world.connect(1);
    world.stream(server, "e1");
    world.say_more(server, &format!("data: {}\r\n\r\n", result(9, "x")));
    world.tell(Event::Ended { conn: server });
    assert_eq!(events(&world.read(client)).len(), 2);
    // A body that has a length cannot end with anything else.
    let client = world.ask_modern("x");
    let server = world.connect(1);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999";
    world.say(server, &format!("{head}\r\n\r\ndata: {NOTE}\r\n\r\n"));
    world.tell(Event::Ended { conn: server });
    assert!(!world.read(client).contains("server_died"));
}

#[test]
fn who_begins_twice_at_once_with_one_token_has_one_session() {
    for order in [[0, 1], [1, 0]] {
        let mut world = World::new(vec![place(1)]);
        let clients = [world.post_enveloped(INITIALIZE), world.post_enveloped(INITIALIZE)];
        let servers = [world.connect(1), world.connect(1)];
        for index in order {
            world.welcome(servers[index], ["s1", "s2"][index]);
            assert!(world.read(clients[index]).contains("protocolVersion"));
        }
        world.tell(Event::Woke);
        assert_eq!(world.shard.counters().sessions, 1);
        // It is the second; the server is told that the first is over.
        let server = world.find("DELETE ");
        assert!(world.read(server).contains("mcp-session-id: s1"));
        world.post_enveloped(&call(2, "x"));
        let server = world.find("\"x\"");
        assert!(world.read(server).contains("mcp-session-id: s2"));
    }
}

#[test]
fn a_subscription_goes_where_there_is_room_for_it_or_is_refused() {
    let narrow = Endpoint { conns_max: 1, ..place(1) };
    let mut world = World::new(vec![narrow.clone(), place(2)]);
    for _ in 0..2 {
        world.subscribe();
        let server = world.connect(2);
        world.say(server, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
    }
    // Nothing has failed.
    assert_eq!(world.shard.counters().failed_over, 0);
    let mut world = World::new(vec![narrow, Endpoint { conns_max: 1, ..place(2) }]);
    let client = world.subscribe();
    assert!(world.read(client).contains("\"full\""));
    assert_eq!((world.shard.counters().failed_over, world.conns.len()), (0, 0));
}

#[test]
fn a_stream_that_is_waited_for_moves_with_its_session() {
    for id in ["s1", ""] {
        let mut world = World::new(vec![place(1), place(2)]);
        let session = world.open(1, id);
        let client = world.ask("GET", &session, "");
        let asked = world.find("GET ");
        assert!(world.read(asked).contains("GET "));
        // The server has not said yet whether it will speak there.
        world.post(&session, &call(2, "x"));
        world.refuse(1);
        if id == "s1" {
            world.connect(2);
            world.revive("s2");
        }
        world.connect(2);
        if world.found("GET ").is_none() {
            world.connect(2);
        }
        let stream = world.find("GET ");
        assert_ne!(stream, asked);
        assert_eq!(world.read(client), "");
        world.stream(stream, "e1");
        let answer = world.read(client);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(NOTE), "{answer}");
    }
}

/// A member asks where its session has been moved to: at another endpoint, or in another session
/// at the same.
#[test]
fn what_a_member_asks_where_its_session_was_moved_to_is_answered_there() {
    for is_moved in [true, false] {
        let (mut world, session, listener) = united();
        world.read(listener);
        if is_moved {
            world.hang_up(1);
            world.post(&session, &call(8, "x__y"));
            while world.conns.iter().any(|(_, at, is_there)| *at == 1 && !is_there) {
                world.refuse(1);
            }
            world.connect(2);
        } else {
            world.post(&session, &call(8, "x__y"));
            let lost = world.find("tools/call");
            world.forget(lost);
        }
        world.revive("s2");
        let server = world.dials(2 - u8::from(!is_moved), "tools/call");
        assert!(world.read(server).contains("mcp-session-id: s2"));
        let client = world.post(&session, &call(7, "x__x"));
        let server = world.dials(2 - u8::from(!is_moved), "\"x\"");
        let ask = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
        world.say(server, &format!("{head}\r\ndata: {ask}\r\n\r\n"));
        let asked = world.read(client);
        let asked = events(&asked).into_iter().find(|it| it.contains("elicitation")).unwrap();
        let id = asked.split("\"id\":").nth(1).unwrap().split(',').next().unwrap();
        world.post(
            &session,
            &format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"action":"accept"}}}}"#),
        );
        let server = world.dials(2 - u8::from(!is_moved), "accept\"");
        let answer = world.read(server);
        assert!(
            answer.contains("mcp-session-id: s2") && answer.contains(r#""id":"q""#),
            "{answer}"
        );
    }
}
