//! `netchan_fuzz::hosted` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netchan_fuzz::hosted(data));
