//! Fuzzes WebSocket streams.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::ws::fuzz(bytes));
