//! The edges of the gateway: what hostile, broken, slow and dying peers meet.

pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod lines;
mod recorder;
pub(crate) mod rig;
pub(crate) mod ws;

mod statuses;
mod smuggling;
mod hostile;
mod bytes;
mod headers;
mod sessions;
mod sse;
mod remote;
mod repeats;
mod endpoints;
mod processes;
mod shards;
mod logs;
mod slow;
mod tcp;
mod tcp_bytes;
mod tcp2;
mod tcp2_servers;
mod websocket;
mod websocket_servers;
mod threats;
mod envelope;
mod federation;
mod envelope_http;
mod unix;
mod stdio;
