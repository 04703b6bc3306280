//! Fuzzes compressed WebSocket messages.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::ws::fuzz_deflate(bytes));
