//! The members of a job and what they use, from one listing.

use std::time::Duration;

use crate::{Process, Snapshot, sys::linux::nostd::procfs::Stat};

/// A member with its statistics, if they could be read.
pub(crate) type Listed = (Process, Option<Stat>);

/// The snapshot of these members. The CPU time is that of the live members except the caller, and of the
/// children that they have waited for.
pub(crate) fn of(listed: Vec<Listed>) -> Snapshot {
    let (ticks, pages) = listed
        .iter()
        .filter_map(|(process, stat)| Some((process, stat.as_ref()?)))
        .fold((0, 0), |(ticks, pages), (process, stat)| {
            let used = if process.is_caller { 0 } else { stat.user + stat.system };
            (ticks + used, pages + stat.resident)
        });
    let tick = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let states = |wanted: &'static [u8]| {
        move |(_, stat): &Listed| stat.as_ref().is_some_and(|stat| wanted.contains(&stat.state))
    };
    // A parent that waits for its stopped vfork child is in state D.
    let is_frozen = listed.iter().any(states(b"Tt")) && listed.iter().all(states(b"TtD"));
    Snapshot {
        cpu_time: Some(Duration::from_micros(ticks * tick)),
        resident_memory: Some(pages * rustix::param::page_size() as u64),
        is_frozen: is_frozen.then_some(true),
        processes: listed.into_iter().map(|(process, _)| process).collect(),
    }
}
