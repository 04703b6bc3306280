//! Load on an MCP gateway, and what stands on both sides of it.
//!
//! Everything speaks through `wire`, the same code as the gateway: what is tested here is the
//! gateway's behaviour, not the codecs. Loads go to the addresses they are given and end by
//! themselves. Results are CPU per request and ratios; see the README for why.
#![forbid(unsafe_code)]

pub mod clock;
pub mod target;
pub mod request;
pub mod inbox;
pub mod client;
pub mod server;
pub mod engine;
pub mod process;
pub mod metrics;
pub mod peers;
pub mod report;
pub mod call;
pub mod compare;
pub mod crowd;
pub mod sessions;
pub mod connections;
#[cfg(test)]
mod tests;
