//! Ending a cgroup: kill, confirm empty, remove. One piece of code for the owner, the guard, and
//! whoever finds an abandoned one.

pub(crate) mod abandoned;
pub(crate) mod members;
pub(crate) mod walk;

use self::{
    members::a_member,
    walk::{Visitor, gone_is_ok, is_gone, open_file},
};
pub(crate) use self::{
    members::{each_member, kill_listed, last_member},
    walk::open,
};
use super::{
    procfs::{CStrBuf, entries},
    syscall::{
        self, CStr, Errno, Fd, O_DIRECTORY, O_WRONLY, POLLIN, POLLPRI, PollFd, Result, has_xattr,
        openat, poll, pread, rmdirat, write,
    },
};

/// Marks the cgroup of a released job: whoever comes by must leave its members alone.
pub(crate) const RELEASED: &CStr = c"user.onejob.released";

/// What a cgroup is called: the prefix is the owner's, then comes the number of the job, and if it
/// is not that job's first cgroup, a dot and which one it is.
pub(crate) fn name_of(prefix: &[u8], job: i32, number: i32) -> CStrBuf {
    let name = CStrBuf::new().text(prefix).number(job);
    if number == 0 { name } else { name.text(b".").number(number) }
}

/// Kills every member, also nested, frozen and another user's, and whoever is being forked.
pub(crate) fn kill(cgroup: i32) -> Result<()> {
    let file = open_file(cgroup, c"cgroup.kill", O_WRONLY)?;
    write(file.raw(), b"1").map(drop)
}

/// The kernel's word on a cgroup, and a wake-up when it changes (`cgroup.events`).
pub(crate) struct Events(Fd);

impl Events {
    pub(crate) fn open(cgroup: i32) -> Result<Events> {
        open_file(cgroup, c"cgroup.events", 0).map(Events)
    }

    /// Reads one of the keys; an unreadable file is that of a cgroup removed by somebody else.
    pub(crate) fn is(&self, key_and_value: &[u8]) -> Result<bool> {
        let mut text = [0_u8; 128];
        let len = pread(self.0.raw(), &mut text)?;
        let text = text.get(..len).unwrap_or(&[]);
        Ok(text.split(|byte| *byte == b'\n').any(|line| line == key_and_value))
    }

    /// Waits for a change since the last read, up to `milliseconds` (negative: for ever).
    pub(crate) fn wait(&self, milliseconds: i32) {
        poll(&mut [self.poll_fd()], milliseconds);
    }

    pub(crate) fn poll_fd(&self) -> PollFd {
        PollFd::new(self.0.raw(), POLLPRI)
    }
}

/// Whether no living process is in the cgroup or below it.
pub(crate) fn is_empty(cgroup: i32) -> Result<bool> {
    Events::open(cgroup)?.is(b"populated 0")
}

/// Removes an empty cgroup with everything below it, the deepest first. `Errno::BUSY` if a member or a
/// new cgroup has appeared.
pub(crate) fn remove(parent: i32, name: &CStr) -> Result<()> {
    remove_until(parent, name, u64::MAX)
}

/// The same up to a moment, from which on it is `Errno::BUSY`: what has been removed by then is gone.
pub(crate) fn remove_until(parent: i32, name: &CStr, until: u64) -> Result<()> {
    match remove_one(parent, name) {
        Err(Errno::BUSY) => {}
        removed => return removed,
    }
    let mut removal = Removal { until, failed: None };
    match open(parent, name) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => walk::below(opened?.raw(), &mut removal)?,
    }
    removal.failed.map_or_else(|| remove_one(parent, name), Err)
}

struct Removal {
    until: u64,
    failed: Option<Errno>,
}

impl Visitor for Removal {
    fn enter(&mut self, parent: &Fd, name: &CStr) -> bool {
        // Most have nothing below them. Others are tried again when that is gone.
        remove_one(parent.raw(), name).is_err()
    }

    fn leave(&mut self, parent: &Fd, name: &CStr) {
        if let Err(errno) = remove_one(parent.raw(), name) {
            self.failed = Some(errno);
        }
    }

    fn goes_on(&self) -> bool {
        self.failed.is_none() && (self.until == u64::MAX || syscall::now() < self.until)
    }
}

fn remove_one(parent: i32, name: &CStr) -> Result<()> {
    let removed = match rmdirat(parent, name) {
        // A member of our own user can have taken the permission away.
        Err(Errno::ACCES) => {
            syscall::fchmod(parent, 0o755);
            rmdirat(parent, name)
        }
        removed => removed,
    };
    gone_is_ok(removed)
}

/// Whether the members are to be left alone.
fn is_released(cgroup: &Fd) -> Result<bool> {
    has_xattr(cgroup.raw(), RELEASED)
}

