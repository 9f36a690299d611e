//! Processes, named so that a recycled pid is never mistaken for the one that was meant.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
};

use crate::{Result, sys};

/// One process of one boot of this host, told apart from every later one with the same number.
///
/// A pid alone is not an identity: numbers are recycled within seconds. This is the pid, the start
/// time ([`proc_pid_stat(5)`] field 22, in clock ticks), the boot id, and where the kernel has it
/// (Linux 6.9) the unique inode number of its pidfd; on Windows the pid and the moment of creation, in
/// units of 100 ns.
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
    /// The process that has this number now.
    ///
    /// # Errors
    /// [`is_not_found`](crate::Error::is_not_found) if no process has it,
    /// [`is_invalid_input`](crate::Error::is_invalid_input) for 0.
    pub fn of(pid: u32) -> Result<ProcessId> {
        sys::identify(pid)
    }

    /// Its number, good for printing. To act on it by number is to risk hitting a stranger.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// By the inode where both have one, which no other process of this boot ever has; else by the
/// start time.
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

/// A member of a job, as it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Which process.
    pub id: ProcessId,
    /// The number of its parent at that time; `None` if it could not be read.
    pub parent: Option<u32>,
    /// Its name (`comm`), empty if it could not be read. Names are the process' own to choose.
    pub name: String,
    /// Whether this is the process that asked: only an enclosed job lists its caller.
    pub is_caller: bool,
}

impl Process {
    /// Its number, good for printing.
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
    /// Members whose parent is no member: what was started directly, and orphans.
    pub roots: Vec<TreeNode>,
}

/// A process and everything below it by parenthood, whoever started it: what can be seen of a tree
/// without a job. The calling process is left out, unless it is the root.
///
/// # Errors
/// [`is_stale`](crate::Error::is_stale) if `root` is gone; what the system said.
pub fn tree_below(root: &ProcessId) -> Result<Tree> {
    sys::descendants(root).map(Tree::of)
}

/// A member and its children.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeNode {
    /// The member.
    pub process: Process,
    /// Its children, in order of their number.
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
        // A listing is no snapshot: parents read at different moments can form a ring.
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
    fn a_ring_of_parents_loses_nobody() {
        let tree = Tree::of(vec![process(2, 3), process(3, 2), process(4, 4)]);
        assert_eq!(tree.roots.len(), 3);
    }
}
