//! The directory of the records: where it is, whether it is safe, and the names of its files.

use std::{
    collections::{HashMap, HashSet},
    env,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, FlockOperation, Mode, OFlags, accessat, flock, fstat, mkdirat,
        openat, readlinkat, stat, statat, unlinkat,
    },
    io::Errno,
};

use super::header::{is_id, pid_namespace};
use crate::{
    Error, Result,
    name::Name,
    sys::linux::{file::read_proc, nostd::guard::registry::NAME},
};

/// The directory for the records of this process.
///
/// Not `$XDG_RUNTIME_DIR`: sessions of one user can have different ones or none (su, cron, ssh without
/// PAM), and would not see each other's jobs.
pub(crate) fn place() -> PathBuf {
    let mut places = places();
    let first = places.swap_remove(0);
    let parent = first.parent().unwrap_or(&first);
    let me = rustix::process::geteuid().as_raw();
    let is_own = stat(parent).is_ok_and(|stat| stat.st_uid == me);
    let is_usable = is_own && accessat(CWD, parent, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    if is_usable { first } else { places.pop().unwrap_or(first) }
}

/// The directories that can have records of this user: the usual one, and the one that is used if the
/// usual one cannot be made.
fn places() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os("ONEJOB_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return vec![dir.into()];
    }
    let me = rustix::process::geteuid();
    let usual = match me.is_root() {
        true => "/run/onejob".into(),
        false => format!("/run/user/{}/onejob", me.as_raw()).into(),
    };
    vec![usual, format!("/tmp/onejob-{}", outer_uid(me.as_raw())).into()]
}

/// The number of this user in the parent of its user namespace. Users of different namespaces share `/tmp`,
/// and each of them can have the number 0 in its own. Without `/proc` the number of this user here.
fn outer_uid(uid: u32) -> u32 {
    let map = read_proc("/proc/self/uid_map").unwrap_or_default();
    let outer = map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (inner, outer, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let index = uid.checked_sub(inner).filter(|index| *index < count)?;
        outer.checked_add(index)
    });
    outer.unwrap_or(uid)
}

/// The directory for the records of this process, if it is safe. The first record makes it.
pub(crate) fn runtime_dir() -> Result<PathBuf> {
    let path = place();
    match Registry::open(&path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(path),
    }
}

/// A directory of records that only this user can write to.
pub(super) struct Registry {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
    /// This user.
    pub(super) uid: u32,
    /// The PID namespace of this process, once it is needed.
    pid_namespace: OnceLock<u64>,
}

