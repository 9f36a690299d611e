//! The user's runtime directory: a record for each job that other processes may find.
//!
//! The kernel knows the members, and who lives. A record holds only what it cannot: which job this
//! is, what it is called, who its owner and guards are, and where its cgroups lie. The owner holds
//! a lock on it for as long as it lives; a record without one is nobody's, whoever finds it takes
//! down what is left of the job and removes it. What the files are called says [`floor::records`].
//!
//! [`floor::records`]: super::floor::records

use std::{
    collections::BTreeMap,
    env, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, accessat, flock, fstat,
        ftruncate, inotify, mkdirat, openat, readlinkat, renameat, stat, statat, symlinkat,
        unlinkat,
    },
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with},
};

use super::{
    PATIENCE,
    floor::{
        call::{self, POLLIN, PollFd},
        records::NAME,
    },
    guards::Guards,
    hierarchy, identity, is_past, wait_for,
};
use crate::{
    Error, JobEntry, Leftover, LeftoverKind, Mechanism, ProcessId, Result, job::Around, name::Name,
};

/// How the ids of a new owner's jobs begin: nobody else's do.
pub(super) fn fresh_owner() -> Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::os("get a random number", e))?;
    Ok(format!("{:016x}-", u64::from_ne_bytes(random)))
}

/// What a record is called: an owner's beginning and a number.
fn is_id(text: &[u8]) -> bool {
    let Some((owner, [b'-', number @ ..])) = text.split_at_checked(16) else { return false };
    owner.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && (1..=10).contains(&number.len())
        && number.iter().all(u8::is_ascii_digit)
}