/// Kills, waits until empty and removes; a released cgroup is only removed, and only once it is
/// empty. `Ok(false)` if members are left after `patience` milliseconds (negative: no limit), or if
/// processes or cgroups were put there all the time.
pub(crate) fn end(parent: i32, name: &CStr, patience: i32) -> Result<bool> {
    // Nobody in it and nothing below it, most often: the kernel's word in one call.
    if matches!(rmdirat(parent, name), Ok(()) | Err(Errno::NOENT)) {
        return Ok(true);
    }
    let cgroup = match open(parent, name) {
        Err(Errno::NOENT) => return Ok(true),
        opened => opened?,
    };
    if is_released(&cgroup)? {
        return match is_empty(cgroup.raw()) {
            Ok(true) => remove(parent, name).map(|()| true),
            _ => Ok(true),
        };
    }
    let mut rounds = Rounds::new(patience);
    loop {
        if !empty(cgroup.raw(), rounds.left())? {
            return Ok(false);
        }
        match remove(parent, name) {
            // A process was moved in, or a cgroup was made, after the last kill.
            Err(Errno::BUSY | Errno::AGAIN) => {}
            removed => return removed.map(|()| true),
        }
        let Some(pause) = rounds.next() else { return Ok(false) };
        poll(&mut [], pause);
    }
}

/// Kills and waits until empty, and leaves the cgroup in place. `Ok(false)` if members are left
/// after `patience` milliseconds (negative: no limit).
///
/// It waits for the kernel to tell of emptiness, and looks again ever less often: a process can have
/// been moved in after a kill, of which the kernel does not tell.
pub(crate) fn empty(cgroup: i32, patience: i32) -> Result<bool> {
    let mut rounds = Rounds::new(patience);
    let mut is_first = true;
    loop {
        gone_is_ok(kill(cgroup))?;
        if !is_first {
            kill_listed(cgroup);
        }
        is_first = false;
        let Some(pause) = rounds.next() else { return Ok(false) };
        match wait_until_empty(cgroup, pause) {
            Ok(false) => {}
            waited => return gone_is_ok(waited.map(drop)).map(|()| true),
        }
    }
}

/// The pauses between the rounds of something that is tried until it succeeds.
struct Rounds {
    pause: i32,
    deadline: Option<u64>,
}

impl Rounds {
    /// The first pause, and the longest, in milliseconds.
    const FIRST: i32 = 10;
    const LONGEST: i32 = 60_000;

    /// For `patience` milliseconds; for ever, if that is negative.
    fn new(patience: i32) -> Rounds {
        let deadline =
            u64::try_from(patience).ok().map(|patience| syscall::now() + patience * 1000);
        Rounds { pause: Rounds::FIRST, deadline }
    }

    /// The milliseconds until the deadline; -1 for none.
    fn left(&self) -> i32 {
        match self.deadline {
            Some(at) => {
                at.saturating_sub(syscall::now()).div_ceil(1000).min(i32::MAX as u64) as i32
            }
            None => -1,
        }
    }

    /// The next pause, twice the one before; `None` at the deadline.
    fn next(&mut self) -> Option<i32> {
        let pause = match self.left() {
            0 => return None,
            ..0 => self.pause,
            left => self.pause.min(left),
        };
        self.pause = (self.pause * 2).min(Rounds::LONGEST);
        Some(pause)
    }
}

/// Waits up to `milliseconds` for the kernel to say that a cgroup is empty.
fn wait_until_empty(cgroup: i32, milliseconds: i32) -> Result<bool> {
    let events = Events::open(cgroup)?;
    let until = syscall::now() + milliseconds.max(0) as u64 * 1000;
    let mut soon = 1;
    let mut last = -1;
    while !events.is(b"populated 0")? {
        let left = until.saturating_sub(syscall::now()).div_ceil(1000) as i32;
        if left == 0 {
            return Ok(false);
        }
        let (pid, member) = a_member(cgroup).unzip();
        // A process that has left the list has not left the count yet: that is looked at again soon, and
        // then ever less often, since the kernel tells of it at last.
        let pause = match pid {
            Some(pid) if pid != last => left,
            _ => {
                let pause = left.min(soon);
                soon = soon.saturating_mul(2);
                pause
            }
        };
        last = pid.unwrap_or(-1);
        let pidfd = member.as_ref().map_or(-1, Fd::raw);
        poll(&mut [events.poll_fd(), PollFd::new(pidfd, POLLIN)], pause);
    }
    Ok(true)
}

/// Ends every cgroup below `base` whose name starts with `prefix`, however long it takes: all are killed
/// before the first is waited for, so that a member that cannot die (stuck in the kernel) keeps no other
/// one alive. Such members keep us waiting: leaving would lose sight of them. Answers whether a released
/// one was met, and left alone; or an error if one was not ended, or not all could be looked for.
pub(crate) fn end_all(base: i32, prefix: &[u8]) -> Result<bool> {
    let mut rounds = Rounds::new(-1);
    let mut is_first = true;
    loop {
        let mut round = Round::default();
        match each_of(base, prefix, &mut |name| round.end(base, name, !is_first)) {
            Err(errno) if errno.is_transient() => round.busy = true,
            listed => listed?,
        }
        is_first = false;
        if round.ended {
            rounds = Rounds::new(-1);
        }
        let pause = rounds.next().unwrap_or(Rounds::LONGEST);
        match &round.stuck {
            [Some(first), ..] if pause < Rounds::FIRST * 8 => {
                let _ = wait_until_empty(first.raw(), pause);
            }
            [Some(_), ..] => wait_for_one(&round.stuck, pause),
            _ if round.busy => {
                poll(&mut [], pause);
            }
            // Another look: a listing can miss what comes after an entry that is removed.
            _ if round.ended => {}
            _ => return round.failed.map_or(Ok(round.released), Err),
        }
    }
}

