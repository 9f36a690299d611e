//! Every cgroup below one, however deep and wide members have nested them, in constant memory.
//!
//! The walk holds one directory open at a time. It goes down by name and back up by `..`, which leads
//! to the same place as long as the walk takes, since the kernel renames no cgroup of version 2. A
//! directory that was left for a cgroup in it is listed again from that cgroup on: its offset is
//! remembered for the last levels of the path, and below a path that is longer than that the directory
//! is listed from its beginning once for each such path. So the time is linear in the number of cgroups.
//!
//! Only `.` and `..` are no cgroups: a name can begin with a dot. What is mounted over a cgroup is not
//! entered, since that can be a cgroup that is not ours, or another file system.

use super::super::{
    procfs::CStrBuf,
    syscall::{
        self, CStr, Errno, Fd, O_DIRECTORY, O_NOFOLLOW, Result, fchmod, fchmodat, getdents,
        inode_of, openat, seek,
    },
};

/// What is done on the way.
pub(crate) trait Visitor {
    /// Before the cgroup `name` in `parent` is opened; whether to open it.
    fn enter(&mut self, _parent: &Fd, _name: &CStr) -> bool {
        true
    }
    /// A cgroup, before those below it.
    fn visit(&mut self, _cgroup: &Fd) {}
    /// After everything below the cgroup `name` in `parent` has been visited.
    fn leave(&mut self, _parent: &Fd, _name: &CStr) {}
    /// Whether the walk goes on.
    fn goes_on(&self) -> bool {
        true
    }
}

/// How many steps a walk takes at most, which ends it however fast members make new cgroups.
const MAX_STEPS: usize = 1 << 21;

/// Visits every cgroup below `root`, but not `root` itself. The first error is the answer, except that
/// a cgroup was removed meanwhile; the others are visited all the same. `Errno::AGAIN` if there were more
/// than a walk enters.
pub(crate) fn below(root: i32, visitor: &mut dyn Visitor) -> Result<()> {
    let mut walk = match openat(root, c".", O_DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => Walk::new(opened?),
    };
    for _ in 0..MAX_STEPS {
        if !visitor.goes_on() {
            return Ok(());
        }
        match walk.next()? {
            Some(next) => walk.descend(&next, visitor),
            None if walk.depth > 0 => walk.ascend(visitor)?,
            None => return walk.failed.map_or(Ok(()), Err),
        }
    }
    Err(Errno::AGAIN)
}

/// Whether an error only says that the cgroup has been removed.
pub(crate) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}

/// A cgroup that was removed meanwhile had no members left.
pub(crate) fn gone_is_ok(answer: Result<()>) -> Result<()> {
    match answer {
        Err(errno) if is_gone(errno) => Ok(()),
        answer => answer,
    }
}

/// Opens a cgroup below another. A member of our own user can have taken the permissions away from it
/// (`chmod`): then they are given back.
pub(crate) fn open(parent: i32, name: &CStr) -> Result<Fd> {
    // The call is refused by some seccomp filters that know only older ones.
    let open = || match syscall::openat_on_same_mount(parent, name, O_DIRECTORY | O_NOFOLLOW) {
        Err(Errno::NOSYS | Errno::PERM) => openat(parent, name, O_DIRECTORY | O_NOFOLLOW),
        opened => opened,
    };
    match open() {
        Err(Errno::ACCES) => {
            fchmod(parent, 0o755);
            fchmodat(parent, name, 0o755);
            open()
        }
        opened => opened,
    }
}

/// Opens a file of a cgroup; see [`open`] about permissions.
pub(crate) fn open_file(cgroup: i32, name: &CStr, flags: i32) -> Result<Fd> {
    match openat(cgroup, name, flags) {
        Err(Errno::ACCES) => {
            fchmod(cgroup, 0o755);
            fchmodat(cgroup, name, 0o644);
            openat(cgroup, name, flags)
        }
        opened => opened,
    }
}

/// A cgroup in a listing.
struct Entry {
    name: CStrBuf,
    inode: u64,
    /// The offset at which a listing begins with it.
    offset: u64,
}

/// Where the path left a directory.
#[derive(Clone, Copy)]
struct Left {
    depth: usize,
    inode: u64,
    offset: u64,
}

/// How many levels of the path are remembered: the last ones.
const REMEMBERED: usize = 128;

