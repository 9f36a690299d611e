//! The Subreaper mechanism: no privilege at all.
//!
//! The inner guard is a subreaper and the parent of what the job starts, so every orphan below it
//! comes back to it, and when it has no children the job is empty. We look, signal and kill from
//! outside, walking down from it; it starts, reaps and tells.
//!
//! An enclosed job has no guard, since a running process cannot gain an ancestor: the caller itself
//! becomes the subreaper.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    process::{Pid, set_child_subreaper},
};

use super::{
    PATIENCE,
    below::{self, Root},
    child::reap_unwaited,
    floor::{
        call::{self, Errno},
        exec::Limit,
        message,
        proc::Proc,
    },
    guards::Guards,
    identity, read_proc,
    spawn::{self, Inherited},
};
use crate::{
    Command, Error, Guarantees, Limits, OwnerDeath, Process, ProcessId, Resources, Result, Signal,
    Stats, job::Around, name::Name, stop::Stoppable, sys::Mechanism,
};

pub(crate) struct Subreaper {
    proc: Proc,
    parent: Parent,
    /// Those that a freeze has stopped.
    frozen: Mutex<Vec<OwnedFd>>,
    released: bool,
}

/// Whom orphans come back to.
enum Parent {
    Guards {
        guards: Guards,
        rights: Rights,
        /// Ours when the guard was started, hence the guard's.
        limits: Vec<Limit>,
    },
    /// The caller of an enclosed job.
    Us { pid: i32, pidfd: OwnedFd },
}

impl Subreaper {
    pub(super) fn new(around: Around) -> Result<Subreaper> {
        let proc = usable_proc()?;
        let parent = match around {
            Around::Others => Parent::Guards {
                rights: Rights::current()?.0,
                limits: spawn::limits(),
                guards: Guards::start(None)?,
            },
            Around::Caller => enclose(&proc)?,
        };
        Ok(Subreaper { proc, parent, frozen: Mutex::default(), released: false })
    }

    /// From where the members are found, at this moment; `None` once they have all been ended.
    fn root(&self) -> Result<Option<Root<'_>>> {
        match &self.parent {
            Parent::Us { pid, pidfd } => Ok(Some(Root { pid: *pid, pidfd: pidfd.as_fd() })),
            Parent::Guards { guards, .. } => match guards.root() {
                Some((pid, pidfd)) => Ok(Some(Root { pid, pidfd })),
                None if guards.had_finished() => Ok(None),
                None => Err(lost()),
            },
        }
    }

    /// Has whoever died reaped by the guard.
    fn settle(&self) {
        reap_unwaited();
        if let Parent::Guards { guards, .. } = &self.parent
            && guards.answer()
        {
            let _ = guards.ask(message::SYNC);
        }
    }

    /// With the inner guard dead, the outer one is ending the job and knows when it is empty.
    fn wait_for_outer(&self, deadline: Option<Instant>) -> Option<Result<bool>> {
        let Parent::Guards { guards, .. } = &self.parent else { return None };
        if guards.answer() {
            return None;
        }
        if !guards.wait_gone(deadline) {
            return Some(Ok(false));
        }
        Some(if guards.had_finished() { Ok(true) } else { Err(lost()) })
    }
}

fn lost() -> Error {
    Error::unsupported(
        "both guards of the job were killed: its members can no longer be told apart",
    )
    .hint("the cgroup mechanism does not depend on its guards")
}

/// A /proc that shows what we are going to walk through.
fn usable_proc() -> Result<Proc> {
    Proc::open().map_err(|errno| match errno {
        Errno::STALE => Error::unsupported("/proc shows another PID namespace than ours")
            .hint("mount a fresh one: mount -t proc proc /proc"),
        Errno::NOENT | Errno::NOTDIR => {
            Error::unsupported("/proc is not mounted").hint("mount it: mount -t proc proc /proc")
        }
        errno => Error::os("open /proc", errno),
    })
}

fn enclose(proc: &Proc) -> Result<Parent> {
    let pid = std::process::id();
    let mut children = 0;
    proc.children(pid as i32, &mut |_| children += 1)
        .map_err(|e| Error::os("list the children of this process", e))?;
    if children > 0 {
        return Err(Error::unsupported(format!(
            "this process already has {children} children, whose orphans could not be told apart \
             from members"
        ))
        .hint("enclose before the first child is started"));
    }
    let pidfd =
        identity::pidfd_open(pid).map_err(|e| Error::os("open a pidfd of this process", e))?;
    set_child_subreaper(Pid::from_raw(pid as i32))
        .map_err(|e| Error::os("become a child subreaper", e))?;
    Ok(Parent::Us { pid: pid as i32, pidfd })
}

