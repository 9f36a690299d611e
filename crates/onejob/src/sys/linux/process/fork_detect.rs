//! Telling the process that made a job from its forked copies.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::{Error, Result};

/// A number for this process that no forked copy of it has.
///
/// A pid would not do: a copy in a new PID namespace can have its owner's number. This is kept in a
/// page that the kernel wipes in every forked child (`MADV_WIPEONFORK`, Linux 4.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessToken(u64);

impl ProcessToken {
    pub(crate) fn current() -> Result<ProcessToken> {
        let page = page().map_err(|e| Error::os("mark this process apart from its copies", e))?;
        let known = page.load(Ordering::Acquire);
        if known != 0 {
            return Ok(ProcessToken(known));
        }
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Error::os("get a random number", e))?;
        let fresh = u64::from_ne_bytes(bytes).max(1);
        // Another thread may have been first; its number stands.
        let stands = page.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire);
        Ok(ProcessToken(stands.err().unwrap_or(fresh)))
    }

    pub(crate) fn is_current(&self) -> bool {
        page().is_ok_and(|page| page.load(Ordering::Acquire) == self.0)
    }
}

fn page() -> io::Result<&'static AtomicU64> {
    static PAGE: OnceLock<usize> = OnceLock::new();
    let at = match PAGE.get() {
        Some(at) => *at,
        None => {
            let made = map_page()?;
            *PAGE.get_or_init(|| made)
        }
    };
    // SAFETY: the page is mapped for good, readable, writable and aligned; all zeroes are a number.
    Ok(unsafe { &*(at as *const AtomicU64) })
}

fn map_page() -> io::Result<usize> {
    let size = rustix::param::page_size();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice disturbs nobody, and
    // the advice concerns just that mapping.
    unsafe {
        let at = mmap_anonymous(std::ptr::null_mut(), size, protection, MapFlags::PRIVATE)?;
        madvise(at, size, Advice::LinuxWipeOnFork)?;
        Ok(at as usize)
    }
}
