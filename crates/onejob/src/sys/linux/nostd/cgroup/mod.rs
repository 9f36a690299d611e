//! Ends cgroups: kills the members, waits until there are none, removes the directory. The owner, the guards,
//! and other owners that find an abandoned cgroup use this.

pub(crate) mod abandoned;
pub(crate) mod members;
pub(crate) mod walk;

use self::{
    members::a_member,
    walk::{Visitor, gone_is_ok, is_gone, open_file},
};
#[allow(unused_imports, reason = "the guard does not use all of them")]
pub(crate) use self::{
    members::{each_member, kill_listed, last_member},
    walk::open,
};
use super::{
    procfs::{CStrBuf, entries},
    syscall::{
        self, AsFd, BorrowedFd, CStr, Errno, O_DIRECTORY, O_WRONLY, OwnedFd, POLLIN, POLLPRI,
        PollFd, Result, has_xattr, openat, poll, pread, rmdirat, write,
    },
};

/// The extended attribute of the cgroup of a released job, whose members must not be killed.
pub(crate) const RELEASED: &CStr = c"user.onejob.released";

/// The name of a cgroup: the prefix of the owner and the number of the job; and if it is not the first cgroup
/// of the job, a dot and the number of the cgroup.
pub(crate) fn name_of(prefix: &[u8], job: i32, number: i32) -> CStrBuf {
    let name = CStrBuf::new().text(prefix).number(job);
    if number == 0 { name } else { name.text(b".").number(number) }
}

/// Kills every member, also of cgroups below it, and also if it is frozen, is being forked, or belongs to
/// another user.
pub(crate) fn kill(cgroup: impl AsFd) -> Result<()> {
    let file = open_file(cgroup, c"cgroup.kill", O_WRONLY)?;
    write(file, b"1").map(drop)
}

/// An open `cgroup.events`: whether the cgroup is populated and frozen. It is ready for `poll` after a change.
pub(crate) struct Events(OwnedFd);

impl Events {
    pub(crate) fn open(cgroup: impl AsFd) -> Result<Events> {
        open_file(cgroup, c"cgroup.events", 0).map(Events)
    }

    /// Whether the file has this line. It cannot be read if the cgroup was removed.
    pub(crate) fn is(&self, key_and_value: &[u8]) -> Result<bool> {
        let mut text = [0_u8; 128];
        let len = pread(&self.0, &mut text)?;
        let text = text.get(..len).unwrap_or(&[]);
        Ok(text.split(|byte| *byte == b'\n').any(|line| line == key_and_value))
    }

    /// Waits for a change since the last read, up to `milliseconds` (negative: for ever).
    pub(crate) fn wait(&self, milliseconds: i32) {
        poll(&mut [self.poll_fd()], milliseconds);
    }

    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.0, POLLPRI)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether no living process is in the cgroup or below it.
pub(crate) fn is_empty(cgroup: impl AsFd) -> Result<bool> {
    Events::open(cgroup)?.is(b"populated 0")
}

/// Removes an empty cgroup and every cgroup below it, the deepest first. `Errno::BUSY` if a member or a new
/// cgroup has appeared.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    remove_until(parent, name, u64::MAX)
}

/// [`remove`] that stops at the moment `until` with `Errno::BUSY`.
fn remove_until(parent: BorrowedFd<'_>, name: &CStr, until: u64) -> Result<()> {
    match remove_one(parent, name) {
        Err(Errno::BUSY) => {}
        removed => return removed,
    }
    let mut removal = Removal { until, failed: None };
    match open(parent, name) {
        Err(errno) if is_gone(errno) => return Ok(()),
        opened => walk::below(opened?, &mut removal)?,
    }
    removal.failed.map_or_else(|| remove_one(parent, name), Err)
}

struct Removal {
    until: u64,
    failed: Option<Errno>,
}

