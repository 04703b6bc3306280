//! See `wire::rpc::fuzz`.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::rpc::fuzz(bytes));
