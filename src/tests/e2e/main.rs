//! Tests of the whole program: the binary with real sockets, and other people's clients, servers
//! and suites around it. Needs what `.ci/peers` installs; `.ci/test` sees to that.
//!
//! `cargo test` runs as many of them at once as there are cores; each starts what it needs and
//! what a test started ends with it. A test is one process at a time besides its servers.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test may panic, print and look at the clock"
)]

mod support;

mod peers;
mod edges;
mod matrix;
mod tls;
mod crowd;
