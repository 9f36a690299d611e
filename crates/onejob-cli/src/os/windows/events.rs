//! Console events, intercepted and read one by one as the corresponding signals.

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

use crate::os::SignalFilter;

/// The signal of a console event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceivedSignal {
    pub(crate) signal: Signal,
}

impl ReceivedSignal {
    /// Never: this process sends no console events.
    pub(crate) fn is_own(self) -> bool {
        false
    }

    /// Never: CMD shares the console of this process.
    pub(crate) fn is_from_terminal(self) -> bool {
        false
    }

    /// Never: the console notifies every process attached to it, CMD too.
    pub(crate) fn is_for_child(self, _: &Job, _: &Child) -> bool {
        false
    }
}

/// The events that the handler, which runs in a thread of the system, has received.
struct Queue {
    /// Signalled while the list is not empty.
    non_empty: OwnedHandle,
    signals: Mutex<Vec<Signal>>,
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

impl Queue {
    fn new() -> io::Result<Queue> {
        // SAFETY: null attributes and a null name are allowed; the handle is not inheritable.
        let event = unsafe { CreateEventW(ptr::null(), 1, 0, ptr::null()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so the handle is open, and no other value owns it.
        let non_empty = unsafe { OwnedHandle::from_raw_handle(event) };
        Ok(Queue { non_empty, signals: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Signal>> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, signal: Signal) {
        let mut signals = self.lock();
        signals.push(signal);
        // SAFETY: `non_empty` is an open event. The lock keeps it in step with the list.
        unsafe { SetEvent(self.non_empty.as_raw_handle()) };
    }

    fn take(&self) -> Option<Signal> {
        let mut signals = self.lock();
        let next = (!signals.is_empty()).then(|| signals.remove(0));
        if signals.is_empty() {
            // SAFETY: `non_empty` is an open event. The lock keeps it in step with the list.
            unsafe { ResetEvent(self.non_empty.as_raw_handle()) };
        }
        next
    }
}

/// The signal that corresponds to a console event.
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
    // The system ends the process when the handler of a close, logoff or shutdown event returns, or
    // after some seconds. Its end closes the job.
    if signal == Signal::HUP {
        loop {
            thread::park();
        }
    }
    1
}

/// Console events, read one by one.
pub(crate) struct SignalQueue(&'static Queue);

impl SignalQueue {
    /// Intercepts the console events of this process from now on.
    pub(crate) fn new(_: SignalFilter) -> io::Result<SignalQueue> {
        let queue = match QUEUE.get() {
            Some(queue) => queue,
            None => {
                let queue = Queue::new()?;
                QUEUE.get_or_init(|| queue)
            }
        };
        // SAFETY: the handler has the required signature and is a static function.
        if unsafe { SetConsoleCtrlHandler(Some(on_event), 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(SignalQueue(queue))
    }

    /// The next signal, if one has arrived.
    pub(crate) fn next(&self) -> Option<ReceivedSignal> {
        self.0.take().map(|signal| ReceivedSignal { signal })
    }

    /// Discards the signals that have arrived so far.
    pub(crate) fn discard(&self) {
        while self.next().is_some() {}
    }
}

impl AsHandle for SignalQueue {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.non_empty.as_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A console event is read once, as the corresponding signal; an unknown one is not handled.
    #[test]
    fn event_is_read_once_as_a_signal() {
        let signals = SignalQueue::new(SignalFilter::AllButJobControl).unwrap();
        // SAFETY: the handler has no precondition; this event does not park the thread.
        assert_eq!(unsafe { on_event(CTRL_C_EVENT) }, 1, "its default action is suppressed");
        // SAFETY: the handler has no precondition; this event does not park the thread.
        assert_eq!(unsafe { on_event(CTRL_BREAK_EVENT) }, 1);
        assert_eq!(signals.next(), Some(ReceivedSignal { signal: Signal::INT }));
        assert_eq!(signals.next(), Some(ReceivedSignal { signal: Signal::TERM }));
        assert_eq!(signals.next(), None);
        // SAFETY: the handler has no precondition; this event does not park the thread.
        assert_eq!(unsafe { on_event(77) }, 0, "an unknown event is left to other handlers");
        assert_eq!(signals.next(), None);
    }
}
