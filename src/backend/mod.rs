//! Messages to bytes for a server, and its bytes to answers.

pub mod http;
pub mod sse;
pub mod stdio;
pub mod tls;
pub mod websocket;
