//! What the Cgroup mechanism guarantees.

use crate::{
    Accounting, Containment, Freeze, Guarantees, Kill, Mechanism, OwnerDeath, Resources,
    spec::Enclosure,
    sys::{
        Explanation,
        linux::cgroup::{probe, root::JobRoot},
    },
};

/// The guarantees of a job that could be made.
pub(super) fn expected(around: Enclosure) -> Guarantees {
    let limits = probe::expected_limits().without(impossible_limits(around));
    Guarantees { limits, ..without_limits() }
}

/// A job whose CPU time is used up is killed, and the caller of an enclosed job is one of its members.
fn impossible_limits(around: Enclosure) -> Resources {
    match around {
        Enclosure::None => Resources::NONE,
        Enclosure::Caller => Resources::CPU_TIME,
    }
}

/// The guarantees of every Cgroup job. Limits depend on where the job is.
pub(super) fn without_limits() -> Guarantees {
    Guarantees {
        mechanism: Mechanism::Cgroup,
        containment: Containment::Tracked,
        kill: Kill::Atomic,
        owner_death: OwnerDeath::Guard,
        crosses_setuid: true,
        freeze: Freeze::Atomic,
        cpu_accounting: Accounting::All,
        memory_accounting: Accounting::None,
        io_accounting: Accounting::None,
        limits: Resources::NONE,
        spawned_by_guard: false,
        reaps_orphans: false,
    }
}

/// Where jobs are made on this host, and which limits they can have.
pub(super) fn explain(given: &mut Guarantees) -> Explanation {
    let Ok(probed) = probe::probe() else {
        return Explanation { reason: "this process may create cgroups".to_owned(), hint: None };
    };
    given.limits = probed.limits;
    let reason = match probed.is_in_scope {
        true => "systemd makes a scope for this user, and jobs are cgroups in it",
        false => "this process may create cgroups below its own",
    };
    let hint = probed.refusal.map(|error| format!("more limits: {error}"));
    Explanation { reason: reason.to_owned(), hint }
}

/// The guarantees of an existing job. `is_out_of_reach`: this process may no longer use its cgroups.
pub(super) fn of_job(around: Enclosure, root: &JobRoot, is_out_of_reach: bool) -> Guarantees {
    let mut promised = without_limits();
    if !root.guards().any_alive() {
        promised.owner_death = OwnerDeath::None;
    }
    promised.limits = root.limits().without(impossible_limits(around));
    if root.has_enabled("memory") {
        promised.memory_accounting = Accounting::All;
    }
    if root.has_enabled("io") {
        promised.io_accounting = Accounting::All;
    }
    let is_guard_serving = root.guards().is_serving();
    if !is_guard_serving {
        promised.limits = promised.limits.without(Resources::CPU_TIME);
    }
    if is_out_of_reach {
        promised.freeze = Freeze::None;
        promised.limits = Resources::NONE;
        promised.cpu_accounting = Accounting::None;
        promised.memory_accounting = Accounting::None;
        promised.io_accounting = Accounting::None;
        if !is_guard_serving {
            promised.kill = Kill::BestEffort;
            promised.crosses_setuid = false;
        }
    }
    promised
}
