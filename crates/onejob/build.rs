//! Compiles the guard program with the compiler that cargo uses. The library contains the binary. If
//! it cannot be compiled (no linker for the target), the library is built without it and starts its
//! guards with a fork instead.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=guard");
    println!("cargo::rerun-if-changed=src/sys/linux/nostd");
    println!(
        "cargo::rustc-check-cfg=cfg(guard_program, onejob_linux, onejob_unsupported, fuzzing)"
    );
    let var = |name: &str| env::var(name).unwrap_or_default();
    let arch = var("CARGO_CFG_TARGET_ARCH");
    // `--cfg onejob_unsupported` builds the library as for a system without a mechanism.
    if var("CARGO_CFG_TARGET_OS") != "linux"
        || !["x86_64", "aarch64"].contains(&arch.as_str())
        || env::var_os("CARGO_CFG_ONEJOB_UNSUPPORTED").is_some()
    {
        return;
    }
    println!("cargo::rustc-cfg=onejob_linux");
    let program = PathBuf::from(var("OUT_DIR")).join("onejob-guard");
    let linkers = [var("RUSTC_LINKER"), "cc".to_owned(), "rust-lld".to_owned()];
    // The program needs no C library. If the `core` of the target itself is not installed (because the
    // standard library is built along with the program), the `core` of another Linux target works, too.
    let targets =
        [var("TARGET"), format!("{arch}-unknown-linux-gnu"), format!("{arch}-unknown-linux-musl")];
    let mut errors = Vec::new();
    for target in &targets {
        for linker in linkers.iter().filter(|linker| !linker.is_empty()) {
            match compile(&program, target, linker) {
                Ok(()) => return println!("cargo::rustc-cfg=guard_program"),
                Err(error) => errors.push(format!("{target}, {linker}: {error}")),
            }
        }
    }
    let errors = errors.join("; ").replace('\n', " ");
    println!(
        "cargo::warning=failed to build the guard program, guards are forked instead: {errors}"
    );
}

fn compile(program: &Path, target: &str, linker: &str) -> Result<(), String> {
    let source =
        Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("guard/main.rs");
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc.args(["--edition=2024", "--crate-type=bin", "--crate-name=onejob_guard", "--target"]);
    rustc.arg(target).arg("-o").arg(program).arg(source);
    // Debug assertions and overflow checks would add panics; `nostd` must not contain any.
    rustc.args(["-Copt-level=s", "-Cpanic=abort", "-Clto=fat", "-Ccodegen-units=1"]);
    rustc.args(["-Cstrip=symbols", "-Crelocation-model=static", "-Cforce-unwind-tables=no"]);
    rustc.arg("-Ctarget-feature=+crt-static");
    if target.ends_with("musl") {
        // For musl targets rustc adds its own start files. For other targets the option is an error
        // from Rust 1.96 on.
        rustc.arg("-Clink-self-contained=no");
    }
    rustc.arg(format!("-Clinker={linker}"));
    let layout = ["--build-id=none", "-znorelro", "-znoseparate-code", "--no-eh-frame-hdr"];
    if linker.ends_with("lld") {
        rustc.arg("-Clinker-flavor=ld.lld").args(["-Clink-arg=-static", "-Clink-arg=-nostdlib"]);
        rustc.args(layout.map(|option| format!("-Clink-arg={option}")));
    } else {
        rustc.args(["-static", "-nostdlib", "-nostartfiles", "-no-pie"].map(link_arg));
        rustc.args(layout.map(|option| format!("-Clink-arg=-Wl,{option}")));
    }
    let output = rustc.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).lines().take(4).collect::<Vec<_>>().join(" "))
}

fn link_arg(option: &str) -> String {
    format!("-Clink-arg={option}")
}
