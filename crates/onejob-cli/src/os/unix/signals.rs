//! Inherited signal settings, a queue of received signals, and death by a signal.

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use onejob::{Child, Job, Signal, SignalState};
use rustix::{io::Errno, process::DumpableBehavior};

use crate::os::SignalFilter;

/// The signals that were blocked when onejob was started. Bit n-1 is signal n.
static BLOCKED: AtomicU64 = AtomicU64::new(0);

/// The signals of [`OVERWRITTEN`] that were ignored when onejob was started.
static IGNORED: AtomicU64 = AtomicU64::new(0);

/// Whether onejob ignores more signals of [`OVERWRITTEN`] than `SIGPIPE` by now.
static IGNORES_MORE: AtomicBool = AtomicBool::new(false);

/// The signals with a disposition that onejob changes. For all others, sigaction(2) still returns the
/// inherited one.
const OVERWRITTEN: [Signal; 4] = [Signal::PIPE, Signal::CHLD, Signal::TTIN, Signal::TTOU];

/// Saves the inherited settings and ignores SIGPIPE, so that a closed pipe is an EPIPE. To be called
/// before any other function of this module.
pub(super) fn save_inherited() {
    let blocked = mask(libc::SIG_BLOCK, None);
    // SAFETY: pthread_sigmask has initialised `blocked`.
    let is_blocked = |signal: &Signal| unsafe { libc::sigismember(&blocked, signal.as_raw()) } == 1;
    BLOCKED.store(bits(Signal::all().filter(is_blocked)), Relaxed);
    IGNORED.store(bits(OVERWRITTEN.into_iter().filter(is_ignored_now)), Relaxed);
    ignore(Signal::PIPE);
}

fn bits(signals: impl Iterator<Item = Signal>) -> u64 {
    signals.fold(0, |set, signal| set | bit(signal))
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

fn is_ignored_now(signal: &Signal) -> bool {
    // SAFETY: an all-zero sigaction is valid, and it lives through the call. A null `act` changes no
    // disposition; on EINVAL `action` stays zeroed.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal.as_raw(), ptr::null(), &mut action);
        action.sa_sigaction == libc::SIG_IGN
    }
}

/// The inherited signal settings, for CMD. `None` if a child has them anyway: nothing blocked, `SIGPIPE`
/// with its default action, and all others as in this process.
pub(super) fn inherited() -> Option<SignalState> {
    let is_default = BLOCKED.load(Relaxed) == 0 && IGNORED.load(Relaxed) == 0;
    if is_default && !IGNORES_MORE.load(Relaxed) {
        return None;
    }
    let mut state = SignalState::new();
    for signal in Signal::all() {
        if is_in(&BLOCKED, signal) {
            state = state.block(signal);
        }
        if was_ignored(signal) {
            state = state.ignore(signal);
        }
    }
    Some(state)
}

fn is_in(set: &AtomicU64, signal: Signal) -> bool {
    set.load(Relaxed) & bit(signal) != 0
}

fn was_ignored(signal: Signal) -> bool {
    match OVERWRITTEN.contains(&signal) {
        true => is_in(&IGNORED, signal),
        false => is_ignored_now(&signal),
    }
}

/// Whether this signal was ignored or blocked when onejob was started (as by `nohup`).
pub(crate) fn was_ignored_or_blocked(signal: Signal) -> bool {
    is_in(&BLOCKED, signal) || was_ignored(signal)
}

/// Restores the default action of SIGCHLD: while it is ignored, the kernel discards the exit statuses of
/// children.
pub(crate) fn reset_sigchld() {
    if is_in(&IGNORED, Signal::CHLD) {
        set_default(Signal::CHLD);
    }
}

/// The stop signals of the terminal, which have to stop onejob together with CMD in its process group,
/// and SIGCHLD: the exit of CMD is read from its pidfd.
const JOB_CONTROL: [Signal; 4] = [Signal::TSTP, Signal::TTIN, Signal::TTOU, Signal::CHLD];

/// The signals that a queue never receives: they cannot be blocked, or report a fault of this process.
const NEVER_QUEUED: [Signal; 8] = [
    Signal::KILL,
    Signal::STOP,
    Signal::ILL,
    Signal::TRAP,
    Signal::BUS,
    Signal::FPE,
    Signal::SEGV,
    Signal::SYS,
];

