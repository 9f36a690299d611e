//! A process that counts its signals exactly: this test binary, before its main.
//!
//! With `ONEJOB_RECORDER=FOLDER` in its environment it appends every signal that it gets as one byte
//! to `FOLDER/PID`, beginning with a 0 when it is ready, until `FOLDER/end` exists. `ONEJOB_ACTS`
//! names what it does when it is ready.

use std::{
    ffi::CString,
    fs, mem,
    path::{Path, PathBuf},
    process::Command,
    ptr,
    sync::atomic::{AtomicI32, Ordering::Relaxed},
};

use super::{Scratch, eventually, lives};

static LOG: AtomicI32 = AtomicI32::new(-1);

// SAFETY: the C library calls it once before main; nothing that main sets up is used.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = act_if_requested;

extern "C" fn act_if_requested() {
    if let Some(folder) = std::env::var_os("ONEJOB_RECORDER") {
        act(Path::new(&folder));
        std::process::exit(0);
    }
}

extern "C" fn record(signal: i32) {
    let byte = signal as u8;
    // SAFETY: write is async-signal-safe, and the byte lives.
    unsafe { libc::write(LOG.load(Relaxed), ptr::from_ref(&byte).cast(), 1) };
}

fn act(folder: &Path) {
    let log = folder.join(std::process::id().to_string());
    let log = CString::new(log.into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: a live path; the handler is async-signal-safe and the action is initialised.
    unsafe {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        LOG.store(libc::open(log.as_ptr(), flags, 0o644), Relaxed);
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = record as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        // Handlers must not nest: nested handlers record signals in reverse order.
        libc::sigfillset(&mut action.sa_mask);
        for signal in COUNTED.iter().copied().chain(34..=64) {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
    record(0);
    match std::env::var("ONEJOB_ACTS").as_deref() {
        Ok("kill 0") => {
            eventually("the permission to act", || folder.join("go").exists());
            // SAFETY: a plain system call; the process group belongs to this test.
            unsafe { libc::kill(0, libc::SIGTERM) };
        }
        Ok("raw") => raw(),
        Ok(acts) if acts.starts_with("own ") => return own(&acts["own ".len()..], folder),
        _ => {}
    }
    while !folder.join("end").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Owns a job of this name, with one member that counts its signals.
fn own(name: &str, folder: &Path) {
    let job = onejob::Job::builder().name(name).build().unwrap();
    let mut member = onejob::Command::new(recorder());
    let _member =
        job.spawn(member.env("ONEJOB_RECORDER", folder).env_remove("ONEJOB_ACTS")).unwrap();
    eventually("the end", || folder.join("end").exists());
}

fn raw() {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let mut modes = tcgetattr(&stdin).unwrap();
    modes.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &modes).unwrap();
    record(1);
}

const COUNTED: [i32; 16] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGWINCH,
    libc::SIGIO,
    libc::SIGPWR,
];

/// The recorders of one folder.
pub(crate) struct Recorders(PathBuf);

impl Recorders {
    pub(crate) fn new(scratch: &Scratch) -> Recorders {
        let folder = scratch.file("recorders");
        fs::create_dir(&folder).unwrap();
        Recorders(folder)
    }

    /// Makes each [`recorder`] that is started below `command` write into this directory.
    pub(crate) fn below<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("ONEJOB_RECORDER", &self.0).env("RECORDER", recorder())
    }

    /// The pids of the first `count` recorders, once they are all ready.
    pub(crate) fn ready(&self, count: usize) -> Vec<u32> {
        let mut pids = Vec::new();
        eventually(&format!("{count} recorders are ready"), || {
            let entries = fs::read_dir(&self.0).unwrap().flatten();
            pids = entries
                .filter(|entry| entry.metadata().is_ok_and(|log| log.len() > 0))
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect();
            pids.len() >= count
        });
        pids
    }

    /// The signals that this recorder has received.
    pub(crate) fn got(&self, pid: u32) -> Vec<i32> {
        let log = fs::read(self.0.join(pid.to_string())).unwrap_or_default();
        log.into_iter().skip(1).map(i32::from).collect()
    }

    /// Waits until it has received this signal so many times.
    pub(crate) fn gets(&self, pid: u32, signal: i32, times: usize) {
        let count = || self.got(pid).iter().filter(|got| **got == signal).count();
        eventually(&format!("recorder {pid} gets signal {signal}"), || {
            assert!(lives(pid) || count() >= times, "recorder {pid} died: {:?}", self.got(pid));
            count() >= times
        });
    }

    /// Lets the recorders act (`ONEJOB_ACTS`).
    pub(crate) fn go(&self) {
        fs::write(self.0.join("go"), "").unwrap();
    }

    /// Makes all recorders exit.
    pub(crate) fn end(&self) {
        fs::write(self.0.join("end"), "").unwrap();
    }
}

/// The program to start as a recorder.
pub(crate) fn recorder() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}