impl Stoppable for Subreaper {
    fn ask(&self, signal: Signal) -> Result<usize> {
        let asked = match self.signal(signal) {
            Err(error) if error.is_permission_denied() => 0,
            answer => answer?,
        };
        let _ = self.signal(Signal::CONT);
        Ok(asked)
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            if let Some(answer) = self.wait_for_outer(deadline) {
                return answer;
            }
            let Some(root) = self.root()? else { return Ok(true) };
            match below::wait(&self.proc, root, deadline, &|| self.settle()) {
                Ok(true) => return Ok(true),
                Ok(false) if super::is_past(deadline) => return Ok(false),
                // The inner guard has gone: ask again who the root is now.
                Ok(false) => {}
                Err(error) if self.wait_for_outer(Some(Instant::now())).is_none() => {
                    return Err(Error::os("watch the members of the job", error));
                }
                Err(_) => {}
            }
        }
    }

    fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        if let Some(answer) = self.wait_for_outer(Some(deadline)) {
            return match answer {
                Ok(false) => Err(Error::still_alive(self.processes()?, PATIENCE)),
                answer => answer.map(drop),
            };
        }
        let Some(root) = self.root()? else { return Ok(()) };
        below::kill(&self.proc, root, &|| self.wait(Some(Instant::now())))?;
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

impl Mechanism for Subreaper {
    fn guarantees(&self) -> Guarantees {
        let around = match &self.parent {
            Parent::Guards { .. } => Around::Others,
            Parent::Us { .. } => Around::Caller,
        };
        let mut promised = super::promise(crate::Mechanism::Subreaper, around);
        if let Parent::Guards { guards, .. } = &self.parent
            && !guards.stand()
        {
            promised.owner_death = OwnerDeath::None;
        }
        promised
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        match &self.parent {
            Parent::Us { .. } => spawn::local(command, None),
            Parent::Guards { guards, rights, limits } => {
                if !guards.answer() {
                    return Err(Error::unsupported(
                        "the guard of the job was killed, the job ends",
                    ));
                }
                let inherited = rights.check()?;
                spawn::remote(command, guards, &inherited, limits)
            }
        }
    }

    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        match &self.parent {
            Parent::Us { .. } => Ok(()),
            Parent::Guards { .. } => Err(Error::unsupported(
                "under the subreaper mechanism a std command cannot be started into a job",
            )
            .hint("use onejob::Command, or the cgroup mechanism")),
        }
    }

    fn adopt(&self, _: &ProcessId) -> Result<()> {
        Err(Error::unsupported("under the subreaper mechanism a running process cannot be adopted")
            .hint("adopting needs the cgroup mechanism"))
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let Some(root) = self.root()? else { return Ok(Vec::new()) };
        let failed = |e: io::Error| Error::os("list the members of the job", e);
        let mut members = below::list(&self.proc, root).map_err(failed)?;
        if let Parent::Us { pid, pidfd } = &self.parent {
            let us = identity::describe(*pid as u32, pidfd.as_fd(), Some(&self.proc));
            members.insert(0, us);
        }
        Ok(members)
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let Some(root) = self.root()? else { return Ok(Vec::new()) };
        let mut members = below::pids(&self.proc, root)
            .map_err(|e| Error::os("list the members of the job", e))?;
        if let Parent::Us { pid, .. } = &self.parent {
            members.insert(0, *pid as u32);
        }
        Ok(members)
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        let Some(root) = self.root()? else { return Ok(0) };
        below::signal(&self.proc, root, signal)
    }

    fn name(&self) -> Option<&Name> {
        None
    }

    fn limits(&self) -> Result<Limits> {
        Ok(Limits::default())
    }

    fn set_limits(&self, limits: &Limits) -> Result<()> {
        match limits.resources() {
            Resources::NONE => Ok(()),
            wanted => Err(Error::unsupported(format!("this job cannot be limited in {wanted}"))),
        }
    }

    fn freeze(&self) -> Result<()> {
        let Some(root) = self.root()? else { return Ok(()) };
        let stopped = below::freeze(&self.proc, root)?;
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner).extend(stopped);
        Ok(())
    }

    fn thaw(&self) -> Result<()> {
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        below::thaw(&frozen);
        frozen.clear();
        Ok(())
    }

    fn stats(&self) -> Result<Stats> {
        let failed = |e: io::Error| Error::os("read what the job has used", e);
        let dead = match &self.parent {
            Parent::Guards { guards, .. } if guards.answer() => {
                guards.ask(message::USAGE).map_err(failed)?
            }
            _ => [0; 2],
        };
        let members = self.processes()?;
        let living = members.iter().filter(|member| !member.is_caller);
        let [user, system] = living.fold(dead, |[user, system], member| {
            let [more_user, more_system] = times(member.pid());
            [user + more_user, system + more_system]
        });
        Ok(Stats {
            cpu_user: Some(Duration::from_micros(user)),
            cpu_system: Some(Duration::from_micros(system)),
            memory_peak: None,
            processes: members.len(),
        })
    }

    fn release(&mut self) -> Result<()> {
        if let Parent::Guards { guards, .. } = &self.parent
            && !guards.dismiss(message::RELEASE, PATIENCE)
        {
            return Err(Error::os(
                "have the guards of the job leave",
                io::Error::from(io::ErrorKind::TimedOut),
            ));
        }
        self.released = true;
        Ok(())
    }

    fn close(&mut self) {
        if self.released {
            return;
        }
        match &self.parent {
            Parent::Guards { guards, .. } => {
                // Survivors are the guards' to watch, for as long as it takes.
                let patience = if self.kill().is_ok() { PATIENCE } else { Duration::ZERO };
                guards.dismiss(message::END, patience);
            }
            Parent::Us { .. } => {
                let _ = self.kill();
            }
        }
    }
}

