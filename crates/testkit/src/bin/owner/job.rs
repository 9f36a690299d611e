//! Requests about one job, and the words from which jobs and commands are made.

use std::{process, time::Duration};

use onejob::{Command, Error, Job, JobBuilder, Limits, ProcessId, Signal, Stdio};
use testkit::Reply as Answer;

/// Requests about the job itself.
pub(crate) fn act(job: &Job, request: &str, args: &[&str]) -> Answer {
    let arg = || args.first().copied().ok_or("an argument is missing");
    let number = || arg()?.parse::<u64>().map_err(|error| error.to_string());
    let millis = || Ok::<_, String>(Duration::from_millis(number()?));
    let nothing = |()| String::new();
    match request {
        "list" => reply(job.processes()).map(|all| pids(&all)),
        "pids" => reply(job.pids()).map(words),
        "tree" => reply(job.tree()).map(|tree| tree.to_string()),
        "empty" => reply(job.is_empty()).map(|empty| empty.to_string()),
        "wait" => reply(job.wait()).map(nothing),
        "wait-timeout" => reply(job.wait_timeout(millis()?)).map(|empty| empty.to_string()),
        "stop" => reply(job.stop(millis()?)).map(|report| format!("{report:?}")),
        "kill" => reply(job.kill()).map(|report| format!("{report:?}")),
        "freeze" => reply(job.freeze()).map(nothing),
        "thaw" => reply(job.thaw()).map(nothing),
        "signal" => {
            let signal: Signal = reply(arg()?.parse())?;
            reply(job.signal(signal)).map(|reached| reached.to_string())
        }
        "adopt" => {
            let pid = u32::try_from(number()?).map_err(|error| error.to_string())?;
            reply(ProcessId::of(pid).and_then(|id| job.adopt(&id))).map(nothing)
        }
        "stats" => reply(job.stats()).map(|stats| format!("{stats:?}")),
        "limit" => reply(job.set_limits(&limits(args)?)).map(nothing),
        "limits" => reply(job.limits()).map(|limits| format!("{limits:?}")),
        "guarantees" => Ok(job.guarantees().to_string()),
        "id" => Ok(job.id().unwrap_or("-").to_owned()),
        "name" => Ok(job.name().unwrap_or("-").to_owned()),
        "note" => reply(job.note()).map(|note| note.unwrap_or_else(|| "-".to_owned())),
        "set-note" => reply(job.set_note(&args.join(" "))).map(nothing),
        "over" => {
            let timeout = if args.is_empty() { None } else { Some(millis()?) };
            reply(job.wait_closed(timeout)).map(|over| over.to_string())
        }
        _ => Err(format!("unknown request {request:?}")),
    }
}

/// A builder from `[MECHANISM] [name=NAME] [listed] [note=NOTE]`.
pub(crate) fn builder(args: &[&str]) -> Result<JobBuilder, String> {
    let mut builder = Job::builder();
    for word in args {
        builder = match word.split_once('=') {
            Some(("name", name)) => builder.name(name),
            Some(("note", note)) => builder.note(note),
            _ if *word == "listed" => builder.listed(),
            _ => builder.mechanism(reply(word.parse())?),
        };
    }
    Ok(builder)
}

/// A member's command from `PROGRAM ARGS…`.
pub(crate) fn command(words: &[&str]) -> Result<Command, String> {
    let (program, args) = words.split_first().ok_or("nothing to start")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// A command of std from `PROGRAM ARGS…`.
pub(crate) fn std_command(words: &[&str]) -> Result<process::Command, String> {
    let (program, args) = words.split_first().ok_or("nothing to start")?;
    let mut command = process::Command::new(program);
    command.args(args).stdin(process::Stdio::null()).stdout(process::Stdio::null());
    Ok(command)
}

/// Limits from `cpu-time=MS`, `affinity=MASK`, `processes=N`.
fn limits(args: &[&str]) -> Result<Limits, String> {
    args.iter().try_fold(Limits::new(), |limits, word| {
        let (kind, value) = word.split_once('=').ok_or("KIND=VALUE")?;
        let value: u64 = value.parse().map_err(|_| "not a number")?;
        Ok(match kind {
            "cpu-time" => limits.cpu_time_max(Duration::from_millis(value)),
            "affinity" => limits.affinity(value),
            "processes" => limits.processes_max(value as u32),
            _ => return Err(format!("unknown limit {kind:?}")),
        })
    })
}

fn pids(processes: &[onejob::Process]) -> String {
    words(processes.iter().map(onejob::Process::pid))
}

fn words(pids: impl IntoIterator<Item = u32>) -> String {
    pids.into_iter().map(|pid| pid.to_string()).collect::<Vec<_>>().join(" ")
}

/// An error as `survivors PID…: MESSAGE`, or as its kinds and the message.
pub(crate) fn reply<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| {
        if !error.survivors().is_empty() {
            return format!("survivors {}: {error}", pids(error.survivors()));
        }
        let kinds = [
            ("unsupported", error.is_unsupported()),
            ("permission", error.is_permission_denied()),
            ("not-found", error.is_not_found()),
            ("invalid", error.is_invalid_input()),
            ("unmet", error.is_unmet_requirement()),
            ("stale", error.is_stale()),
            ("exec", error.is_exec()),
            ("taken", error.is_name_taken()),
        ];
        let kinds = kinds.iter().filter(|(_, is)| *is).map(|(kind, _)| *kind);
        format!("{}: {error}", kinds.collect::<Vec<_>>().join(","))
    })
}
