//! Kernel messages about jobs, which wake the threads that wait for a job.
//!
//! They are hints: a message may be lost, and it does not contain the remaining members. So a wait is
//! woken by messages and by the end of a member with an open handle, and decides by the accounting of
//! the job.

use std::{
    collections::HashMap,
    io, mem,
    os::windows::io::{AsHandle, AsRawHandle as _, BorrowedHandle, OwnedHandle},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use windows_sys::Win32::{
    Foundation::INVALID_HANDLE_VALUE,
    System::{
        IO::{CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED_ENTRY},
        JobObjects::{
            JOBOBJECT_ASSOCIATE_COMPLETION_PORT, JobObjectAssociateCompletionPortInformation,
        },
        SystemServices::{
            JOB_OBJECT_MSG_ABNORMAL_EXIT_PROCESS, JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO,
            JOB_OBJECT_MSG_EXIT_PROCESS,
        },
        Threading::{CreateEventW, INFINITE, SetEvent},
    },
};

use super::{
    handles::{check, owned},
    object::Object,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The waiters for one job.
type Waiting = Arc<Mutex<Vec<Weak<OwnedHandle>>>>;

/// The registration of one job for messages.
#[derive(Debug)]
pub(super) struct Registration {
    key: usize,
    waiting: Waiting,
}

/// Signalled once for each end of a member of the job since it was made. Each waiter has its own, so
/// that no waiter consumes the signal of another.
pub(super) struct EndSignal(Arc<OwnedHandle>);

impl Registration {
    /// The port of a job cannot be changed, so this works once per job.
    pub(super) fn already_ended(object: &Object) -> io::Result<Registration> {
        let keeper = PortThread::get()?;
        let key = keeper.next.fetch_add(1, Ordering::Relaxed);
        let watch = Registration { key, waiting: Arc::default() };
        lock(&keeper.jobs).insert(key, Arc::clone(&watch.waiting));
        attach(object, &keeper.port, key).map(|()| watch)
    }

    pub(super) fn end_signal(&self) -> io::Result<EndSignal> {
        // SAFETY: no name and no attributes: a handle that no child inherits. The event is auto-reset.
        let event = owned(unsafe { CreateEventW(ptr::null(), 0, 0, ptr::null()) })?;
        let event = Arc::new(event);
        let mut waiting = lock(&self.waiting);
        waiting.retain(|bell| bell.strong_count() > 0);
        waiting.push(Arc::downgrade(&event));
        Ok(EndSignal(event))
    }
}

/// Later messages about the job are ignored.
impl Drop for Registration {
    fn drop(&mut self) {
        if let Ok(keeper) = PortThread::get() {
            lock(&keeper.jobs).remove(&self.key);
        }
    }
}

impl AsHandle for EndSignal {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}

fn attach(object: &Object, port: &OwnedHandle, key: usize) -> io::Result<()> {
    let which = JOBOBJECT_ASSOCIATE_COMPLETION_PORT {
        CompletionKey: ptr::without_provenance_mut(key),
        CompletionPort: port.as_raw_handle(),
    };
    object.set(JobObjectAssociateCompletionPortInformation, &which)
}

/// The port of all jobs of this process, and the thread that empties it: otherwise unread messages
/// would stay in kernel memory.
struct PortThread {
    port: OwnedHandle,
    next: AtomicUsize,
    jobs: Mutex<HashMap<usize, Waiting>>,
}

impl PortThread {
    /// Started by the first wait that must sleep.
    fn get() -> io::Result<&'static PortThread> {
        static KEEPER: OnceLock<PortThread> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = lock(&STARTING);
        if let Some(keeper) = KEEPER.get() {
            return Ok(keeper);
        }
        // SAFETY: a new port for no file; no child inherits its handle.
        let port =
            owned(unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, 1) })?;
        let keeper = PortThread { port, next: AtomicUsize::new(1), jobs: Mutex::default() };
        // The thread waits until `KEEPER` is initialized, then sleeps until a job is attached.
        let empty = || KEEPER.wait().keep();
        thread::Builder::new().name("onejob-port".to_owned()).spawn(empty)?;
        Ok(KEEPER.get_or_init(|| keeper))
    }

    fn keep(&self) {
        const MAX_MESSAGES: usize = 64;
        // SAFETY: structures of numbers and pointers, for which zero is a value.
        let mut entries: [OVERLAPPED_ENTRY; MAX_MESSAGES] = unsafe { mem::zeroed() };
        loop {
            let mut count = 0;
            // SAFETY: an open port, and the given number of entries.
            let taken = check(unsafe {
                let (port, to) = (self.port.as_raw_handle(), entries.as_mut_ptr());
                GetQueuedCompletionStatusEx(
                    port,
                    to,
                    MAX_MESSAGES as u32,
                    &raw mut count,
                    INFINITE,
                    0,
                )
            });
            // The port is open until the process ends.
            if taken.is_err() {
                return;
            }
            let mut ended: Vec<usize> = entries[..count as usize]
                .iter()
                .filter(|entry| is_end_message(entry.dwNumberOfBytesTransferred))
                .map(|entry| entry.lpCompletionKey)
                .collect();
            ended.dedup();
            ended.into_iter().for_each(|key| self.ring(key));
        }
    }

    fn ring(&self, key: usize) {
        let Some(waiting) = lock(&self.jobs).get(&key).map(Arc::clone) else { return };
        for bell in lock(&waiting).iter().filter_map(Weak::upgrade) {
            // SAFETY: an event that this process owns.
            unsafe { SetEvent(bell.as_raw_handle()) };
        }
    }
}

