//! System calls by number, and a `clone` whose child starts on another stack.

use core::arch::asm;

use super::errno::{Errno, Result};

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(crate) mod nr {
    pub(crate) const READ: usize = 0;            pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;           pub(crate) const MMAP: usize = 9;
    pub(crate) const MUNMAP: usize = 11;         pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14; pub(crate) const IOCTL: usize = 16;
    pub(crate) const PREAD64: usize = 17;
    pub(crate) const GETPID: usize = 39;         pub(crate) const SENDMSG: usize = 46;
    pub(crate) const RECVMSG: usize = 47;        pub(crate) const CLONE: usize = 56;
    pub(crate) const EXECVE: usize = 59;         pub(crate) const FCNTL: usize = 72;
    pub(crate) const CHDIR: usize = 80;          pub(crate) const FCHDIR: usize = 81;
    pub(crate) const UNAME: usize = 63;
    pub(crate) const UMASK: usize = 95;          pub(crate) const GETRUSAGE: usize = 98;
    pub(crate) const GETUID: usize = 102;        pub(crate) const SETUID: usize = 105;
    pub(crate) const SETGID: usize = 106;        pub(crate) const SETPGID: usize = 109;
    pub(crate) const GETPGID: usize = 121;       pub(crate) const GETSID: usize = 124;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const SETGROUPS: usize = 116;     pub(crate) const PRCTL: usize = 157;
    pub(crate) const FLOCK: usize = 73;          pub(crate) const GETEUID: usize = 107;
    pub(crate) const STATX: usize = 332;
    pub(crate) const FGETXATTR: usize = 193;     pub(crate) const GETDENTS64: usize = 217;
    pub(crate) const SOCKET: usize = 41;         pub(crate) const CONNECT: usize = 42;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const CLOCK_GETTIME: usize = 228; pub(crate) const WAITID: usize = 247;
    pub(crate) const OPENAT: usize = 257;        pub(crate) const LSEEK: usize = 8;
    pub(crate) const FCHMOD: usize = 91;         pub(crate) const FCHMODAT: usize = 268;
    pub(crate) const UNLINKAT: usize = 263;      pub(crate) const READLINKAT: usize = 267;
    pub(crate) const PPOLL: usize = 271;         pub(crate) const SIGNALFD4: usize = 289;
    pub(crate) const DUP3: usize = 292;          pub(crate) const PRLIMIT64: usize = 302;
    pub(crate) const MEMFD_CREATE: usize = 319;  pub(crate) const EXECVEAT: usize = 322;
    pub(crate) const PERSONALITY: usize = 135;   pub(crate) const SCHED_SETAFFINITY: usize = 203;
    pub(crate) const IOPRIO_SET: usize = 251;    pub(crate) const IOPRIO_GET: usize = 252;
    pub(crate) const SCHED_SETATTR: usize = 314; pub(crate) const SCHED_GETATTR: usize = 315;
    pub(crate) const GET_ROBUST_LIST: usize = 274; pub(crate) const NANOSLEEP: usize = 35;
    pub(crate) const SCHED_GETAFFINITY: usize = 204;
}

