//! Helper processes, which run this test program in a role, and checks by the handles of processes, without jobs.

use std::{
    env, fs,
    io::Write as _,
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use onejob::Job;
use windows_sys::Win32::{
    Foundation::{FILETIME, GetHandleInformation, HANDLE, WAIT_TIMEOUT},
    System::{
        JobObjects::IsProcessInJob,
        Threading::{
            CREATE_NEW_CONSOLE, DETACHED_PROCESS, GetCurrentProcess, GetProcessTimes, OpenProcess,
            PROCESS_QUERY_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, TerminateProcess,
            WaitForSingleObject,
        },
    },
    UI::WindowsAndMessaging::{
        CreateWindowExW, DispatchMessageW, GetMessageW, IsWindow, WS_OVERLAPPEDWINDOW,
    },
};

/// Only a hang takes longer.
const DEADLINE: Duration = Duration::from_secs(180);

#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "still waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The file in which helpers announce themselves.
#[derive(Clone)]
pub(crate) struct Report(pub(crate) PathBuf);

impl Report {
    pub(crate) fn new() -> Report {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("onejob-test-{}-{count}", std::process::id()));
        let _ = fs::remove_file(&path);
        Report(path)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().map(str::to_owned).collect()
    }

    pub(crate) fn pids(&self, role: &str) -> Vec<Id> {
        let lines = self.lines();
        let of_role = lines.iter().filter_map(|line| line.strip_prefix(role)?.strip_prefix(' '));
        let id = |rest: &str| {
            let (pid, created) = rest.split(' ').next()?.split_once('@')?;
            Some(Id { pid: pid.parse().ok()?, created: created.parse().ok()? })
        };
        of_role.filter_map(id).collect()
    }

    /// Waits for that many helpers of a role, and opens those that are alive.
    #[track_caller]
    pub(crate) fn helpers(&self, role: &str, least: usize) -> Vec<Held> {
        let what = format!("{least} helpers in the role {role}");
        let pids = eventually(&what, || Some(self.pids(role)).filter(|pids| pids.len() >= least));
        pids.into_iter().filter_map(Held::open).collect()
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The identity of a helper: another process may have its pid later.
#[derive(Clone, Copy)]
pub(crate) struct Id {
    pid: u32,
    created: u64,
}

fn created(process: HANDLE) -> u64 {
    let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
    let [created, exited, kernel, user] = &mut times;
    // SAFETY: an open handle, and four places to write to.
    assert_ne!(unsafe { GetProcessTimes(process, created, exited, kernel, user) }, 0);
    u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime)
}

/// A process with an open handle: its pid is not reused.
pub(crate) struct Held(pub(crate) u32, OwnedHandle);

impl Held {
    pub(crate) fn open(Id { pid, created: moment }: Id) -> Option<Held> {
        let rights = PROCESS_SYNCHRONIZE | PROCESS_TERMINATE | PROCESS_QUERY_INFORMATION;
        // SAFETY: returns a handle that this process owns.
        let handle = unsafe { OpenProcess(rights, 0, pid) };
        if handle.is_null() {
            return None;
        }
        // SAFETY: checked to be an open handle.
        let held = Held(pid, unsafe { OwnedHandle::from_raw_handle(handle) });
        (created(handle) == moment).then_some(held)
    }

    pub(crate) fn lives(&self) -> bool {
        // SAFETY: an open handle.
        unsafe { WaitForSingleObject(self.1.as_raw_handle(), 0) == WAIT_TIMEOUT }
    }

    pub(crate) fn terminate(&self) {
        // SAFETY: an open handle.
        unsafe { TerminateProcess(self.1.as_raw_handle(), 9) };
    }
}

/// The number of handles of this process, found by trying all values: Wine does not count them.
pub(crate) fn handle_count() -> u32 {
    let is_open = |value: &usize| {
        let mut flags = 0;
        // SAFETY: any value is allowed, and the flags are a local.
        unsafe { GetHandleInformation(*value as _, &raw mut flags) != 0 }
    };
    (4..0x8000).step_by(4).filter(is_open).count() as u32
}

fn me() -> PathBuf {
    env::current_exe().expect("a path to this program")
}

/// The command that starts a helper.
pub(crate) fn helper(role: &str, report: &Path) -> onejob::Command {
    let mut command = onejob::Command::new(me());
    command.args(["run_role", "--exact", "--nocapture", "--quiet"]).env("ROLE", role);
    command.env("REPORT", report).stdin(onejob::Stdio::null()).stdout(onejob::Stdio::null());
    command
}

/// As [`helper`], with std.
pub(crate) fn outsider(role: &str, report: &Path) -> Command {
    let mut command = Command::new(me());
    command.args(["run_role", "--exact", "--nocapture", "--quiet"]).env("ROLE", role);
    command.env("REPORT", report).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null());
    command
}

