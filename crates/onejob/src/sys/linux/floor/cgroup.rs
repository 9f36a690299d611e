//! Ending a cgroup: kill, confirm empty, remove. One piece of code for the owner, the guard, and
//! whoever finds an abandoned one.

use super::{
    call::{
        CStr, Errno, Fd, O_DIRECTORY, O_NOFOLLOW, O_WRONLY, POLLIN, POLLPRI, PollFd, Result,
        SIGKILL, has_xattr, openat, pidfd_open, pidfd_send_signal, poll, pread, rmdirat, write,
    },
    proc::{Word, entries, read_numbers},
};

/// Marks the cgroup of a released job: whoever comes by must leave its members alone.
pub(crate) const RELEASED: &CStr = c"user.onejob.released";

/// What a cgroup is called: the prefix is the owner's, then comes the number of the job, and if it
/// is not that job's first cgroup, a dot and which one it is.
pub(crate) fn name_of(prefix: &[u8], job: i32, number: i32) -> Word {
    let name = Word::new().text(prefix).number(job);
    if number == 0 { name } else { name.text(b".").number(number) }
}

/// Opens a cgroup below another.
pub(crate) fn open(parent: i32, name: &CStr) -> Result<Fd> {
    openat(parent, name, O_DIRECTORY | O_NOFOLLOW)
}

/// Kills every member, also nested, frozen and another user's, and whoever is being forked.
pub(crate) fn kill(cgroup: i32) -> Result<()> {
    let file = openat(cgroup, c"cgroup.kill", O_WRONLY)?;
    write(file.raw(), b"1").map(drop)
}

/// The kernel's word on a cgroup, and a wake-up when it changes (`cgroup.events`).
pub(crate) struct Events(Fd);

