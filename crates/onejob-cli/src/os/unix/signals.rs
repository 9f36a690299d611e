//! The signal settings we were started with, the signals we hear, and ending by one.

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use onejob::{Child, Job, Signal, SignalState};
use rustix::{io::Errno, process::DumpableBehavior};

use crate::os::Hearing;

/// The signals that were blocked when we were started. Bit n-1 is signal n.
static BLOCKED: AtomicU64 = AtomicU64::new(0);

/// Of [`OVERWRITTEN`], those that were ignored.
static IGNORED: AtomicU64 = AtomicU64::new(0);

/// Whether we ignore more of them by now than `SIGPIPE`.
static HAS_CHANGED: AtomicBool = AtomicBool::new(false);

/// What does not stay as we were started with it. Of any other signal the kernel still knows.
const OVERWRITTEN: [Signal; 4] = [Signal::PIPE, Signal::CHLD, Signal::TTIN, Signal::TTOU];

/// Before anything else: what we were started with. From now on a closed pipe is an error like others.
pub(super) fn begin() {
    let blocked = mask(libc::SIG_BLOCK, None);
    // SAFETY: `blocked` is a set that the system call filled in.
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
    // SAFETY: a zeroed sigaction is a valid one, and the call is given a live one; no disposition is
    // changed. A number without a signal is an error that leaves it zeroed.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal.as_raw(), ptr::null(), &mut action);
        action.sa_sigaction == libc::SIG_IGN
    }
}

/// What CMD is to start with: what we were started with. `None` if a child has that anyway, with
/// nothing blocked, `SIGPIPE` by default and everything else as here.
pub(super) fn inherited() -> Option<SignalState> {
    let was_usual = BLOCKED.load(Relaxed) == 0 && IGNORED.load(Relaxed) == 0;
    if was_usual && !HAS_CHANGED.load(Relaxed) {
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

/// Whether our starter wanted this signal to do nothing to us (`nohup` and its like).
pub(crate) fn is_deaf_to(signal: Signal) -> bool {
    is_in(&BLOCKED, signal) || was_ignored(signal)
}

/// Makes the kernel keep our children's exit statuses: it throws them away for who ignores SIGCHLD.
pub(crate) fn keep_statuses() {
    if is_in(&IGNORED, Signal::CHLD) {
        set_default(Signal::CHLD);
    }
}

/// What must stop us together with the tree, where CMD is in our process group; a child's end, which
/// is learnt otherwise there.
const STOPS: [Signal; 4] = [Signal::TSTP, Signal::TTIN, Signal::TTOU, Signal::CHLD];

/// What stays out of the descriptor always: what cannot be blocked; our own faults.
const UNHEARD: [Signal; 8] = [
    Signal::KILL,
    Signal::STOP,
    Signal::ILL,
    Signal::TRAP,
    Signal::BUS,
    Signal::FPE,
    Signal::SEGV,
    Signal::SYS,
];

/// A signal that came, and from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    sender: Sender,
}

impl Hearing {
    fn includes(self, signal: Signal) -> bool {
        const ENDS: [Signal; 5] =
            [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::ALRM];
        !UNHEARD.contains(&signal)
            && match self {
                Hearing::ButStops => !STOPS.contains(&signal),
                Hearing::All => true,
                Hearing::Ends(another) => ENDS.contains(&signal) || signal == another,
            }
    }
}

impl Received {
    /// Whether we have sent it ourselves.
    pub(crate) fn is_ours(self) -> bool {
        self.sender == Sender::Process(std::process::id())
    }

    /// Whether a terminal has sent it, to everybody in the foreground.
    pub(crate) fn is_from_terminal(self) -> bool {
        let of_terminals = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::WINCH];
        self.sender == Sender::Kernel && of_terminals.contains(&self.signal)
    }

    /// Whether CMD has not got it by itself.
    pub(crate) fn is_for_cmd(self, job: &Job, child: &Child) -> bool {
        match (self.sender, self.signal) {
            (Sender::Process(pid), _) => {
                // A member that signals its process group hits CMD and us alike; our own SIGPIPE
                // is our own.
                let members = || job.processes().unwrap_or_default();
                pid != std::process::id()
                    && pid != child.pid()
                    && !members().iter().any(|member| member.pid() == pid)
            }
            // A terminal tells the whole foreground process group, …
            (Sender::Kernel, Signal::INT | Signal::QUIT | Signal::WINCH) => false,
            // … but of its end only the session's leader.
            (Sender::Kernel, Signal::HUP | Signal::CONT) => {
                // SAFETY: asks for numbers. A session from outside our PID namespace has the
                // number 0, for which rustix has no value.
                unsafe { libc::getsid(0) == libc::getpid() }
            }
            // A timer: alarm(2) outlives exec, and was meant for CMD.
            (Sender::Kernel, _) => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// A process; 0 if it is outside our PID namespace.
    Process(u32),
    /// The kernel: a terminal, a timer.
    Kernel,
}

/// Signals, held back from their usual effect and read one by one.
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// From now on no signal that we hear has an effect of its own.
    pub(crate) fn listen(hearing: Hearing) -> io::Result<Signals> {
        if let Hearing::Ends(_) = hearing {
            // CMD may stop for wanting a terminal that it is not given; its time goes on.
            [Signal::TTIN, Signal::TTOU].into_iter().for_each(set_ignored);
        }
        let heard = set_of(Signal::all().filter(|signal| hearing.includes(*signal)));
        mask(libc::SIG_BLOCK, Some(&heard));
        // SAFETY: `heard` is an initialised set, and the call makes a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &heard, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so this is an open descriptor that nobody else owns.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has come, without waiting for one.
    pub(crate) fn next(&self) -> Option<Received> {
        const SIZE: usize = mem::size_of::<libc::signalfd_siginfo>();
        loop {
            let mut bytes = [0; SIZE];
            match rustix::io::read(&self.0, &mut bytes) {
                Ok(SIZE) => {}
                Err(Errno::INTR) => continue,
                _ => return None,
            }
            // SAFETY: every bit pattern is a signalfd_siginfo, integers only, and the size is its.
            let info: libc::signalfd_siginfo =
                unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) };
            if let Some(signal) = Signal::from_raw(info.ssi_signo.cast_signed()) {
                return Some(Received { signal, sender: sender(&info) });
            }
        }
    }

    /// Forgets what has come so far.
    pub(crate) fn discard(&self) {
        while self.next().is_some() {}
    }
}

