//! Processes, identified by their handles.

use std::{
    ffi::c_void,
    mem,
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
    ptr,
};

use windows_sys::Win32::{
    Foundation::{FILETIME, HANDLE, WAIT_TIMEOUT},
    System::Threading::{
        CreateEventW, GetCurrentProcess, GetProcessTimes, INFINITE, OpenProcess,
        PROCESS_QUERY_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE,
        QueryFullProcessImageNameW, SetEvent, TerminateProcess, WaitForSingleObject,
    },
};

/// A process with an open handle: its pid is not reused.
#[derive(Debug)]
pub struct Held(OwnedHandle);

impl Held {
    /// The process that has this pid now.
    pub fn open(pid: i32) -> Option<Held> {
        let rights = PROCESS_SYNCHRONIZE | PROCESS_TERMINATE | PROCESS_QUERY_INFORMATION;
        // SAFETY: returns a handle that this process owns.
        let handle = unsafe { OpenProcess(rights, 0, u32::try_from(pid).ok()?) };
        // SAFETY: checked to be an open handle.
        (!handle.is_null()).then(|| Held(unsafe { OwnedHandle::from_raw_handle(handle) }))
    }

    /// Opens the same process, unless its pid belongs to another process by now.
    pub fn open_created(pid: i32, moment: u64) -> Option<Held> {
        Held::open(pid).filter(|held| held.created() == moment)
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> bool {
        // SAFETY: an open handle.
        unsafe { WaitForSingleObject(self.raw(), 0) == WAIT_TIMEOUT }
    }

    /// Kills it alone.
    pub fn terminate(&self) {
        // SAFETY: an open handle.
        unsafe { TerminateProcess(self.raw(), 9) };
    }

    /// When it was created, in units of 100 ns.
    pub fn created(&self) -> u64 {
        created(self.raw())
    }

    /// The pid of the process that started it.
    pub fn parent(&self) -> Option<i32> {
        /// `PROCESS_BASIC_INFORMATION`.
        #[repr(C)]
        struct Basic([usize; 6]);
        #[link(name = "ntdll")]
        unsafe extern "system" {
            fn NtQueryInformationProcess(
                process: HANDLE,
                class: u32,
                into: *mut c_void,
                size: u32,
                written: *mut u32,
            ) -> i32;
        }
        let mut basic = Basic([0; 6]);
        // SAFETY: an open handle, and a structure of the given size.
        let status = unsafe {
            let (to, size) = ((&raw mut basic).cast(), mem::size_of::<Basic>() as u32);
            NtQueryInformationProcess(self.raw(), 0, to, size, ptr::null_mut())
        };
        (status >= 0).then(|| i32::try_from(basic.0[5]).ok()).flatten()
    }

    /// The path of its program; empty if it has ended.
    pub fn program(&self) -> String {
        let mut path = [0; 1024];
        let mut length = path.len() as u32;
        // SAFETY: an open handle, and a buffer of the given length.
        let told = unsafe {
            QueryFullProcessImageNameW(self.raw(), 0, path.as_mut_ptr(), &raw mut length)
        };
        let length = if told == 0 { 0 } else { length as usize };
        String::from_utf16_lossy(&path[..length])
    }

    pub(crate) fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }
}

fn created(process: HANDLE) -> u64 {
    let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
    let [created, exited, kernel, user] = &mut times;
    // SAFETY: an open handle, and four places to write to.
    assert_ne!(unsafe { GetProcessTimes(process, created, exited, kernel, user) }, 0);
    u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime)
}

/// When this process was created.
pub fn own_creation() -> u64 {
    // SAFETY: the handle that stands for the calling process.
    created(unsafe { GetCurrentProcess() })
}

/// Whether a process with this pid is alive.
pub fn is_alive(pid: i32) -> bool {
    Held::open(pid).is_some_and(|held| held.lives())
}

/// The pid of the process that started it.
pub fn parent(pid: i32) -> Option<i32> {
    Held::open(pid)?.parent()
}

/// A value that distinguishes it from a later process with the same pid: its creation time.
pub fn start(pid: i32) -> Option<u64> {
    Held::open(pid).map(|held| held.created())
}

/// Windows has no process groups that matter to a job.
pub fn group(_: i32) -> i32 {
    0
}

/// Requests the end of a helper.
pub fn terminate(pid: i32) {
    if let Some(request) = Request::to(pid) {
        request.make();
    }
}

/// The event that requests the end of a helper.
#[derive(Debug)]
pub struct Request(OwnedHandle);

impl Request {
    /// For the helper with this pid.
    pub fn to(pid: i32) -> Option<Request> {
        let name: Vec<u16> = format!("Local\\testkit-ask-{pid}\0").encode_utf16().collect();
        // SAFETY: no attributes, so no child inherits the handle, which this process owns;
        // the name ends with a NUL.
        unsafe {
            let event = CreateEventW(ptr::null(), 1, 0, name.as_ptr());
            (!event.is_null()).then(|| Request(OwnedHandle::from_raw_handle(event)))
        }
    }

    fn make(&self) {
        // SAFETY: an event that this process owns.
        unsafe { SetEvent(self.0.as_raw_handle()) };
    }

    /// Waits until it is made.
    pub fn wait(&self) {
        // SAFETY: an event that this process owns.
        unsafe { WaitForSingleObject(self.0.as_raw_handle(), INFINITE) };
    }
}

/// Kills a process alone; does nothing if it is gone.
pub fn kill(pid: i32) {
    if let Some(held) = Held::open(pid) {
        held.terminate();
    }
}