struct Walk {
    /// The directory where the walk is, and how far below the root.
    dir: Fd,
    depth: usize,
    /// The root itself, while the walk is below it.
    root: Option<Fd>,
    path: [Left; REMEMBERED],
    /// What was read of its listing: `listing[at..len]` is still to come, the next entry at `offset`.
    listing: [u8; 2048],
    at: usize,
    len: usize,
    offset: u64,
    failed: Option<Errno>,
}

impl Walk {
    fn new(root: Fd) -> Walk {
        const NOWHERE: Left = Left { depth: usize::MAX, inode: 0, offset: 0 };
        Walk {
            dir: root,
            depth: 0,
            root: None,
            path: [NOWHERE; REMEMBERED],
            listing: [0; 2048],
            at: 0,
            len: 0,
            offset: 0,
            failed: None,
        }
    }

    /// The next cgroup in the listing. That of a removed directory is empty.
    fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if self.at >= self.len {
                self.at = 0;
                self.len = match getdents(self.dir.raw(), &mut self.listing) {
                    Err(errno) if is_gone(errno) => 0,
                    read => read?,
                };
            }
            // struct linux_dirent64: u64 inode, u64 offset, u16 length, u8 type, name.
            let rest = self.listing.get(self.at..self.len).unwrap_or(&[]);
            let (Some(inode), Some(next), Some(&[low, high]), Some(&kind)) =
                (word_at(rest, 0), word_at(rest, 8), rest.get(16..18), rest.get(18))
            else {
                return Ok(None);
            };
            let size = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..size).and_then(|name| CStr::from_bytes_until_nul(name).ok());
            let offset = core::mem::replace(&mut self.offset, next);
            self.at += size.max(1);
            const DT_DIR: u8 = 4;
            if let Some(name) = name.map(CStr::to_bytes)
                && kind == DT_DIR
                && !matches!(name, b"." | b"..")
            {
                return Ok(Some(Entry { name: CStrBuf::new().text(name), inode, offset }));
            }
        }
    }

    /// Goes into a cgroup, if that is wanted and it is still there.
    fn descend(&mut self, entry: &Entry, visitor: &mut dyn Visitor) {
        let name = entry.name.as_c_str();
        if !visitor.enter(&self.dir, name) {
            return;
        }
        let dir = match open(self.dir.raw(), name) {
            Ok(dir) => dir,
            Err(errno) if is_gone(errno) => return,
            Err(errno) => {
                self.failed = self.failed.or(Some(errno));
                return;
            }
        };
        visitor.visit(&dir);
        if let Some(left) = self.path.get_mut(self.depth % REMEMBERED) {
            *left = Left { depth: self.depth, inode: entry.inode, offset: entry.offset };
        }
        let above = core::mem::replace(&mut self.dir, dir);
        if self.depth == 0 {
            self.root = Some(above);
        }
        self.depth += 1;
        self.list_from(0);
    }

    /// Goes on listing the directory above after the cgroup where the walk was, which has been visited
    /// with everything below it.
    fn ascend(&mut self, visitor: &mut dyn Visitor) -> Result<()> {
        let depth = self.depth - 1;
        let left = self.path.get(depth % REMEMBERED).filter(|left| left.depth == depth);
        let (inode, offset) = match left {
            Some(left) => (left.inode, left.offset),
            None => (inode_of(self.dir.raw())?, 0),
        };
        self.dir = match self.root.take_if(|_| depth == 0) {
            Some(root) => root,
            None => open(self.dir.raw(), c"..")?,
        };
        self.depth = depth;
        // Offsets are hashes of names, so others can come before the one that is looked for.
        for from in [offset, 0] {
            self.rewind(from)?;
            while let Some(entry) = self.next()? {
                if entry.inode == inode {
                    visitor.leave(&self.dir, entry.name.as_c_str());
                    return Ok(());
                }
            }
        }
        // Removed meanwhile: what followed it is listed, perhaps with something that was visited.
        self.rewind(offset)
    }

    fn rewind(&mut self, offset: u64) -> Result<()> {
        self.list_from(offset);
        seek(self.dir.raw(), offset)
    }

    fn list_from(&mut self, offset: u64) {
        (self.at, self.len, self.offset) = (0, 0, offset);
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
