//! The members of a cgroup and of every cgroup below it, as the kernel lists them.

use super::{
    super::{
        procfs::read_numbers,
        syscall::{self, Errno, Fd, Result, SIGKILL, pidfd_open, pidfd_send_signal},
    },
    walk::{self, Visitor, gone_is_ok, open_file},
};

/// Kills the members that `cgroup.kill` overlooks: the kernel sends that signal to the leading thread
/// alone, which does nothing if that has ended and others live on.
pub(crate) fn kill_listed(cgroup: i32) {
    // A round that has taken this long is followed by another one.
    const LONGEST: u64 = 1_000_000;
    let mut killer = Killer { until: syscall::now() + LONGEST };
    kill_members(cgroup);
    // What it has missed the next round finds: nothing is concluded from the answer.
    let _ = walk::below(cgroup, &mut killer);
}

struct Killer {
    until: u64,
}

impl Visitor for Killer {
    fn visit(&mut self, cgroup: &Fd) {
        kill_members(cgroup.raw());
    }

    fn goes_on(&self) -> bool {
        syscall::now() < self.until
    }
}

/// Kills the listed members of one cgroup. A number is acted on only if it is listed after its pidfd was
/// opened.
fn kill_members(cgroup: i32) {
    let mut held = Held { cgroup, all: [const { (0, None) }; HELD], count: 0 };
    let _ = each_listed(cgroup, &mut |pid| held.add(pid));
    held.kill();
}

/// How many members are held while they are looked for in the list again.
const HELD: usize = 64;

struct Held {
    cgroup: i32,
    all: [(i32, Option<Fd>); HELD],
    count: usize,
}

impl Held {
    fn add(&mut self, pid: i32) {
        if self.hold(pid) || self.count < 2 {
            return;
        }
        // No room, or no descriptors: one is needed to read the list.
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

    /// Whether the process is held, or is none.
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

    /// Kills those that are still listed, and lets go of all.
    fn kill(&mut self) {
        let held = self.all.get_mut(..self.count).unwrap_or(&mut []);
        if !held.is_empty() {
            let _ = each_listed(self.cgroup, &mut |pid| {
                if let Some((_, pidfd)) = held.iter_mut().find(|(held, _)| *held == pid)
                    && let Some(pidfd) = pidfd.take()
                {
                    let _ = pidfd_send_signal(pidfd.raw(), SIGKILL);
                }
            });
        }
        held.iter_mut().for_each(|(_, pidfd)| *pidfd = None);
        self.count = 0;
    }
}

/// Gives the number of every member of one cgroup to `each`, 0 for one that has none in our PID
/// namespace.
fn each_listed(cgroup: i32, each: &mut dyn FnMut(i32)) -> Result<()> {
    let file = open_file(cgroup, c"cgroup.procs", 0);
    gone_is_ok(file.and_then(|file| read_numbers(&file, each)))
}

/// The same with every cgroup below it.
pub(crate) fn each_member(cgroup: i32, each: &mut dyn FnMut(i32)) -> Result<()> {
    struct Lister<'a>(&'a mut dyn FnMut(i32), Result<()>);
    impl Visitor for Lister<'_> {
        fn visit(&mut self, cgroup: &Fd) {
            match each_listed(cgroup.raw(), self.0) {
                // The members of a threaded cgroup are listed in the one above that is not.
                Err(Errno::OPNOTSUPP) => {}
                listed => self.1 = self.1.and(listed),
            }
        }
    }
    let listed = each_listed(cgroup, each);
    let mut lister = Lister(each, listed);
    let walked = walk::below(cgroup, &mut lister);
    lister.1.and(walked)
}

/// The last member on the list. Its end tells sooner than the events, of which the kernel sends no
/// two within 10 ms: the emptiness of a young cgroup comes that late.
pub(crate) fn last_member(cgroup: i32) -> Option<Fd> {
    a_member(cgroup).map(|(_, pidfd)| pidfd)
}

pub(crate) fn a_member(cgroup: i32) -> Option<(i32, Fd)> {
    let mut last = 0;
    each_listed(cgroup, &mut |pid| last = pid).ok()?;
    // A number that is somebody else's by now is only waited for, for a while.
    pidfd_open(last).ok().map(|pidfd| (last, pidfd))
}
