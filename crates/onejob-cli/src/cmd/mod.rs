//! The subcommands, one file each.

mod completions;
mod detach;
mod doctor;
mod exec;
mod freeze;
mod init;
mod kill;
mod limit;
mod logs;
mod ls;
mod run;
mod stats;
mod tree;
mod wait;

use crate::{args::Verb, exit::Exit};
pub(crate) use init::{is_success, job, stops_for};

/// Executes a subcommand.
pub(crate) fn execute(verb: &Verb) -> Exit {
    match verb {
        Verb::Run(args) => run::run(args),
        Verb::Init(args) => init::init(args),
        Verb::Ls(args) => ls::ls(args),
        Verb::Tree(args) => tree::tree(args),
        Verb::Kill(args) => kill::kill(args),
        Verb::Wait(args) => wait::wait(args),
        Verb::Stats(args) => stats::stats(args),
        Verb::Limit(args) => limit::limit(args),
        Verb::Freeze(args) => freeze::freeze(&args.jobs),
        Verb::Thaw(args) => freeze::thaw(&args.jobs),
        Verb::Exec(args) => exec::exec(args),
        Verb::Logs(args) => logs::logs(args),
        Verb::Doctor(args) => doctor::doctor(args),
        Verb::Completions(args) => completions::completions(args),
        Verb::Man(args) => completions::man(args),
    }
}
