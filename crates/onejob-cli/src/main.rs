//! The command `onejob`: the library is silent, this talks.

mod args;
mod doctor;
mod exit;
mod kill;
mod os;
mod output;
mod run;
mod stats;

use args::Verb;

fn main() {
    let exit = match args::parse() {
        Ok(Verb::Run(args)) => run::run(&args),
        Ok(Verb::Kill(args)) => kill::kill(&args),
        Ok(Verb::Doctor(args)) => doctor::doctor(&args),
        Err(exit) => exit,
    };
    exit.leave()
}
