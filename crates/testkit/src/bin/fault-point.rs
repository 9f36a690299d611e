//! Kills or stops one guard of an owner at one of its system calls.
//!
//! `fault-point LOG ROLE NUMBER ACT PROGRAM ARGS…` starts PROGRAM, follows it to its first pair of
//! guards by ptrace(2), and acts when the guard ROLE (`outer` or `inner`) enters its system call
//! NUMBER, counted from its start: `kill`, or `stop`, which takes effect when the call returns. Then it
//! detaches from all traced processes, and ends as PROGRAM does. LOG gets a line `CALL` for each system call
//! that the guard entered, by number, and `acted` after the one at which it was killed or stopped; or
//! `acted alone` if that was an outer guard after the end of the owner or of the inner guard: then the inner
//! one may have done its last act already.
//!
//! A guard is known by its descent: the owner starts an intermediate process, that the outer guard, and
//! that the inner one. A child that executes a program without having started another is a member.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    testkit::lifetime_limit::apply(2 * testkit::lifetime_limit::LIFETIME_SECONDS);
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        collections::HashMap, ffi::CString, fs::File, io::Write, os::unix::ffi::OsStrExt as _,
        process,
    };

    use libc::{c_int, c_long, c_void, pid_t};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Role {
        Owner,
        /// A child of the owner: the intermediate process, or a member.
        Child,
        Outer,
        Inner,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Act {
        Kill,
        Stop,
    }

    struct Tracer {
        log: File,
        target: Role,
        number: usize,
        act: Act,
        /// The traced processes.
        roles: HashMap<pid_t, Role>,
        /// New processes whose parent is not known yet.
        unknown: Vec<pid_t>,
        count: usize,
        has_acted: bool,
        owner: pid_t,
        /// The inner guard, once it has been started.
        inner: Option<pid_t>,
    }

    const OPTIONS: c_int = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;

    pub(super) fn main() -> ! {
        let args: Vec<_> = std::env::args_os().skip(1).collect();
        let word = |at: usize| args.get(at).and_then(|word| word.to_str()).expect("six words");
        let target = match word(1) {
            "outer" => Role::Outer,
            "inner" => Role::Inner,
            other => panic!("no role {other}"),
        };
        let act = if word(3) == "kill" { Act::Kill } else { Act::Stop };
        let program: Vec<_> =
            args[4..].iter().map(|arg| CString::new(arg.as_bytes()).expect("no NUL")).collect();
        let owner = start(&program);
        let mut tracer = Tracer {
            log: File::create(word(0)).expect("a log"),
            target,
            number: word(2).parse().expect("a number"),
            act,
            roles: HashMap::from([(owner, Role::Owner)]),
            unknown: Vec::new(),
            count: 0,
            has_acted: false,
            owner,
            inner: None,
        };
        let status = tracer.follow(owner);
        let code = match libc::WIFEXITED(status) {
            true => libc::WEXITSTATUS(status),
            false => 128 + libc::WTERMSIG(status),
        };
        process::exit(code)
    }

    /// Starts the program, which waits until it is traced.
    fn start(program: &[CString]) -> pid_t {
        let mut words: Vec<_> = program.iter().map(|word| word.as_ptr()).collect();
        words.push(std::ptr::null());
        // SAFETY: there is one thread; the child makes system calls only, on memory of its own.
        unsafe {
            match libc::fork() {
                0 => {
                    libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                    libc::raise(libc::SIGSTOP);
                    libc::execvp(words[0], words.as_ptr());
                    libc::_exit(127)
                }
                pid => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(pid, &mut status, 0), pid, "a child of this process");
                    request(libc::PTRACE_SETOPTIONS, pid, OPTIONS as c_long);
                    request(libc::PTRACE_CONT, pid, 0);
                    pid
                }
            }
        }
    }

    /// A request of ptrace(2) about a process that may be gone already.
    fn request(what: libc::c_uint, pid: pid_t, data: c_long) -> c_long {
        // SAFETY: requests that take a number, or write to memory that outlives the call.
        unsafe { libc::ptrace(what, pid, 0 as c_long, data) }
    }

    impl Tracer {
        /// Runs until all traced processes have ended: guards outlive their owner.
        fn follow(&mut self, owner: pid_t) -> c_int {
            let mut ended = None;
            loop {
                match ended {
                    Some(status) if self.roles.is_empty() => return status,
                    _ => {}
                }
                let mut status = 0;
                // SAFETY: the status is live.
                let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
                assert!(pid > 0, "the owner is a child of this process");
                if !libc::WIFSTOPPED(status) {
                    self.roles.remove(&pid);
                    if pid == owner {
                        ended = Some(status);
                    }
                    continue;
                }
                self.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            }
        }

        fn stopped(&mut self, pid: pid_t, signal: c_int, event: c_int) {
            let Some(role) = self.roles.get(&pid).copied() else {
                // It has stopped before the event of its parent has arrived.
                self.unknown.push(pid);
                return;
            };
            match event {
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                    let mut child: libc::c_ulong = 0;
                    request(libc::PTRACE_GETEVENTMSG, pid, &raw mut child as c_long);
                    self.born(child as pid_t, pid, role);
                }
                libc::PTRACE_EVENT_EXEC if role == Role::Child => return self.let_go(pid),
                0 if signal == libc::SIGTRAP | 0x80 && self.enters(pid) && self.acts(pid) => return,
                0 if !matches!(signal & 0x7f, libc::SIGTRAP | libc::SIGSTOP) => {
                    request(self.way(role), pid, c_long::from(signal));
                    return;
                }
                _ => {}
            }
            if self.has_acted {
                self.let_go(pid);
            } else {
                request(self.way(role), pid, 0);
            }
        }

        /// The request that continues a process: only the target must stop at its system calls.
        fn way(&self, role: Role) -> libc::c_uint {
            if role == self.target { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT }
        }

        fn born(&mut self, child: pid_t, parent: pid_t, role: Role) {
            if role == Role::Outer {
                self.inner = Some(child);
            }
            let child_role = match role {
                _ if self.has_acted => None,
                Role::Owner if is_thread(child, parent) => Some(Role::Owner),
                Role::Owner => Some(Role::Child),
                Role::Child => Some(Role::Outer),
                Role::Outer if self.target == Role::Inner => Some(Role::Inner),
                Role::Outer | Role::Inner => None,
            };
            if !self.unknown.contains(&child) {
                let mut status = 0;
                // SAFETY: the status is live.
                unsafe { libc::waitpid(child, &mut status, libc::__WALL) };
            }
            self.unknown.retain(|known| *known != child);
            match child_role {
                Some(role) => {
                    self.roles.insert(child, role);
                    request(self.way(role), child, 0);
                }
                None => self.let_go(child),
            }
            if role == Role::Outer && self.target == Role::Inner {
                self.let_go(parent);
            }
        }

        fn let_go(&mut self, pid: pid_t) {
            self.roles.remove(&pid);
            request(libc::PTRACE_DETACH, pid, 0);
        }

        /// Whether a stop is at the entry of a system call; entries are counted.
        fn enters(&mut self, pid: pid_t) -> bool {
            const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
            let mut info = [0_u64; 11];
            let (size, at) = (size_of_val(&info), info.as_mut_ptr().cast::<c_void>());
            // SAFETY: the kernel writes at most that many bytes.
            unsafe { libc::ptrace(PTRACE_GET_SYSCALL_INFO, pid, size, at) };
            const ENTRY: u64 = 1;
            if info[0] & 0xff != ENTRY {
                return false;
            }
            self.count += 1;
            let _ = writeln!(self.log, "{}", info[3]);
            true
        }

        /// Acts if the call is reached; returns whether the process is no longer traced. The other
        /// processes are detached at their next stop.
        fn acts(&mut self, pid: pid_t) -> bool {
            if self.count != self.number {
                return false;
            }
            let is_alone = self.target == Role::Outer
                && (self.inner.is_some_and(has_ended) || has_ended(self.owner));
            let _ = writeln!(self.log, "acted{}", if is_alone { " alone" } else { "" });
            self.has_acted = true;
            let signal = if self.act == Act::Kill { libc::SIGKILL } else { libc::SIGSTOP };
            // SAFETY: a stopped tracee keeps its pid.
            unsafe { libc::kill(pid, signal) };
            self.let_go(pid);
            true
        }
    }

    fn has_ended(pid: pid_t) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with(['Z', 'X']))
    }

    fn is_thread(child: pid_t, parent: pid_t) -> bool {
        std::path::Path::new(&format!("/proc/{parent}/task/{child}")).exists()
    }
}
