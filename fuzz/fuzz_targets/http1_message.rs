//! Fuzzes HTTP/1.1 heads and bodies.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::http1::fuzz(bytes));
