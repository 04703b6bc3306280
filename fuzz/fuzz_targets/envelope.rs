//! Fuzzes the predecessor's envelopes.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::envelope::fuzz(bytes));
