//! Console events, held back from their usual effect, by the names of the signals they stand for.

use std::{
    io,
    os::windows::io::{
        AsHandle, AsRawHandle as _, BorrowedHandle, FromRawHandle as _, OwnedHandle,
    },
    ptr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use onejob::{Child, Job, Signal};
use windows_sys::{
    Win32::System::{
        Console::{
            CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT,
            CTRL_SHUTDOWN_EVENT, SetConsoleCtrlHandler,
        },
        Threading::{CreateEventW, ResetEvent, SetEvent},
    },
    core::BOOL,
};

use crate::os::Hearing;

/// An event that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
}

impl Received {
    /// Never: we send none.
    pub(crate) fn is_ours(self) -> bool {
        false
    }

    /// Never: no CMD is in another console than ours.
    pub(crate) fn is_from_terminal(self) -> bool {
        false
    }

    /// Never: a console tells everybody in it, CMD too.
    pub(crate) fn is_for_cmd(self, _: &Job, _: &Child) -> bool {
        false
    }
}

/// What the handler, which runs in a thread of the system's, hands over.
struct Queue {
    /// Signalled while something waits here.
    filled: OwnedHandle,
    waiting: Mutex<Vec<Signal>>,
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

impl Queue {
    fn new() -> io::Result<Queue> {
        // SAFETY: no name and no attributes: a handle that no child inherits.
        let event = unsafe { CreateEventW(ptr::null(), 1, 0, ptr::null()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so this is an open handle that nobody else owns.
        let filled = unsafe { OwnedHandle::from_raw_handle(event) };
        Ok(Queue { filled, waiting: Mutex::default() })
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Signal>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, signal: Signal) {
        let mut waiting = self.waiting();
        waiting.push(signal);
        // SAFETY: an event of ours. Under the lock, so that it agrees with the list.
        unsafe { SetEvent(self.filled.as_raw_handle()) };
    }

    fn take(&self) -> Option<Signal> {
        let mut waiting = self.waiting();
        let next = (!waiting.is_empty()).then(|| waiting.remove(0));
        if waiting.is_empty() {
            // SAFETY: an event of ours, under the lock.
            unsafe { ResetEvent(self.filled.as_raw_handle()) };
        }
        next
    }
}

/// The signal that a console event stands for.
fn signal_of(event: u32) -> Option<Signal> {
    match event {
        CTRL_C_EVENT => Some(Signal::INT),
        CTRL_BREAK_EVENT => Some(Signal::TERM),
        CTRL_CLOSE_EVENT | CTRL_LOGOFF_EVENT | CTRL_SHUTDOWN_EVENT => Some(Signal::HUP),
        _ => None,
    }
}

unsafe extern "system" fn on_event(event: u32) -> BOOL {
    let (Some(queue), Some(signal)) = (QUEUE.get(), signal_of(event)) else { return 0 };
    queue.put(signal);
    // Returning from one of these ends us; the system does so anyhow after some seconds, and that
    // takes the job down.
    if signal == Signal::HUP {
        loop {
            thread::park();
        }
    }
    1
}

/// Console events, read one by one.
pub(crate) struct Signals(&'static Queue);

impl Signals {
    /// From now on no console event has an effect of its own on us.
    pub(crate) fn listen(_: Hearing) -> io::Result<Signals> {
        let queue = match QUEUE.get() {
            Some(queue) => queue,
            None => {
                let made = Queue::new()?;
                QUEUE.get_or_init(|| made)
            }
        };
        // SAFETY: the handler has the signature that is called, and lives as long as the process.
        if unsafe { SetConsoleCtrlHandler(Some(on_event), 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Signals(queue))
    }

    /// The next one that has come, without waiting for one.
    pub(crate) fn next(&self) -> Option<Received> {
        self.0.take().map(|signal| Received { signal })
    }

    /// Forgets what has come so far.
    pub(crate) fn discard(&self) {
        while self.next().is_some() {}
    }
}

impl AsHandle for Signals {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.filled.as_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_once_and_by_the_name_of_its_signal() {
        let signals = Signals::listen(Hearing::ButStops).unwrap();
        // SAFETY: the handler may be called by anybody; this event does not park it.
        assert_eq!(unsafe { on_event(CTRL_C_EVENT) }, 1, "it has no effect of its own");
        // SAFETY: as above.
        assert_eq!(unsafe { on_event(CTRL_BREAK_EVENT) }, 1);
        assert_eq!(signals.next(), Some(Received { signal: Signal::INT }));
        assert_eq!(signals.next(), Some(Received { signal: Signal::TERM }));
        assert_eq!(signals.next(), None);
        // SAFETY: as above.
        assert_eq!(unsafe { on_event(77) }, 0, "what is unknown is left to others");
        assert_eq!(signals.next(), None);
    }
}
