//! `dnswall_fuzz::event::check` for libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dnswall_fuzz::event::check(data));
