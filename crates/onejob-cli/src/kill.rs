//! `onejob kill`: the ladder on the tree below any process.

use std::{thread, time::Duration};

use onejob::{ProcessId, Result, stop_tree};

use crate::{args, exit::Exit, output::talk};

pub(crate) fn kill(args: &args::Kill) -> Exit {
    let grace = if args.now { Duration::ZERO } else { args.ladder.grace };
    let stop = |root: &ProcessId| stop_tree(root, args.ladder.signal, grace);
    // All are identified before the first is signalled: the numbers mean who has them now.
    let roots: Vec<_> = args.pids.iter().map(|pid| (*pid, ProcessId::of(*pid))).collect();
    let ended = |(pid, root): &(u32, Result<ProcessId>)| match root {
        Ok(root) => match stop(root) {
            // It ended by itself, or with another tree that was named.
            Err(error) if error.is_stale() => true,
            result => report(*pid, result.map(drop)),
        },
        Err(error) => {
            talk(format_args!("{pid}: {error}"));
            false
        }
    };
    let all_ended = match &roots[..] {
        [one] => ended(one),
        // Side by side, or each would wait for the grace period of those before it.
        several => thread::scope(|scope| {
            let threads: Vec<_> =
                several.iter().map(|root| scope.spawn(move || ended(root))).collect();
            threads.into_iter().all(|thread| thread.join().unwrap_or(false))
        }),
    };
    if all_ended { Exit::Success } else { Exit::Failed }
}

fn report(pid: u32, result: Result<()>) -> bool {
    if let Err(error) = &result {
        talk(format_args!("{pid}: {error}"));
    }
    result.is_ok()
}
