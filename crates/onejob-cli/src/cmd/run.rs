//! `onejob run`: CMD in the foreground, and no process of it left behind.

use std::time::Instant;

use onejob::{Job, StopReason};

use super::{
    detach::{self, StartReport},
    not_found, stats,
};
use crate::{
    args,
    exit::Exit,
    failure::Failure,
    note::Note,
    os::{self, DaemonSide, Lifeline, ProcessGroup},
    output, shell_words,
    supervise::{LeftoverPolicy, Options, Outcome, Setup, SignalMode},
};

pub(super) fn run(args: &args::RunArgs) -> Result<Exit, Failure> {
    // First of all: a file that onejob opens could get the number of the descriptor, and a daemon has
    // another parent.
    let lifelines = args.lifelines.take()?;
    if !args.detach {
        return supervise(args, lifelines, &mut StartReport::none());
    }
    match os::daemonize().map_err(|e| Failure::os("start a daemon", e))? {
        DaemonSide::Parent(report) => detach::relay(report),
        DaemonSide::Daemon(pipe) => {
            let mut report = StartReport::to(pipe);
            supervise(args, lifelines, &mut report).or_else(|failure| {
                match report.failed(&failure) {
                    true => Ok(failure.exit()),
                    false => Err(failure),
                }
            })
        }
    }
}

/// Runs CMD and supervises it until its job can be closed.
fn supervise(
    args: &args::RunArgs,
    lifelines: Vec<Lifeline>,
    report: &mut StartReport,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let setup = Setup::new(Options {
        command: &args.command,
        process_group: ProcessGroup::Inherit,
        mode: SignalMode::Transparent,
        timeout: args.timeout,
        stop: args.stop,
        leftovers: match (args.keep, args.wait_all) {
            (true, _) => LeftoverPolicy::Keep,
            (_, true) => LeftoverPolicy::Wait,
            _ => LeftoverPolicy::Stop,
        },
        lifelines,
    })?;
    let mut note = Note::new(&args.command);
    note.set_end(!args.keep && !args.wait_all, args.timeout);
    let job = create_job(args, &note)?;
    let log = report.open_log(&job)?;
    let mut supervisor =
        setup.start(job).map_err(|failure| not_found::explain(failure, &args.command))?;

    note.pid = Some(supervisor.child().pid());
    note.log = log.as_ref().map(|log| log.display().to_string());
    note.attach(supervisor.job());
    report.started(supervisor.job(), log.as_ref());

    let ended = supervisor.supervise();
    let reason = supervisor.job().limit_reached().unwrap_or_else(|error| {
        output::error(error);
        None
    });
    stats::print_limit_reason(reason);
    let ended = ended.map(|outcome| end_of(outcome, reason));
    note.status = ended.as_ref().ok().map(|(exit, _)| exit.code());
    note.attach(supervisor.job());
    if let Some(format) = args.stats {
        let reason = ended.as_ref().map_or(reason, |(_, reason)| *reason);
        stats::print_at_end(supervisor.job(), format, started, reason);
    }
    let (exit, _) = ended?;
    // After a time limit the job is dropped, which kills the remaining members even with --keep.
    if exit != Exit::TimedOut {
        supervisor.close()?;
    }
    Ok(exit)
}

fn create_job(args: &args::RunArgs, note: &Note) -> Result<Job, Failure> {
    let mut builder = Job::builder().listed().note(note.to_json());
    if let Some(name) = &args.name {
        builder = builder.name(name);
    }
    if let Some(mechanism) = args.mechanism {
        builder = builder.mechanism(mechanism);
    }
    for requirement in &args.require {
        builder = builder.require(*requirement);
    }
    if args.stats.is_some() {
        builder = builder.accounting();
    }
    let is_general = |hint: &str| hint.starts_with("use another name");
    builder.limits(args.limits.limits()).build().map_err(|error| match &args.name {
        // Another hint of the library is about a dead owner.
        Some(name) if error.is_name_taken() && error.hint().is_none_or(is_general) => {
            let stop = shell_words::line(["onejob", "kill", name]);
            Failure::from(error)
                .with_hint(format!("use another name, or stop that job first: {stop}"))
        }
        _ => error.into(),
    })
}

/// The exit status, and the reason for the statistics.
fn end_of(outcome: Outcome, reason: Option<StopReason>) -> (Exit, Option<StopReason>) {
    let is_timeout = outcome.timed_out && matches!(reason, None | Some(StopReason::Processes));
    let reason = if is_timeout { Some(StopReason::Timeout) } else { reason };
    let exit = match outcome.status {
        _ if outcome.timed_out || reason == Some(StopReason::CpuTime) => Exit::TimedOut,
        _ if outcome.lifeline_lost => Exit::LifelineLost,
        Some(status) => Exit::ChildStatus(status),
        None => Exit::InternalError,
    };
    (exit, reason)
}
