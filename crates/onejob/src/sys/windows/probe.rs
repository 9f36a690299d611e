//! What this host gives.

use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};

use super::{handles::wide, job::JobObject};
use crate::{
    Accounting, Containment, Freeze, Guarantees, Kill, Mechanism, MechanismReport, OwnerDeath,
    Resources,
    job::{Enclosure, JobSpec},
};

/// Wine accepts limits and ignores them, and accounts for no time: it is promised less there.
pub(super) fn is_wine() -> bool {
    // SAFETY: every process has ntdll, and both names end with a NUL; nothing is called.
    unsafe {
        let ntdll = GetModuleHandleW(wide("ntdll.dll").as_ptr());
        !ntdll.is_null() && GetProcAddress(ntdll, c"wine_get_version".as_ptr().cast()).is_some()
    }
}

pub(crate) fn guarantees_of(mechanism: Mechanism, around: Enclosure) -> Guarantees {
    let (accounting, limits) = if is_wine() {
        (Accounting::None, Resources::NONE)
    } else {
        let all = Resources::MEMORY.with(Resources::CPU).with(Resources::PROCESSES);
        (Accounting::All, all.with(Resources::CPU_TIME).with(Resources::AFFINITY))
    };
    Guarantees {
        mechanism,
        containment: Containment::Tracked,
        // Enclosure ourselves there is no operation that spares us.
        kill: if around == Enclosure::Caller { Kill::Converging } else { Kill::Atomic },
        owner_death: OwnerDeath::Kernel,
        crosses_setuid: true,
        freeze: Freeze::Signals,
        cpu_accounting: accounting,
        memory_accounting: accounting,
        io_accounting: Accounting::None,
        limits,
    }
}

pub(crate) fn probe_mechanisms() -> Vec<MechanismReport> {
    let mechanism = Mechanism::JobObject;
    let spec = JobSpec::plain(Enclosure::None);
    let (guarantees, reason) = match JobObject::new(&spec) {
        Ok(_) if is_wine() => {
            (true, "Wine's Job Objects, without limits and accounting".to_owned())
        }
        Ok(_) => (true, "the kernel has Job Objects".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    let guarantees = guarantees.then(|| guarantees_of(mechanism, Enclosure::None));
    vec![MechanismReport { mechanism, guarantees, reason, remedy: None }]
}
