//! Fuzzes frames of version 1 of the TCP binary protocol.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::binary::v1::fuzz(bytes));
