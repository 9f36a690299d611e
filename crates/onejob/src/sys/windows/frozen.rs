//! Whom a freeze has stopped: a thaw lets those run again and nobody else, whoever of the job's views
//! froze it.

use std::{
    io,
    os::windows::io::{AsHandle as _, AsRawHandle as _, OwnedHandle},
    ptr, slice,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
use crate::ProcessId;

/// More than any job that is frozen has had.
const MOST: usize = 16 << 10;

/// How many there are, and for each its number and its creation.
const WORDS: usize = 1 + 2 * MOST;
const SIZE: usize = WORDS * size_of::<AtomicU64>();

pub(super) struct Frozen {
    memory: Memory,
    /// One of all views, and before it one of all threads here.
    alone: (Mutex<()>, OwnedHandle),
}

impl Frozen {
    /// The job's; without a name nobody else has it.
    pub(super) fn create(name: Option<&str>) -> io::Result<Frozen> {
        Frozen::with(name, Memory::create(name, SIZE)?)
    }

    pub(super) fn open(name: &str) -> io::Result<Frozen> {
        Frozen::with(Some(name), Memory::open(name, Access::Write, SIZE)?)
    }

    fn with(name: Option<&str>, memory: Memory) -> io::Result<Frozen> {
        let name = name.map(|name| wide(format!("{name},lock")));
        let name = name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        // SAFETY: no attributes, so nobody inherits the handle; the name ends with a NUL.
        let lock = owned(unsafe { CreateMutexW(ptr::null(), 0, name) })?;
        Ok(Frozen { memory, alone: (Mutex::default(), lock) })
    }

    /// Nobody else freezes or thaws as long as the list is held.
    pub(super) fn lock(&self) -> io::Result<List<'_>> {
        let (here, everywhere) = &self.alone;
        let here = here.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: an open handle. Whoever died with it left whole entries.
        match unsafe { WaitForSingleObject(everywhere.as_raw_handle(), INFINITE) } {
            WAIT_OBJECT_0 | WAIT_ABANDONED => {
                Ok(List { words: self.words(), lock: everywhere, _here: here })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Nobody of them lives any more.
    pub(super) fn clear(&self) -> io::Result<()> {
        if !self.is_empty() {
            self.lock()?.forget();
        }
        Ok(())
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped as long as `self` lives, at the beginning of a page, and only accessed so.
        unsafe { slice::from_raw_parts(self.memory.at().cast().as_ptr(), WORDS) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words().first().is_none_or(|count| count.load(Ordering::Acquire) == 0)
    }
}

pub(super) struct List<'a> {
    words: &'a [AtomicU64],
    lock: &'a OwnedHandle,
    _here: MutexGuard<'a, ()>,
}

impl List<'_> {
    /// Entered before it is stopped: if we die in between, a thaw resumes somebody who runs, which
    /// does nothing.
    pub(super) fn enter(&self, id: &ProcessId) -> io::Result<()> {
        let [count, entries @ ..] = self.words else { return Ok(()) };
        let known = count.load(Ordering::Relaxed);
        match entries.chunks_exact(2).nth(known as usize) {
            Some([number, creation]) => {
                number.store(id.pid.into(), Ordering::Relaxed);
                creation.store(id.start, Ordering::Relaxed);
                count.store(known + 1, Ordering::Release);
                Ok(())
            }
            _ => Err(io::Error::other(format!("more than {MOST} members to freeze"))),
        }
    }

    /// Takes the last one out, who could not be stopped.
    pub(super) fn strike_last(&self) {
        if let Some(count) = self.words.first() {
            count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Release);
        }
    }

    pub(super) fn ids(&self) -> Vec<ProcessId> {
        let [count, entries @ ..] = self.words else { return Vec::new() };
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

    /// Lets all of them run again, each once.
    pub(super) fn thaw(&self) {
        for id in self.ids() {
            if let Ok(process) = identity::reopen(&id, PROCESS_SUSPEND_RESUME) {
                let _ = nt::resume(process.as_handle());
            }
        }
        self.forget();
    }

    fn forget(&self) {
        if let Some(count) = self.words.first() {
            count.store(0, Ordering::Release);
        }
    }
}

impl Drop for List<'_> {
    fn drop(&mut self) {
        // SAFETY: a mutex that this thread holds.
        unsafe { ReleaseMutex(self.lock.as_raw_handle()) };
    }
}
