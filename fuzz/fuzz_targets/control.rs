//! `dnswall_fuzz::control::check` for libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dnswall_fuzz::control::check(data));
