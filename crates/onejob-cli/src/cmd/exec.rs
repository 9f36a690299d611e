//! `onejob exec`: another member of a job that runs already.

use onejob::{Job, Mechanism};

use crate::{
    args,
    exit::{Exit, Failure},
    os::{self, Event, Hearing, Place, Signals, Terminal},
    output::talk,
};

pub(crate) fn exec(args: &args::Exec) -> Exit {
    attend(args).unwrap_or_else(|failure| failure.report())
}

fn attend(args: &args::Exec) -> Result<Exit, Failure> {
    let terminal = Terminal::held();
    os::keep_statuses();
    let job = Job::open(&args.job)?;
    // A guard's child is in the guard's session: our terminal tells us alone.
    let is_apart = job.guarantees().mechanism == Mechanism::Subreaper;
    if is_apart && terminal.is_some() {
        talk("CMD runs in the session of the job's owner: Ctrl-C is passed on, job control is not");
    }
    let signals = Signals::listen(Hearing::ButStops).map_err(|e| Failure::os("hear signals", e))?;
    let mut child = os::start(&job, &args.command, Place::Beside, false)?;
    loop {
        let event = os::wait_for(&child, &signals, None, None)
            .map_err(|e| Failure::os("wait for the command", e))?;
        if let Event::First = event {
            break;
        }
        while let Some(received) = signals.next() {
            let signal = received.signal;
            let passed_on = match is_apart && received.is_from_terminal() {
                // As the terminal itself does: a shell in between passes nothing on.
                true => os::signal_group(&child, signal),
                false if received.is_for_cmd(&job, &child) => child.signal(signal),
                false => Ok(()),
            };
            if let Err(error) = passed_on {
                talk(format_args!("{signal} is not passed on: {error}"));
            }
        }
    }
    let status = child.wait()?;
    if let Some(terminal) = terminal {
        terminal.give_back(&job, status.code().is_none());
    }
    Ok(Exit::Like(status))
}
