//! The command `onejob`: the library is silent, this talks.

#![cfg_attr(all(unix, not(test)), no_main)]

#[cfg(target_env = "musl")]
mod allocator;
mod args;
mod cmd;
mod dropin;
mod exit;
mod note;
mod os;
mod output;
mod render;
mod supervise;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator::new();

#[cfg(any(not(unix), test))]
fn main() {
    begin()
}

fn begin() -> ! {
    let exit = match os::called_as() {
        Some(name) => dropin::stand_in(name),
        None => ourselves(),
    };
    exit.leave()
}

fn ourselves() -> exit::Exit {
    args::parse().map_or_else(|exit| exit, |verb| cmd::execute(&verb))
}
