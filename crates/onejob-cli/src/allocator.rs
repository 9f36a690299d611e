//! The allocator of a build with musl.

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::{Mutex, MutexGuard, PoisonError},
};

use dlmalloc::Dlmalloc;

/// dlmalloc behind std's mutex. dlmalloc's own lock is musl's, which takes longer than most
/// allocations; std's costs one atomic operation when it is free.
pub(crate) struct Allocator(Mutex<Dlmalloc>);

impl Allocator {
    pub(crate) const fn new() -> Allocator {
        Allocator(Mutex::new(Dlmalloc::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Dlmalloc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: each method forwards to dlmalloc's method with the same contract, and the mutex lets one
// thread in at a time. The mutex allocates nothing, and dlmalloc neither panics nor calls back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps GlobalAlloc's contract, which is dlmalloc's.
        unsafe { self.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps GlobalAlloc's contract, which is dlmalloc's.
        unsafe { self.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout, as GlobalAlloc requires.
        unsafe { self.lock().free(block, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the block came from `alloc` with this layout, as GlobalAlloc requires.
        unsafe { self.lock().realloc(block, layout.size(), layout.align(), size) }
    }
}
