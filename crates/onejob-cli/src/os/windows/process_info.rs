//! What listings print about a process.

use std::{
    collections::HashMap,
    ffi::c_void,
    io, iter, mem,
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
    ptr,
    time::Duration,
};

use onejob::{Process, ProcessId};
use windows_sys::Win32::{
    Foundation::{FILETIME, HANDLE, INVALID_HANDLE_VALUE, NTSTATUS, UNICODE_STRING},
    Security::{GetTokenInformation, LookupAccountSidW, TOKEN_QUERY, TOKEN_USER, TokenUser},
    System::{
        Diagnostics::ToolHelp::{
            CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW,
            TH32CS_SNAPPROCESS,
        },
        ProcessStatus::{GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS},
        SystemInformation::GetSystemTimeAsFileTime,
        Threading::{
            GetProcessTimes, OpenProcess, OpenProcessToken, PROCESS_QUERY_LIMITED_INFORMATION,
        },
    },
};

use crate::os::ProcessInfo;

/// `None` if the process has exited, or if its pid belongs to another process by now.
pub(crate) fn process_info(process: &Process) -> Option<ProcessInfo> {
    let handle = open(process.pid())?;
    // The open handle keeps the pid from being reused.
    if ProcessId::of(process.pid()).ok()? != process.id {
        return None;
    }
    let times = Times::of(&handle)?;
    Some(ProcessInfo {
        user: user_of(&handle).unwrap_or_else(|| "?".to_owned()),
        cpu: times.used,
        memory: memory_of(&handle)?,
        age: times.age,
        argv: vec![command_of(&handle).unwrap_or_else(|| format!("[{}]", process.name))],
        leads_group_only: false,
    })
}

/// The resident memory of a process in bytes; `None` as for [`process_info`].
pub(crate) fn resident_memory(process: &Process) -> Option<u64> {
    let handle = open(process.pid())?;
    // The open handle keeps the pid from being reused.
    if ProcessId::of(process.pid()).ok()? != process.id {
        return None;
    }
    memory_of(&handle)
}

/// Windows does not report whether the threads of a process are suspended.
pub(crate) fn is_frozen(_process: &Process) -> bool {
    false
}

/// The parent of a process, its parent, and so on. A parent that is younger than its child has only
/// reused the pid of the dead parent, and ends the list.
pub(crate) fn ancestors(pid: u32) -> Vec<u32> {
    const MAX_DEPTH: usize = 1000;
    let parents = parents();
    let age = |pid: u32| open(pid).and_then(|handle| Times::of(&handle)).map(|times| times.age);
    let parent = |pid: &u32| {
        let parent = *parents.get(pid)?;
        (parent != 0 && age(parent)? >= age(*pid)?).then_some(parent)
    };
    iter::successors(parent(&pid), parent).take(MAX_DEPTH).collect()
}

fn parents() -> HashMap<u32, u32> {
    let mut parents = HashMap::new();
    // SAFETY: the call touches no memory of this process; the handle is not inheritable.
    let snapshot = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) };
    if snapshot == INVALID_HANDLE_VALUE {
        return parents;
    }
    // SAFETY: the call succeeded, so the handle is open, and no other value owns it.
    let snapshot = unsafe { OwnedHandle::from_raw_handle(snapshot) };
    // SAFETY: PROCESSENTRY32W consists of integers, for which zero is valid.
    let mut entry: PROCESSENTRY32W = unsafe { mem::zeroed() };
    entry.dwSize = mem::size_of::<PROCESSENTRY32W>() as u32;
    // SAFETY: `snapshot` is open, and `entry` lives through the call and has its size set.
    let mut more = unsafe { Process32FirstW(snapshot.as_raw_handle(), &raw mut entry) };
    while more != 0 {
        parents.insert(entry.th32ProcessID, entry.th32ParentProcessID);
        // SAFETY: `snapshot` is open, and `entry` lives through the call and has its size set.
        more = unsafe { Process32NextW(snapshot.as_raw_handle(), &raw mut entry) };
    }
    parents
}

fn open(pid: u32) -> Option<OwnedHandle> {
    // SAFETY: the call touches no memory of this process; the handle is not inheritable.
    owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) })
}

fn owned(handle: HANDLE) -> Option<OwnedHandle> {
    // SAFETY: callers pass a handle that a call has just opened, or null; no other value owns it.
    (!handle.is_null()).then(|| unsafe { OwnedHandle::from_raw_handle(handle) })
}

struct Times {
    used: Duration,
    age: Duration,
}

impl Times {
    fn of(process: &OwnedHandle) -> Option<Times> {
        const NONE: FILETIME = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
        let [mut created, mut exited, mut kernel, mut user, mut now] = [NONE; 5];
        // SAFETY: `process` is open, and the five times live through the calls.
        let succeeded = unsafe {
            GetSystemTimeAsFileTime(&raw mut now);
            let process = process.as_raw_handle();
            let (kernel, user) = (&raw mut kernel, &raw mut user);
            GetProcessTimes(process, &raw mut created, &raw mut exited, kernel, user)
        };
        let units =
            |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
        let time = |units: u64| Duration::from_nanos(units.saturating_mul(100));
        (succeeded != 0).then(|| Times {
            used: time(units(kernel) + units(user)),
            age: time(units(now).saturating_sub(units(created))),
        })
    }
}

