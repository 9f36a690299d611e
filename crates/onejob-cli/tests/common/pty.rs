//! A session on a pseudo-terminal.

use std::{
    fs::OpenOptions,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcgetpgrp, tcsetwinsize},
};

use super::{HANG, Scratch, text};

/// A session leader on a new terminal.
pub(crate) struct Pty {
    master: Option<Arc<OwnedFd>>,
    seen: Arc<(Mutex<Vec<u8>>, Condvar)>,
    read: usize,
    first_modes: Termios,
    pub(crate) leader: Child,
}

impl Pty {
    pub(crate) fn start(command: &mut Command) -> Pty {
        Pty::connect(command, true)
    }

    /// The terminal belongs to no session yet: a session leader may acquire it.
    pub(crate) fn offer(command: &mut Command) -> Pty {
        Pty::connect(command, false)
    }

    fn connect(command: &mut Command, controls: bool) -> Pty {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
        let tty = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name).unwrap();
        let size = Winsize { ws_row: 50, ws_col: 500, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let first_modes = tcgetattr(&master).unwrap();
        command.stdin(Stdio::from(tty.try_clone().unwrap()));
        command.stdout(Stdio::from(tty.try_clone().unwrap())).stderr(Stdio::from(tty));
        command.env("TERM", "dumb");
        super::with_signals(command, &[], &[]);
        // SAFETY: both are plain system calls; standard input is the terminal by then.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                if controls {
                    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                }
                Ok(())
            })
        };
        let leader = command.spawn().unwrap();
        // The command holds the terminal's near end until it is given other streams.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = Some(Arc::new(master));
        let pty = Pty { master, seen: Arc::default(), read: 0, first_modes, leader };
        pty.listen();
        pty
    }

    /// An interactive shell with job control that has shown its prompt.
    pub(crate) fn bash(scratch: &Scratch) -> Pty {
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "--noediting", "-i"]);
        command.env("PS1", "READY> ").env("ONEJOB", super::ONEJOB).env("DIR", scratch.str());
        command.current_dir(scratch.path()).env("HISTFILE", "/dev/null");
        let mut pty = Pty::start(&mut command);
        pty.expect("READY> ");
        pty
    }

    fn listen(&self) {
        let (master, seen) =
            (Arc::downgrade(self.master.as_ref().unwrap()), Arc::clone(&self.seen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Polled: a blocking read would delay the hang-up of the terminal.
            while let Some(master) = master.upgrade() {
                let mut poll = [rustix::event::PollFd::new(&*master, rustix::event::PollFlags::IN)];
                let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                match rustix::event::poll(&mut poll, Some(&wait)) {
                    Ok(0) | Err(_) => continue,
                    Ok(_) => {}
                }
                let Ok(count @ 1..) = rustix::io::read(&*master, &mut bytes) else { break };
                seen.0.lock().unwrap().extend_from_slice(&bytes[..count]);
                seen.1.notify_all();
            }
        });
    }

    fn master(&self) -> &OwnedFd {
        self.master.as_ref().unwrap()
    }

    pub(crate) fn send(&self, keys: &str) {
        let mut bytes = keys.as_bytes();
        while !bytes.is_empty() {
            let count = rustix::io::write(self.master(), bytes).unwrap();
            bytes = &bytes[count..];
        }
    }

    /// Waits for this text after the previously expected one. Returns the output in between.
    pub(crate) fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + HANG;
        let (seen, changed) = &*self.seen;
        let mut seen = seen.lock().unwrap();
        loop {
            let found =
                seen[self.read..].windows(wanted.len()).position(|w| w == wanted.as_bytes());
            if let Some(at) = found {
                let before = text(&seen[self.read..self.read + at]);
                self.read += at + wanted.len();
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "still waiting for {wanted:?} after {:?}",
                text(&seen[self.read..])
            );
            seen = changed.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Whether this text has come at all.
    pub(crate) fn has_seen(&self, text: &str) -> bool {
        let seen = self.seen.0.lock().unwrap();
        seen.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The foreground process group.
    pub(crate) fn foreground(&self) -> u32 {
        tcgetpgrp(self.master()).unwrap().as_raw_nonzero().get().cast_unsigned()
    }

    /// The modes before the leader was started.
    pub(crate) fn first_modes(&self) -> Modes {
        Modes::of(&self.first_modes)
    }

    pub(crate) fn modes(&self) -> Modes {
        Modes::of(&tcgetattr(self.master()).unwrap())
    }

    pub(crate) fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master(), size).unwrap();
    }

    /// Hangs up.
    pub(crate) fn close(&mut self) {
        self.master = None;
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// The settings of a terminal, for comparisons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Modes(String);

impl Modes {
    fn of(modes: &Termios) -> Modes {
        let Termios { input_modes, output_modes, control_modes, local_modes, .. } = modes;
        Modes(format!(
            "{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?} {:?}",
            modes.special_codes
        ))
    }
}
