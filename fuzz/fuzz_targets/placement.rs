//! libFuzzer's way into `targets::placement`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::placement::run(data));
