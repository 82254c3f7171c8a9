//! libFuzzer's way into `targets::startup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::startup::run(data));