/// Microseconds of user and system time of a process and of the children it has waited for.
fn times(pid: u32) -> [u64; 2] {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<u64> = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split(' ').skip(12).take(4).filter_map(|f| f.parse().ok()).collect())
        .unwrap_or_default();
    match fields[..] {
        [user, system, children_user, children_system] => {
            let tick = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
            [(user + children_user) * tick, (system + children_system) * tick]
        }
        _ => [0; 2],
    }
}

/// What a child has from its parent without being told: a guard's child would have the guard's, as
/// they were when the guard was started.
#[derive(PartialEq, Eq)]
struct Rights {
    /// Users, groups, capabilities and seccomp, as `/proc/thread-self/status` shows them.
    credentials: Vec<String>,
    namespaces: Vec<(&'static str, u64)>,
    session: i32,
    root: (u64, u64),
}

impl Rights {
    /// Ours, and what else a child is to get of ours that stands in the same file.
    fn current() -> Result<(Rights, Inherited)> {
        let failed = |e: io::Error| Error::os("read the credentials of this process", e);
        const WORDS: [&str; 11] = [
            "Uid:",
            "Gid:",
            "Groups:",
            "CapInh:",
            "CapPrm:",
            "CapEff:",
            "CapBnd:",
            "CapAmb:",
            "NoNewPrivs:",
            "Seccomp:",
            "Seccomp_filters:",
        ];
        let status = read_proc("/proc/thread-self/status").map_err(failed)?;
        let kept = status.lines().filter(|line| WORDS.iter().any(|word| line.starts_with(word)));
        let number = |word: &str, radix: u32| {
            let value = status.lines().find_map(|line| line.strip_prefix(word));
            let value = value.and_then(|value| u64::from_str_radix(value.trim(), radix).ok());
            value.ok_or_else(|| failed(io::Error::other(format!("/proc shows no {word}"))))
        };
        let inherited =
            Inherited { umask: number("Umask:", 8)? as i32, ignored: number("SigIgn:", 16)? };
        const NAMESPACES: [&str; 8] =
            ["cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts"];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open("/proc/thread-self/ns", flags, Mode::empty());
        let dir = dir.map_err(|e| failed(e.into()))?;
        let namespace = |name: &'static str| {
            let stat = rustix::fs::statat(&dir, name, AtFlags::empty());
            (name, stat.map_or(0, |stat| stat.st_ino))
        };
        let root = rustix::fs::stat("/").map_err(|e| failed(e.into()))?;
        let rights = Rights {
            credentials: kept.map(str::to_owned).collect(),
            namespaces: NAMESPACES.into_iter().map(namespace).collect(),
            session: call::own_session(),
            root: (root.st_dev, root.st_ino),
        };
        Ok((rights, inherited))
    }

    /// Whether the guard's are still ours.
    fn check(&self) -> Result<Inherited> {
        let (now, inherited) = Rights::current()?;
        let changed = if now.credentials != self.credentials {
            "user, groups, capabilities or seccomp filters"
        } else if now.namespaces != self.namespaces {
            "namespaces"
        } else if now.session != self.session {
            "session"
        } else if now.root != self.root {
            "root directory"
        } else {
            return Ok(inherited);
        };
        Err(Error::unsupported(format!(
            "this process has changed its {changed} since it made the job, and the guard has not"
        ))
        .hint("make a new job"))
    }
}
