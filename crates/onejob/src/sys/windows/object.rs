//! A Job Object of the kernel's ("Job Objects" on Microsoft Learn).

use std::{
    io, mem,
    os::windows::io::{AsHandle, AsRawHandle as _, BorrowedHandle, OwnedHandle},
    ptr,
};

use windows_sys::Win32::{
    Foundation::{ERROR_ALREADY_EXISTS, ERROR_BAD_LENGTH, ERROR_MORE_DATA, GetLastError},
    System::{
        JobObjects::{
            AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob,
            JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECTINFOCLASS,
            JobObjectBasicAccountingInformation, JobObjectBasicProcessIdList, OpenJobObjectW,
            QueryInformationJobObject, SetInformationJobObject, TerminateJobObject,
        },
        SystemServices::{
            JOB_OBJECT_ASSIGN_PROCESS, JOB_OBJECT_QUERY, JOB_OBJECT_SET_ATTRIBUTES,
            JOB_OBJECT_TERMINATE,
        },
        Threading::GetCurrentProcess,
    },
};

use super::{
    handles::{check, is_signalled, owned, wide},
    identity,
};

/// The exit code of a killed process, the same as that of `std::process::Child::kill`.
pub(super) const KILLED: u32 = 1;

/// A member of the job, with an open handle.
pub(super) struct Member {
    pub(super) pid: u32,
    pub(super) process: OwnedHandle,
}

/// The members of the job.
#[derive(Default)]
pub(super) struct Members {
    pub(super) others: Vec<Member>,
    /// The pids of members that this process may not open.
    pub(super) hidden: Vec<u32>,
    pub(super) has_caller: bool,
}

#[derive(Debug)]
pub(super) struct Object(OwnedHandle);

impl Object {
    /// Makes an object; `AlreadyExists` if another job has the name. No handle of that job is kept.
    pub(super) fn create(name: &str) -> io::Result<Object> {
        let name = wide(name);
        // SAFETY: no attributes, hence a handle that no child inherits; the name ends with a NUL.
        let (object, code) = unsafe {
            let object = CreateJobObjectW(ptr::null(), name.as_ptr());
            (object, GetLastError())
        };
        let object = owned(object)?;
        if code == ERROR_ALREADY_EXISTS {
            return Err(io::Error::from_raw_os_error(code as i32));
        }
        Ok(Object(object))
    }

    /// Makes an object without a name.
    pub(super) fn anonymous() -> io::Result<Object> {
        // SAFETY: neither attributes nor a name.
        owned(unsafe { CreateJobObjectW(ptr::null(), ptr::null()) }).map(Object)
    }

    pub(super) fn open(name: &str) -> io::Result<Object> {
        let rights = JOB_OBJECT_ASSIGN_PROCESS | JOB_OBJECT_QUERY | JOB_OBJECT_TERMINATE;
        Object::open_with(name, rights)
    }

    pub(super) fn open_to_change(name: &str) -> io::Result<Object> {
        Object::open_with(name, JOB_OBJECT_QUERY | JOB_OBJECT_SET_ATTRIBUTES)
    }

    fn open_with(name: &str, rights: u32) -> io::Result<Object> {
        let name = wide(name);
        // SAFETY: the name ends with a NUL; no child inherits the handle.
        owned(unsafe { OpenJobObjectW(rights, 0, name.as_ptr()) }).map(Object)
    }

    pub(super) fn assign(&self, process: BorrowedHandle<'_>) -> io::Result<()> {
        // SAFETY: two open handles.
        check(unsafe { AssignProcessToJobObject(self.raw(), process.as_raw_handle()) })
    }

    pub(super) fn assign_caller(&self) -> io::Result<()> {
        // SAFETY: an open handle and the pseudo handle of the calling process.
        check(unsafe { AssignProcessToJobObject(self.raw(), GetCurrentProcess()) })
    }

    pub(super) fn contains(&self, process: BorrowedHandle<'_>) -> io::Result<bool> {
        let mut inside = 0;
        // SAFETY: two open handles and a place to write to.
        check(unsafe { IsProcessInJob(process.as_raw_handle(), self.raw(), &raw mut inside) })?;
        Ok(inside != 0)
    }

    pub(super) fn contains_caller(&self) -> io::Result<bool> {
        let mut inside = 0;
        // SAFETY: as in `contains`, with the pseudo handle of the calling process.
        check(unsafe { IsProcessInJob(GetCurrentProcess(), self.raw(), &raw mut inside) })?;
        Ok(inside != 0)
    }

    /// Kills all members in one operation.
    pub(super) fn terminate(&self) -> io::Result<()> {
        // SAFETY: an open handle.
        check(unsafe { TerminateJobObject(self.raw(), KILLED) })
    }

