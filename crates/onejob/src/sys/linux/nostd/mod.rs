//! Code that runs without the standard library: `core` and system calls.
//!
//! It runs in the guard program, which has no standard library; in a child between `clone` and `execve`, which shares
//! the memory of its parent; and in a forked copy of an owner with several threads. So it does not allocate, lock,
//! panic, print or use thread-local storage. The library uses the same code to walk and kill a tree and to end a cgroup,
//! and the types of the protocol and of the request for a child.

#![allow(dead_code, reason = "the library and the guard program each use a part of this")]

pub(crate) mod cgroup;
pub(crate) mod exec;
pub(crate) mod guard;
pub(crate) mod kill_tree;
pub(crate) mod priority;
pub(crate) mod procfs;
pub(crate) mod protocol;
pub(crate) mod syscall;
pub(crate) mod tree_walk;
