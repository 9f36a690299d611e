//! The sandbox: the outer boundary of a test case, which lists the processes that are alive inside. It
//! is a kernel Job Object around the job under test and its owner.

use std::{
    io, mem,
    os::windows::{
        io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command},
    ptr,
};

use windows_sys::Win32::{
    Foundation::HANDLE,
    System::{
        JobObjects::{
            AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob,
            JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
            JobObjectBasicProcessIdList, JobObjectExtendedLimitInformation,
            QueryInformationJobObject, SetInformationJobObject,
        },
        Threading::CREATE_SUSPENDED,
    },
    UI::WindowsAndMessaging::GetDesktopWindow,
};

use super::proc::Held;
use crate::{DEADLINE, Environment, eventually::within};

/// All processes of a test case are started inside; they are killed when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    object: OwnedHandle,
}

/// A live process in a sandbox, with an open handle.
#[derive(Debug)]
pub struct LiveProcess {
    /// Its pid.
    pub pid: i32,
    /// Its program.
    pub name: String,
    held: Held,
}

impl LiveProcess {
    /// Whether it has not ended since.
    pub fn lives(&self) -> bool {
        self.held.lives()
    }
}

/// More processes than any test case has.
const ROOM: usize = 4096;

/// `JOBOBJECT_BASIC_PROCESS_ID_LIST`, with room.
#[repr(C)]
struct List {
    assigned: u32,
    filled: u32,
    pids: [usize; ROOM],
}

impl Sandbox {
    /// A sandbox for one test case.
    pub fn new(_: Environment) -> Sandbox {
        // Under Wine, the first process that looks up a window gets a child, the desktop process. This
        // makes it a child of the test and not of a process in a sandbox.
        // SAFETY: returns a window that always exists.
        unsafe { GetDesktopWindow() };
        // SAFETY: neither attributes nor a name; this process owns the handle and no child inherits it.
        let object = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
        assert!(!object.is_null(), "a sandbox: {}", io::Error::last_os_error());
        // SAFETY: checked to be an open handle.
        let object = unsafe { OwnedHandle::from_raw_handle(object) };
        // SAFETY: a structure of numbers, for which zero is a value; it is passed with its size.
        unsafe {
            let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = mem::zeroed();
            limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
            let size = mem::size_of_val(&limits) as u32;
            let class = JobObjectExtendedLimitInformation;
            let set = SetInformationJobObject(
                object.as_raw_handle(),
                class,
                (&raw const limits).cast(),
                size,
            );
            assert_ne!(set, 0, "{}", io::Error::last_os_error());
        }
        Sandbox { object }
    }

    /// Starts `program` inside: it executes no instruction before it is a member.
    #[track_caller]
    pub fn start(&mut self, program: &Path, change: impl FnOnce(&mut Command)) -> Child {
        #[link(name = "ntdll")]
        unsafe extern "system" {
            fn NtResumeProcess(process: HANDLE) -> i32;
        }
        let mut command = Command::new(program);
        change(&mut command);
        let child = command.creation_flags(CREATE_SUSPENDED).spawn();
        let child = child.unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        // SAFETY: two open handles.
        unsafe {
            let put = AssignProcessToJobObject(self.object.as_raw_handle(), child.as_raw_handle());
            assert_ne!(put, 0, "{}", io::Error::last_os_error());
            assert!(NtResumeProcess(child.as_raw_handle()) >= 0);
        }
        child
    }

    /// The pid of the program that [`start`](Sandbox::start) started as `child`.
    pub fn program(&self, child: &Child) -> Option<i32> {
        Some(child.id() as i32)
    }

    /// Starts `command` outside. Used for bystanders.
    pub fn start_beside(&self, command: &mut Command) -> Child {
        command.spawn().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"))
    }

    /// The live processes inside.
    pub fn live(&self) -> Vec<LiveProcess> {
        let mut list = Box::new(List { assigned: 0, filled: 0, pids: [0; ROOM] });
        // SAFETY: an open handle, and a structure of the given size.
        let listed = unsafe {
            QueryInformationJobObject(
                self.object.as_raw_handle(),
                JobObjectBasicProcessIdList,
                (&raw mut *list).cast(),
                mem::size_of::<List>() as u32,
                ptr::null_mut(),
            )
        };
        assert_ne!(listed, 0, "{}", io::Error::last_os_error());
        let pids = list.pids.iter().take(list.filled as usize).map(|pid| *pid as i32);
        let here = |pid: i32| {
            let held = Held::open(pid)?;
            let mut inside = 0;
            // SAFETY: two open handles and a place to write to.
            unsafe { IsProcessInJob(held.raw(), self.object.as_raw_handle(), &raw mut inside) };
            (inside != 0 && held.lives()).then(|| LiveProcess { pid, name: held.program(), held })
        };
        pids.filter_map(here).collect()
    }

    /// The pids of the live processes inside.
    pub fn live_pids(&self) -> Vec<i32> {
        self.live().iter().map(|living| living.pid).collect()
    }

    /// The pid of the process with the inner pid `inner`; `None` if it is gone.
    pub fn outer_pid(&self, inner: i32) -> Option<i32> {
        self.live_pids().contains(&inner).then_some(inner)
    }

    /// [`outer_pid`](Sandbox::outer_pid) for several pids: the processes are listed only once.
    pub(crate) fn outer_pids(&self) -> impl Fn(i32) -> Option<i32> + use<> {
        let living = self.live_pids();
        move |inner| living.contains(&inner).then_some(inner)
    }

    /// Always `None`: all bystanders are beside the sandbox.
    pub(crate) fn bystander(&self) -> Option<i32> {
        None
    }

    /// Waits until no process is alive inside.
    #[track_caller]
    pub fn wait_until_empty(&self, _: impl Fn(&str) -> bool) {
        let is_empty = within(DEADLINE, || self.live().is_empty().then_some(())).is_some();
        assert!(is_empty, "SURVIVED in the sandbox: {:#?}", self.live());
    }
}
