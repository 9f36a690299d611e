//! The calls that only `ntdll` exports. Each is documented on Microsoft Learn, or used so widely that
//! it cannot change any more.

use std::{
    ffi::c_void,
    io, mem,
    os::windows::io::{AsRawHandle as _, BorrowedHandle, FromRawHandle as _, OwnedHandle},
    ptr,
};

use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS};

#[repr(C)]
struct UnicodeString {
    length: u16,
    maximum_length: u16,
    buffer: *const u16,
}

#[repr(C)]
struct ObjectAttributes {
    length: u32,
    root: HANDLE,
    name: *const UnicodeString,
    attributes: u32,
    descriptor: *const c_void,
    quality: *const c_void,
}

#[repr(C)]
struct DirectoryEntry {
    name: UnicodeString,
    kind: UnicodeString,
}

/// `PROCESS_BASIC_INFORMATION`.
#[repr(C)]
struct Basic {
    exit_status: usize,
    peb: usize,
    affinity: usize,
    priority: usize,
    pid: usize,
    parent: usize,
}

#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtSuspendProcess(process: HANDLE) -> NTSTATUS;
    fn NtResumeProcess(process: HANDLE) -> NTSTATUS;
    fn NtQueryInformationProcess(
        process: HANDLE,
        class: u32,
        into: *mut c_void,
        size: u32,
        written: *mut u32,
    ) -> NTSTATUS;
    fn NtOpenDirectoryObject(
        directory: *mut HANDLE,
        access: u32,
        attributes: *const ObjectAttributes,
    ) -> NTSTATUS;
    fn NtQueryDirectoryObject(
        directory: HANDLE,
        into: *mut c_void,
        size: u32,
        single: u8,
        restart: u8,
        context: *mut u32,
        written: *mut u32,
    ) -> NTSTATUS;
    fn RtlNtStatusToDosError(status: NTSTATUS) -> u32;
}

fn check(status: NTSTATUS) -> io::Result<()> {
    if status >= 0 {
        return Ok(());
    }
    // SAFETY: turns one number into another.
    Err(io::Error::from_raw_os_error(unsafe { RtlNtStatusToDosError(status) } as i32))
}

/// Suspends every thread of a process. Suspensions are counted, so a process that was suspended before
/// stays suspended after [`resume`].
pub(super) fn suspend(process: BorrowedHandle<'_>) -> io::Result<()> {
    // SAFETY: an open handle.
    check(unsafe { NtSuspendProcess(process.as_raw_handle()) })
}

/// Undoes one [`suspend`].
pub(super) fn resume(process: BorrowedHandle<'_>) -> io::Result<()> {
    // SAFETY: an open handle.
    check(unsafe { NtResumeProcess(process.as_raw_handle()) })
}

/// The pid of the parent at the time of the start. It may belong to another process by now.
pub(super) fn parent_of(process: BorrowedHandle<'_>) -> Option<u32> {
    const PROCESS_BASIC_INFORMATION: u32 = 0;
    // SAFETY: numbers only, for which zero is a value.
    let mut basic: Basic = unsafe { mem::zeroed() };
    // SAFETY: an open handle, and a structure of the given size.
    let status = unsafe {
        NtQueryInformationProcess(
            process.as_raw_handle(),
            PROCESS_BASIC_INFORMATION,
            (&raw mut basic).cast(),
            mem::size_of::<Basic>() as u32,
            ptr::null_mut(),
        )
    };
    check(status).ok().and_then(|()| u32::try_from(basic.parent).ok())
}

/// Opens a kernel directory of named objects.
pub(super) fn open_directory(path: &str) -> io::Result<OwnedHandle> {
    const DIRECTORY_QUERY: u32 = 1;
    let wide: Vec<u16> = path.encode_utf16().collect();
    let bytes = (wide.len() * 2) as u16;
    let name = UnicodeString { length: bytes, maximum_length: bytes, buffer: wide.as_ptr() };
    let attributes = ObjectAttributes {
        length: mem::size_of::<ObjectAttributes>() as u32,
        root: ptr::null_mut(),
        name: &raw const name,
        attributes: 0,
        descriptor: ptr::null(),
        quality: ptr::null(),
    };
    let mut directory = ptr::null_mut();
    // SAFETY: all pointers are valid during the call.
    check(unsafe {
        NtOpenDirectoryObject(&raw mut directory, DIRECTORY_QUERY, &raw const attributes)
    })?;
    // SAFETY: the call succeeded, so this is an open handle without another owner.
    Ok(unsafe { OwnedHandle::from_raw_handle(directory) })
}

/// The names in a kernel directory.
pub(super) fn names_in(directory: &OwnedHandle) -> io::Result<Vec<String>> {
    let (mut names, mut context, mut buffer) = (Vec::new(), 0, vec![0_u64; 1 << 10]);
    loop {
        // SAFETY: an open handle, and an aligned buffer of the given size.
        let status = unsafe {
            NtQueryDirectoryObject(
                directory.as_raw_handle(),
                buffer.as_mut_ptr().cast(),
                (buffer.len() * 8) as u32,
                1,
                u8::from(context == 0),
                &raw mut context,
                ptr::null_mut(),
            )
        };
        const NO_MORE_ENTRIES: NTSTATUS = 0x8000_001A_u32 as i32;
        if status == NO_MORE_ENTRIES {
            return Ok(names);
        }
        check(status)?;
        // SAFETY: the call wrote one entry, and its name follows it in the same buffer.
        let name = unsafe {
            let entry = &*buffer.as_ptr().cast::<DirectoryEntry>();
            std::slice::from_raw_parts(entry.name.buffer, usize::from(entry.name.length) / 2)
        };
        names.push(String::from_utf16_lossy(name));
    }
}
