//! Links the unwinder statically. On glibc, Rust links the shared library: to find, map and initialise
//! another file at each start takes a tenth of the start-up time.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name: &str| env::var(name).unwrap_or_default();
    let is_static =
        var("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    let is_glibc = var("CARGO_CFG_TARGET_OS") == "linux" && var("CARGO_CFG_TARGET_ENV") == "gnu";
    let is_cross = var("TARGET") != var("HOST");
    if !is_glibc || is_static || (is_cross && var("RUSTC_LINKER").is_empty()) {
        return;
    }
    let linker = Some(var("RUSTC_LINKER")).filter(|linker| !linker.is_empty());
    let mut cc = Command::new(linker.unwrap_or_else(|| "cc".to_owned()));
    let Ok(found) = cc.arg("-print-file-name=libgcc_eh.a").output() else { return };
    let found = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    // A compiler without it prints the bare name: then the shared library is used.
    if let Some(dir) = Path::new(&found).parent().filter(|dir| dir.is_absolute()) {
        println!("cargo::rustc-link-search=native={}", dir.display());
        println!("cargo::rustc-link-lib=static:-bundle,+whole-archive=gcc_eh");
    }
}
