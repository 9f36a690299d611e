//! The subcommands, one file each.

mod completions;
mod detach;
mod doctor;
mod exec;
mod find;
mod freeze;
mod init;
mod kill;
mod leftovers;
mod limit;
mod logs;
mod ls;
mod man;
mod not_found;
mod run;
mod state;
mod stats;
mod tree;
mod wait;

use crate::{args::Subcommand, exit::Exit, failure::Failure};

pub(crate) fn execute(subcommand: &Subcommand) -> Result<Exit, Failure> {
    match subcommand {
        Subcommand::Run(args) => run::run(args),
        Subcommand::Init(args) => init::init(args),
        Subcommand::Ls(args) => ls::ls(args),
        Subcommand::Tree(args) => tree::tree(args),
        Subcommand::Kill(args) => kill::kill(args),
        Subcommand::Wait(args) => wait::wait(args),
        Subcommand::Stats(args) => stats::stats(args),
        Subcommand::Limit(args) => limit::limit(args),
        Subcommand::Freeze(args) => freeze::freeze(&args.jobs),
        Subcommand::Thaw(args) => freeze::thaw(&args.jobs),
        Subcommand::Exec(args) => exec::exec(args),
        Subcommand::Logs(args) => logs::logs(args),
        Subcommand::Doctor(args) => doctor::doctor(args),
        Subcommand::Completions(args) => completions::completions(args),
        Subcommand::Man(args) => man::man(args),
        Subcommand::Complete(words) => completions::complete(words),
    }
}
