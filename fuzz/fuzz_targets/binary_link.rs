//! Fuzzes a link with what a peer may send.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::binary::fuzz_link(bytes));
