//! State that the owner and all views of a job share: the limits that were set, and the processes that
//! a freeze has suspended. A thaw resumes exactly these processes, no matter which process froze them.

use std::{
    io,
    os::windows::io::{AsHandle as _, AsRawHandle as _, OwnedHandle},
    ptr, slice,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use windows_sys::Win32::{
    Foundation::{WAIT_ABANDONED, WAIT_OBJECT_0},
    System::Threading::{
        CreateMutexW, INFINITE, PROCESS_SUSPEND_RESUME, ReleaseMutex, WaitForSingleObject,
    },
};

use super::{
    handles::{owned, wide},
    identity,
    memory::{Access, Memory},
    nt,
};
use crate::{Limits, ProcessId};

/// More members than any frozen job has had so far.
const MAX_MEMBERS: usize = 16 << 10;

/// The limits, the number of frozen processes, and the pid and creation time of each of them.
const WORDS: usize = LIMITS + 1 + 2 * MAX_MEMBERS;
/// Zero means no limit, because zero is refused as a value of every limit.
const LIMITS: usize = 5;
const SIZE: usize = WORDS * size_of::<AtomicU64>();

pub(super) struct SharedState {
    memory: Memory,
    /// A mutex between all views, and one between the threads of this process, which is locked first.
    alone: (Mutex<()>, OwnedHandle),
}

impl SharedState {
    /// The state of a job; without a name, no other process can open it.
    pub(super) fn create(name: Option<&str>) -> io::Result<SharedState> {
        SharedState::with(name, Memory::create(name, SIZE)?)
    }

    pub(super) fn open(name: &str) -> io::Result<SharedState> {
        SharedState::with(Some(name), Memory::open(name, Access::Write, SIZE)?)
    }

    fn with(name: Option<&str>, memory: Memory) -> io::Result<SharedState> {
        let name = name.map(|name| wide(format!("{name},lock")));
        let name = name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        // SAFETY: no attributes, so no child inherits the handle; the name ends with a NUL.
        let lock = owned(unsafe { CreateMutexW(ptr::null(), 0, name) })?;
        Ok(SharedState { memory, alone: (Mutex::default(), lock) })
    }

    /// No other thread or process can freeze, thaw or set limits while this is locked.
    pub(super) fn lock(&self) -> io::Result<State<'_>> {
        let (here, everywhere) = &self.alone;
        let here = here.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: an open handle. A process that died while it held the mutex left complete entries.
        match unsafe { WaitForSingleObject(everywhere.as_raw_handle(), INFINITE) } {
            WAIT_OBJECT_0 | WAIT_ABANDONED => {
                let (limits, frozen) = self.words().split_at(LIMITS);
                Ok(State { limits, frozen, lock: everywhere, _here: here })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Clears the list: none of the frozen processes is alive any more.
    pub(super) fn clear(&self) -> io::Result<()> {
        if !self.is_thawed() {
            self.lock()?.forget();
        }
        Ok(())
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped as long as `self` exists, page-aligned, and only accessed as atomics.
        unsafe { slice::from_raw_parts(self.memory.at().cast().as_ptr(), WORDS) }
    }

    /// Whether no process is frozen.
    pub(super) fn is_thawed(&self) -> bool {
        self.words().get(LIMITS).is_none_or(|count| count.load(Ordering::Acquire) == 0)
    }
}

pub(super) struct State<'a> {
    limits: &'a [AtomicU64],
    frozen: &'a [AtomicU64],
    lock: &'a OwnedHandle,
    _here: MutexGuard<'a, ()>,
}

impl State<'_> {
    pub(super) fn limits(&self) -> Limits {
        let value = |at: usize| self.limits.get(at).map(|word| word.load(Ordering::Relaxed));
        let set = |at: usize| value(at).filter(|value| *value != 0);
        Limits {
            memory_max: set(0),
            cpu_max: set(1).map(f64::from_bits),
            processes_max: set(2).map(|count| count as u32),
            cpu_time_max: set(3).map(Duration::from_nanos),
            affinity: set(4),
            ..Limits::default()
        }
    }

    pub(super) fn set_limits(&self, limits: &Limits) {
        let time = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let values: [Option<u64>; LIMITS] = [
            limits.memory_max,
            limits.cpu_max.map(f64::to_bits),
            limits.processes_max.map(u64::from),
            limits.cpu_time_max.map(time),
            limits.affinity,
        ];
        for (word, value) in self.limits.iter().zip(values) {
            word.store(value.unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// A process is entered before it is suspended: if this process dies in between, a thaw resumes a
    /// running process, which has no effect.
    pub(super) fn enter(&self, id: &ProcessId) -> io::Result<()> {
        let [count, entries @ ..] = self.frozen else { return Ok(()) };
        let known = count.load(Ordering::Relaxed);
        match entries.chunks_exact(2).nth(known as usize) {
            Some([number, creation]) => {
                number.store(id.pid.into(), Ordering::Relaxed);
                creation.store(id.start, Ordering::Relaxed);
                count.store(known + 1, Ordering::Release);
                Ok(())
            }
            _ => Err(io::Error::other(format!("the job has more than {MAX_MEMBERS} members"))),
        }
    }

    /// Removes the last entry, a process that could not be suspended.
    pub(super) fn strike_last(&self) {
        if let Some(count) = self.frozen.first() {
            count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Release);
        }
    }

    pub(super) fn ids(&self) -> Vec<ProcessId> {
        let [count, entries @ ..] = self.frozen else { return Vec::new() };
        let known = count.load(Ordering::Relaxed) as usize;
        let entries = entries.chunks_exact(2).take(known);
        let value = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let id = |entry: &[AtomicU64]| ProcessId {
            pid: value(&entry[0]) as u32,
            start: value(&entry[1]),
            boot: 0,
            inode: 0,
        };
        entries.map(id).collect()
    }

    /// Resumes all of them, each once.
    pub(super) fn thaw(&self) {
        for id in self.ids() {
            if let Ok(process) = identity::reopen(&id, PROCESS_SUSPEND_RESUME) {
                let _ = nt::resume(process.as_handle());
            }
        }
        self.forget();
    }

    fn forget(&self) {
        if let Some(count) = self.frozen.first() {
            count.store(0, Ordering::Release);
        }
    }
}

impl Drop for State<'_> {
    fn drop(&mut self) {
        // SAFETY: a mutex that this thread holds.
        unsafe { ReleaseMutex(self.lock.as_raw_handle()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All views read the limits that one of them has set.
    #[test]
    fn limits_are_shared_by_all_views() {
        let name = format!(r"Local\onejob-shared-test,{}", std::process::id());
        let (ours, theirs) =
            (SharedState::create(Some(&name)).unwrap(), SharedState::open(&name).unwrap());
        assert_eq!(theirs.lock().unwrap().limits(), Limits::new());
        let all = Limits::new().memory_max(1 << 40).cpu_max(0.25).processes_max(9);
        let all = all.cpu_time_max(Duration::from_millis(1500)).affinity(0b101);
        for limits in [all, Limits::new().processes_max(1), Limits::new()] {
            theirs.lock().unwrap().set_limits(&limits);
            assert_eq!(ours.lock().unwrap().limits(), limits);
        }
    }
}
