//! Memory from the kernel.

use core::{ptr::NonNull, slice};

use super::{
    errno::Result,
    raw::{nr, syscall},
};

/// New private memory, full of zeroes. Dropping it unmaps it.
pub(crate) struct Pages {
    at: NonNull<u64>,
    size: usize,
}

impl Pages {
    /// `size` bytes, aligned to a page.
    pub(crate) fn map(size: usize) -> Result<Pages> {
        const READ_WRITE: usize = 3;
        const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
        const NO_FILE: usize = usize::MAX;
        let args = [0, size, READ_WRITE, MAP_PRIVATE_ANONYMOUS, NO_FILE, 0];
        // SAFETY: the kernel chooses an address where nothing is mapped, which is not 0.
        let at =
            unsafe { syscall(nr::MMAP, args).map(|at| NonNull::new_unchecked(at as *mut u64)) };
        Ok(Pages { at: at?, size })
    }

    /// Returns the address and leaves the memory mapped.
    pub(crate) fn leak(self) -> *mut u8 {
        let at = self.at.as_ptr().cast();
        core::mem::forget(self);
        at
    }

    pub(crate) fn as_bytes(&mut self) -> &mut [u8] {
        // SAFETY: `at` points to `size` mapped bytes that only this owns.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr().cast(), self.size) }
    }

    pub(crate) fn as_words(&mut self) -> &mut [u64] {
        // SAFETY: `at` points to `size` mapped bytes that only this owns, aligned to a page.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr(), self.size / 8) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this owns the mapping, and nothing uses it after this.
        let _ = unsafe { syscall(nr::MUNMAP, [self.at.as_ptr() as usize, self.size, 0, 0, 0, 0]) };
    }
}
