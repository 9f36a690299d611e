//! What each mechanism promises, and whether it is to be had.

use super::{Job, MECHANISMS};
use crate::{
    Accounting, Containment, Error, Freeze, Guarantees, Kill, Mechanism, MechanismReport,
    OwnerDeath, Resources,
    job::{Enclosure, JobSpec, allows_next},
    sys::Mechanism as _,
};

/// What a job of this mechanism promises if it can be made.
pub(crate) fn guarantees_of(mechanism: Mechanism, around: Enclosure) -> Guarantees {
    let mut promised = promise_without_limits(mechanism, around);
    if mechanism == Mechanism::Cgroup {
        promised.limits = match around {
            Enclosure::None => super::job_root::possible_limits(),
            // Who has used it up is killed, and the caller is one of them.
            Enclosure::Caller => super::job_root::possible_limits().without(Resources::CPU_TIME),
        };
    }
    promised
}

/// The same without the limits: to find those out, the caller's cgroup is probed.
pub(super) fn promise_without_limits(mechanism: Mechanism, around: Enclosure) -> Guarantees {
    match mechanism {
        Mechanism::Cgroup => Guarantees {
            mechanism,
            containment: Containment::Tracked,
            kill: Kill::Atomic,
            owner_death: OwnerDeath::Guard,
            crosses_setuid: true,
            freeze: Freeze::Atomic,
            cpu_accounting: Accounting::All,
            memory_accounting: Accounting::None,
            io_accounting: Accounting::None,
            limits: Resources::NONE,
        },
        Mechanism::Subreaper => Guarantees {
            mechanism,
            containment: Containment::Tracked,
            kill: Kill::Converging,
            owner_death: match around {
                Enclosure::None => OwnerDeath::Guard,
                // The kernel ends a PID namespace with its first process.
                Enclosure::Caller if std::process::id() == 1 => OwnerDeath::Kernel,
                Enclosure::Caller => OwnerDeath::None,
            },
            crosses_setuid: super::privilege::crosses_users(),
            freeze: Freeze::Signals,
            cpu_accounting: match around {
                Enclosure::None => Accounting::Reaped,
                // What the caller's own code has waited for cannot be told from its other use.
                Enclosure::Caller => Accounting::Live,
            },
            memory_accounting: Accounting::None,
            io_accounting: Accounting::None,
            limits: Resources::NONE,
        },
        Mechanism::JobObject => unreachable!("{mechanism} is not on the ladder"),
    }
}

/// Makes an empty job of each and takes it down again. After an error with which a new job would fail,
/// the others are not tried.
pub(crate) fn probe_mechanisms() -> Vec<MechanismReport> {
    let spec = JobSpec::plain(Enclosure::None);
    let mut stopped_at = None;
    let probe = |mechanism: &Mechanism| match stopped_at
        .map_or_else(|| Job::new(*mechanism, &spec), |first| Err(not_tried(first)))
    {
        Ok(mut job) => {
            let mut guarantees = job.guarantees();
            let (reason, remedy) = match mechanism {
                Mechanism::Cgroup => cgroups(&mut guarantees),
                _ => subreaper(&guarantees),
            };
            job.close();
            MechanismReport { mechanism: *mechanism, guarantees: Some(guarantees), reason, remedy }
        }
        Err(error) => {
            if !allows_next(&error) {
                stopped_at = Some(*mechanism);
            }
            MechanismReport {
                mechanism: *mechanism,
                guarantees: None,
                remedy: error.hint().map(str::to_owned),
                reason: error.reason(),
            }
        }
    };
    MECHANISMS.iter().map(probe).collect()
}

fn not_tried(first: Mechanism) -> Error {
    Error::unsupported(format!("not tried, because a new job fails with the error of {first}"))
        .with_hint(format!("solve the problem of {first} first"))
}

/// Says how, and what limits are to be had if they are asked for.
fn cgroups(given: &mut Guarantees) -> (String, Option<String>) {
    let Ok(found) = super::job_root::available_limits() else {
        return ("we may make cgroups".to_owned(), None);
    };
    given.limits = found.limits;
    let how = match found.in_a_scope {
        true => "systemd makes a scope for us, and we make cgroups there",
        false => "we may make cgroups below our own",
    };
    let remedy = found.lacking.map(|error| format!("more limits: {error}"));
    (how.to_owned(), remedy)
}

fn subreaper(given: &Guarantees) -> (String, Option<String>) {
    if given.crosses_setuid {
        return ("needs no privilege; with CAP_KILL it reaches every user".to_owned(), None);
    }
    let remedy = "members that change their user are out of reach; cgroups reach them";
    ("needs no privilege".to_owned(), Some(remedy.to_owned()))
}