impl Registry {
    /// All directories of records that exist. A directory that another user has made at a place that this
    /// process does not use is left out.
    pub(super) fn all() -> Result<Vec<Registry>> {
        let own = place();
        let opened = places().into_iter().map(|path| match Registry::open(&path) {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error)
                if path != own && (error.is_unsupported() || error.is_permission_denied()) =>
            {
                Ok(None)
            }
            opened => opened.map(Some),
        });
        opened.filter_map(Result::transpose).collect()
    }

    pub(super) fn create(path: &Path) -> Result<Registry> {
        match Registry::open(path) {
            Err(error) if error.is_not_found() => {}
            opened => return opened,
        }
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Registry::open(path),
            Err(e) => Err(Error::os(format!("make the runtime directory {}", path.display()), e)
                .with_hint("set another directory with ONEJOB_RUNTIME_DIR")),
        }
    }

    pub(super) fn open(path: &Path) -> Result<Registry> {
        if !path.is_absolute() {
            return Err(refused(path, "is not an absolute path"));
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(refused(path, "is not a directory")),
            Err(Errno::ACCESS) if belongs_to_another(path) => return Err(of_another(path)),
            opened => opened.map_err(|e| {
                Error::os(format!("open the runtime directory {}", path.display()), e)
            })?,
        };
        let stat = fstat(&dir)
            .map_err(|e| Error::os(format!("read the owner of {}", path.display()), e))?;
        let uid = rustix::process::geteuid().as_raw();
        if stat.st_uid != uid {
            return Err(of_another(path));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(refused(path, "is open to other users (chmod 700 closes it)"));
        }
        Ok(Registry { path: path.to_owned(), dir, uid, pid_namespace: OnceLock::new() })
    }

    /// The PID namespace of this process.
    pub(super) fn pid_namespace(&self) -> u64 {
        *self.pid_namespace.get_or_init(pid_namespace)
    }

    /// The names of all files; those that are not UTF-8 are not of onejob.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let failed = |e| Error::os(format!("list the directory {}", self.path.display()), e);
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            files.extend(entry.file_name().to_str().map(str::to_owned));
        }
        Ok(files)
    }

    /// The ids of all records, also of jobs that have ended.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let mut files = self.files()?;
        files.retain(|file| is_id(file.as_bytes()));
        Ok(files)
    }

    /// Removes files and names whose record does not exist: the owner and its guards were killed, or a
    /// removal failed. A live owner has locked its temporary record. `files` are all files; returns the
    /// names among them and their ids.
    pub(super) fn remove_orphaned_files(&self, files: &[String]) -> HashMap<Name, String> {
        let mut names = HashMap::new();
        let listed: HashSet<&str> = files.iter().map(String::as_str).collect();
        for file in files {
            if let Some(name) = file.strip_prefix(char::from(NAME)).and_then(|n| Name::new(n).ok())
            {
                match self.id_of(&name) {
                    Ok(Some(id)) if listed.contains(&*id) => _ = names.insert(name, id),
                    _ => self.remove_orphaned_name(&name),
                }
                continue;
            }
            let Some((id, _)) = file.split_once('.').filter(|(id, _)| is_id(id.as_bytes())) else {
                continue;
            };
            if listed.contains(id) || !self.is_missing(id) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let temp = openat(&self.dir, temp_record_of(id), flags, Mode::empty());
            let lock = |temp: &OwnedFd| flock(temp, FlockOperation::NonBlockingLockExclusive);
            let is_abandoned = match &temp {
                Ok(temp) => lock(temp).is_ok(),
                Err(errno) => *errno == Errno::NOENT,
            };
            // Checked again, because the temporary record can have become the record meanwhile.
            if is_abandoned && self.is_missing(id) {
                let _ = unlinkat(&self.dir, file, AtFlags::empty());
            }
        }
        names
    }

    /// Removes a name whose record does not exist.
    pub(super) fn remove_orphaned_name(&self, name: &Name) {
        let is_orphaned = || matches!(self.id_of(name), Ok(Some(id)) if self.is_missing(&id));
        if is_orphaned() {
            self.locked(|| {
                if is_orphaned() {
                    let _ = unlinkat(&self.dir, link_of(name), AtFlags::empty());
                }
            });
        }
    }

    /// Whether a file does not exist; `false` if this cannot be found out.
    fn is_missing(&self, file: &str) -> bool {
        statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT)
    }

    /// The id that a name refers to. The symbolic link is read and never followed.
    pub(super) fn id_of(&self, name: &Name) -> Result<Option<String>> {
        let target = match readlinkat(&self.dir, link_of(name), Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::INVAL) => return Err(self.foreign_file(&link_of(name))),
            Err(e) => return Err(Error::os(format!("look up the job {name}"), e)),
        };
        match String::from_utf8(target) {
            Ok(id) if is_id(id.as_bytes()) => Ok(Some(id)),
            _ => Err(self.foreign_file(&link_of(name))),
        }
    }

    /// The error for a file that has a name of onejob and cannot have been made by it.
    pub(super) fn foreign_file(&self, file: &str) -> Error {
        let path = self.path.join(file);
        Error::unsupported(format!("{} was not made by onejob", path.display()))
            .with_hint("remove it if it is not needed")
    }

    /// Runs `action` while no other process removes files that are not its own.
    pub(super) fn locked<T>(&self, action: impl FnOnce() -> T) -> T {
        // The lock is on a descriptor of its own, so that it is released when this process is killed.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.path, flags, Mode::empty());
        let _locked = dir.map(|dir| lock(&dir).map(|()| dir));
        action()
    }

    /// Makes and locks an empty temporary record.
    pub(super) fn temp_record(&self, id: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
        loop {
            let file = openat(&self.dir, temp_record_of(id), flags, Mode::RUSR | Mode::WUSR)?;
            lock(&file)?;
            // Until it was locked it looked orphaned: another process can have removed it.
            if fstat(&file)?.st_nlink > 0 {
                return Ok(file);
            }
        }
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::unsupported(format!("the runtime directory {} {why}", path.display()))
        .with_hint("set another directory with ONEJOB_RUNTIME_DIR")
}

fn of_another(path: &Path) -> Error {
    refused(path, "belongs to another user")
        .with_hint("remove it as that user or as root, or set another one with ONEJOB_RUNTIME_DIR")
}

/// Whether a directory that cannot be opened belongs to another user.
fn belongs_to_another(path: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_uid != me)
}

/// The symbolic link from a name to a record.
pub(super) fn link_of(name: &Name) -> String {
    format!("{}{name}", char::from(NAME))
}

/// The name of a record that is not complete yet.
pub(super) fn temp_record_of(id: &str) -> String {
    format!("{id}.new")
}

/// The socket of the guard of a job.
pub(super) fn socket_of(id: &str) -> String {
    format!("{id}.socket")
}

/// The list of the processes that a freeze has stopped.
pub(super) fn frozen_list_of(id: &str) -> String {
    format!("{id}.frozen")
}

/// Waits for the exclusive lock, also when signals arrive.
pub(super) fn lock(file: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| flock(file, FlockOperation::LockExclusive))
}
