//! The MCP bridge: any MCP client to any MCP server.
//!
//! The modules stand in the order in which a request meets them; `docs/architecture.md` walks
//! through it. A module uses only what stands above it; `tests/tidy.rs` holds the exact layers.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make up their own time"))]

// What everything speaks of.
pub mod limits;
pub mod table;
pub mod timers;
pub mod ids;
pub mod output;
pub mod message;
pub mod refusal;
pub mod telemetry;

// The way of a request.
pub mod upstream;
pub mod exchange;
pub mod federation;
pub mod frontend;
pub mod admission;
pub mod era;
pub mod session;
pub mod backend;

// One core: owns all of the above. Pure.
pub mod shard;

// What meets the outside world.
pub mod mesh;
pub mod driver;
pub mod config;
pub mod control;
pub mod demo;

#[cfg(test)]
mod tests;
