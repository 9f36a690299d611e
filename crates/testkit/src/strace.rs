//! What `strace` has logged, and whether a traced program was killed.

use std::{
    collections::BTreeMap, os::unix::process::ExitStatusExt, path::PathBuf, process::ExitStatus,
};

/// The path of strace, if it is installed.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|file| file.is_file())
}

/// The calls of one name that a test is about, by their number among all calls of this name, from 1 on.
#[derive(Debug, Default, Clone, Copy)]
pub struct Calls {
    /// The first call after the line with the mark.
    pub first: usize,
    /// The last call.
    pub last: usize,
}

/// Counts the calls of each name in a log of a single process, from the line that contains `mark`.
pub fn count_calls(log: &str, mark: &str) -> BTreeMap<String, Calls> {
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut calls: BTreeMap<String, Calls> = BTreeMap::new();
    let mut begun = false;
    for line in log.lines() {
        let Some((name, _)) = line.split_once('(').filter(|(name, _)| is_name(name)) else {
            continue;
        };
        begun |= line.contains(mark);
        let calls = calls.entry(name.to_owned()).or_default();
        calls.last += 1;
        if begun && calls.first == 0 {
            calls.first = calls.last;
        }
    }
    calls.retain(|_, calls| calls.first > 0);
    calls
}

/// Whether a program ended by SIGKILL; strace and `sandbox-init` report it as 128 + 9.
pub fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(128 + 9)
}
