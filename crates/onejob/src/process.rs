//! Processes, identified so that a process with a recycled pid is never mistaken for the original.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
};

use crate::{Result, sys};

/// One process of one boot of this host, distinguished from every later process with the same pid.
///
/// A pid alone is not an identity: pids are recycled within seconds. On Linux, a `ProcessId` is the
/// pid, the start time ([`proc_pid_stat(5)`] field 22, in clock ticks), the boot id and, where the
/// kernel has it (Linux 6.9), the unique inode number of the pidfd. On Windows, it is the pid and the
/// creation time, in units of 100 ns.
///
/// [`proc_pid_stat(5)`]: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
#[derive(Clone, Copy)]
pub struct ProcessId {
    pub(crate) pid: u32,
    pub(crate) start: u64,
    pub(crate) boot: u128,
    pub(crate) inode: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// [`is_not_found`](crate::Error::is_not_found) if no process has it,
    /// [`is_invalid_input`](crate::Error::is_invalid_input) for 0.
    pub fn of(pid: u32) -> Result<ProcessId> {
        sys::identify(pid)
    }

    /// Its pid, for printing. Do not signal the process by its pid: the pid may belong to an
    /// unrelated process by then.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Compares the inode numbers if both have one, because no other process of this boot ever has the
/// same; otherwise the start times.
impl PartialEq for ProcessId {
    fn eq(&self, other: &ProcessId) -> bool {
        let same = if self.inode != 0 && other.inode != 0 {
            self.inode == other.inode
        } else {
            self.start == other.start
        };
        same && self.pid == other.pid && self.boot == other.boot
    }
}

impl Eq for ProcessId {}

impl Hash for ProcessId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.pid, self.boot).hash(state);
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.pid, f)
    }
}

impl fmt::Debug for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start)
    }
}

/// A member of a job, in its state at the time of listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// The identity of the process.
    pub id: ProcessId,
    /// The pid of its parent at that time; `None` if it could not be read.
    pub parent: Option<u32>,
    /// Its name (`comm`), empty if it could not be read. A process can choose any name.
    pub name: String,
    /// Whether this is the calling process: only an enclosed job lists its caller.
    pub is_caller: bool,
}

impl Process {
    /// Its pid, for printing.
    pub fn pid(&self) -> u32 {
        self.id.pid
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let me = if self.is_caller { " (this process)" } else { "" };
        match &*self.name {
            "" => write!(f, "{}{me}", self.id),
            name => write!(f, "{} {}{me}", self.id, name.escape_debug()),
        }
    }
}

/// The members of a job, each below its parent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Members whose parent is not a member: processes that were started directly, and orphans.
    pub roots: Vec<TreeNode>,
}

/// A process and all of its descendants that can be found by their parents, without a job. The calling
/// process is left out, unless it is the root.
///
/// # Errors
/// [`is_stale`](crate::Error::is_stale) if `root` is gone; otherwise the error of the system call
/// that failed.
pub fn tree_below(root: &ProcessId) -> Result<Tree> {
    sys::descendants(root).map(Tree::of)
}

/// A member and its children.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeNode {
    /// The member.
    pub process: Process,
    /// Its children, in order of their pids.
    pub children: Vec<TreeNode>,
}

impl Tree {
    pub(crate) fn of(mut processes: Vec<Process>) -> Tree {
        processes.sort_by_key(|process| process.pid());
        let members: Vec<u32> = processes.iter().map(Process::pid).collect();
        let mut below: HashMap<Option<u32>, Vec<Process>> = HashMap::new();
        for process in processes {
            let parent = process
                .parent
                .filter(|parent| *parent != process.pid() && members.binary_search(parent).is_ok());
            below.entry(parent).or_default().push(process);
        }
        let roots = below.remove(&None).unwrap_or_default();
        let mut tree =
            Tree { roots: roots.into_iter().map(|root| grow(root, &mut below)).collect() };
        // A listing is not a snapshot: parents that were read at different moments can form a ring.
        let mut rings: Vec<_> = below.into_values().flatten().collect();
        rings.sort_by_key(Process::pid);
        let alone = |process| TreeNode { process, children: Vec::new() };
        tree.roots.extend(rings.into_iter().map(alone));
        tree
    }
}

fn grow(process: Process, below: &mut HashMap<Option<u32>, Vec<Process>>) -> TreeNode {
    let children = below.remove(&Some(process.pid())).unwrap_or_default();
    let children = children.into_iter().map(|child| grow(child, below)).collect();
    TreeNode { process, children }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.roots.iter().try_for_each(|root| draw(f, root, 0))
    }
}

fn draw(f: &mut fmt::Formatter<'_>, node: &TreeNode, depth: usize) -> fmt::Result {
    writeln!(f, "{:indent$}{}", "", node.process, indent = 2 * depth)?;
    node.children.iter().try_for_each(|child| draw(f, child, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32) -> Process {
        let id = ProcessId { pid, start: 0, boot: 0, inode: 0 };
        Process { id, parent: Some(parent), name: format!("p{pid}"), is_caller: false }
    }

    /// A tree puts members below their parents and orphans at the root.
    #[test]
    fn tree_nests_members_and_lists_orphans_at_root() {
        let tree = Tree::of(vec![process(30, 20), process(20, 1), process(5, 30), process(9, 777)]);
        assert_eq!(tree.to_string(), "9 p9\n20 p20\n  30 p30\n    5 p5\n");
    }

    #[test]
    fn a_ring_of_parents_loses_no_process() {
        let tree = Tree::of(vec![process(2, 3), process(3, 2), process(4, 4)]);
        assert_eq!(tree.roots.len(), 3);
    }
}
