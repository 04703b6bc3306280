//! See `wire::json::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::json::fuzz(bytes));