/// Where this process' records go.
///
/// Not `$XDG_RUNTIME_DIR`: sessions of one user can have different ones or none (su, cron, ssh
/// without PAM), and would not see each other's jobs.
pub(super) fn place() -> PathBuf {
    let mut places = places();
    let first = places.swap_remove(0);
    let parent = first.parent().unwrap_or(&first);
    let me = rustix::process::geteuid().as_raw();
    let mine = stat(parent).is_ok_and(|stat| stat.st_uid == me);
    let usable = mine && accessat(CWD, parent, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    if usable { first } else { places.pop().unwrap_or(first) }
}

/// Where this user's records may be: the usual place, and the one for when that is not there.
fn places() -> Vec<PathBuf> {
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
struct Registry {
    path: PathBuf,
    dir: OwnedFd,
}

impl Registry {
    /// Every one that exists. What a stranger has put where we keep no records hides none of them.
    fn all() -> Result<Vec<Registry>> {
        let ours = place();
        let opened = places().into_iter().map(|path| match Registry::open(&path) {
            Err(error) if error.is_not_found() || path != ours => Ok(None),
            opened => opened.map(Some),
        });
        opened.filter_map(Result::transpose).collect()
    }

    fn made(path: &Path) -> Result<Registry> {
        if !path.is_absolute() {
            return Err(refused(path, "is no absolute path"));
        }
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Registry::open(path),
            Err(e) => Err(Error::os(format!("make the runtime directory {}", path.display()), e)
                .hint("ONEJOB_RUNTIME_DIR can name another one")),
        }
    }

    fn open(path: &Path) -> Result<Registry> {
        if !path.is_absolute() {
            return Err(refused(path, "is no absolute path"));
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(refused(path, "is no directory")),
            opened => opened.map_err(|e| {
                Error::os(format!("open the runtime directory {}", path.display()), e)
            })?,
        };
        let stat = fstat(&dir)
            .map_err(|e| Error::os(format!("look at the directory {}", path.display()), e))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(refused(path, "belongs to another user"));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(refused(path, "is open to other users (chmod 700 closes it)"));
        }
        Ok(Registry { path: path.to_owned(), dir })
    }

    /// The names of all files in it that are text, as ours are.
    fn files(&self) -> Result<Vec<String>> {
        let failed = |e| Error::os(format!("list the directory {}", self.path.display()), e);
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            files.extend(entry.file_name().to_str().map(str::to_owned));
        }
        Ok(files)
    }

    /// The ids that are there. Whether their jobs live is not known yet.
    fn ids(&self) -> Result<Vec<String>> {
        let mut files = self.files()?;
        files.retain(|file| is_id(file.as_bytes()));
        Ok(files)
    }

    /// Removes what lies beside a record that is not there: its owner and the guards were killed
    /// before it was whole. A living owner has locked its draft.
    fn sweep(&self, files: &[String]) {
        for file in files {
            let Some((id, _)) = file.split_once('.').filter(|(id, _)| is_id(id.as_bytes())) else {
                continue;
            };
            let is_there = || statat(&self.dir, id, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            if is_there() {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let draft = openat(&self.dir, draft_of(id), flags, Mode::empty());
            let lock = |draft: &OwnedFd| flock(draft, FlockOperation::NonBlockingLockExclusive);
            let is_being_made = draft.as_ref().is_ok_and(|draft| lock(draft).is_err());
            // Looked for again, after the draft: that may have become the record.
            if !is_being_made && !is_there() {
                let _ = unlinkat(&self.dir, file, AtFlags::empty());
            }
        }
    }

    /// The id that a name leads to. The link is never followed, so it can lead nowhere else.
    fn id_of(&self, name: &Name) -> Result<Option<String>> {
        let target = match readlinkat(&self.dir, link_of(name), Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::INVAL) => return Err(self.hostile(&link_of(name))),
            Err(e) => return Err(Error::os(format!("look up the job {name}"), e)),
        };
        match String::from_utf8(target) {
            Ok(id) if is_id(id.as_bytes()) => Ok(Some(id)),
            _ => Err(self.hostile(&link_of(name))),
        }
    }

    fn hostile(&self, file: &str) -> Error {
        let path = self.path.join(file);
        Error::unsupported(format!("{} was not made by onejob", path.display()))
            .hint("remove it if nobody needs it")
    }

    /// The record with this id, whether or not its job lives; `None` if there is none.
    fn record(&self, id: &str) -> Result<Option<Record>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.dir, id, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO) => return Err(self.hostile(id)),
            Err(e) => return Err(Error::os(format!("open the record of job {id}"), e)),
        };
        let is_ours = fstat(&file).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && stat.st_uid == rustix::process::geteuid().as_raw()
        });
        let text = if is_ours { read(file.as_fd()) } else { return Err(self.hostile(id)) };
        let card = text.ok().and_then(|text| Card::parse(id, &text));
        let Some(card) = card else { return Err(self.hostile(id)) };
        let dir = self.dir.try_clone().map_err(|e| Error::os("keep a directory open", e))?;
        Ok(Some(Record { registry: self.path.clone(), dir, file, card, is_owners: false }))
    }

    /// Does something while nobody else removes what is not theirs.
    fn locked<T>(&self, action: impl FnOnce() -> T) -> T {
        locked(&self.path, action)
    }
}

/// The lock is on a descriptor of its own, which gives it back also if we are killed.
fn locked<T>(registry: &Path, action: impl FnOnce() -> T) -> T {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(registry, flags, Mode::empty());
    let _locked = dir.map(|dir| lock(&dir).map(|()| dir));
    action()
}

fn refused(path: &Path, why: &str) -> Error {
    Error::unsupported(format!("the runtime directory {} {why}", path.display()))
        .hint("ONEJOB_RUNTIME_DIR can name another one")
}

fn link_of(name: &Name) -> String {
    format!("{}{name}", char::from(NAME))
}

fn read(file: BorrowedFd<'_>) -> io::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::pread(file, &mut chunk, text.len() as u64)? {
            0 => return String::from_utf8(text).map_err(io::Error::other),
            len => text.extend_from_slice(chunk.get(..len).unwrap_or(&[])),
        }
    }
}

/// What a record says besides notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) id: String,
    pub(super) name: Option<Name>,
    pub(super) mechanism: Mechanism,
    pub(super) around: Around,
    pub(super) owner: ProcessId,
    pub(super) guards: Option<[ProcessId; 2]>,
    /// In which the numbers of processes count.
    pub(super) pid_namespace: u64,
    /// Below which the cgroups of the job lie.
    pub(super) base: Option<PathBuf>,
    /// Since the Unix epoch.
    pub(super) started: Duration,
}

