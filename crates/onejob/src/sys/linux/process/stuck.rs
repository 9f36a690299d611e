//! Why processes that were killed do not end.

use std::{fs, path::Path};

use crate::{
    Process,
    sys::linux::{file::read_proc, mounts, nostd::procfs::Proc},
};

/// How many processes are described one by one.
const DESCRIBED: usize = 4;

/// Why some of these processes cannot end, although they were killed or will be; `None` if they can.
pub(crate) fn why(members: &[Process]) -> Option<String> {
    let proc = Proc::open().ok()?;
    let reasons: Vec<_> = members.iter().filter_map(|process| of_process(&proc, process)).collect();
    let (first, rest) = reasons.split_at(reasons.len().min(DESCRIBED));
    let mut text = first.join("; ");
    if !rest.is_empty() {
        text += &format!("; and {} more", rest.len());
    }
    (!text.is_empty()).then_some(text)
}

fn of_process(proc: &Proc, process: &Process) -> Option<String> {
    let pid = process.pid();
    // SIGKILL is not delivered in the state D, nor to a thread that a v1 freezer holds.
    let state = proc.stat(pid as i32).ok()?.state;
    if let Some(freezer) = freezer_of(pid) {
        return Some(format!(
            "process {process} is frozen by the cgroup v1 freezer {freezer} (write THAWED to its \
             freezer.state)"
        ));
    }
    let place = read_proc(&format!("/proc/{pid}/wchan")).unwrap_or_default();
    let place = Some(place).filter(|place| !matches!(&**place, "" | "0"));
    let place = place.map(|place| format!(" in {place}")).unwrap_or_default();
    (state == b'D')
        .then(|| format!("process {process} is in an uninterruptible system call{place}"))
}

/// The cgroup of the v1 freezer that holds a process frozen.
fn freezer_of(pid: u32) -> Option<String> {
    let groups = read_proc(&format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "freezer").then_some(path)
    })?;
    let mounts = mounts::all().ok()?;
    let mount = mounts.iter().find(|mount| mount.is_cgroup1_with("freezer"))?;
    let dir = mount.locate(Path::new(path))?;
    let state = fs::read_to_string(dir.join("freezer.state")).ok()?;
    (state.trim() == "FROZEN").then(|| dir.display().to_string())
}
