//! Where records are, and whose.

use std::{
    env, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, accessat, flock, fstat,
        mkdirat, openat, readlinkat, stat, statat, unlinkat,
    },
    io::Errno,
};

use super::{Record, RecordHeader, header::FORMAT, is_id, record::read, version::other_record};
use crate::{Error, Result, name::Name, sys::linux::nostd::guard::registry::NAME};

/// Where this process' records go.
///
/// Not `$XDG_RUNTIME_DIR`: sessions of one user can have different ones or none (su, cron, ssh
/// without PAM), and would not see each other's jobs.
pub(crate) fn place() -> PathBuf {
    let mut places = places();
    let first = places.swap_remove(0);
    let parent = first.parent().unwrap_or(&first);
    let me = rustix::process::geteuid().as_raw();
    let mine = stat(parent).is_ok_and(|stat| stat.st_uid == me);
    let usable = mine && accessat(CWD, parent, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    if usable { first } else { places.pop().unwrap_or(first) }
}

/// Where this user's records may be: the usual place, and the one for when that is not there.
pub(super) fn places() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os("ONEJOB_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return vec![dir.into()];
    }
    let me = rustix::process::geteuid();
    let usual = match me.is_root() {
        true => "/run/onejob".into(),
        false => format!("/run/user/{}/onejob", me.as_raw()).into(),
    };
    vec![usual, format!("/tmp/onejob-{}", me.as_raw()).into()]
}

/// A directory of records, proven to be this user's alone.
pub(super) struct Registry {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
}

impl Registry {
    /// Every one that exists. What a stranger has put where we keep no records hides none of them.
    pub(super) fn all() -> Result<Vec<Registry>> {
        let ours = place();
        let opened = places().into_iter().map(|path| match Registry::open(&path) {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error)
                if path != ours && (error.is_unsupported() || error.is_permission_denied()) =>
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
                .with_hint("ONEJOB_RUNTIME_DIR can name another one")),
        }
    }

    pub(super) fn open(path: &Path) -> Result<Registry> {
        if !path.is_absolute() {
            return Err(refused(path, "is no absolute path"));
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(refused(path, "is no directory")),
            Err(Errno::ACCESS) if belongs_to_another(path) => return Err(of_another(path)),
            opened => opened.map_err(|e| {
                Error::os(format!("open the runtime directory {}", path.display()), e)
            })?,
        };
        let stat = fstat(&dir)
            .map_err(|e| Error::os(format!("look at the directory {}", path.display()), e))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(of_another(path));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(refused(path, "is open to other users (chmod 700 closes it)"));
        }
        Ok(Registry { path: path.to_owned(), dir })
    }

    /// The names of all files in it that are text, as ours are.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let failed = |e| Error::os(format!("list the directory {}", self.path.display()), e);
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            files.extend(entry.file_name().to_str().map(str::to_owned));
        }
        Ok(files)
    }

    /// The ids that are there. Whether their jobs live is not known yet.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let mut files = self.files()?;
        files.retain(|file| is_id(file.as_bytes()));
        Ok(files)
    }

    /// Removes files beside a record, and names, whose record does not exist: its owner and the guards were
    /// killed, or a removal failed. A living owner has locked the temporary file of its record.
    pub(super) fn sweep(&self, files: &[String]) {
        for file in files {
            if let Some(name) = file.strip_prefix(char::from(NAME)) {
                let _ = Name::new(name).map(|name| self.sweep_name(&name));
                continue;
            }
            let Some((id, _)) = file.split_once('.').filter(|(id, _)| is_id(id.as_bytes())) else {
                continue;
            };
            if !self.is_missing(id) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let temp = openat(&self.dir, draft_of(id), flags, Mode::empty());
            let lock = |temp: &OwnedFd| flock(temp, FlockOperation::NonBlockingLockExclusive);
            let is_abandoned = match &temp {
                Ok(temp) => lock(temp).is_ok(),
                Err(errno) => *errno == Errno::NOENT,
            };
            // Looked up again after the temporary file, which may have become the record.
            if is_abandoned && self.is_missing(id) {
                let _ = unlinkat(&self.dir, file, AtFlags::empty());
            }
        }
    }

    /// Removes a name that leads to no record.
    pub(super) fn sweep_name(&self, name: &Name) {
        let leads_nowhere = || matches!(self.id_of(name), Ok(Some(id)) if self.is_missing(&id));
        if leads_nowhere() {
            self.locked(|| {
                if leads_nowhere() {
                    let _ = unlinkat(&self.dir, link_of(name), AtFlags::empty());
                }
            });
        }
    }

    /// Whether a file does not exist; not if this cannot be found out.
    fn is_missing(&self, file: &str) -> bool {
        statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT)
    }

    /// The id that a name leads to. The link is never followed, so it can lead nowhere else.
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

    pub(super) fn foreign_file(&self, file: &str) -> Error {
        let path = self.path.join(file);
        Error::unsupported(format!("{} was not made by onejob", path.display()))
            .with_hint("remove it if nobody needs it")
    }

    /// The record with this id, whether or not its job lives; `None` if there is none.
    pub(super) fn record(&self, id: &str) -> Result<Option<Record>> {
        match self.record_of_any_format(id)? {
            Some(record) if record.header.format != FORMAT => {
                Err(other_record(&self.path.join(id), record.header.format, FORMAT))
            }
            record => Ok(record),
        }
    }

    /// The same for a list. What is of another format is its own version's to end and to remove.
    pub(super) fn record_of_any_format(&self, id: &str) -> Result<Option<Record>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.dir, id, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO) => return Err(self.foreign_file(id)),
            Err(e) => return Err(Error::os(format!("open the record of job {id}"), e)),
        };
        let failed = |e: io::Error| Error::os(format!("read the record of job {id}"), e);
        let stat = fstat(&file).map_err(|e| failed(e.into()))?;
        let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_uid == rustix::process::geteuid().as_raw();
        if !is_ours {
            return Err(self.foreign_file(id));
        }
        let text = match read(file.as_fd()) {
            // It is no text, or longer than any record.
            Err(e)
                if matches!(
                    e.raw_os_error().map(Errno::from_raw_os_error),
                    None | Some(Errno::FBIG)
                ) =>
            {
                String::new()
            }
            text => text.map_err(failed)?,
        };
        let Some(card) = RecordHeader::parse(id, &text) else {
            let other = RecordHeader::format_of(&text).filter(|format| *format != FORMAT);
            let is_of_another = |format| other_record(&self.path.join(id), format, FORMAT);
            return Err(other.map_or_else(|| self.foreign_file(id), is_of_another));
        };
        let dir = self.dir.try_clone().map_err(|e| Error::os("keep a directory open", e))?;
        Ok(Some(Record::seen(self.path.clone(), dir, file, card)))
    }

    /// Does something while nobody else removes what is not theirs.
    pub(super) fn locked<T>(&self, action: impl FnOnce() -> T) -> T {
        locked(&self.path, action)
    }
}