impl Visitor for Removal {
    fn enter(&mut self, parent: &OwnedFd, name: &CStr) -> bool {
        // Most have no cgroup below them. The others are removed on the way back up.
        remove_one(parent.as_fd(), name).is_err()
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) {
        if let Err(errno) = remove_one(parent.as_fd(), name) {
            self.failed = Some(errno);
        }
    }

    fn goes_on(&self) -> bool {
        self.failed.is_none() && (self.until == u64::MAX || syscall::now() < self.until)
    }
}

fn remove_one(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let removed = match rmdirat(parent, name) {
        // A member of the same user can have removed the permission.
        Err(Errno::ACCES) => {
            syscall::fchmod(parent, 0o755);
            rmdirat(parent, name)
        }
        removed => removed,
    };
    gone_is_ok(removed)
}

/// Whether the job of the cgroup was released.
fn is_released(cgroup: &OwnedFd) -> Result<bool> {
    has_xattr(cgroup, RELEASED)
}

/// Kills the members, waits until there are none, and removes the cgroup. A released cgroup is only removed if
/// it is empty. `Ok(false)` if members are left after `patience` milliseconds (negative: no limit), or if
/// processes or cgroups appeared there all the time.
pub(crate) fn end(parent: BorrowedFd<'_>, name: &CStr, patience: i32) -> Result<bool> {
    // Mostly it is empty. Then one call is enough.
    if matches!(rmdirat(parent, name), Ok(()) | Err(Errno::NOENT)) {
        return Ok(true);
    }
    let cgroup = match open(parent, name) {
        Err(Errno::NOENT) => return Ok(true),
        opened => opened?,
    };
    if is_released(&cgroup)? {
        return match is_empty(&cgroup) {
            Ok(true) => remove(parent, name).map(|()| true),
            _ => Ok(true),
        };
    }
    let mut rounds = Rounds::new(patience);
    loop {
        if !empty(cgroup.as_fd(), rounds.left())? {
            return Ok(false);
        }
        match remove(parent, name) {
            // A process was moved into it, or a cgroup was created below it, after the last kill.
            Err(Errno::BUSY | Errno::AGAIN) => {}
            removed => return removed.map(|()| true),
        }
        let Some(pause) = rounds.next() else { return Ok(false) };
        poll(&mut [], pause);
    }
}

/// Kills the members and waits until there are none. `Ok(false)` if members are left after `patience`
/// milliseconds (negative: no limit).
///
/// It waits for an event of the kernel, and kills again after ever longer pauses: the kernel has no event for
/// a process that was moved into the cgroup after a kill.
pub(crate) fn empty(cgroup: BorrowedFd<'_>, patience: i32) -> Result<bool> {
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

/// The pauses between rounds that are repeated until they succeed.
struct Rounds {
    pause: i32,
    deadline: Option<u64>,
}

impl Rounds {
    /// The first pause, and the longest, in milliseconds.
    const FIRST: i32 = 10;
    const LONGEST: i32 = 60_000;

    /// For `patience` milliseconds (negative: no limit).
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

/// Waits up to `milliseconds` until a cgroup is empty.
fn wait_until_empty(cgroup: BorrowedFd<'_>, milliseconds: i32) -> Result<bool> {
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
        // A dead process leaves the list before the cgroup is unpopulated. The kernel sends an event for that,
        // but late. So this checks again after a short pause, which becomes longer.
        let pause = match pid {
            Some(pid) if pid != last => left,
            _ => {
                let pause = left.min(soon);
                soon = soon.saturating_mul(2);
                pause
            }
        };
        last = pid.unwrap_or(-1);
        poll(&mut [events.poll_fd(), PollFd::maybe(member.as_ref(), POLLIN)], pause);
    }
    Ok(true)
}

/// Ends every cgroup below `base` whose name begins with `prefix`, without a limit of time. It kills the
/// members of all before it waits for the first: so a member that cannot die (stuck in the kernel) does not
/// keep others alive. It waits for such members: if it returned, nothing would end them later. Returns whether
/// a released cgroup is left, or an error if another one could not be ended or found.
pub(crate) fn end_all(base: BorrowedFd<'_>, prefix: &[u8]) -> Result<bool> {
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
                let _ = wait_until_empty(first.as_fd(), pause);
            }
            [Some(_), ..] => wait_for_one(&round.stuck, pause),
            _ if round.busy => {
                poll(&mut [], pause);
            }
            // Lists them again: a listing can miss entries after one that is removed.
            _ if round.ended => {}
            _ => return round.failed.map_or(Ok(round.released), Err),
        }
    }
}

