//! The allocator of a build with musl.

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::{Mutex, MutexGuard, PoisonError},
};

use dlmalloc::Dlmalloc;

/// dlmalloc under a lock that costs next to nothing when it is free, as it nearly always is: the one
/// that comes with it is musl's, and takes longer than most allocations.
pub(crate) struct Allocator(Mutex<Dlmalloc>);

impl Allocator {
    pub(crate) const fn new() -> Allocator {
        Allocator(Mutex::new(Dlmalloc::new()))
    }

    fn heap(&self) -> MutexGuard<'_, Dlmalloc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: each method is dlmalloc's of the same contract, and a lock keeps one thread at a time in
// there. The lock allocates nothing, and nothing below it panics or comes back here.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.heap().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.heap().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.heap().free(at, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.heap().realloc(at, layout.size(), layout.align(), size) }
    }
}
