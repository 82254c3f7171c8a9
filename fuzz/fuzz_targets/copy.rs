//! libFuzzer's way into `targets::copy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::copy::run(data));
