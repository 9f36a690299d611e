//! A named job is found, looked at and acted on by other processes of its user, and by nobody else;
//! its name dies with it, and nothing is left of it, whoever is killed and whatever lies in the
//! runtime directory.
#![cfg(target_os = "linux")]

mod crashes;
mod datagrams;
mod ends;
mod fixture;
mod hostile;
mod members;
mod names;
mod views;
