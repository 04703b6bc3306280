//! One shard and a client of the TCP binary protocol, on virtual time: silence.

use std::time::Duration;

use wire::binary::v1::{Dialect, Kind, write_frame};

use super::websocket::World;
use crate::admission::entrance::Protocol;
use crate::limits;
use crate::upstream::catalog::Isolation;

const SECOND: Duration = Duration::from_secs(1);
const TOKEN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"token":"T"}}"#;

fn frame(dialect: Dialect, kind: Kind, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, dialect, kind, payload.as_bytes());
    bytes
}

/// A client whose version was agreed on.
fn negotiated(dialect: Dialect) -> World {
    let mut world = World::entering(Protocol::Binary, Isolation::Session, 0);
    let offer = r#"{"min_version":1,"max_version":1}"#;
    world.receive(&frame(dialect, Kind::VersionNegotiation, offer));
    let ack = frame(dialect, Kind::VersionAck, r#"{"agreed_version":1}"#);
    assert_eq!(world.sent(), ack);
    world
}

/// SEED probe 11. The predecessor's documents have the check after 60 s without a frame, and every
/// 60 s from then on.
#[test]
fn a_silent_client_is_sent_a_health_check_each_minute() {
    let mut world = negotiated(Dialect::Short);
    world.receive(&frame(Dialect::Short, Kind::Request, TOKEN));
    assert!(!world.sent().is_empty());
    let check = frame(Dialect::Short, Kind::HealthCheck, "");
    for _ in 0..5 {
        world.wait(limits::HEALTH_INTERVAL - SECOND);
        assert_eq!(world.sent(), b"");
        world.wait(SECOND);
        assert_eq!(world.sent(), check);
    }
    // Any frame is a sign of life.
    world.wait(limits::HEALTH_INTERVAL / 2);
    world.receive(&frame(Dialect::Short, Kind::Control, "{}"));
    world.wait(limits::HEALTH_INTERVAL - SECOND);
    assert_eq!(world.sent(), b"");
    world.wait(SECOND);
    assert_eq!(world.sent(), check);
    assert!(!world.closed());
}

/// The router takes whatever is no answer for an error, so it is sent nothing; its pings come every
/// 30 s. And who is silent for good is noticed by TCP.
#[test]
fn a_silent_router_is_left_alone() {
    let mut world = negotiated(Dialect::Long);
    for _ in 0..10 {
        world.wait(limits::HEALTH_INTERVAL);
        world.receive(&frame(Dialect::Long, Kind::HealthCheck, "{}"));
        assert_eq!(world.sent(), b"");
    }
    assert!(!world.closed());
}

#[test]
fn who_does_not_negotiate_or_authorize_in_time_is_closed() {
    let mut world = World::entering(Protocol::Binary, Isolation::Session, 0);
    world.wait(limits::HEAD_TIMEOUT - SECOND);
    assert!(!world.closed());
    world.wait(SECOND);
    assert!(world.closed());
    // Signs of life are no token.
    let mut world = negotiated(Dialect::Short);
    world.wait(limits::HEALTH_INTERVAL - SECOND);
    assert!(!world.closed());
    world.wait(SECOND);
    assert!(world.closed());
}

#[test]
fn a_frame_that_does_not_go_on_closes_the_connection() {
    for dialect in [Dialect::Short, Dialect::Long] {
        let mut world = negotiated(dialect);
        let whole = frame(dialect, Kind::Request, TOKEN);
        world.receive(&whole[..whole.len() - 1]);
        world.wait(limits::BODY_TIMEOUT - SECOND);
        assert!(!world.closed());
        world.wait(SECOND);
        assert!(world.closed());
    }
}

/// Version 2: a link is begun, or the connection ends.
#[test]
fn who_does_not_greet_in_time_is_told_and_closed() {
    let mut world = World::entering(Protocol::Binary, Isolation::Session, 0);
    let offer = r#"{"min_version":2,"max_version":2}"#;
    world.receive(&frame(Dialect::Short, Kind::VersionNegotiation, offer));
    let ack = frame(Dialect::Short, Kind::VersionAck, r#"{"agreed_version":2}"#);
    assert_eq!(world.sent(), ack);
    world.wait(limits::HEAD_TIMEOUT - SECOND);
    assert!(world.sent().is_empty() && !world.closed());
    world.wait(SECOND);
    assert!(world.closed());
}
