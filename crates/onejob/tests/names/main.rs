//! Other processes of the same user find a named job, observe it and act on it; other users cannot. When the
//! job ends, its name is free and nothing is left, whichever process is killed and whatever files are in the
//! runtime directory.
#![cfg(target_os = "linux")]

mod crashes;
mod datagrams;
mod ends;
mod hostile;
mod members;
mod names;
mod requests;
mod views;
