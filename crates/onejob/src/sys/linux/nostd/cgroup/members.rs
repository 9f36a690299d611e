//! Lists and kills the members of a cgroup and of every cgroup below it.

use super::{
    super::{
        procfs::read_numbers,
        syscall::{
            self, AsFd, BorrowedFd, Errno, OwnedFd, Result, SIGKILL, pidfd_open, pidfd_send_signal,
        },
    },
    walk::{self, Visitor, gone_is_ok, open_file},
};

/// Kills the members that `cgroup.kill` misses: the kernel sends that signal only to the leading thread, which
/// has no effect if that thread has exited and others live.
pub(crate) fn kill_listed(cgroup: BorrowedFd<'_>) {
    // The callers repeat this, so a round may end before it has met all members.
    const LONGEST: u64 = 1_000_000;
    let mut killer = Killer { until: syscall::now() + LONGEST };
    kill_members(cgroup);
    // The next round kills members that this one has missed. So an error does not matter.
    let _ = walk::below(cgroup, &mut killer);
}

struct Killer {
    until: u64,
}

impl Visitor for Killer {
    fn visit(&mut self, cgroup: &OwnedFd) {
        kill_members(cgroup.as_fd());
    }

    fn goes_on(&self) -> bool {
        syscall::now() < self.until
    }
}

/// Kills the listed members of one cgroup. A pidfd is used only if its number is still listed after the pidfd
/// was opened: so it is the pidfd of a member.
fn kill_members(cgroup: BorrowedFd<'_>) {
    let mut held = Held { cgroup, all: [const { (0, None) }; HELD], count: 0 };
    let _ = each_listed(cgroup, &mut |pid| held.add(pid));
    held.kill();
}

/// How many pidfds are open at once.
const HELD: usize = 64;

/// Pids of one list and their pidfds.
struct Held<'a> {
    cgroup: BorrowedFd<'a>,
    all: [(i32, Option<OwnedFd>); HELD],
    count: usize,
}

impl Held<'_> {
    fn add(&mut self, pid: i32) {
        if self.hold(pid) || self.count < 2 {
            return;
        }
        // The array is full, or there are no more descriptors, of which one is needed to read the list.
        self.count -= 1;
        let last = self.all.get_mut(self.count).map(|(pid, pidfd)| {
            *pidfd = None;
            *pid
        });
        self.kill();
        for pid in last.into_iter().chain([pid]) {
            self.hold(pid);
        }
    }

    /// Whether the process is held now or has exited.
    fn hold(&mut self, pid: i32) -> bool {
        let Some(place) = self.all.get_mut(self.count) else { return false };
        match pidfd_open(pid) {
            Ok(pidfd) => {
                *place = (pid, Some(pidfd));
                self.count += 1;
                true
            }
            Err(errno) => !matches!(errno, Errno::MFILE | Errno::NFILE),
        }
    }

    /// Kills those that are still listed, and closes all pidfds.
    fn kill(&mut self) {
        let held = self.all.get_mut(..self.count).unwrap_or(&mut []);
        if !held.is_empty() {
            let _ = each_listed(self.cgroup, &mut |pid| {
                if let Some((_, pidfd)) = held.iter_mut().find(|(held, _)| *held == pid)
                    && let Some(pidfd) = pidfd.take()
                {
                    let _ = pidfd_send_signal(pidfd, SIGKILL);
                }
            });
        }
        held.iter_mut().for_each(|(_, pidfd)| *pidfd = None);
        self.count = 0;
    }
}

/// Calls `each` with the pid of every member of one cgroup: 0 for a member outside this PID namespace.
fn each_listed(cgroup: impl AsFd, each: &mut dyn FnMut(i32)) -> Result<()> {
    let file = open_file(cgroup, c"cgroup.procs", 0);
    gone_is_ok(file.and_then(|file| read_numbers(&file, each)))
}

/// Calls `each` with the pid of every member of the cgroup and of every cgroup below it.
pub(crate) fn each_member(cgroup: impl AsFd, each: &mut dyn FnMut(i32)) -> Result<()> {
    struct Lister<'a>(&'a mut dyn FnMut(i32), Result<()>);
    impl Visitor for Lister<'_> {
        fn visit(&mut self, cgroup: &OwnedFd) {
            match each_listed(cgroup, self.0) {
                // The members of a threaded cgroup are listed in the first domain above it.
                Err(Errno::OPNOTSUPP) => {}
                listed => self.1 = self.1.and(listed),
            }
        }
    }
    let listed = each_listed(&cgroup, each);
    let mut lister = Lister(each, listed);
    let walked = walk::below(cgroup, &mut lister);
    lister.1.and(walked)
}

/// The last member of the list. Its pidfd is readable sooner than the events of the cgroup change: the kernel
/// sends no two events within 10 ms.
pub(crate) fn last_member(cgroup: impl AsFd) -> Option<OwnedFd> {
    a_member(cgroup).map(|(_, pidfd)| pidfd)
}

pub(crate) fn a_member(cgroup: impl AsFd) -> Option<(i32, OwnedFd)> {
    let mut last = 0;
    each_listed(cgroup, &mut |pid| last = pid).ok()?;
    // The pid may belong to another process by now: callers only wait for it, with a limit.
    pidfd_open(last).ok().map(|pidfd| (last, pidfd))
}
