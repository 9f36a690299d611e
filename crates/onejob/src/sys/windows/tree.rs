//! The descendants of a process without a job: they are put into a job first.

use std::{
    collections::HashMap,
    mem,
    os::windows::io::{AsHandle as _, AsRawHandle as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use windows_sys::Win32::System::{
    Diagnostics::ToolHelp::{
        CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW,
        TH32CS_SNAPPROCESS,
    },
    Threading::{PROCESS_SET_QUOTA, PROCESS_TERMINATE},
};

use super::{
    KILL_TIMEOUT,
    child::{no_signal, terminate},
    graceful,
    handles::{has_passed, is_signalled, owned, wait_any},
    identity, nt,
    object::{Member, Object},
};
use crate::{Error, Process, ProcessId, Result, Signal, stop::Stoppable};

/// A process and the descendants that were found. Every handle is kept open: while it is open, the pid
/// is not reused, so a younger process with this pid as its parent is a child of it.
pub(crate) struct Descendants(Mutex<HeldProcess>);

struct HeldProcess {
    rights: u32,
    /// A job for these processes; processes that they start from now on are in it, too.
    object: Option<Object>,
    held: HashMap<u32, (Member, u64)>,
}

const RIGHTS: u32 = PROCESS_TERMINATE | PROCESS_SET_QUOTA;

pub(crate) fn tree(root: &ProcessId) -> Result<Box<dyn Stoppable>> {
    if root.pid == std::process::id() {
        return Err(Error::invalid("a process cannot stop itself and its descendants"));
    }
    let process = identity::reopen(root, RIGHTS)?;
    let object = Object::anonymous().ok();
    let mut caught = HeldProcess { rights: RIGHTS, object, held: HashMap::new() };
    caught.add(root.pid, Member { pid: root.pid, process });
    caught.rescan();
    Ok(Box::new(Descendants(Mutex::new(caught))))
}

/// Lists a process and its descendants, without the calling process.
pub(crate) fn descendants(root: &ProcessId) -> Result<Vec<Process>> {
    let process = identity::reopen(root, 0)?;
    let mut found = HeldProcess { rights: 0, object: None, held: HashMap::new() };
    found.add(root.pid, Member { pid: root.pid, process });
    let living = found.live();
    Ok(living.iter().map(|it| identity::describe(it.pid, it.process.as_handle())).collect())
}

impl HeldProcess {
    fn add(&mut self, pid: u32, member: Member) {
        let Some(created) = identity::creation(member.process.as_handle()) else { return };
        // A process that may not join another job, because of its own job, is killed individually.
        if let Some(object) = &self.object {
            let _ = object.assign(member.process.as_handle());
        }
        self.held.insert(pid, (member, created));
    }

    /// Finds all descendants without an open handle, until no new process is found.
    fn rescan(&mut self) {
        loop {
            let before = self.held.len();
            for pid in all_pids() {
                if pid != std::process::id() && !self.held.contains_key(&pid) {
                    self.consider(pid);
                }
            }
            if self.held.len() == before {
                return;
            }
        }
    }

    fn consider(&mut self, pid: u32) {
        let Ok(process) = identity::open(pid, self.rights) else { return };
        // Read through the handle, so it is the parent of this process even if the pid is reused.
        let parent = nt::parent_of(process.as_handle());
        let created = identity::creation(process.as_handle());
        let is_below = parent.and_then(|parent| self.held.get(&parent));
        let is_younger = is_below.is_some_and(|(_, parent)| created >= Some(*parent));
        let is_caught = || {
            self.object.as_ref().is_some_and(|it| it.contains(process.as_handle()).unwrap_or(false))
        };
        if is_younger || is_caught() {
            self.add(pid, Member { pid, process });
        }
    }

    fn live(&mut self) -> Vec<&Member> {
        self.rescan();
        let members = self.held.values().map(|(member, _)| member);
        members.filter(|member| !is_signalled(member.process.as_handle())).collect()
    }
}

impl Descendants {
    fn held(&self) -> std::sync::MutexGuard<'_, HeldProcess> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_any_end(&self, deadline: Option<Instant>) -> Result<bool> {
        let failed = |e| Error::os("wait for the tree", e);
        let first = {
            let mut caught = self.held();
            let living = caught.live();
            let Some(member) = living.first() else { return Ok(true) };
            member.process.try_clone().map_err(failed)?
        };
        wait_any(&[first.as_handle()], deadline).map_err(failed)?;
        Ok(false)
    }
}

impl Stoppable for Descendants {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        let mut caught = self.held();
        let living = caught.live();
        match signal {
            Signal::TERM => {
                let copy = |member: &&Member| {
                    Some(Member { pid: member.pid, process: member.process.try_clone().ok()? })
                };
                let members: Vec<_> = living.iter().filter_map(copy).collect();
                Ok(graceful::request_end(&members, &[]).len())
            }
            Signal::KILL => {
                living.iter().for_each(|member| drop(terminate(member.process.as_handle())));
                Ok(living.len())
            }
            _ => Err(no_signal(signal)),
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            if self.held().live().is_empty() {
                return Ok(true);
            }
            if has_passed(deadline) {
                return Ok(false);
            }
            self.wait_any_end(deadline)?;
        }
    }

    fn kill(&self) -> Result<()> {
        let start = Instant::now();
        let (mut fewest, mut last_death) = (usize::MAX, start);
        loop {
            {
                let mut caught = self.held();
                let living = caught.live();
                if living.is_empty() {
                    return Ok(());
                }
                if living.len() < fewest {
                    (fewest, last_death) = (living.len(), Instant::now());
                }
                if last_death.elapsed() > KILL_TIMEOUT {
                    let describe = |m: &&Member| identity::describe(m.pid, m.process.as_handle());
                    let survivors: Vec<Process> = living.iter().map(describe).collect();
                    return Err(Error::still_alive(survivors, start.elapsed()));
                }
                for member in living {
                    let _ = terminate(member.process.as_handle());
                }
                // One operation for the processes in the job, and for those that they start meanwhile.
                // The caller is never in it: only a process below one that is older than the caller
                // could put the caller there.
                if let Some(object) = &caught.object
                    && !object.contains_caller().unwrap_or(true)
                {
                    let _ = object.terminate();
                }
            }
            self.wait_any_end(Instant::now().checked_add(Duration::from_millis(50)))?;
        }
    }
}

/// All processes, by pid.
fn all_pids() -> Vec<u32> {
    let mut pids = Vec::new();
    // SAFETY: returns a handle that no child inherits.
    let snapshot = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) };
    if snapshot == windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE {
        return pids;
    }
    let Ok(snapshot) = owned(snapshot) else { return pids };
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut entry: PROCESSENTRY32W = unsafe { mem::zeroed() };
    entry.dwSize = mem::size_of::<PROCESSENTRY32W>() as u32;
    // SAFETY: an open snapshot, and a structure that contains its size.
    let mut more = unsafe { Process32FirstW(snapshot.as_raw_handle(), &raw mut entry) };
    while more != 0 {
        pids.push(entry.th32ProcessID);
        // SAFETY: as above.
        more = unsafe { Process32NextW(snapshot.as_raw_handle(), &raw mut entry) };
    }
    pids
}
