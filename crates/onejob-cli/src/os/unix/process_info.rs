//! What listings print about a process, from `/proc`.

use std::{collections::HashMap, ffi::CStr, fs, io::Read as _, sync::Mutex, time::Duration};

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
        command: command_of(pid).unwrap_or_else(|| format!("[{}]", process.name)),
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

fn command_of(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|byte| *byte == 0);
    let text = args.map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
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
