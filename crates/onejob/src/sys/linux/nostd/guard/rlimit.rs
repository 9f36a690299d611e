//! The resource limits of a guard. They are its owner's, which may be too small for it: a guard ends
//! a job of any size, and it is not what the owner wanted to limit. So it raises its own as far as it
//! may: without bound with `CAP_SYS_RESOURCE`, and up to the hard limit otherwise. What it starts
//! for the owner gets the owner's.

use super::super::{
    exec::Limit,
    syscall::{
        Errno, Result,
        raw::{nr, syscall},
    },
};

// Numbers of `getrlimit(2)`, the same on all systems that we know.
pub(crate) const CPU: u64 = 0;
pub(crate) const FSIZE: u64 = 1;
pub(crate) const DATA: u64 = 2;
pub(crate) const STACK: u64 = 3;
pub(crate) const NPROC: u64 = 6;
pub(crate) const NOFILE: u64 = 7;
pub(crate) const AS: u64 = 9;

pub(crate) const UNLIMITED: u64 = u64::MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What a guard raises.
struct Need {
    resource: u64,
    /// It needs no more than this: a limit of that size stays as it is.
    enough: u64,
    /// It cannot begin with less.
    least: u64,
}

#[rustfmt::skip]
const NEEDS: [Need; 6] = [
    Need { resource: CPU, enough: UNLIMITED, least: 0 },
    // Its program is written into a memory file. Where that fails the guard is a forked copy.
    Need { resource: FSIZE, enough: MIB, least: 0 },
    // The kernel ends a program without a word that has no room for its data.
    Need { resource: DATA, enough: 64 * MIB, least: 4 * MIB },
    Need { resource: STACK, enough: 8 * MIB, least: 96 * KIB },
    Need { resource: NOFILE, enough: MIB / 2, least: 0 },
    Need { resource: AS, enough: 64 * MIB, least: 8 * MIB },
];

/// Raises the limits of this process to what a guard needs, as far as may be. `Errno::NOMEM` if it
/// could not even begin with them.
pub(crate) fn raise() -> Result<()> {
    for need in &NEEDS {
        // A system that does not tell a limit is no reason to fail.
        let Ok([now, most]) = get(0, need.resource) else { continue };
        if now >= need.enough {
            continue;
        }
        let wanted = if need.resource == NOFILE { need.enough } else { UNLIMITED };
        let mut has = now;
        for values in [[wanted.max(most); 2], [most; 2]] {
            if set(need.resource, values).is_ok() {
                has = values[0];
                break;
            }
        }
        if has < need.least {
            return Err(Errno::NOMEM);
        }
    }
    Ok(())
}

/// Whether a guard has raised a limit that was this one of its owner's.
pub(crate) fn is_raised(limit: &Limit) -> bool {
    NEEDS.iter().any(|need| need.resource == limit.resource && limit.values[0] < need.enough)
}

/// The soft and the hard limit of a process, 0 being this one.
pub(crate) fn get(pid: i32, resource: u64) -> Result<[u64; 2]> {
    let mut values = [0_u64; 2];
    let at = values.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one rlimit pair.
    unsafe { syscall(nr::PRLIMIT64, [pid as usize, resource as usize, 0, at, 0, 0]) }?;
    Ok(values)
}

/// Sets a limit of this process alone, whatever memory it shares.
pub(crate) fn set(resource: u64, values: [u64; 2]) -> Result<()> {
    let at = values.as_ptr() as usize;
    // SAFETY: the kernel reads one rlimit pair.
    unsafe { syscall(nr::PRLIMIT64, [0, resource as usize, at, 0, 0, 0]) }.map(drop)
}
