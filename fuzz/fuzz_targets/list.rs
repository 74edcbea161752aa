//! `dnswall_fuzz::list::check` for libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dnswall_fuzz::list::check(data));