#[cfg(target_arch = "aarch64")]
#[rustfmt::skip]
pub(crate) mod nr {
    pub(crate) const FGETXATTR: usize = 10;      pub(crate) const DUP3: usize = 24;
    pub(crate) const FCNTL: usize = 25;          pub(crate) const IOCTL: usize = 29;
    pub(crate) const FLOCK: usize = 32;          pub(crate) const GETEUID: usize = 175;
    pub(crate) const STATX: usize = 291;
    pub(crate) const UNLINKAT: usize = 35;       pub(crate) const CHDIR: usize = 49;
    pub(crate) const FCHDIR: usize = 50;         pub(crate) const OPENAT: usize = 56;
    pub(crate) const FCHMOD: usize = 52;         pub(crate) const FCHMODAT: usize = 53;
    pub(crate) const CLOSE: usize = 57;          pub(crate) const GETDENTS64: usize = 61;
    pub(crate) const LSEEK: usize = 62;
    pub(crate) const READ: usize = 63;           pub(crate) const WRITE: usize = 64;
    pub(crate) const PREAD64: usize = 67;
    pub(crate) const PPOLL: usize = 73;          pub(crate) const SIGNALFD4: usize = 74;
    pub(crate) const READLINKAT: usize = 78;     pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const WAITID: usize = 95;         pub(crate) const CLOCK_GETTIME: usize = 113;
    pub(crate) const RT_SIGACTION: usize = 134;  pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const SETGID: usize = 144;        pub(crate) const SETUID: usize = 146;
    pub(crate) const SETPGID: usize = 154;       pub(crate) const SETSID: usize = 157;
    pub(crate) const GETPGID: usize = 155;       pub(crate) const GETSID: usize = 156;
    pub(crate) const SETGROUPS: usize = 159;     pub(crate) const GETRUSAGE: usize = 165;
    pub(crate) const UMASK: usize = 166;         pub(crate) const PRCTL: usize = 167;
    pub(crate) const UNAME: usize = 160;
    pub(crate) const GETPID: usize = 172;
    pub(crate) const GETUID: usize = 174;        pub(crate) const SENDMSG: usize = 211;
    pub(crate) const RECVMSG: usize = 212;       pub(crate) const MUNMAP: usize = 215;
    pub(crate) const CLONE: usize = 220;         pub(crate) const EXECVE: usize = 221;
    pub(crate) const MMAP: usize = 222;          pub(crate) const PRLIMIT64: usize = 261;
    pub(crate) const SOCKET: usize = 198;        pub(crate) const CONNECT: usize = 203;
    pub(crate) const MEMFD_CREATE: usize = 279;  pub(crate) const EXECVEAT: usize = 281;
    pub(crate) const PERSONALITY: usize = 92;    pub(crate) const SCHED_SETAFFINITY: usize = 122;
    pub(crate) const IOPRIO_SET: usize = 30;     pub(crate) const IOPRIO_GET: usize = 31;
    pub(crate) const SCHED_SETATTR: usize = 274; pub(crate) const SCHED_GETATTR: usize = 275;
    pub(crate) const GET_ROBUST_LIST: usize = 100; pub(crate) const NANOSLEEP: usize = 101;
    pub(crate) const SCHED_GETAFFINITY: usize = 123;
}

// These numbers are the same on every architecture.
pub(crate) const PIDFD_SEND_SIGNAL: usize = 424;
pub(crate) const PIDFD_OPEN: usize = 434;
pub(crate) const CLONE3: usize = 435;
pub(crate) const CLOSE_RANGE: usize = 436;
pub(crate) const OPENAT2: usize = 437;

/// Makes a system call. A negative result is an error number.
///
/// # Safety
/// The arguments must be valid for the call. What the call does to the memory, the descriptors and the
/// threads of this process must not break what other code relies on.
#[inline]
pub(crate) unsafe fn syscall(number: usize, args: [usize; 6]) -> Result<usize> {
    let result: isize;
    let [a, b, c, d, e, f] = args;
    // SAFETY: the kernel preserves every register but the listed ones (syscall(2)). The caller guarantees
    // that the call itself is allowed.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
             in("rdx") c, in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _,
             options(nostack));
    }
    // SAFETY: the kernel preserves every register but the listed ones (syscall(2)). The caller guarantees
    // that the call itself is allowed.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b,
             in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    if result < 0 { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// The function that a new process runs on its own stack.
pub(crate) type Entry = unsafe extern "C" fn(*mut u8) -> !;

/// `clone` or `clone3` whose child starts on another stack, in `entry(data)`.
///
/// With `CLONE_VM` the child must not return into the parent's frames. So this is one piece of
/// assembly, which the child leaves by a call that does not return.
///
/// # Safety
/// `number` and `args` must be a clone call. Its stack must be unused, aligned to 16 bytes and large
/// enough for `entry`. `data` must be valid for `entry` as long as the child uses it.
pub(crate) unsafe fn clone_to(
    number: usize,
    args: [usize; 5],
    entry: Entry,
    data: *mut u8,
) -> Result<usize> {
    let result: isize;
    let [a, b, c, d, e] = args;
    // SAFETY: in the parent this is an ordinary system call. The child has the registers of the parent and
    // its own stack, which the caller has aligned as the calling convention requires before a call.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13",
             "ud2", "2:",
             inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r12") data, in("r13") entry,
             lateout("rcx") _, lateout("r11") _);
    }
    // SAFETY: in the parent this is an ordinary system call. The child has the registers of the parent and
    // its own stack, which the caller has aligned as the calling convention requires before a call.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x0, x9", "blr x10", "brk 1", "2:",
             in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
             in("x3") d, in("x4") e, in("x9") data, in("x10") entry);
    }
    if result < 0 { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}
