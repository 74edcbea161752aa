//! Tells bpf-linker to expand small copies and fills in place.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Without this every fill of 16 bytes is a call to a loop that stores them one by one: slow, one stack frame
    // more, and the verifier does not know what was stored.
    println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
}
