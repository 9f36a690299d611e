//! The command `onejob`: the library is silent, this talks.

#![cfg_attr(all(unix, not(test)), no_main)]

mod args;
mod completions;
mod detach;
mod doctor;
mod dropin;
mod exec;
mod exit;
mod freeze;
#[cfg(target_env = "musl")]
mod heap;
mod init;
mod kill;
mod limit;
mod listing;
mod logs;
mod ls;
mod note;
mod os;
mod output;
mod run;
mod session;
mod stats;
mod table;
mod tree;
mod wait;

use args::Verb;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: heap::Allocator = heap::Allocator::new();

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
    match args::parse() {
        Ok(Verb::Run(args)) => run::run(&args),
        Ok(Verb::Init(args)) => init::init(&args),
        Ok(Verb::Ls(args)) => ls::ls(&args),
        Ok(Verb::Tree(args)) => tree::tree(&args),
        Ok(Verb::Kill(args)) => kill::kill(&args),
        Ok(Verb::Wait(args)) => wait::wait(&args),
        Ok(Verb::Stats(args)) => stats::stats(&args),
        Ok(Verb::Limit(args)) => limit::limit(&args),
        Ok(Verb::Freeze(args)) => freeze::freeze(&args.jobs),
        Ok(Verb::Thaw(args)) => freeze::thaw(&args.jobs),
        Ok(Verb::Exec(args)) => exec::exec(&args),
        Ok(Verb::Logs(args)) => logs::logs(&args),
        Ok(Verb::Doctor(args)) => doctor::doctor(&args),
        Ok(Verb::Completions(args)) => completions::completions(&args),
        Ok(Verb::Man(args)) => completions::man(&args),
        Err(exit) => exit,
    }
}
