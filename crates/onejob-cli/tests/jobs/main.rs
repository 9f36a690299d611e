//! The verbs on named jobs: two terminals, detached jobs, listings, names, crowds, and sudden deaths.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod crowds;
mod deaths;
mod detached;
mod listings;
mod names;
mod place;
mod terminals;