fn is_end_message(message: u32) -> bool {
    const ENDS: [u32; 3] = [
        JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO,
        JOB_OBJECT_MSG_EXIT_PROCESS,
        JOB_OBJECT_MSG_ABNORMAL_EXIT_PROCESS,
    ];
    ENDS.contains(&message)
}

#[cfg(test)]
impl Registration {
    /// A registration that receives no messages.
    pub(super) fn without_messages() -> Registration {
        Registration { key: 0, waiting: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::windows::{
        handles::wait_any,
        test_process::{LONG, reader},
    };

    /// Every waiter is woken by the end of a member and by nothing else.
    #[test]
    fn every_waiter_wakes_at_an_end_only() {
        let object = Object::anonymous().unwrap();
        let watch = Registration::already_ended(&object).unwrap();
        let bells = [watch.end_signal().unwrap(), watch.end_signal().unwrap()];
        let (mut first, mut second) = (reader(), reader());
        object.assign(first.as_handle()).unwrap();
        object.assign(second.as_handle()).unwrap();
        let soon = Instant::now() + Duration::from_millis(200);
        assert_eq!(wait_any(&[bells[0].as_handle()], Some(soon)).unwrap(), None, "nobody ended");
        for (ended, others) in [(&mut first, 1), (&mut second, 0)] {
            drop(ended.stdin.take());
            for bell in &bells {
                let end = Instant::now() + LONG;
                assert_eq!(wait_any(&[bell.as_handle()], Some(end)).unwrap(), Some(0));
            }
            ended.wait().unwrap();
            assert_eq!(object.other_members().unwrap(), others);
        }
    }

    #[test]
    fn a_job_that_is_gone_is_forgotten() {
        let object = Object::anonymous().unwrap();
        let watch = Registration::already_ended(&object).unwrap();
        let key = watch.key;
        let known = || lock(&PortThread::get().unwrap().jobs).contains_key(&key);
        assert!(known());
        drop(watch);
        assert!(!known());
        let refused = Registration::already_ended(&object).unwrap_err();
        assert!(refused.raw_os_error().is_some(), "one port for good: {refused}");
    }
}