impl Card {
    /// For a job of this process that begins now.
    pub(super) fn new(id: String, mechanism: Mechanism, around: Around) -> Result<Card> {
        Ok(Card {
            id,
            name: None,
            mechanism,
            around,
            owner: identity::identify(std::process::id())?,
            guards: None,
            pid_namespace: pid_namespace(),
            base: None,
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        })
    }

    fn text(&self) -> String {
        let around = if self.around == Around::Caller { "caller" } else { "others" };
        let mut text = format!(
            "mechanism {}\naround {around}\nowner {}\npid-namespace {}\nstarted {}\n",
            self.mechanism,
            text_of(&self.owner),
            self.pid_namespace,
            self.started.as_nanos(),
        );
        if let Some([inner, outer]) = &self.guards {
            text += &format!("inner-guard {}\nouter-guard {}\n", text_of(inner), text_of(outer));
        }
        if let Some(base) = &self.base {
            text += &format!("below {}\n", escape(base.as_os_str().as_bytes()));
        }
        if let Some(name) = &self.name {
            text += &format!("name {name}\n");
        }
        text
    }

    fn parse(id: &str, text: &str) -> Option<Card> {
        let said: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once(' ')).collect();
        let number = |key: &str| said.get(key)?.parse::<u64>().ok();
        let process = |key: &str| process_of(said.get(key)?);
        Some(Card {
            id: id.to_owned(),
            name: said.get("name").and_then(|name| Name::new(name).ok()),
            mechanism: said.get("mechanism")?.parse().ok()?,
            around: match *said.get("around")? {
                "caller" => Around::Caller,
                _ => Around::Others,
            },
            owner: process("owner")?,
            guards: process("inner-guard").zip(process("outer-guard")).map(|(a, b)| [a, b]),
            pid_namespace: number("pid-namespace")?,
            base: said.get("below").and_then(|path| Some(unescape(path)?.into())),
            started: Duration::from_nanos(number("started")?),
        })
    }

    fn entry(self) -> JobEntry {
        JobEntry {
            id: self.id,
            name: self.name.map(|name| name.as_str().to_owned()),
            mechanism: self.mechanism,
            owner: (self.pid_namespace == pid_namespace()).then_some(self.owner),
            started: UNIX_EPOCH.checked_add(self.started),
        }
    }
}

fn pid_namespace() -> u64 {
    stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// One line of plain text for any bytes.
fn escape(bytes: &[u8]) -> String {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'%';
    let word = |byte: &u8| match plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    bytes.iter().map(word).collect()
}

fn unescape(text: &str) -> Option<std::ffi::OsString> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(OsStringExt::from_vec(bytes))
}

/// How a job that is listed can be found: the owner's record of it, or another process' view.
pub(crate) struct Record {
    registry: PathBuf,
    dir: OwnedFd,
    /// The owner's is locked.
    file: OwnedFd,
    pub(super) card: Card,
    is_owners: bool,
}

