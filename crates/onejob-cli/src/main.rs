//! The command `onejob`. The library prints nothing; every message comes from here.

#![cfg_attr(all(unix, not(test)), no_main)]

#[cfg(target_env = "musl")]
mod allocator;
mod args;
mod cmd;
mod dropin;
mod exit;
mod failure;
mod log_file;
mod multicall;
mod note;
mod os;
mod output;
mod persona;
mod render;
mod shell_words;
mod supervise;
mod trace;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator::new();

/// The C library calls it instead of Rust's runtime, see [`os::init_process`].
///
/// # Safety
/// Called once, before any other thread exists, with the argument vector of the process.
#[cfg(all(unix, not(test)))]
#[unsafe(no_mangle)]
unsafe extern "C" fn main(
    argc: std::ffi::c_int,
    argv: *const *const std::ffi::c_char,
) -> std::ffi::c_int {
    // SAFETY: the caller's promise is the same.
    unsafe { os::init_process(argc, argv) };
    run_program()
}

#[cfg(any(not(unix), test))]
fn main() {
    run_program()
}

fn run_program() -> ! {
    trace::init();
    let result = match multicall::called_as() {
        Some(program) => Ok(dropin::run(program)),
        None => args::parse().and_then(|subcommand| cmd::execute(&subcommand)),
    };
    result.unwrap_or_else(|failure| failure.report()).exit()
}
