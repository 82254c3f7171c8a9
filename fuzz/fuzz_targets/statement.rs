//! libFuzzer's way into `targets::statement`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::statement::run(data));
