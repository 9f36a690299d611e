//! Which limits new jobs in cgroups can have.

use super::{controllers, delegation::ParentCgroup, location::CgroupLocation, root::JobRoot};
use crate::{Error, Resources, Result, spec::Enclosure};

/// The limits that jobs can perhaps have. Whether systemd makes a scope, and with which controllers,
/// shows only when it is requested.
pub(crate) fn expected_limits() -> Resources {
    let Ok(location) = CgroupLocation::current() else { return Resources::NONE };
    let own = ParentCgroup::current(&location).map_or(Resources::NONE, |own| own.limits());
    if location.is_in_a_job() { own } else { controllers::ALL }
}

/// The result of [`probe`].
pub(crate) struct ProbedLimits {
    pub(crate) limits: Resources,
    /// Whether jobs without limits are made in a systemd scope, too.
    pub(crate) is_in_scope: bool,
    /// Why some resources cannot be limited.
    pub(crate) refusal: Option<Error>,
}

/// Finds out which limits jobs can have by making job roots.
pub(crate) fn probe() -> Result<ProbedLimits> {
    let plain = JobRoot::current(Resources::NONE, Enclosure::None)?;
    let is_in_scope = plain.remote.is_some();
    let mut found = ProbedLimits { limits: plain.limits(), is_in_scope, refusal: None };
    for wanted in [Resources::MEMORY, Resources::CPU, Resources::PROCESSES] {
        if !found.limits.contains(wanted) {
            match JobRoot::current(wanted, Enclosure::None) {
                Ok(root) => found.limits = found.limits.with(root.limits()),
                Err(error) => {
                    // The other controllers would be missing, too, and a service manager that did not
                    // reply once is not requested again.
                    found.refusal = Some(error);
                    break;
                }
            }
        }
    }
    Ok(found)
}
