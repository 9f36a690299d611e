//! The identity of a process: its pid and its creation time, which the kernel stores in units of
//! 100 ns. While a handle is open, the pid is not reused.

use std::{
    ffi::OsString,
    io,
    os::windows::{
        ffi::OsStringExt as _,
        io::{AsHandle as _, AsRawHandle as _, BorrowedHandle, OwnedHandle},
    },
    path::Path,
};

use windows_sys::Win32::{
    Foundation::{ERROR_INVALID_PARAMETER, FILETIME},
    System::Threading::{
        GetProcessId, GetProcessTimes, OpenProcess, PROCESS_QUERY_INFORMATION,
        PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, QueryFullProcessImageNameW,
    },
};

use super::{
    handles::{check, is_signalled, owned},
    nt,
};
use crate::{Error, Process, ProcessId, Result};

pub(crate) fn identify(pid: u32) -> Result<ProcessId> {
    if pid == 0 {
        return Err(Error::invalid(format!("invalid pid {pid}")));
    }
    let failed = |e| Error::os(format!("find process {pid}"), e);
    let process = open(pid, 0).map_err(failed)?;
    Ok(id_of(pid, process.as_handle()))
}

/// Opens the live process that has this pid now, with the rights to wait for it and to query it, and
/// with these additional rights.
pub(super) fn open(pid: u32, rights: u32) -> io::Result<OwnedHandle> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "no process has this pid");
    let open = |query| {
        // SAFETY: returns a handle that no child inherits.
        owned(unsafe { OpenProcess(PROCESS_SYNCHRONIZE | query | rights, 0, pid) })
    };
    let opened = open(PROCESS_QUERY_INFORMATION).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => open(PROCESS_QUERY_LIMITED_INFORMATION),
        _ => Err(error),
    });
    let process = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == ERROR_INVALID_PARAMETER as i32 => gone(),
        _ => error,
    })?;
    // The system ignores the two lowest bits of a pid, and keeps ended processes while handles of them
    // are open.
    // SAFETY: an open handle.
    let is_it = unsafe { GetProcessId(process.as_raw_handle()) } == pid;
    if is_it && !is_signalled(process.as_handle()) { Ok(process) } else { Err(gone()) }
}

/// Opens exactly the process with this identity.
pub(super) fn reopen(id: &ProcessId, rights: u32) -> Result<OwnedHandle> {
    let gone = || Error::stale(format!("process {} is gone", id.pid));
    let process = match open(id.pid, rights) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
        opened => opened.map_err(|e| Error::os(format!("open process {}", id.pid), e))?,
    };
    if id_of(id.pid, process.as_handle()) == *id {
        Ok(process)
    } else {
        Err(gone().with_hint("its pid belongs to another process now"))
    }
}

pub(super) fn id_of(pid: u32, process: BorrowedHandle<'_>) -> ProcessId {
    ProcessId { pid, start: creation(process).unwrap_or(0), boot: 0, inode: 0 }
}

/// The creation time, in units of 100 ns since 1601.
pub(super) fn creation(process: BorrowedHandle<'_>) -> Option<u64> {
    let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
    let [created, exited, kernel, user] = &mut times;
    // SAFETY: an open handle, and four places to write to.
    let answer = unsafe { GetProcessTimes(process.as_raw_handle(), created, exited, kernel, user) };
    check(answer).ok()?;
    Some(u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime))
}

/// A member as it is listed.
pub(super) fn describe(pid: u32, process: BorrowedHandle<'_>) -> Process {
    Process {
        id: id_of(pid, process),
        parent: nt::parent_of(process),
        name: name_of(process).unwrap_or_default(),
        is_caller: pid == std::process::id(),
    }
}

/// The file name of its program.
fn name_of(process: BorrowedHandle<'_>) -> Option<String> {
    let mut path = vec![0; 1 << 15];
    let mut length = path.len() as u32;
    // SAFETY: an open handle, and a buffer of the given length.
    let answer = unsafe {
        QueryFullProcessImageNameW(process.as_raw_handle(), 0, path.as_mut_ptr(), &raw mut length)
    };
    check(answer).ok()?;
    let path = OsString::from_wide(path.get(..length as usize)?);
    Some(Path::new(&path).file_name()?.to_string_lossy().into_owned())
}
