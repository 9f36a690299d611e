//! The subcommands on named jobs: other terminals, detached jobs, listings, names, many jobs, and killed
//! processes.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod detached;
mod error_cases;
mod fixture;
mod json_schema;
mod listings;
mod names;
mod other_terminals;
mod scale;
mod schema;
mod sudden_death;
mod watch;