/// For how many cgroups it waits at once.
const WAITED_FOR: usize = 16;

/// Waits up to `pause` milliseconds until one of these cgroups is empty or changes.
fn wait_for_one(cgroups: &[Option<OwnedFd>; WAITED_FOR], pause: i32) {
    let mut events = [const { None }; WAITED_FOR];
    let mut pause = pause;
    for (cgroup, events) in cgroups.iter().flatten().zip(&mut events) {
        match Events::open(cgroup) {
            // The file must have been read before `poll` waits for a change.
            Ok(opened) if opened.is(b"populated 0") == Ok(false) => *events = Some(opened),
            // It has ended, or there is no descriptor for it: so the next round comes after a short pause.
            _ => {
                pause = pause.min(Rounds::FIRST * 8);
                break;
            }
        }
    }
    let mut fds = [PollFd::NONE; WAITED_FOR];
    for (fd, events) in fds.iter_mut().zip(events.iter().flatten()) {
        *fd = events.poll_fd();
    }
    poll(&mut fds, pause);
}

/// The result of one round over the cgroups of an owner.
#[derive(Default)]
struct Round {
    ended: bool,
    released: bool,
    failed: Option<Errno>,
    /// Cgroups that have members: the first ones.
    stuck: [Option<OwnedFd>; WAITED_FOR],
    /// Whether an empty cgroup could not be removed.
    busy: bool,
}

impl Round {
    fn end(&mut self, base: BorrowedFd<'_>, name: &CStr, again: bool) {
        // A released cgroup is removed if it is empty.
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
            // The error is permanent (for example, the permission is lost), so this does not try again.
            Err(errno) => self.failed = Some(errno),
        }
    }
}

/// The state of a cgroup after [`end_now`].
pub(crate) enum State {
    Gone,
    /// It was released, and has members.
    Released,
    /// It has members, which have been killed and may not be dead yet.
    Populated(OwnedFd),
    /// A member or a cgroup appeared while it was being removed, or time was up.
    Busy,
}

/// Kills the members of a cgroup or, if it is empty, removes it, without waiting for a process and up to the
/// moment `until`. `again`: whether they may have been killed before. Then this also kills members that
/// `cgroup.kill` misses.
pub(crate) fn end_now(
    parent: BorrowedFd<'_>,
    name: &CStr,
    again: bool,
    until: u64,
) -> Result<State> {
    if matches!(rmdirat(parent, name), Ok(()) | Err(Errno::NOENT)) {
        return Ok(State::Gone);
    }
    let cgroup = match open(parent, name) {
        Err(errno) if is_gone(errno) => return Ok(State::Gone),
        opened => opened?,
    };
    let is_released = match is_released(&cgroup) {
        Err(errno) if is_gone(errno) => return Ok(State::Gone),
        result => result?,
    };
    let is_empty = match is_empty(&cgroup) {
        Err(errno) if is_gone(errno) => return Ok(State::Gone),
        result => result?,
    };
    match (is_empty, is_released) {
        (true, _) => {}
        (false, true) => return Ok(State::Released),
        (false, false) => {
            gone_is_ok(kill(&cgroup))?;
            if again {
                kill_listed(cgroup.as_fd());
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

/// Calls `each` with the name of every cgroup of an owner. There are none if the base was removed.
fn each_of(base: BorrowedFd<'_>, prefix: &[u8], each: &mut dyn FnMut(&CStr)) -> Result<()> {
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
