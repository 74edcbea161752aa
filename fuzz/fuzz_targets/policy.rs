//! `dnswall_fuzz::policy::check` for libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dnswall_fuzz::policy::check(data));
