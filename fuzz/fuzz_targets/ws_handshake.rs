//! Fuzzes the WebSocket handshake.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::ws::fuzz_handshake(bytes));
