#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onejob::fuzz::spawn_request(bytes));
