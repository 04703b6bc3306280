//! Fuzzes frames of version 2 of the TCP binary protocol.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::binary::frame::fuzz(bytes));