fn say(role: &str, more: &str) {
    let path = env::var_os("REPORT").expect("a report");
    // SAFETY: the handle that stands for the calling process.
    let created = created(unsafe { GetCurrentProcess() });
    let line = format!("{role} {}@{created} {more}\n", std::process::id());
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a report");
    file.write_all(line.as_bytes()).expect("written");
}

fn start(role: &str, flags: u32) {
    use std::os::windows::process::CommandExt as _;
    let report = PathBuf::from(env::var_os("REPORT").expect("a report"));
    let child = outsider(role, &report).creation_flags(flags).spawn();
    drop(child.expect("started"));
}

/// Stays until it is ended, for five minutes at most.
fn rest() -> ! {
    thread::sleep(Duration::from_secs(300));
    std::process::exit(0)
}

/// Runs the role of this process, if it is a helper.
pub(crate) fn run_role() {
    let Some(role) = env::var_os("ROLE") else { return };
    let role = role.to_str().expect("a role").to_owned();
    let words: Vec<&str> = role.split('-').collect();
    match words[..] {
        // A tree of four generations, with and without their own consoles.
        ["generation", number] => {
            let number: u32 = number.parse().expect("a number");
            if number < 4 {
                let flags = [0, DETACHED_PROCESS, CREATE_NEW_CONSOLE][number as usize % 3];
                start(&format!("generation-{}", number + 1), flags);
            }
            say("generation", "");
            rest()
        }
        ["orphan", "parent"] => start("sleeper", DETACHED_PROCESS),
        // Each starts the next one and ends.
        ["hopper", number] => {
            say("hopper", "");
            let number: u32 = number.parse().expect("a number");
            if number < 2000 {
                start(&format!("hopper-{}", number + 1), 0);
            }
        }
        ["many", width] => {
            for _ in 0..width.parse::<u32>().expect("a number") {
                start("sleeper", DETACHED_PROCESS);
            }
            say("many", "");
            rest()
        }
        ["inside"] => {
            let mut inside = 0;
            // SAFETY: the handle of the calling process, any job, and a local to write to.
            unsafe { IsProcessInJob(GetCurrentProcess(), std::ptr::null_mut(), &raw mut inside) };
            say("inside", &format!("{inside} {}", handle_count()));
        }
        // Makes, fills and stops jobs until it is ended.
        ["owner"] => loop {
            let report = PathBuf::from(env::var_os("REPORT").expect("a report"));
            let job = Job::new().expect("a job");
            say("owner", "");
            for role in ["generation-1", "orphan-parent"] {
                job.spawn(helper(role, &report)).expect("a member");
            }
            thread::sleep(Duration::from_millis(400));
            job.kill().expect("killed");
        },
        ["holder", name] => {
            let report = PathBuf::from(env::var_os("REPORT").expect("a report"));
            let job = Job::builder().name(name).build().expect("a job");
            job.spawn(helper("sleeper", &report)).expect("a member");
            say("holder", "");
            rest()
        }
        ["encloser"] => enclose(),
        ["busy"] => {
            let mut count = 0_u64;
            let path = format!("{}.count", env::var("REPORT").expect("a report"));
            say("busy", "");
            loop {
                count += 1;
                fs::write(&path, count.to_string()).expect("written");
            }
        }
        ["sleeper"] => {
            say("sleeper", "");
            rest()
        }
        ["echo"] => {
            let mut args: Vec<_> = env::args_os().collect();
            let split = args.iter().position(|arg| arg == "--").expect("a mark");
            println!("{:?}", args.split_off(split + 1));
            println!("{:?}", env::current_dir().expect("a directory"));
            let vars: Vec<_> = env::vars_os().filter(|(key, _)| key != "ROLE").collect();
            println!("{vars:?}");
        }
        ["handles"] => {
            let report = PathBuf::from(env::var_os("REPORT").expect("a report"));
            let round = |number: u32| {
                // Wine frees a name late.
                let job = Job::builder().name(format!("handles{}.{number}", std::process::id()));
                let job = job.build().expect("a job");
                job.spawn(helper("exit-0", &report)).expect("started").wait().expect("a status");
                job.spawn(onejob::Command::new("no-such-program")).expect_err("missing");
                job.spawn(onejob::Command::new("cmd").current_dir("nowhere")).expect_err("absent");
                let mut piped = helper("sleeper", &report);
                drop(job.spawn(piped.stdout(onejob::Stdio::piped())).expect("started"));
                job.freeze().expect("frozen");
                job.thaw().expect("thawed");
                job.kill().expect("killed");
            };
            (0..3).for_each(round);
            let before = handle_count();
            (3..13).for_each(round);
            say("handles", &format!("{before} {}", handle_count()));
            assert!(before > 0 && handle_count() <= before + 2, "lost");
        }
        ["window"] => {
            let class: Vec<u16> = "STATIC\0".encode_utf16().collect();
            let (none, no_name) = (std::ptr::null_mut(), std::ptr::null());
            // SAFETY: a class of the system, whose name ends with a NUL; the message is a local.
            unsafe {
                let style = WS_OVERLAPPEDWINDOW;
                let window = CreateWindowExW(
                    0,
                    class.as_ptr(),
                    no_name,
                    style,
                    0,
                    0,
                    9,
                    9,
                    none,
                    none,
                    none,
                    no_name.cast(),
                );
                assert!(!window.is_null(), "{}", std::io::Error::last_os_error());
                say("window", "");
                let mut message = std::mem::zeroed();
                while IsWindow(window) != 0 && GetMessageW(&raw mut message, none, 0, 0) > 0 {
                    DispatchMessageW(&raw const message);
                }
            }
            std::process::exit(42)
        }
        ["exit", code] => std::process::exit(code.parse::<u32>().expect("a code") as i32),
        _ => panic!("unknown role {role}"),
    }
    std::process::exit(0)
}

fn enclose() {
    let job = Job::builder().enclose().expect("enclosed");
    assert!(job.is_empty().expect("observable"));
    for round in 0..2 {
        start("generation-1", 0);
        start("hopper-0", 0);
        eventually("members", || (job.processes().expect("a list").len() >= 5).then_some(()));
        let callers = job.processes().expect("a list").iter().filter(|p| p.is_caller).count();
        assert_eq!(callers, 1, "the caller is marked, round {round}");
        job.kill().expect("killed");
        let left = job.processes().expect("a list");
        assert!(left.len() == 1 && left[0].is_caller, "{left:?}");
    }
    let inner = Job::new().expect("a job inside");
    let report = PathBuf::from(env::var_os("REPORT").expect("a report"));
    let mut child = inner.spawn(helper("sleeper", &report)).expect("a member of both");
    assert!(job.processes().expect("a list").iter().any(|p| p.pid() == child.pid()));
    job.kill().expect("killed");
    assert!(inner.is_empty().expect("observable"));
    child.wait().expect("a status");
    start("sleeper", 0);
    eventually("a sleeper", || (job.processes().expect("a list").len() == 2).then_some(()));
    drop(job);
    say("enclosed", "and alive");
}