/// How many cgroups are waited for at once.
const WAITED_FOR: usize = 16;

/// Waits up to `pause` milliseconds until one of these cgroups is empty or is changed.
fn wait_for_one(cgroups: &[Option<Fd>; WAITED_FOR], pause: i32) {
    let mut events = [const { None }; WAITED_FOR];
    let mut fds = [PollFd::new(-1, 0); WAITED_FOR];
    for ((cgroup, events), fd) in cgroups.iter().flatten().zip(&mut events).zip(&mut fds) {
        match Events::open(cgroup.raw()) {
            // What is polled must have been read.
            Ok(opened) if opened.is(b"populated 0") == Ok(false) => {
                *fd = opened.poll_fd();
                *events = Some(opened);
            }
            // It has ended, or there is no descriptor for it: looked for again after a short pause.
            _ => {
                poll(&mut fds, pause.min(Rounds::FIRST * 8));
                return;
            }
        }
    }
    poll(&mut fds, pause);
}

/// What was met in one round over the cgroups of an owner.
#[derive(Default)]
struct Round {
    ended: bool,
    released: bool,
    failed: Option<Errno>,
    /// Some that have members.
    stuck: [Option<Fd>; WAITED_FOR],
    /// Whether one has none, and was not to be removed.
    busy: bool,
}

impl Round {
    fn end(&mut self, base: i32, name: &CStr, again: bool) {
        // One that is empty by now is removed all the same.
        let is_released = open(base, name).and_then(|cgroup| is_released(&cgroup));
        self.released |= is_released == Ok(true);
        let ended = match is_released {
            Err(errno) if errno.is_transient() => Err(errno),
            _ => end_now(base, name, again, u64::MAX),
        };
        match ended {
            Ok(State::Gone) => self.ended = true,
            Ok(State::Released) => {}
            Ok(State::Populated(cgroup)) => {
                if let Some(place) = self.stuck.iter_mut().find(|place| place.is_none()) {
                    *place = Some(cgroup);
                }
            }
            Ok(State::Busy) => self.busy = true,
            Err(errno) if errno.is_transient() => self.busy = true,
            // One that cannot be ended (not ours any more) must not keep us going for ever.
            Err(errno) => self.failed = Some(errno),
        }
    }
}

/// What has become of a cgroup that was to end.
pub(crate) enum State {
    Gone,
    /// Its members are to be left alone.
    Released,
    /// It has members, which are killed.
    Populated(Fd),
    /// A member or a cgroup appeared in it while it was removed, or there was no time for all of it.
    Busy,
}

/// Kills and removes what can be without waiting for any process, and up to a moment. `again` if it was
/// killed before: then members that `cgroup.kill` overlooks are killed one by one.
pub(crate) fn end_now(parent: i32, name: &CStr, again: bool, until: u64) -> Result<State> {
    if matches!(rmdirat(parent, name), Ok(()) | Err(Errno::NOENT)) {
        return Ok(State::Gone);
    }
    let cgroup = match open(parent, name) {
        Err(errno) if is_gone(errno) => return Ok(State::Gone),
        opened => opened?,
    };
    let is_released = match is_released(&cgroup) {
        Err(errno) if is_gone(errno) => return Ok(State::Gone),
        answer => answer?,
    };
    let is_empty = match is_empty(cgroup.raw()) {
        Err(errno) if is_gone(errno) => return Ok(State::Gone),
        answer => answer?,
    };
    match (is_empty, is_released) {
        (true, _) => {}
        (false, true) => return Ok(State::Released),
        (false, false) => {
            gone_is_ok(kill(cgroup.raw()))?;
            if again {
                kill_listed(cgroup.raw());
            }
            return Ok(State::Populated(cgroup));
        }
    }
    match remove_until(parent, name, until) {
        Ok(()) => Ok(State::Gone),
        Err(Errno::BUSY | Errno::AGAIN) => Ok(State::Busy),
        Err(errno) => Err(errno),
    }
}

/// Gives the name of every cgroup of an owner to `each`; of none if the base was removed.
fn each_of(base: i32, prefix: &[u8], each: &mut dyn FnMut(&CStr)) -> Result<()> {
    let dir = match openat(base, c".", O_DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => opened?,
    };
    let listed = entries(&dir, &mut |name, is_dir| {
        if is_dir && name.to_bytes().starts_with(prefix) {
            each(name);
        }
    });
    gone_is_ok(listed)
}
