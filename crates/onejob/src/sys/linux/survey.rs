//! What each mechanism promises, and whether it is to be had.

use super::{Job, LADDER};
use crate::{
    Accounting, Containment, Freeze, Guarantees, Kill, Mechanism, OwnerDeath, Resources, Rung,
    job::{Around, Spec},
    sys::Mechanism as _,
};

/// What a job of this mechanism promises if it can be made.
pub(crate) fn promise(mechanism: Mechanism, around: Around) -> Guarantees {
    match mechanism {
        Mechanism::Cgroup => Guarantees {
            mechanism,
            containment: Containment::Tracked,
            kill: Kill::Atomic,
            owner_death: OwnerDeath::Guard,
            crosses_setuid: true,
            freeze: Freeze::Atomic,
            cpu_accounting: Accounting::Everyone,
            memory_accounting: Accounting::None,
            io_accounting: Accounting::None,
            limits: match around {
                Around::Others => super::hierarchy::limits_here(),
                // Who has used it up is killed, and the caller is one of them.
                Around::Caller => super::hierarchy::limits_here().without(Resources::CPU_TIME),
            },
        },
        Mechanism::Subreaper => Guarantees {
            mechanism,
            containment: Containment::Tracked,
            kill: Kill::Converging,
            owner_death: match around {
                Around::Others => OwnerDeath::Guard,
                Around::Caller => OwnerDeath::None,
            },
            crosses_setuid: rustix::process::geteuid().is_root(),
            freeze: Freeze::Sweep,
            cpu_accounting: match around {
                Around::Others => Accounting::Waited,
                // What the caller's own code has waited for cannot be told from its other use.
                Around::Caller => Accounting::Living,
            },
            memory_accounting: Accounting::None,
            io_accounting: Accounting::None,
            limits: Resources::NONE,
        },
        Mechanism::JobObject => unreachable!("{mechanism} is not on the ladder"),
    }
}

/// Makes an empty job of each and takes it down again.
pub(crate) fn survey() -> Vec<Rung> {
    let spec = Spec::plain(Around::Others);
    let probe = |mechanism: &Mechanism| match Job::new(*mechanism, &spec) {
        Ok(mut job) => {
            let guarantees = job.guarantees();
            job.close();
            let (reason, remedy) = reason(*mechanism, &guarantees);
            Rung { mechanism: *mechanism, guarantees: Some(guarantees), reason, remedy }
        }
        Err(error) => Rung {
            mechanism: *mechanism,
            guarantees: None,
            remedy: error.remedy().map(str::to_owned),
            reason: error.reason(),
        },
    };
    LADDER.iter().map(probe).collect()
}

fn reason(mechanism: Mechanism, given: &Guarantees) -> (String, Option<String>) {
    match mechanism {
        Mechanism::Cgroup => ("we may make cgroups below our own".to_owned(), None),
        Mechanism::Subreaper if given.crosses_setuid => {
            ("needs no privilege; as root it reaches every user".to_owned(), None)
        }
        Mechanism::Subreaper => (
            "needs no privilege".to_owned(),
            Some("members that change their user are out of reach; cgroups reach them".to_owned()),
        ),
        Mechanism::JobObject => unreachable!("{mechanism} is not on the ladder"),
    }
}