    /// Queries the information `class`; its type must be a plain structure of numbers.
    pub(super) fn query<T: Copy>(&self, class: JOBOBJECTINFOCLASS) -> io::Result<T> {
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut value: T = unsafe { mem::zeroed() };
        let size = mem::size_of::<T>() as u32;
        // SAFETY: an open handle, and a structure of the given size.
        check(unsafe {
            let to = (&raw mut value).cast();
            QueryInformationJobObject(self.raw(), class, to, size, ptr::null_mut())
        })?;
        Ok(value)
    }

    /// Sets the information `class`, always the whole structure.
    pub(super) fn set<T: Copy>(&self, class: JOBOBJECTINFOCLASS, value: &T) -> io::Result<()> {
        let size = mem::size_of::<T>() as u32;
        // SAFETY: an open handle, and a structure of the given size.
        check(unsafe {
            SetInformationJobObject(self.raw(), class, ptr::from_ref(value).cast(), size)
        })
    }

    pub(super) fn accounting(&self) -> io::Result<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION> {
        self.query(JobObjectBasicAccountingInformation)
    }

    /// The number of live members without the caller; the job is empty if it is 0. A member is counted
    /// until it is dead.
    pub(super) fn other_members(&self) -> io::Result<u32> {
        let active = self.accounting()?.ActiveProcesses;
        Ok(active.saturating_sub(u32::from(self.contains_caller()?)))
    }

    /// The pids of the members; some may have ended.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        /// Two counts, then one pid per member.
        const HEAD: usize = 8 / mem::size_of::<usize>();
        let mut room = 8;
        loop {
            let mut list = vec![0_usize; HEAD + room];
            // SAFETY: an open handle, and a buffer of the given size.
            let listed = check(unsafe {
                QueryInformationJobObject(
                    self.raw(),
                    JobObjectBasicProcessIdList,
                    list.as_mut_ptr().cast(),
                    mem::size_of_val(&list[..]) as u32,
                    ptr::null_mut(),
                )
            });
            // SAFETY: the buffer begins with two numbers of 32 bits.
            let [assigned, filled] = unsafe { *list.as_ptr().cast::<[u32; 2]>() };
            match listed.map_err(|error| (error.raw_os_error().unwrap_or(0) as u32, error)) {
                Ok(()) if filled >= assigned || (filled as usize) < room => {
                    let pids = list[HEAD..].iter().take(filled as usize);
                    return Ok(pids.map(|pid| *pid as u32).collect());
                }
                Err((code, error)) if code != ERROR_MORE_DATA && code != ERROR_BAD_LENGTH => {
                    return Err(error);
                }
                // More processes may start before the next query.
                _ => room = (room * 2).max(assigned as usize + 16),
            }
        }
    }

    /// The live members, with open handles that are proven to be handles of members: a pid that was
    /// reused between listing and opening is left out.
    pub(super) fn members(&self, rights: u32) -> io::Result<Members> {
        self.hold(self.pids()?, rights)
    }

    /// Opens the listed processes that are members now: a listed pid may belong to an unrelated process
    /// meanwhile.
    fn hold(&self, pids: Vec<u32>, rights: u32) -> io::Result<Members> {
        let mut members = Members::default();
        for pid in pids {
            if pid == std::process::id() {
                members.has_caller = true;
                continue;
            }
            match identity::open(pid, rights) {
                Ok(process) if self.contains(process.as_handle())? => {
                    members.others.push(Member { pid, process });
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    members.hidden.push(pid);
                }
                _ => {}
            }
        }
        Ok(members)
    }

    /// Any live member, for waiting.
    pub(super) fn any_member(&self) -> io::Result<Option<Member>> {
        let me = std::process::id();
        for pid in self.pids()?.into_iter().filter(|pid| *pid != me) {
            if let Ok(process) = identity::open(pid, 0)
                && self.contains(process.as_handle())?
                && !is_signalled(process.as_handle())
            {
                return Ok(Some(Member { pid, process }));
            }
        }
        Ok(None)
    }

    pub(super) fn raw(&self) -> windows_sys::Win32::Foundation::HANDLE {
        self.0.as_raw_handle()
    }
}

impl AsHandle for Object {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::windows::test_process::reader;

    /// An unrelated process with a listed pid is not opened.
    #[test]
    fn listed_pid_of_an_unrelated_process_is_dropped() {
        let object = Object::anonymous().unwrap();
        let (mut member, mut stranger) = (reader(), reader());
        object.assign(member.as_handle()).unwrap();
        // As if its pid had belonged to a member when the list was made.
        let stale = vec![member.id(), stranger.id(), 4_000_000_000];
        let held = object.hold(stale, 0).unwrap();
        let pids: Vec<_> = held.others.iter().map(|held| held.pid).collect();
        assert_eq!((pids, held.hidden, held.has_caller), (vec![member.id()], Vec::new(), false));
        for process in [&mut member, &mut stranger] {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }
}
