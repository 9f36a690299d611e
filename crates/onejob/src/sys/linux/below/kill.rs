//! Killing whatever is below a process.

use std::{os::fd::AsRawFd, time::Instant};

use super::{Children, Root, children, list};
use crate::{
    Error, Result,
    sys::linux::{
        PATIENCE,
        floor::{
            call::{self, Errno, POLLIN, PollFd},
            kill_tree::{KillTree, PidSet},
            proc::Proc,
            walk::{Frame, Walk},
        },
    },
};

/// Kills everybody below the root until `is_empty` says so.
pub(in crate::sys::linux) fn kill(
    proc: &Proc,
    root: Root<'_>,
    is_empty: &dyn Fn() -> Result<bool>,
) -> Result<()> {
    // What is given back is empty most often, and needs none of the memory below.
    if let Ok(Children::None) = children(proc, root) {
        return Ok(());
    }
    let me = std::process::id() as i32;
    let (mut arena, mut path) = (vec![0; 1 << 16], vec![Frame::EMPTY; 512]);
    let exclude = if root.pid == me { 0 } else { me };
    let start = Instant::now();
    let mut last_death = start;
    let mut fewest = usize::MAX;
    let mut refusals = 0;
    let mut met = vec![0; 1 << 16];
    let met: &mut PidSet = met.as_mut_slice().try_into().expect("of that size");
    let mut kill_tree = KillTree::new(met);
    loop {
        let mut walk = Walk { proc, arena: &mut arena, path: &mut path, exclude };
        let round = kill_tree.round(&mut walk, root.pid, root.pidfd.as_raw_fd());
        let round = match round {
            // The root has gone: whoever asks about emptiness knows what that means.
            Err(Errno::NOENT | Errno::SRCH) => return is_empty().map(drop),
            round => round.map_err(|e| Error::os("list the members of the job", e))?,
        };
        if round.seen == 0 && is_empty()? {
            return Ok(());
        }
        // A round among hundreds that all want the processor can take longer than our patience:
        // only what comes after it can show that nobody dies.
        if round.seen < fewest {
            fewest = round.seen;
            last_death = Instant::now();
        }
        refusals = if round.seen > 0 && round.seen == round.refused { refusals + 1 } else { 0 };
        if refusals > 2 || last_death.elapsed() > PATIENCE {
            let survivors = list(proc, root).map_err(|e| Error::os("list the survivors", e))?;
            return if survivors.is_empty() && is_empty()? {
                Ok(())
            } else {
                Err(Error::still_alive(survivors, start.elapsed()))
            };
        }
        let died = match &round.last {
            Some(last) => call::poll(&mut [PollFd::new(last.raw(), POLLIN)], 50) == 1,
            // Nobody was left to kill, but not all are reaped, or somebody is on the move.
            None => {
                call::poll(&mut [], 1);
                false
            }
        };
        if died {
            last_death = Instant::now();
        }
    }
}
