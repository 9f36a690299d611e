//! The guarantees of this host.

use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};

use super::{super::Explanation, handles::wide};
use crate::{
    Accounting, Containment, Freeze, Guarantees, Kill, Mechanism, OwnerDeath, Resources,
    spec::Enclosure,
};

/// Wine accepts limits but ignores them, and does not account for CPU time: jobs have fewer guarantees
/// there.
pub(super) fn is_wine() -> bool {
    // SAFETY: every process has ntdll, and both names end with a NUL; nothing is called.
    unsafe {
        let ntdll = GetModuleHandleW(wide("ntdll.dll").as_ptr());
        !ntdll.is_null() && GetProcAddress(ntdll, c"wine_get_version".as_ptr().cast()).is_some()
    }
}

pub(super) fn guarantees_of(around: Enclosure) -> Guarantees {
    let (accounting, limits) = if is_wine() {
        (Accounting::None, Resources::NONE)
    } else {
        let all = Resources::MEMORY.with(Resources::CPU).with(Resources::PROCESSES);
        (Accounting::All, all.with(Resources::CPU_TIME).with(Resources::AFFINITY))
    };
    Guarantees {
        mechanism: Mechanism::JobObject,
        containment: Containment::Tracked,
        // If the caller is a member, no single operation kills all others but not the caller.
        kill: if around == Enclosure::Caller { Kill::Converging } else { Kill::Atomic },
        owner_death: OwnerDeath::Kernel,
        crosses_setuid: true,
        freeze: Freeze::Signals,
        cpu_accounting: accounting,
        memory_accounting: accounting,
        io_accounting: Accounting::None,
        limits,
        spawned_by_guard: false,
        reaps_orphans: false,
    }
}

pub(super) fn explain(_: &mut Guarantees) -> Explanation {
    let reason = match is_wine() {
        true => "Job Objects of Wine, without limits and accounting",
        false => "the kernel supports Job Objects",
    };
    Explanation { reason: reason.to_owned(), hint: None }
}
