//! `dnswall_fuzz::config::check` for libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dnswall_fuzz::config::check(data));
