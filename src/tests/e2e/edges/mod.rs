//! The edges of the gateway: what hostile, broken, slow and dying peers meet.

mod http;
mod recorder;
mod rig;
mod ws;

mod statuses;
mod smuggling;
mod hostile;
mod bytes;
mod headers;
mod sessions;
mod processes;
mod shards;
mod logs;
mod slow;
mod websocket;
mod websocket_servers;
