//! What listings print about a process, from `/proc`.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs,
    io::Read as _,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use onejob::{Process, ProcessId};

use crate::os::ProcessInfo;

/// `None` if the process has exited, or if its pid belongs to another process by now.
pub(crate) fn process_info(process: &Process) -> Option<ProcessInfo> {
    let pid = process.pid();
    let stat = Stat::of(pid)?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let time = |ticks_used: u64| Duration::from_millis(ticks_used.saturating_mul(1000) / ticks);
    let info = ProcessInfo {
        user: user_of(pid)?,
        cpu: time(stat.number(14)? + stat.number(15)?),
        memory: stat.resident_memory()?,
        age: uptime()?.saturating_sub(time(stat.number(22)?)),
        argv: argv_of(pid).unwrap_or_else(|| vec![format!("[{}]", process.name)]),
        leads_group_only: stat.number(5)? == u64::from(pid) && stat.number(6)? != u64::from(pid),
    };
    // The files were opened by pid: they are the process's own only if it still exists.
    (ProcessId::of(pid).ok()? == process.id).then_some(info)
}

/// The resident memory of a process in bytes; `None` as for [`process_info`].
pub(crate) fn resident_memory(process: &Process) -> Option<u64> {
    let memory = Stat::of(process.pid())?.resident_memory()?;
    (ProcessId::of(process.pid()).ok()? == process.id).then_some(memory)
}

/// The parent of a process, its parent, and so on up to PID 1.
pub(crate) fn ancestors(pid: u32) -> Vec<u32> {
    const MAX_DEPTH: usize = 1000;
    let parent = |pid: &u32| Stat::of(*pid)?.number(4)?.try_into().ok().filter(|pid| *pid != 0);
    std::iter::successors(parent(&pid), parent).take(MAX_DEPTH).collect()
}

/// The fields of `/proc/PID/stat`, numbered as in proc_pid_stat(5).
struct Stat(String);

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        // One read returns the whole line: 52 numbers, and a name of at most 64 bytes.
        let mut bytes = [0; 2048];
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let len = file.read(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes[..len]);
        // The process name may contain any character, a parenthesis too.
        text.rsplit_once(") ").map(|(_, fields)| Stat(fields.to_owned()))
    }

    fn resident_memory(&self) -> Option<u64> {
        Some(self.number(24)? * rustix::param::page_size() as u64)
    }

    fn number(&self, field: usize) -> Option<u64> {
        self.0.split(' ').nth(field - 3)?.parse().ok()
    }
}

/// The time since boot, by the clock of the start times in `/proc/PID/stat`.
fn uptime() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: an all-zero timespec is valid, and it lives through the call.
        let (result, now) = unsafe {
            let mut now: libc::timespec = std::mem::zeroed();
            (libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now), now)
        };
        let seconds = u64::try_from(now.tv_sec).ok().filter(|_| result == 0)?;
        Some(Duration::new(seconds, u32::try_from(now.tv_nsec).ok()?))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

fn argv_of(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|byte| *byte == 0);
    let args = args.map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>();
    args.iter().any(|arg| !arg.is_empty()).then_some(args)
}

/// Whether a process cannot run: stopped by a signal, or in a frozen cgroup.
pub(crate) fn is_frozen(process: &Process) -> bool {
    let is_stopped = Stat::of(process.pid()).is_some_and(|stat| stat.0.starts_with(['T', 't']));
    is_stopped || is_in_frozen_cgroup(process.pid()).unwrap_or(false)
}

/// From `cgroup.events` of the cgroup that `/proc/PID/cgroup` names, below the mounted unified hierarchy.
fn is_in_frozen_cgroup(pid: u32) -> Option<bool> {
    static MOUNT: OnceLock<Option<(String, String)>> = OnceLock::new();
    let (root, place) = MOUNT.get_or_init(unified_hierarchy).as_ref()?;
    let cgroups = read_at_once(&format!("/proc/{pid}/cgroup"))?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = if root == "/" { path } else { path.strip_prefix(root.as_str())? };
    let events = read_at_once(&format!("{place}{path}/cgroup.events"))?;
    Some(events.lines().any(|line| line == "frozen 1"))
}

/// A short file of the kernel, which one read returns whole.
fn read_at_once(path: &str) -> Option<String> {
    let mut bytes = [0; 8192];
    let len = fs::File::open(path).ok()?.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// Which cgroup is mounted, and where.
fn unified_hierarchy() -> Option<(String, String)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let mut fields = line.split(' ').skip(3);
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

fn user_of(pid: u32) -> Option<String> {
    static NAMES: Mutex<Option<HashMap<u32, String>>> = Mutex::new(None);
    let uid = rustix::fs::stat(format!("/proc/{pid}")).ok()?.st_uid;
    let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let names = names.get_or_insert_default();
    Some(names.entry(uid).or_insert_with(|| name_of(uid)).clone())
}

/// The name of a user; the number if the user database has no entry.
fn name_of(uid: u32) -> String {
    let mut entry = std::mem::MaybeUninit::uninit();
    let mut text = vec![0; 16 * 1024];
    let mut found = std::ptr::null_mut();
    // SAFETY: on success `found` points to the initialised `entry`, and the strings of `entry` lie in
    // `text`; both live until the name is copied below.
    let name = unsafe {
        libc::getpwuid_r(uid, entry.as_mut_ptr(), text.as_mut_ptr(), text.len(), &mut found);
        found.as_ref().map(|entry| CStr::from_ptr(entry.pw_name))
    };
    name.map_or(uid.to_string(), |name| name.to_string_lossy().into_owned())
}
