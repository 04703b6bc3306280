//! Fuzzes server-sent events.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::sse::fuzz(bytes));