/// A signal and its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceivedSignal {
    pub(crate) signal: Signal,
    sender: Sender,
}

impl SignalFilter {
    fn includes(self, signal: Signal) -> bool {
        const TERMINATING: [Signal; 5] =
            [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::ALRM];
        !NEVER_QUEUED.contains(&signal)
            && match self {
                SignalFilter::AllButJobControl => !JOB_CONTROL.contains(&signal),
                SignalFilter::All => true,
                SignalFilter::Terminating(another) => {
                    TERMINATING.contains(&signal) || signal == another
                }
            }
    }
}

impl ReceivedSignal {
    /// Whether this process has sent it.
    pub(crate) fn is_own(self) -> bool {
        self.sender == Sender::Process(std::process::id())
    }

    /// Whether a terminal has sent it, to its foreground process group.
    pub(crate) fn is_from_terminal(self) -> bool {
        let terminal_signals = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::WINCH];
        self.sender == Sender::Kernel && terminal_signals.contains(&self.signal)
    }

    /// Whether it has to be forwarded to CMD. False if CMD has received it too, as a member of the same
    /// process group.
    pub(crate) fn is_for_child(self, job: &Job, child: &Child) -> bool {
        match (self.sender, self.signal) {
            (Sender::Process(pid), _) => {
                // A member that signals its process group reaches CMD and onejob alike. A signal
                // from this process is its own SIGPIPE.
                let members = || job.processes().unwrap_or_default();
                pid != std::process::id()
                    && pid != child.pid()
                    && !members().iter().any(|member| member.pid() == pid)
            }
            // A terminal signals its whole foreground process group.
            (Sender::Kernel, Signal::INT | Signal::QUIT | Signal::WINCH) => false,
            // At a hang-up it signals only the session leader.
            (Sender::Kernel, Signal::HUP | Signal::CONT) => {
                // SAFETY: getsid(2) and getpid(2) touch no memory. For a session from outside the PID
                // namespace, getsid returns 0, which rustix cannot represent.
                unsafe { libc::getsid(0) == libc::getpid() }
            }
            // A timer. alarm(2) survives execve, so it was set for CMD.
            (Sender::Kernel, _) => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// A process; 0 if it is outside the PID namespace.
    Process(u32),
    /// The kernel, for a terminal or a timer.
    Kernel,
}

/// Blocked signals, read one by one from a signalfd.
pub(crate) struct SignalQueue(OwnedFd);

impl SignalQueue {
    /// Blocks the signals of the filter, from now on.
    pub(crate) fn new(filter: SignalFilter) -> io::Result<SignalQueue> {
        if let SignalFilter::Terminating(_) = filter {
            // When CMD, in the background, reads from the terminal, it stops; the time limit goes on.
            [Signal::TTIN, Signal::TTOU].into_iter().for_each(set_ignored);
        }
        let queued = set_of(Signal::all().filter(|signal| filter.includes(*signal)));
        mask(libc::SIG_BLOCK, Some(&queued));
        // SAFETY: `queued` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &queued, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd succeeded, so `fd` is open, and no other value owns it.
        Ok(SignalQueue(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal, if one has arrived.
    pub(crate) fn next(&self) -> Option<ReceivedSignal> {
        const SIZE: usize = mem::size_of::<libc::signalfd_siginfo>();
        loop {
            let mut bytes = [0; SIZE];
            match rustix::io::read(&self.0, &mut bytes) {
                Ok(SIZE) => {}
                Err(Errno::INTR) => continue,
                _ => return None,
            }
            // SAFETY: a signalfd_siginfo consists of integers, for which every bit pattern is valid, and
            // `bytes` has its size.
            let info: libc::signalfd_siginfo =
                unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) };
            if let Some(signal) = Signal::from_raw(info.ssi_signo.cast_signed()) {
                return Some(ReceivedSignal { signal, sender: sender(&info) });
            }
        }
    }

    /// Discards the signals that have arrived so far.
    pub(crate) fn discard(&self) {
        while self.next().is_some() {}
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn sender(info: &libc::signalfd_siginfo) -> Sender {
    match info.ssi_code {
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL | libc::SI_MESGQ => {
            Sender::Process(info.ssi_pid)
        }
        _ => Sender::Kernel,
    }
}

/// Runs `action` while a signal is blocked in this thread.
pub(super) fn while_blocked<T>(signal: Signal, action: impl FnOnce() -> T) -> T {
    let before = mask(libc::SIG_BLOCK, Some(&set_of([signal].into_iter())));
    let result = action();
    mask(libc::SIG_SETMASK, Some(&before));
    result
}

/// Ends this process by the signal that ended CMD, so that the parent reads the same status: a shell
/// stops its script after Ctrl-C only if SIGINT ended the command.
pub(crate) fn die_by(signal: Signal) -> ! {
    // CMD has dumped its core already; one of onejob is of no use.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // The kernel does not deliver a signal with its default action to PID 1.
    if std::process::id() != 1 {
        set_default(signal);
        mask(libc::SIG_UNBLOCK, Some(&set_of([signal].into_iter())));
        // SAFETY: raise(3) touches no memory; the signal has its default action, which runs no code.
        unsafe { libc::raise(signal.as_raw()) };
    }
    std::process::exit(128 + signal.as_raw())
}

/// Sends a signal to the process group that CMD leads.
pub(crate) fn signal_group(child: &Child, signal: Signal) -> onejob::Result<()> {
    child.signal_group(signal)
}

/// Sends a signal to the process group of onejob. onejob receives it too, in its queue.
pub(crate) fn signal_own_group(signal: Signal) {
    // SAFETY: kill(2) touches no memory. This process has the signal blocked.
    unsafe { libc::kill(0, signal.as_raw()) };
}

/// Sends a signal to CMD if it has left the process group of onejob.
pub(crate) fn signal_unless_in_own_group(child: &Child, signal: Signal) -> onejob::Result<()> {
    // SAFETY: getpgid(2) and getpgrp(2) touch no memory.
    let (childs, own) = unsafe { (libc::getpgid(child.pid().cast_signed()), libc::getpgrp()) };
    if childs == own { Ok(()) } else { child.signal(signal) }
}

/// Makes this process the leader of a new process group.
pub(crate) fn become_group_leader() {
    // EPERM: a session leader leads its group already.
    let _ = rustix::process::setpgid(None, None);
}

/// Stops this process until it receives SIGCONT. Has no effect as PID 1.
pub(crate) fn stop_self() {
    // SAFETY: raise(3) touches no memory; SIGSTOP runs no code.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn set_ignored(signal: Signal) {
    IGNORES_MORE.store(true, Relaxed);
    ignore(signal);
}

fn ignore(signal: Signal) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
}

fn set_default(signal: Signal) {
    // SAFETY: SIG_DFL installs no handler. For SIGKILL the call fails, and no change is needed.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
}

fn set_of(signals: impl Iterator<Item = Signal>) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before it is read; every `Signal` is a valid number.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        signals.for_each(|signal| {
            libc::sigaddset(&mut set, signal.as_raw());
        });
        set
    }
}

/// Changes the signal mask of this thread. Returns the previous one.
fn mask(how: i32, set: Option<&libc::sigset_t>) -> libc::sigset_t {
    // SAFETY: `set` is null or a live set, and `before` is live; an all-zero set is valid. `how` is a
    // valid value, so the call cannot fail.
    unsafe {
        let mut before = mem::zeroed();
        libc::pthread_sigmask(how, set.map_or(ptr::null(), ptr::from_ref), &mut before);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queued signal is read once, with the pid of its sender.
    #[test]
    fn signal_is_read_with_its_sender() {
        let signals = SignalQueue::new(SignalFilter::AllButJobControl).unwrap();
        // SAFETY: raise(3) touches no memory; the signal is blocked in this thread.
        unsafe { libc::raise(libc::SIGUSR1) };
        let received = signals.next().unwrap();
        assert_eq!(received.signal, Signal::USR1);
        assert_eq!(received.sender, Sender::Process(std::process::id()));
        assert_eq!(signals.next(), None);
    }
}
