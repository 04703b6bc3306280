//! Bytes from a client to requests, and answers to bytes.

pub mod http;
pub mod websocket;
pub mod channel;
pub mod binary;
pub mod answer;
