//! The guard program: freestanding, statically linked, a few kilobytes. Its functions are in `nostd`,
//! which it shares with the library; this file only contains the start and the end of a program
//! without a C library.
//!
//! The build script of the library compiles it, and the library contains the binary.

#![no_std]
#![no_main]

#[path = "../src/sys/linux/nostd/mod.rs"]
mod nostd;

#[cfg(target_arch = "x86_64")]
use core::arch::asm;
use core::{arch::global_asm, ffi::CStr};

use nostd::guard::{GuardTask, Memory, run};

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call {}", "ud2", sym start);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x0, sp", "and sp, x0, #-16", "bl {}", "brk 1", sym start);

/// `stack` points to the initial stack: the number of arguments, then their addresses.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    static mut MEMORY: Memory = Memory::NEW;
    // SAFETY: the kernel puts the number of arguments at `stack` and their addresses behind it (execve(2)). Every
    // argument is a text that ends with NUL and stays there.
    let argument = |number: usize| unsafe {
        if number < *stack { CStr::from_ptr(*stack.add(1 + number) as *const _) } else { c"" }
    };
    let task = GuardTask::new([argument(1), argument(2), argument(3), argument(4), argument(5)]);
    // SAFETY: the library starts this program with the descriptors of a guard, and it has one thread. This runs once, so
    // there is no other reference to the memory.
    unsafe { run(task, &mut *(&raw mut MEMORY)) }
}

/// `nostd` has no reachable panic. If there is one, the process exits instead of spinning.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    nostd::syscall::exit(70)
}

// The compiler calls these functions by name, and there is no C library that provides them. Plain
// byte loops would be compiled into calls of the same functions, hence the volatile accesses.

#[unsafe(no_mangle)]
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller guarantees that both have `len` bytes. The direction flag is
    // clear in every function.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller guarantees that it has `len` bytes. The direction flag is
    // clear in every function.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
             options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for at in 0..len {
        // SAFETY: the caller guarantees that both have `len` bytes.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}

#[unsafe(no_mangle)]
#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    for at in 0..len {
        // SAFETY: the caller guarantees that it has `len` bytes.
        unsafe { to.add(at).write_volatile(byte as u8) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    for at in 0..len {
        // SAFETY: the caller guarantees that both have `len` bytes.
        let (a, b) = unsafe { (left.add(at).read_volatile(), right.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the caller guarantees that both have `len` bytes.
    unsafe { memcmp(left, right, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller guarantees that the text ends with a NUL.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}