impl Events {
    pub(crate) fn open(cgroup: i32) -> Result<Events> {
        openat(cgroup, c"cgroup.events", 0).map(Events)
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

/// Removes an empty cgroup with everything below it, the deepest first, in constant memory however
/// deep a member has nested. `Errno::BUSY` if a member has appeared.
pub(crate) fn remove(parent: i32, name: &CStr) -> Result<()> {
    loop {
        match rmdirat(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => remove_a_leaf(parent, name)?,
            answer => return answer,
        }
    }
}

/// Removes one cgroup without children somewhere below `name`.
fn remove_a_leaf(parent: i32, name: &CStr) -> Result<()> {
    let mut above = open(parent, name)?;
    let Some(mut leaf) = first_below(&above)? else { return Err(Errno::BUSY) };
    loop {
        let cgroup = open(above.raw(), leaf.as_c_str())?;
        match first_below(&cgroup)? {
            Some(deeper) => {
                above = cgroup;
                leaf = deeper;
            }
            None => return rmdirat(above.raw(), leaf.as_c_str()),
        }
    }
}

fn first_below(cgroup: &Fd) -> Result<Option<Word>> {
    let fresh = openat(cgroup.raw(), c".", O_DIRECTORY)?;
    let mut first = None;
    entries(&fresh, &mut |name, is_dir| {
        if is_dir && first.is_none() && !name.to_bytes().starts_with(b".") {
            first = Some(Word::new().text(name.to_bytes()));
        }
    })?;
    Ok(first)
}

/// Kills, waits until empty and removes; a released cgroup is only removed, and only once it is
/// empty. `Ok(false)` if members are left after `patience` milliseconds (negative: no limit).
pub(crate) fn end(parent: i32, name: &CStr, patience: i32) -> Result<bool> {
    // Nobody in it and nothing below it, most often: the kernel's word in one call.
    if matches!(rmdirat(parent, name), Ok(()) | Err(Errno::NOENT)) {
        return Ok(true);
    }
    let cgroup = match open(parent, name) {
        Err(Errno::NOENT) => return Ok(true),
        opened => opened?,
    };
    if has_xattr(cgroup.raw(), RELEASED) {
        return match is_empty(cgroup.raw()) {
            Ok(true) => remove(parent, name).map(|()| true),
            _ => Ok(true),
        };
    }
    loop {
        if !empty(cgroup.raw(), patience)? {
            return Ok(false);
        }
        match remove(parent, name) {
            // A process was moved in after the last kill.
            Err(Errno::BUSY) => {}
            answer => return gone_is_done(answer).map(|()| true),
        }
    }
}

/// Kills and waits until empty, and leaves the cgroup in place. `Ok(false)` if members are left
/// after `patience` milliseconds (negative: no limit).
pub(crate) fn empty(cgroup: i32, patience: i32) -> Result<bool> {
    let mut left = patience;
    let mut pause = 10;
    loop {
        // Again in every round: a process may have been moved in after the last kill.
        gone_is_done(kill(cgroup))?;
        if pause > 10 {
            kill_listed(cgroup, 0);
        }
        match wait_until_empty(cgroup, pause) {
            Ok(false) => {}
            answer => return gone_is_done(answer.map(drop)).map(|()| true),
        }
        if patience >= 0 {
            left -= pause;
            if left <= 0 {
                return Ok(false);
            }
        }
        pause = 100;
    }
}

/// Kills whom `cgroup.kill` overlooks: the kernel sends that signal to the leading thread alone,
/// which does nothing if that has ended and others live on. A number is acted on only if it is
/// listed after its pidfd was opened.
pub(super) fn kill_listed(cgroup: i32, depth: u32) {
    const DEEPEST: u32 = 64;
    let listed = |each: &mut dyn FnMut(i32)| {
        if let Ok(file) = openat(cgroup, c"cgroup.procs", 0) {
            let _ = read_numbers(&file, each);
        }
    };
    listed(&mut |pid| {
        let Ok(pidfd) = pidfd_open(pid) else { return };
        let mut still = false;
        listed(&mut |again| still |= again == pid);
        if still {
            let _ = pidfd_send_signal(pidfd.raw(), SIGKILL);
        }
    });
    let Ok(fresh) = openat(cgroup, c".", O_DIRECTORY) else { return };
    let _ = entries(&fresh, &mut |name, is_dir| {
        let is_below = is_dir && depth < DEEPEST && !name.to_bytes().starts_with(b".");
        if let Some(below) = is_below.then(|| open(cgroup, name).ok()).flatten() {
            kill_listed(below.raw(), depth + 1);
        }
    });
}

/// A cgroup that somebody else has removed meanwhile had no members left.
fn gone_is_done(answer: Result<()>) -> Result<()> {
    match answer {
        Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        answer => answer,
    }
}

fn wait_until_empty(cgroup: i32, milliseconds: i32) -> Result<bool> {
    let events = Events::open(cgroup)?;
    // Each round waits for somebody's end, so few are enough for any number that die together.
    const ROUNDS: usize = 100;
    for _ in 0..ROUNDS {
        if events.is(b"populated 0")? {
            return Ok(true);
        }
        let somebody = somebody_in(cgroup);
        // Who has left the list has not left the count yet.
        let pause = if somebody.is_some() { milliseconds } else { 1 };
        let pidfd = somebody.as_ref().map_or(-1, Fd::raw);
        let fired = poll(&mut [events.poll_fd(), PollFd::new(pidfd, POLLIN)], pause);
        if fired == 0 && pause == milliseconds {
            break;
        }
    }
    events.is(b"populated 0")
}

/// The last member on the list. Its end tells sooner than the events, of which the kernel sends no
/// two within 10 ms: the emptiness of a young cgroup comes that late.
pub(crate) fn somebody_in(cgroup: i32) -> Option<Fd> {
    let file = openat(cgroup, c"cgroup.procs", 0).ok()?;
    let mut last = 0;
    read_numbers(&file, &mut |pid| last = pid).ok()?;
    // A number that is somebody else's by now is only waited for, for a while.
    pidfd_open(last).ok()
}

/// Ends every cgroup below `base` whose name starts with `prefix`, however long it takes. Members
/// that cannot die (stuck in the kernel) keep us waiting: leaving would lose sight of them. Answers
/// whether a released one was met, and left alone; or an error if one was not ended, or not all could
/// be looked for.
pub(crate) fn end_all(base: i32, prefix: &[u8]) -> Result<bool> {
    loop {
        let (mut found, mut released, mut failed) = (false, false, None);
        let dir = match openat(base, c".", O_DIRECTORY) {
            // Removed with all that was in it.
            Err(Errno::NOENT | Errno::NODEV) => return Ok(false),
            opened => opened?,
        };
        let listed = entries(&dir, &mut |name, is_dir| {
            if is_dir && name.to_bytes().starts_with(prefix) {
                let kept = open(base, name).is_ok_and(|cgroup| has_xattr(cgroup.raw(), RELEASED));
                // One that cannot be ended (not ours any more) must not keep us going for ever.
                match end(base, name, -1) {
                    Ok(_) => found |= !kept,
                    Err(errno) => failed = Some(errno),
                }
                released |= kept;
            }
        });
        listed?;
        if !found {
            return failed.map_or(Ok(released), Err);
        }
    }
}