impl Record {
    /// Makes the job known, after whatever else it needs in the directory has been prepared. From
    /// now on it can be found, and its name is taken.
    pub(super) fn publish(
        registry: &Path,
        card: Card,
        note: Option<&str>,
        prepare: impl FnOnce() -> Result<()>,
    ) -> Result<Record> {
        let registry = Registry::made(registry)?;
        let failed = |e: Errno| {
            Error::os(format!("write the record of the job into {}", registry.path.display()), e)
        };
        let dir = registry.dir.try_clone().map_err(|e| Error::os("keep a directory open", e))?;
        let file = draft(&registry, &card.id).map_err(failed)?;
        let record = Record { registry: registry.path.clone(), dir, file, card, is_owners: true };
        let publish = || {
            record.add(&record.card.text()).map_err(failed)?;
            note.map_or(Ok(()), |note| record.set_note(note))?;
            prepare()?;
            let (draft, id) = (draft_of(record.id()), record.id());
            renameat(&registry.dir, draft, &registry.dir, id).map_err(failed)?;
            record.name().map_or(Ok(()), |name| claim(&registry, name, id))
        };
        match publish() {
            Ok(()) => Ok(record),
            Err(error) => {
                // Where the name leads to another job it is not ours to remove.
                record.remove();
                Err(error)
            }
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.card.id
    }

    pub(crate) fn name(&self) -> Option<&Name> {
        self.card.name.as_ref()
    }

    /// The last note that its owner has written; still to be read when the job is over.
    pub(crate) fn note(&self) -> Result<Option<String>> {
        let text = read(self.file.as_fd())
            .map_err(|e| Error::os(format!("read the record of job {}", self.card.id), e))?;
        // A line without an end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole.lines().filter_map(|line| line.strip_prefix("note ")).next_back();
        let note = last.and_then(unescape).and_then(|note| note.into_string().ok());
        Ok(note.filter(|note| !note.is_empty()))
    }

    /// Adds a note, which counts instead of those before.
    pub(crate) fn set_note(&self, note: &str) -> Result<()> {
        let failed =
            |e: io::Error| Error::os(format!("write the record of job {}", self.card.id), e);
        if !self.is_owners {
            return Err(Error::unsupported("only its owner writes the note of a job"));
        }
        const MOST: u64 = 1 << 20;
        let line = format!("note {}\n", escape(note.as_bytes()));
        let size = fstat(&self.file).map_err(|e| failed(e.into()))?.st_size as u64;
        if size + line.len() as u64 > MOST {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        self.add(&line).map_err(|e| failed(e.into()))
    }

    /// Appends whole lines, all or nothing: half a line would spoil the next one.
    fn add(&self, lines: &str) -> std::result::Result<(), Errno> {
        let size = fstat(&self.file)?.st_size as u64;
        let mut rest = lines.as_bytes();
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(len) => rest = rest.get(len..).unwrap_or(&[]),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let _ = ftruncate(&self.file, size);
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// Whether the owner holds the job no more.
    pub(super) fn is_over(&self) -> bool {
        fstat(&self.file).map_or(true, |stat| stat.st_nlink == 0)
    }

    /// Waits until the owner has let go of the job, or the guards have ended it; whether that came
    /// before the deadline.
    pub(crate) fn wait_over(&self, deadline: Option<Instant>) -> Result<bool> {
        if self.is_owners {
            return Err(Error::unsupported("a job is not over as long as its owner holds it")
                .hint("wait is for the members"));
        }
        let watch = Watch::new(self)?;
        loop {
            if self.is_over() || watch.finish_if_abandoned(self) {
                return Ok(true);
            }
            if is_past(deadline) {
                return Ok(false);
            }
            watch.wait(Vec::new(), deadline);
        }
    }

    /// Takes it back: the job is over. The name may be another job's by now, if the guards have
    /// taken it back before.
    pub(super) fn remove(&self) {
        locked(&self.registry, || {
            let leads_here = |name: &Name| {
                let target = readlinkat(&self.dir, link_of(name), Vec::new());
                target.is_ok_and(|target| target.to_bytes() == self.card.id.as_bytes())
            };
            let name = self.name().filter(|name| leads_here(name)).map(link_of);
            // The record goes last: whoever finds it removes what is left.
            let files = [draft_of(self.id()), self.socket(), self.frozen_file()];
            for file in name.into_iter().chain(files).chain([self.card.id.clone()]) {
                let _ = unlinkat(&self.dir, file, AtFlags::empty());
            }
        });
    }

    /// Whether its owner lives: only that keeps the lock.
    fn is_held(&self) -> bool {
        match flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(&self.file, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// Whether the numbers in it mean the same processes to us.
    pub(super) fn is_of_our_namespace(&self) -> bool {
        self.card.pid_namespace == pid_namespace()
    }

    /// Whether somebody would take the job down if its owner were killed.
    pub(super) fn is_guarded(&self) -> bool {
        self.guards().iter().any(|guard| !call::is_dead(guard.as_raw_fd()))
    }

    fn guards(&self) -> Vec<OwnedFd> {
        let ids = self.card.guards.iter().flatten().filter(|_| self.is_of_our_namespace());
        ids.filter_map(|id| identity::reopen(id).ok()).collect()
    }

    /// The owner is dead: takes down what the guards, if they live, have not taken down yet.
    /// Whether it is done.
    fn clear(&self, patience: Duration) -> bool {
        let deadline = Some(Instant::now() + patience);
        for guard in self.guards() {
            while !call::is_dead(guard.as_raw_fd()) {
                if is_past(deadline) {
                    return false;
                }
                wait_for(&mut [PollFd::new(guard.as_raw_fd(), POLLIN)], deadline);
            }
        }
        if let Some(base) = &self.card.base {
            hierarchy::end_abandoned(base, &self.card.id);
        }
        self.remove();
        true
    }

    /// A socket where other processes of the user can ask the guards of this job.
    pub(super) fn listener(registry: &Path, id: &str) -> Result<OwnedFd> {
        let failed = |e: Errno| Error::os("make the socket of the job's guard", e);
        let registry = Registry::made(registry)?;
        let socket = datagrams().map_err(failed)?;
        let address = address(registry.dir.as_fd(), &socket_of(id)).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        Ok(socket)
    }

    /// The guards of the job, to be asked.
    pub(super) fn connect(&self) -> Result<Guards> {
        let failed = |e: Errno| Error::os(format!("reach the guard of job {}", self.card.id), e);
        let Some(ids) = self.card.guards.filter(|_| self.is_of_our_namespace()) else {
            return Err(Error::unsupported(format!(
                "job {} was started in another PID namespace",
                self.card.id
            )));
        };
        let socket = datagrams().map_err(failed)?;
        let address = address(self.dir.as_fd(), &self.socket()).map_err(failed)?;
        // Nobody there means that the inner guard is dead, which shows by itself.
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::NOENT | Errno::CONNREFUSED) => {}
            Err(e) => return Err(failed(e)),
        }
        Ok(Guards::of_another(ids, socket))
    }

    fn socket(&self) -> String {
        socket_of(&self.card.id)
    }

    fn frozen_file(&self) -> String {
        format!("{}.frozen", self.card.id)
    }

    /// The list of whom a freeze stops, for whoever thaws.
    pub(super) fn freezing(&self) -> Result<Freezing> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        openat(&self.dir, self.frozen_file(), flags | OFlags::NOFOLLOW, mode)
            .map(Freezing)
            .map_err(|e| Error::os("write down who is frozen", e))
    }

    /// Hands everybody whom a freeze has stopped to `thaw`, and forgets them then: killed in
    /// between, we leave the list to the next one.
    pub(super) fn thaw(&self, thaw: impl Fn(&[ProcessId])) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(list) = openat(&self.dir, self.frozen_file(), flags, Mode::empty()) else { return };
        let listed = || {
            let text = read(list.as_fd()).unwrap_or_default();
            text.lines().filter_map(process_of).collect::<Vec<_>>()
        };
        let before = listed();
        thaw(&before);
        let _ = unlinkat(&self.dir, self.frozen_file(), AtFlags::empty());
        // What a freeze has added meanwhile.
        thaw(listed().get(before.len()..).unwrap_or(&[]));
    }
}

/// The list of whom a freeze under way stops.
pub(super) struct Freezing(OwnedFd);

impl Freezing {
    /// Before it is stopped: who is listed and runs is thawed without harm, who is stopped and not
    /// listed never.
    pub(super) fn add(&self, process: &ProcessId) -> io::Result<()> {
        let line = text_of(process) + "\n";
        match rustix::io::write(&self.0, line.as_bytes())? {
            len if len == line.len() => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Whether nobody has thawed the job meanwhile.
    pub(super) fn stands(&self) -> bool {
        fstat(&self.0).is_ok_and(|stat| stat.st_nlink > 0)
    }
}

/// A process in one line.
fn text_of(id: &ProcessId) -> String {
    format!("{} {} {} {}", id.pid, id.start, id.boot, id.inode)
}

fn process_of(line: &str) -> Option<ProcessId> {
    let mut words = line.split(' ');
    Some(ProcessId {
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
        boot: words.next()?.parse().ok()?,
        inode: words.next()?.parse().ok()?,
    })
}

/// A fresh record that only its owner knows of, locked.
fn draft(registry: &Registry, id: &str) -> std::result::Result<OwnedFd, Errno> {
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
fn lock(file: &OwnedFd) -> std::result::Result<(), Errno> {
    rustix::io::retry_on_intr(|| flock(file, FlockOperation::LockExclusive))
}

fn draft_of(id: &str) -> String {
    format!("{id}.new")
}

fn socket_of(id: &str) -> String {
    format!("{id}.socket")
}

fn datagrams() -> std::result::Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// An address has room for 107 bytes only, whatever the path to the directory is.
fn address(dir: BorrowedFd<'_>, file: &str) -> std::result::Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("{}/{file}", path_of(dir)))
}

/// Takes a name for a job whose record is there already.
fn claim(registry: &Registry, name: &Name, id: &str) -> Result<()> {
    const TRIES: usize = 100;
    let link = link_of(name);
    let taken = || {
        Error::name_taken(format!("a job named {name} is running already"))
            .hint("another name, or stop that one first: onejob kill")
    };
    for _ in 0..TRIES {
        match symlinkat(id, &registry.dir, &link) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::os(format!("take the name {name}"), e)),
        }
        let Some(holder) = registry.id_of(name)? else { continue };
        match registry.record(&holder)? {
            Some(record) if record.is_held() => return Err(taken()),
            Some(record) if record.clear(PATIENCE) => {}
            Some(_) => return Err(taken().hint("its owner is dead, and its guards are ending it")),
            // Its owner was killed just before it could take the name back.
            None => registry.locked(|| {
                let same = registry.id_of(name).is_ok_and(|now| now.as_ref() == Some(&holder));
                if same && matches!(registry.record(&holder), Ok(None)) {
                    let _ = unlinkat(&registry.dir, &link, AtFlags::empty());
                }
            }),
        }
    }
    Err(taken())
}

/// The living job that is meant: by its name, or by the beginning of its id.
pub(super) fn find(job: &Name) -> Result<Record> {
    let mut fitting = Vec::new();
    for registry in Registry::all()? {
        let by_name = registry.id_of(job)?;
        let ids = match &by_name {
            Some(id) => vec![id.clone()],
            None if is_id(job.as_str().as_bytes()) => vec![job.as_str().to_owned()],
            None => registry.ids()?,
        };
        let fits = |id: &String| by_name.is_some() || id.starts_with(job.as_str());
        for id in ids.into_iter().filter(fits) {
            let living = registry.record(&id)?.filter(Record::is_held_or_cleared);
            // A name is one job's, whatever other ids begin with.
            match living {
                Some(record) if by_name.is_some() => return Ok(record),
                living => fitting.extend(living),
            }
        }
    }
    match fitting.len() {
        0 => {
            Err(Error::missing(format!("there is no job {job}"))
                .hint("onejob ls lists those that run"))
        }
        1 => Ok(fitting.remove(0)),
        _ => Err(Error::invalid(format!("{job} is the beginning of several ids"))
            .hint("more of the id, or the name")),
    }
}

impl Record {
    /// Whether its owner lives. If not, what is left of the job goes, unless its guards are still
    /// at it.
    pub(super) fn is_held_or_cleared(&self) -> bool {
        let held = self.is_held();
        if !held {
            self.clear(Duration::ZERO);
        }
        held
    }
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    let mut entries = Vec::new();
    for registry in Registry::all()? {
        let files = registry.files()?;
        registry.sweep(&files);
        for id in files.into_iter().filter(|file| is_id(file.as_bytes())) {
            // One that is not ours to believe hides no other.
            let Ok(Some(mut record)) = registry.record(&id) else { continue };
            if !record.is_held_or_cleared() {
                continue;
            }
            let leads_here =
                |name: &Name| registry.id_of(name).is_ok_and(|found| found.as_ref() == Some(&id));
            record.card.name = record.card.name.filter(leads_here);
            entries.push(record.card.entry());
        }
    }
    entries.sort_by_key(|entry| entry.started);
    Ok(entries)
}

/// What is left of jobs: in cgroups, and of those that have records.
pub(crate) fn leftovers() -> Result<Vec<Leftover>> {
    let mut leftovers = hierarchy::leftovers();
    for registry in Registry::all()? {
        for id in registry.ids()? {
            if let Ok(Some(record)) = registry.record(&id)
                && !record.is_held()
            {
                let (place, kind) = (registry.path.join(id), LeftoverKind::Abandoned);
                leftovers.push(Leftover { place, processes: 0, kind });
            }
        }
    }
    Ok(leftovers)
}

/// Where this process' records go: made by the first of them.
pub(crate) fn runtime_dir() -> Result<PathBuf> {
    let path = place();
    match Registry::open(&path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(path),
    }
}

/// The very file that is open, wherever it lies by now.
fn path_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// What tells that something has happened to a job of another process.
pub(super) struct Watch {
    changes: OwnedFd,
    keepers: Vec<OwnedFd>,
}

impl Watch {
    pub(super) fn new(record: &Record) -> Result<Watch> {
        let failed = |e: Errno| Error::os(format!("watch the record of job {}", record.id()), e);
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags).map_err(failed)?;
        let wanted = inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&changes, path_of(record.file.as_fd()), wanted).map_err(failed)?;
        let owner = record.is_of_our_namespace().then_some(&record.card.owner);
        let owner = owner.and_then(|id| identity::reopen(id).ok());
        let keepers = owner.into_iter().chain(record.guards()).collect();
        Ok(Watch { changes, keepers })
    }

