//! libFuzzer's way into `targets::scram`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::scram::run(data));
