//! Killing whatever is below a process.

use std::time::{Duration, Instant};

use super::{Children, Root, WalkMemory, children, list};
use crate::{
    Error, Result,
    sys::linux::{
        deadline::KILL_TIMEOUT,
        nostd::{
            kill_tree::{KillTree, PidSet, Round},
            procfs::Proc,
            syscall::{self, Errno, POLLIN, PollFd},
        },
    },
    trace::event,
};

/// Kills everybody below the root until `is_empty` says so.
pub(crate) fn kill(proc: &Proc, root: Root<'_>, is_empty: &dyn Fn() -> Result<bool>) -> Result<()> {
    // What is given back is empty most often, and needs none of the memory below.
    if let Ok(Children::None) = children(proc, root) {
        return Ok(());
    }
    let mut memory = WalkMemory::new();
    let start = Instant::now();
    let mut progress = Progress::new();
    let mut met = vec![0; 1 << 16];
    let met: &mut PidSet = met.as_mut_slice().try_into().expect("of that size");
    let mut kill_tree = KillTree::new(met);
    loop {
        let mut walk = memory.walk(proc, root);
        let round = kill_tree.round(&mut walk, root.pid, root.pidfd.into());
        let round = match round {
            // The root has gone: whoever asks about emptiness knows what that means.
            Err(Errno::NOENT | Errno::SRCH) => return is_empty().map(drop),
            round => round.map_err(|e| Error::os("list the members of the job", e))?,
        };
        let after_round = Instant::now();
        if round.seen == 0 && is_empty()? {
            return Ok(());
        }
        event!(
            trace,
            "kill round below a process",
            root = root.pid,
            seen = round.seen,
            refused = round.refused,
        );
        progress.count(&round);
        if progress.has_stopped() {
            let survivors = list(proc, root).map_err(|e| Error::os("list the survivors", e))?;
            return if survivors.is_empty() && is_empty()? {
                Ok(())
            } else {
                Err(Error::still_alive(survivors, start.elapsed()))
            };
        }
        let died = match &round.last {
            Some(last) => syscall::poll(&mut [PollFd::new(last, POLLIN)], 50) == 1,
            // Nothing was left to kill, but not all are reaped, or one is on the move.
            None => {
                syscall::poll(&mut [], 1);
                false
            }
        };
        progress.idle = if died { Duration::ZERO } else { progress.idle + after_round.elapsed() };
    }
}

/// Whether rounds still bring the end nearer.
struct Progress {
    /// How long was waited between rounds in which no process died. The rounds themselves do not count:
    /// one among hundreds of processes that want the processor can take longer than any patience.
    idle: Duration,
    /// The fewest living processes that a round met, …
    fewest: usize,
    /// … when that was, and how many rounds have met no fewer since.
    fewest_at: Instant,
    rounds_since: u32,
    /// How many rounds in a row were refused by all they met.
    refusals: u32,
}

impl Progress {
    /// How long processes may be started as fast as they are killed.
    const CONVERGING: Duration = Duration::from_secs(60);

    fn new() -> Progress {
        let (idle, fewest_at) = (Duration::ZERO, Instant::now());
        Progress { idle, fewest: usize::MAX, fewest_at, rounds_since: 0, refusals: 0 }
    }

    fn count(&mut self, round: &Round) {
        self.rounds_since += 1;
        if round.seen < self.fewest {
            *self = Progress { fewest: round.seen, refusals: self.refusals, ..Progress::new() };
        }
        let is_refused = round.seen > 0 && round.seen == round.refused;
        self.refusals = if is_refused { self.refusals + 1 } else { 0 };
    }

    fn has_stopped(&self) -> bool {
        const FEW: u32 = 3;
        let is_outrun = self.rounds_since > FEW && self.fewest_at.elapsed() > Progress::CONVERGING;
        self.refusals >= FEW || self.idle > KILL_TIMEOUT || is_outrun
    }
}
