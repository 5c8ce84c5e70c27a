#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanwire_fuzz::run("envelope", input));
