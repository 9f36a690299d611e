//! Visits every cgroup below one, however deep and wide members have nested them, in constant memory.
//!
//! The walk has one directory open at a time. It goes down by name and back up by `..`, which leads to the
//! same directory, since cgroups of version 2 cannot be renamed. After the way back up it goes on listing the
//! directory from the cgroup where it left it. It remembers that offset for the last levels of the path. If
//! the path was longer, it lists the directory from its beginning, once for each such path. So the time is
//! linear in the number of cgroups.
//!
//! Every directory but `.` and `..` is a cgroup: a name can begin with a dot. The walk does not enter a
//! directory on which something is mounted: that can be a cgroup outside the job, or another file system.

use super::super::{
    procfs::CStrBuf,
    syscall::{
        self, AsFd, CStr, Errno, O_DIRECTORY, O_NOFOLLOW, OwnedFd, Result, fchmod, fchmodat,
        getdents, inode_of, openat, seek,
    },
};

/// Acts on the cgroups of a walk.
pub(crate) trait Visitor {
    /// Called before the walk opens the cgroup `name` in `parent`. Returns whether to open it.
    fn enter(&mut self, _parent: &OwnedFd, _name: &CStr) -> bool {
        true
    }
    /// Called with a cgroup, before those below it.
    fn visit(&mut self, _cgroup: &OwnedFd) {}
    /// Called after every cgroup below the cgroup `name` in `parent` has been visited.
    fn leave(&mut self, _parent: &OwnedFd, _name: &CStr) {}
    /// Whether the walk goes on.
    fn goes_on(&self) -> bool {
        true
    }
}

/// How many steps a walk takes at most. So it ends however fast members create cgroups.
const MAX_STEPS: usize = 1 << 21;

/// Visits every cgroup below `root`, but not `root` itself. A cgroup that was removed meanwhile is not an
/// error. After another error the walk goes on, and returns it at the end. `Errno::AGAIN` if the walk was
/// not at its end after [`MAX_STEPS`].
pub(crate) fn below(root: impl AsFd, visitor: &mut dyn Visitor) -> Result<()> {
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

/// Ignores the error of a cgroup that was removed meanwhile: it had no members.
pub(crate) fn gone_is_ok(result: Result<()>) -> Result<()> {
    match result {
        Err(errno) if is_gone(errno) => Ok(()),
        result => result,
    }
}

/// Opens the cgroup `name` in `parent`. A member of the same user can have removed the permissions
/// (`chmod`): then this restores them.
pub(crate) fn open(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    const FLAGS: i32 = O_DIRECTORY | O_NOFOLLOW;
    // Some seccomp filters refuse `openat2`, which is newer than they are.
    let open = || match syscall::openat_on_same_mount(&parent, name, FLAGS) {
        Err(Errno::NOSYS | Errno::PERM) => openat(&parent, name, FLAGS),
        opened => opened,
    };
    match open() {
        Err(Errno::ACCES) => {
            fchmod(&parent, 0o755);
            fchmodat(&parent, name, 0o755);
            open()
        }
        opened => opened,
    }
}

/// Opens a file of a cgroup; see [`open`] about permissions.
pub(crate) fn open_file(cgroup: impl AsFd, name: &CStr, flags: i32) -> Result<OwnedFd> {
    match openat(&cgroup, name, flags) {
        Err(Errno::ACCES) => {
            fchmod(&cgroup, 0o755);
            fchmodat(&cgroup, name, 0o644);
            openat(&cgroup, name, flags)
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

/// The cgroup at which the walk left a directory.
#[derive(Clone, Copy)]
struct Left {
    depth: usize,
    inode: u64,
    offset: u64,
}

/// For how many levels of the path the walk remembers where it left the directory: the last ones.
const REMEMBERED: usize = 128;

struct Walk {
    /// The directory that is being listed, and its depth below the root.
    dir: OwnedFd,
    depth: usize,
    /// The root, while the walk is below it.
    root: Option<OwnedFd>,
    path: [Left; REMEMBERED],
    /// The part of its listing that was read. `listing[at..len]` is not visited yet; the offset of its first
    /// entry is `offset`.
    listing: [u8; 2048],
    at: usize,
    len: usize,
    offset: u64,
    failed: Option<Errno>,
}

impl Walk {
    fn new(root: OwnedFd) -> Walk {
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

    /// The next cgroup in the listing. The listing of a removed directory is empty.
    fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if self.at >= self.len {
                self.at = 0;
                self.len = match getdents(&self.dir, &mut self.listing) {
                    Err(errno) if is_gone(errno) => 0,
                    read => read?,
                };
            }
            // struct linux_dirent64: u64 inode, u64 offset, u16 length, u8 type, name.
            let rest = self.listing.get(self.at..self.len).unwrap_or(&[]);
            let (Some(inode), Some(next), Some(&[low, high]), Some(&kind)) =
                (u64_at(rest, 0), u64_at(rest, 8), rest.get(16..18), rest.get(18))
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

    /// Enters a cgroup, unless the visitor refuses or it was removed.
    fn descend(&mut self, entry: &Entry, visitor: &mut dyn Visitor) {
        let name = entry.name.as_c_str();
        if !visitor.enter(&self.dir, name) {
            return;
        }
        let dir = match open(&self.dir, name) {
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

    /// Goes on listing the directory above, after the cgroup that has been visited with all cgroups below.
    fn ascend(&mut self, visitor: &mut dyn Visitor) -> Result<()> {
        let depth = self.depth - 1;
        let left = self.path.get(depth % REMEMBERED).filter(|left| left.depth == depth);
        let (inode, offset) = match left {
            Some(left) => (left.inode, left.offset),
            None => (inode_of(&self.dir)?, 0),
        };
        self.dir = match self.root.take_if(|_| depth == 0) {
            Some(root) => root,
            None => open(&self.dir, c"..")?,
        };
        self.depth = depth;
        // Offsets are hashes of names, so other entries can come first.
        for from in [offset, 0] {
            self.rewind(from)?;
            while let Some(entry) = self.next()? {
                if entry.inode == inode {
                    visitor.leave(&self.dir, entry.name.as_c_str());
                    return Ok(());
                }
            }
        }
        // It was removed: the walk lists the entries after it, and possibly some that it has visited.
        self.rewind(offset)
    }

    fn rewind(&mut self, offset: u64) -> Result<()> {
        self.list_from(offset);
        seek(&self.dir, offset)
    }

    fn list_from(&mut self, offset: u64) {
        (self.at, self.len, self.offset) = (0, 0, offset);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
