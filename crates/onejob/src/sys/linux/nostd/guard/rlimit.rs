//! The resource limits of a guard. It inherits those of its owner, which may be too low: a guard ends a job of any
//! size. So it raises its own limits: without bound with `CAP_SYS_RESOURCE`, otherwise up to the hard limit. The
//! processes that it starts for the owner get the limits of the owner.

use super::super::{
    exec::Limit,
    syscall::{
        Errno, RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_STACK,
        Result, UNLIMITED, get_rlimit, set_rlimit,
    },
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A resource that a guard needs.
struct Need {
    resource: u64,
    /// A limit of this size or more is not raised.
    enough: u64,
    /// A guard cannot start with less.
    least: u64,
}

#[rustfmt::skip]
const NEEDS: [Need; 6] = [
    Need { resource: RLIMIT_CPU, enough: UNLIMITED, least: 0 },
    // For the memory file of its program. If that cannot be written, the guard is a forked copy.
    Need { resource: RLIMIT_FSIZE, enough: MIB, least: 0 },
    // The kernel kills a program that has no room for its data, without an error.
    Need { resource: RLIMIT_DATA, enough: 64 * MIB, least: 4 * MIB },
    Need { resource: RLIMIT_STACK, enough: 8 * MIB, least: 96 * KIB },
    Need { resource: RLIMIT_NOFILE, enough: MIB / 2, least: 0 },
    Need { resource: RLIMIT_AS, enough: 64 * MIB, least: 8 * MIB },
];

/// Raises the limits of this process to the needs of a guard, as far as that is permitted. `Errno::NOMEM` if a
/// guard cannot start with the result.
pub(crate) fn raise() -> Result<()> {
    for need in &NEEDS {
        // If a limit cannot be read, the guard starts all the same.
        let Ok([now, most]) = get_rlimit(0, need.resource) else { continue };
        if now >= need.enough {
            continue;
        }
        let wanted = if need.resource == RLIMIT_NOFILE { need.enough } else { UNLIMITED };
        let mut has = now;
        for values in [[wanted.max(most); 2], [most; 2]] {
            if set_rlimit(need.resource, values).is_ok() {
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

/// Whether a guard raises a limit of its owner.
pub(crate) fn is_raised(limit: &Limit) -> bool {
    NEEDS.iter().any(|need| need.resource == limit.resource && limit.values[0] < need.enough)
}