fn memory_of(process: &OwnedHandle) -> Option<u64> {
    // SAFETY: PROCESS_MEMORY_COUNTERS consists of integers, for which zero is valid.
    let mut counters: PROCESS_MEMORY_COUNTERS = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&counters) as u32;
    // SAFETY: `process` is open, and `counters` lives through the call and has the given size.
    let succeeded =
        unsafe { GetProcessMemoryInfo(process.as_raw_handle(), &raw mut counters, size) };
    (succeeded != 0).then_some(counters.WorkingSetSize as u64)
}

/// The command line.
fn command_of(process: &OwnedHandle) -> Option<String> {
    #[link(name = "ntdll")]
    unsafe extern "system" {
        fn NtQueryInformationProcess(
            process: HANDLE,
            class: u32,
            into: *mut c_void,
            size: u32,
            written: *mut u32,
        ) -> NTSTATUS;
    }
    /// Windows 8.1 and later.
    const PROCESS_COMMAND_LINE_INFORMATION: u32 = 60;
    // A UNICODE_STRING, followed by a text of at most 65,534 bytes.
    let mut buffer = vec![0_u64; (1 << 13) + 16];
    // SAFETY: `process` is open, and `buffer` is aligned, lives through the call and has the given size.
    let status = unsafe {
        let (to, size) = (buffer.as_mut_ptr().cast(), mem::size_of_val(&buffer[..]) as u32);
        let (process, class) = (process.as_raw_handle(), PROCESS_COMMAND_LINE_INFORMATION);
        NtQueryInformationProcess(process, class, to, size, ptr::null_mut())
    };
    if status < 0 {
        return None;
    }
    // SAFETY: the call succeeded: the buffer begins with a UNICODE_STRING that points to a text of this
    // length in the same buffer.
    let text = unsafe {
        let text = &*buffer.as_ptr().cast::<UNICODE_STRING>();
        std::slice::from_raw_parts(text.Buffer, usize::from(text.Length) / 2)
    };
    (!text.is_empty()).then(|| String::from_utf16_lossy(text))
}

fn user_of(process: &OwnedHandle) -> Option<String> {
    let mut token = ptr::null_mut();
    // SAFETY: `process` is open, and `token` lives through the call.
    let opened = unsafe { OpenProcessToken(process.as_raw_handle(), TOKEN_QUERY, &raw mut token) };
    let token = owned(token).filter(|_| opened != 0)?;
    let mut buffer = [0_u64; 32];
    let mut written = 0;
    // SAFETY: `token` is open, and `buffer` is aligned, lives through the call and has the given size.
    let succeeded = unsafe {
        let (to, size) = (buffer.as_mut_ptr().cast(), mem::size_of_val(&buffer) as u32);
        GetTokenInformation(token.as_raw_handle(), TokenUser, to, size, &raw mut written)
    };
    if succeeded == 0 {
        return None;
    }
    let (mut name, mut domain) = ([0; 256], [0; 256]);
    let (mut name_length, mut domain_length, mut kind) = (256, 256, 0);
    // SAFETY: the call succeeded: the buffer begins with a TOKEN_USER that points into it. The other
    // buffers have the given lengths.
    let found = unsafe {
        let sid = (*buffer.as_ptr().cast::<TOKEN_USER>()).User.Sid;
        LookupAccountSidW(
            ptr::null(),
            sid,
            name.as_mut_ptr(),
            &raw mut name_length,
            domain.as_mut_ptr(),
            &raw mut domain_length,
            &raw mut kind,
        )
    };
    (found != 0).then(|| String::from_utf16_lossy(&name[..name_length as usize]))
}

/// The width of the console on standard output; `None` if standard output is not a console.
pub(crate) fn terminal_width() -> Option<usize> {
    console_size().map(|(width, _)| width)
}

/// The height of the console on standard output; `None` if standard output is not a console.
pub(crate) fn terminal_height() -> Option<usize> {
    console_size().map(|(_, height)| height)
}

fn console_size() -> Option<(usize, usize)> {
    use windows_sys::Win32::System::Console::{
        CONSOLE_SCREEN_BUFFER_INFO, GetConsoleScreenBufferInfo,
    };
    // SAFETY: CONSOLE_SCREEN_BUFFER_INFO consists of integers, for which zero is valid.
    let mut info: CONSOLE_SCREEN_BUFFER_INFO = unsafe { mem::zeroed() };
    // SAFETY: for a handle that is not a console the call fails; `info` lives through the call.
    let succeeded =
        unsafe { GetConsoleScreenBufferInfo(io::stdout().as_raw_handle(), &raw mut info) };
    let window = info.srWindow;
    let length = |from: i16, to: i16| usize::try_from(i32::from(to) - i32::from(from) + 1).ok();
    let size = Some((length(window.Left, window.Right)?, length(window.Top, window.Bottom)?));
    size.filter(|_| succeeded != 0)
}