    /// Tells when something in this directory is removed, too. A cgroup's own files do not tell of
    /// its removal, and of its emptiness with a delay that a removal cuts off.
    pub(super) fn also(self, dir: BorrowedFd<'_>) -> Result<Watch> {
        let wanted = inotify::WatchFlags::DELETE;
        inotify::add_watch(&self.changes, path_of(dir), wanted)
            .map_err(|e| Error::os("watch the cgroups of the job", e))?;
        Ok(self)
    }

    /// Owner and guards are dead, and so it is ours to take down what is left. Whether we did.
    pub(super) fn finish_if_abandoned(&self, record: &Record) -> bool {
        let dead = |keeper: &OwnedFd| call::is_dead(keeper.as_raw_fd());
        self.keepers.iter().all(dead) && !record.is_held() && record.clear(Duration::ZERO)
    }

    /// Waits until one of `fds`, the record or one of the job's keepers has something to tell.
    pub(super) fn wait(&self, mut fds: Vec<PollFd>, deadline: Option<Instant>) {
        fds.push(PollFd::new(self.changes.as_raw_fd(), POLLIN));
        let living = self.keepers.iter().filter(|keeper| !call::is_dead(keeper.as_raw_fd()));
        fds.extend(living.map(|keeper| PollFd::new(keeper.as_raw_fd(), POLLIN)));
        wait_for(&mut fds, deadline);
        let mut told = [0; 1024];
        while rustix::io::read(&self.changes, &mut told).is_ok_and(|len| len > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn card() -> Card {
        let mut card =
            Card::new("0123456789abcdef-7".into(), Mechanism::Cgroup, Around::Caller).unwrap();
        card.name = Some(Name::new("dev").unwrap());
        card.guards = Some([card.owner, card.owner]);
        card.base = Some(OsStr::from_bytes(b"/sys/fs/cg\n roup%\xff").into());
        card
    }

    #[test]
    fn a_card_reads_back_as_it_was_written_and_half_a_one_is_none() {
        let card = card();
        let text = card.text();
        assert_eq!(Card::parse(&card.id, &text), Some(card.clone()));
        assert_eq!(Card::parse(&card.id, text.split_at(40).0), None);
        assert_eq!(Card::parse(&card.id, ""), None);
    }

    #[test]
    fn an_id_is_never_a_path_or_another_file_of_ours() {
        assert!(is_id(b"0123456789abcdef-1") && is_id(b"0123456789abcdef-4294967295"));
        for bad in ["", "-", "0123456789abcdef", "0123456789abcdef-", "0123456789abcdeF-1"] {
            assert!(!is_id(bad.as_bytes()), "{bad}");
        }
        for bad in ["0123456789abcdef-1.new", "0123456789abcdef-1/x", "../3456789abcdef-1"] {
            assert!(!is_id(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn the_last_whole_note_counts() {
        let dir = tempdir();
        let record = Record::publish(&dir, card(), Some("first"), || Ok(())).unwrap();
        record.set_note("second\nline %").unwrap();
        rustix::io::write(&record.file, b"note thi").unwrap();
        assert_eq!(record.note().unwrap().as_deref(), Some("second\nline %"));
        record.remove();
        assert!(record.is_over());
        std::fs::remove_dir(&dir).unwrap();
    }

    fn tempdir() -> PathBuf {
        let dir = env::temp_dir().join(format!("onejob-registry-{}", fresh_owner().unwrap()));
        Registry::made(&dir).unwrap();
        dir
    }
}
