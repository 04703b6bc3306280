//! The edges of the gateway: what hostile, broken, slow and dying peers meet.

mod http;
mod link;
mod lines;
mod recorder;
mod rig;
mod ws;

mod statuses;
mod smuggling;
mod hostile;
mod bytes;
mod headers;
mod sessions;
mod sse;
mod remote;
mod processes;
mod shards;
mod logs;
mod slow;
mod tcp;
mod tcp2;
mod tcp2_servers;
mod websocket;
mod websocket_servers;
mod envelope;
mod unix;
mod stdio;
