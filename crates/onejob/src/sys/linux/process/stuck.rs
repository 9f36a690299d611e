//! Why processes that were killed live on.

use std::fs;

use crate::{Process, sys::linux::file::read_proc};

/// How many processes are described one by one.
const DESCRIBED: usize = 4;

/// Why some of these processes cannot end, although they were killed, or will be at the next occasion.
/// `None` if nothing keeps them from it.
pub(crate) fn why(members: &[Process]) -> Option<String> {
    let reasons: Vec<_> = members.iter().filter_map(of_process).collect();
    let (first, rest) = reasons.split_at(reasons.len().min(DESCRIBED));
    let mut text = first.join("; ");
    if !rest.is_empty() {
        text += &format!("; and {} more", rest.len());
    }
    (!text.is_empty()).then_some(text)
}

fn of_process(process: &Process) -> Option<String> {
    let pid = process.pid();
    // In the state D not even SIGKILL is delivered, nor is it to a thread that a freezer holds.
    let stat = read_proc(&format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    if let Some(freezer) = freezer_of(pid) {
        return Some(format!(
            "process {process} is frozen by the cgroup v1 freezer {freezer} (write THAWED to its \
             freezer.state)"
        ));
    }
    let place = read_proc(&format!("/proc/{pid}/wchan")).unwrap_or_default();
    let place = Some(place).filter(|place| !matches!(&**place, "" | "0"));
    let place = place.map(|place| format!(" in {place}")).unwrap_or_default();
    (state == 'D').then(|| format!("process {process} is in an uninterruptible system call{place}"))
}

/// The cgroup of the v1 freezer that holds a process frozen.
fn freezer_of(pid: u32) -> Option<String> {
    let groups = read_proc(&format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "freezer").then_some(path)
    })?;
    let mounts = read_proc("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - cgroup ")?;
        let options = right.rsplit_once(' ')?.1;
        options.split(',').any(|option| option == "freezer").then(|| left.split(' ').nth(4))?
    })?;
    let dir = format!("{mount}{path}");
    let state = fs::read_to_string(format!("{dir}/freezer.state")).ok()?;
    (state.trim() == "FROZEN").then_some(dir)
}