impl AsFd for Signals {
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

/// Does something while a signal is held back, in this thread.
pub(super) fn while_blocked<T>(signal: Signal, action: impl FnOnce() -> T) -> T {
    let before = mask(libc::SIG_BLOCK, Some(&set_of([signal].into_iter())));
    let result = action();
    mask(libc::SIG_SETMASK, Some(&before));
    result
}

/// Ends this process by a signal, as that signal ended CMD, so that whoever waits for us sees what
/// happened: a shell ends its script after an interrupt only if the interrupt ended the command.
pub(super) fn end_by(signal: Signal) -> ! {
    // CMD has left its core already, ours would be of no use to anybody.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // PID 1 cannot be ended by a signal of its own.
    if std::process::id() != 1 {
        set_default(signal);
        mask(libc::SIG_UNBLOCK, Some(&set_of([signal].into_iter())));
        // SAFETY: sends a signal to the calling thread; it has its default action.
        unsafe { libc::raise(signal.as_raw()) };
    }
    std::process::exit(128 + signal.as_raw())
}

/// Sends a signal to the process group that CMD leads.
pub(crate) fn signal_group(child: &Child, signal: Signal) -> onejob::Result<()> {
    child.signal_group(signal)
}

/// Sends a signal to our own process group; we hear it, too.
pub(crate) fn signal_own_group(signal: Signal) {
    // SAFETY: a plain system call. What it does to ourselves is held back: the caller hears it.
    unsafe { libc::kill(0, signal.as_raw()) };
}

/// Sends a signal to CMD if it is not in our process group any more.
pub(crate) fn signal_if_elsewhere(child: &Child, signal: Signal) -> onejob::Result<()> {
    // SAFETY: both ask for numbers.
    let (its, ours) = unsafe { (libc::getpgid(child.pid().cast_signed()), libc::getpgrp()) };
    if its == ours { Ok(()) } else { child.signal(signal) }
}

/// Leads a process group of our own from now on, so that all of it can be signalled.
pub(crate) fn lead_group() {
    // Who leads a session leads a group already.
    let _ = rustix::process::setpgid(None, None);
}

/// Stops us, until somebody lets us go on. PID 1 cannot be stopped.
pub(crate) fn suspend() {
    // SAFETY: sends a signal to the calling thread; the whole process stops.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn set_ignored(signal: Signal) {
    HAS_CHANGED.store(true, Relaxed);
    ignore(signal);
}

fn ignore(signal: Signal) {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
}

fn set_default(signal: Signal) {
    // SAFETY: the default action runs no code of ours. SIGKILL is refused, and needs no change.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
}

fn set_of(signals: impl Iterator<Item = Signal>) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before anything reads it; every `Signal` is one.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        signals.for_each(|signal| {
            libc::sigaddset(&mut set, signal.as_raw());
        });
        set
    }
}

/// Changes this thread's mask, and returns what it was.
fn mask(how: i32, set: Option<&libc::sigset_t>) -> libc::sigset_t {
    // SAFETY: both pointers are null or to live sets; a zeroed set is a valid, empty one. With
    // these arguments the call cannot fail.
    unsafe {
        let mut before = mem::zeroed();
        libc::pthread_sigmask(how, set.map_or(ptr::null(), ptr::from_ref), &mut before);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_with_its_sender() {
        let signals = Signals::listen(Hearing::ButStops).unwrap();
        // SAFETY: sends a signal to the calling thread, where it is blocked.
        unsafe { libc::raise(libc::SIGUSR1) };
        let received = signals.next().unwrap();
        assert_eq!(received.signal, Signal::USR1);
        assert_eq!(received.sender, Sender::Process(std::process::id()));
        assert_eq!(signals.next(), None);
    }
}
