//! `onejob exec`: another member of a running job.

use onejob::{Child, Job};

use super::{find, not_found};
use crate::{
    args,
    exit::Exit,
    failure::Failure,
    os::{self, ProcessGroup, SignalFilter, SignalQueue, Terminal, WaitEvent},
    output::warn,
};

pub(super) fn exec(args: &args::ExecArgs) -> Result<Exit, Failure> {
    let terminal = Terminal::in_foreground();
    os::reset_sigchld();
    let job = find::job(&args.job)?;
    // The guard starts CMD in its own session: this terminal signals onejob only.
    let in_other_session = job.guarantees().spawned_by_guard;
    if in_other_session && terminal.is_some() {
        warn("CMD runs in the session of the job's owner: Ctrl-C is forwarded, job control is not");
    }
    let signals = SignalQueue::new(SignalFilter::AllButJobControl)
        .map_err(|e| Failure::os("create a queue for signals", e))?;
    let mut child = os::spawn(&job, &args.command, ProcessGroup::Inherit, false)
        .map_err(|error| not_found::explain(error.into(), &args.command))?;
    loop {
        let event = os::wait_for(&child, &signals, &[], None)
            .map_err(|e| Failure::os("wait for the command", e))?;
        if let WaitEvent::First = event {
            break;
        }
        forward_signals(&signals, &job, &child, in_other_session);
    }
    let status = child.wait()?;
    if let Some(terminal) = terminal {
        terminal.restore(&job, status.code().is_none());
    }
    Ok(Exit::ChildStatus(status))
}

fn forward_signals(signals: &SignalQueue, job: &Job, child: &Child, in_other_session: bool) {
    while let Some(received) = signals.next() {
        let signal = received.signal;
        let sent = match in_other_session && received.is_from_terminal() {
            // To the process group, as the terminal does: a shell does not forward signals.
            true => os::signal_group(child, signal),
            false if received.is_for_child(job, child) => child.signal(signal),
            false => Ok(()),
        };
        if let Err(error) = sent {
            warn(format_args!("failed to forward {signal}: {error}"));
        }
    }
}
