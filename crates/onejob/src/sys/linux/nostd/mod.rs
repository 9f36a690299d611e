//! The freestanding floor: code that runs where nothing may be assumed.
//!
//! It runs in three places: in the guard program (no standard library, a few pages of memory), in
//! a child between `clone` and `execve` (sharing its memory with a suspended parent), and in a
//! forked copy of a multithreaded owner. So nothing here allocates, locks, panics, prints or uses
//! thread-local storage; it is `core` and system calls. The library uses the same code from
//! ordinary threads, so that what kills a tree is one piece of code wherever it runs.

#![allow(dead_code, reason = "the library and the guard program each use a part of this")]

pub(crate) mod boost;
pub(crate) mod cgroup;
pub(crate) mod exec;
pub(crate) mod guard;
pub(crate) mod kill_tree;
pub(crate) mod procfs;
pub(crate) mod protocol;
pub(crate) mod syscall;
pub(crate) mod tree_walk;
