//! Named memory, shared by processes.

use std::{
    io,
    os::windows::io::{AsRawHandle as _, OwnedHandle},
    ptr::{self, NonNull},
};

use windows_sys::Win32::{
    Foundation::{ERROR_ALREADY_EXISTS, GetLastError, INVALID_HANDLE_VALUE},
    System::Memory::{
        CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, MEMORY_MAPPED_VIEW_ADDRESS,
        MapViewOfFile, OpenFileMappingW, PAGE_READWRITE, UnmapViewOfFile,
    },
};

use super::handles::{owned, wide};

/// The access rights of a mapping.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Read,
    Write,
}

impl Access {
    fn bits(self) -> u32 {
        match self {
            Access::Read => FILE_MAP_READ,
            Access::Write => FILE_MAP_READ | FILE_MAP_WRITE,
        }
    }
}

pub(super) struct Memory {
    at: NonNull<u8>,
    _object: OwnedHandle,
}

// SAFETY: other processes map the memory, too, and all code accesses it accordingly.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// New zeroed memory; without a name, no other process can open it.
    pub(super) fn create(name: Option<&str>, size: usize) -> io::Result<Memory> {
        let name = name.map(wide);
        let name = name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        // SAFETY: memory without a file; no attributes, so no child inherits the handle; the name ends
        // with a NUL.
        let (object, code) = unsafe {
            let (none, size) = (INVALID_HANDLE_VALUE, size as u32);
            let object = CreateFileMappingW(none, ptr::null(), PAGE_READWRITE, 0, size, name);
            (object, GetLastError())
        };
        let object = owned(object)?;
        if code == ERROR_ALREADY_EXISTS {
            return Err(io::Error::from_raw_os_error(code as i32));
        }
        Memory::map(object, Access::Write, size)
    }

    pub(super) fn open(name: &str, access: Access, size: usize) -> io::Result<Memory> {
        let name = wide(name);
        // SAFETY: the name ends with a NUL; no child inherits the handle.
        let object = owned(unsafe { OpenFileMappingW(access.bits(), 0, name.as_ptr()) })?;
        Memory::map(object, access, size)
    }

    fn map(object: OwnedHandle, access: Access, size: usize) -> io::Result<Memory> {
        // SAFETY: an open handle; the call fails if the object is smaller than `size`.
        let at = unsafe { MapViewOfFile(object.as_raw_handle(), access.bits(), 0, 0, size) }.Value;
        let at = NonNull::new(at.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Memory { at, _object: object })
    }

    /// Its start, which is page-aligned; valid as long as `self` exists.
    pub(super) fn at(&self) -> NonNull<u8> {
        self.at
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by this process, and nothing borrows it any more.
        unsafe { UnmapViewOfFile(MEMORY_MAPPED_VIEW_ADDRESS { Value: self.at.as_ptr().cast() }) };
    }
}