/// The lock is on a descriptor of its own, which gives it back also if we are killed.
pub(super) fn locked<T>(registry: &Path, action: impl FnOnce() -> T) -> T {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(registry, flags, Mode::empty());
    let _locked = dir.map(|dir| lock(&dir).map(|()| dir));
    action()
}

pub(super) fn refused(path: &Path, why: &str) -> Error {
    Error::unsupported(format!("the runtime directory {} {why}", path.display()))
        .with_hint("ONEJOB_RUNTIME_DIR can name another one")
}

/// A directory that its user has closed cannot even be opened.
fn belongs_to_another(path: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_uid != me)
}

fn of_another(path: &Path) -> Error {
    refused(path, "belongs to another user")
        .with_hint("remove it as that user or as root, or name another one with ONEJOB_RUNTIME_DIR")
}

pub(super) fn link_of(name: &Name) -> String {
    format!("{}{name}", char::from(NAME))
}

/// A fresh record that only its owner knows of, locked.
pub(super) fn temp_record(registry: &Registry, id: &str) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
    loop {
        let file = openat(&registry.dir, draft_of(id), flags, Mode::RUSR | Mode::WUSR)?;
        lock(&file)?;
        // Before it was locked it looked abandoned: a sweeper may have taken it.
        if fstat(&file)?.st_nlink > 0 {
            return Ok(file);
        }
    }
}

/// Waits for the exclusive lock, whatever signals come.
pub(super) fn lock(file: &OwnedFd) -> std::result::Result<(), Errno> {
    rustix::io::retry_on_intr(|| flock(file, FlockOperation::LockExclusive))
}

pub(super) fn draft_of(id: &str) -> String {
    format!("{id}.new")
}
