//! Fuzzes newline-delimited messages.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::lines::fuzz(bytes));
