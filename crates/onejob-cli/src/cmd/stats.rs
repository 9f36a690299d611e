//! The usage of a whole job: `onejob stats`, and the end of `onejob run --stats`.

use std::time::{Duration, Instant};

use onejob::{Accounting, Job, Stats, StopReason};
use serde::Serialize;

use super::{
    find,
    state::{State, rfc_3339},
};
use crate::{
    args::{StatsArgs, StatsFormat},
    exit::Exit,
    failure::{Failure, print},
    note::Note,
    os,
    output::{error, info, write_stderr},
    render::json,
};

/// The JSON keys are stable: keys may be added, the others keep their meaning, or `schema` changes. An
/// unknown value is null.
#[derive(Serialize)]
struct Usage {
    user_seconds: Option<f64>,
    system_seconds: Option<f64>,
    memory_peak_bytes: Option<u64>,
    io_read_bytes: Option<u64>,
    io_written_bytes: Option<u64>,
    processes_peak: Option<u64>,
    processes_total: Option<u64>,
    stalled_on_cpu_seconds: Option<f64>,
    stalled_on_memory_seconds: Option<f64>,
    stalled_on_io_seconds: Option<f64>,
    oom_kills: Option<u64>,
    processes_refused: Option<u64>,
}

/// At the end of a run.
#[derive(Serialize)]
struct FinalStats {
    schema: u32,
    /// Why the job ended, or which limit it reached: `timeout`, `cpu-time`, `memory`, `processes`. `None` for
    /// a normal end.
    reason: Option<&'static str>,
    real_seconds: f64,
    #[serde(flatten)]
    usage: Usage,
}

/// Of a running job.
#[derive(Serialize)]
struct CurrentStats<'a> {
    schema: u32,
    id: Option<&'a str>,
    name: Option<&'a str>,
    state: State,
    members: usize,
    started_at: Option<String>,
    /// Resident, of the living members, as in the other listings.
    memory_bytes: Option<u64>,
    /// Charged to the whole job by the kernel, file caches included: the number that a limit applies to.
    memory_charged_bytes: Option<u64>,
    #[serde(flatten)]
    usage: Usage,
}

/// `onejob stats JOB`
pub(super) fn stats(args: &StatsArgs) -> Result<Exit, Failure> {
    let job = find::job(&args.job)?;
    let stats = job.stats()?;
    let members = job.processes()?;
    let memory = members.iter().filter_map(os::resident_memory).reduce(|a, b| a + b);
    print(match args.json {
        true => json(&CurrentStats {
            schema: 1,
            id: job.id(),
            name: job.name(),
            state: State::of(Note::read(&job).as_ref(), &members, None),
            members: members.len(),
            started_at: find::entry_of(&job)?.and_then(|entry| rfc_3339(entry.started?)),
            memory_bytes: memory,
            memory_charged_bytes: stats.memory,
            usage: Usage::new(&stats),
        }),
        false => {
            let memory = memory.map_or("unknown".to_owned(), mebibytes);
            format!("{} members, memory {memory}, {}\n", members.len(), describe(&stats))
        }
    })?;
    Ok(Exit::Success)
}

/// Prints one line to standard error, as time(1) does.
pub(super) fn print_at_end(
    job: &Job,
    format: StatsFormat,
    started: Instant,
    reason: Option<StopReason>,
) {
    let real = started.elapsed();
    let stats = match job.stats() {
        Ok(stats) => without_ended_members(stats, job),
        Err(error) => {
            Failure::from(error).report();
            return;
        }
    };
    match format {
        StatsFormat::Text => {
            info(0, format_args!("real {:.3} s, {}", real.as_secs_f64(), describe(&stats)));
        }
        StatsFormat::Json => {
            let stats = FinalStats {
                schema: 1,
                reason: reason_name(reason),
                real_seconds: real.as_secs_f64(),
                usage: Usage::new(&stats),
            };
            // Strings and numbers always serialise.
            write_stderr(&(serde_json::to_string(&stats).unwrap_or_default() + "\n"));
        }
    }
}

/// The values that are still known when every member has ended: without accounting of ended members,
/// the others are 0.
fn without_ended_members(mut stats: Stats, job: &Job) -> Stats {
    let guarantees = job.guarantees();
    if guarantees.cpu_accounting < Accounting::Reaped {
        (stats.cpu_user, stats.cpu_system) = (None, None);
    }
    if guarantees.memory_accounting < Accounting::Reaped {
        stats.memory_peak = None;
    }
    stats
}

fn describe(stats: &Stats) -> String {
    let seconds = |time: Option<Duration>| {
        time.map_or("unknown".to_owned(), |time| format!("{:.3} s", time.as_secs_f64()))
    };
    let mut text = format!(
        "user {}, system {}, peak memory {}",
        seconds(stats.cpu_user),
        seconds(stats.cpu_system),
        stats.memory_peak.map_or("unknown".to_owned(), mebibytes),
    );
    if let (Some(read), Some(written)) = (stats.io_read, stats.io_written) {
        text += &format!(", read {}, written {}", mebibytes(read), mebibytes(written));
    }
    if let Some(peak) = stats.processes_peak {
        text += &format!(", at most {peak} processes and threads");
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Usage {
    fn new(stats: &Stats) -> Usage {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Usage {
            user_seconds: seconds(stats.cpu_user),
            system_seconds: seconds(stats.cpu_system),
            memory_peak_bytes: stats.memory_peak,
            io_read_bytes: stats.io_read,
            io_written_bytes: stats.io_written,
            processes_peak: stats.processes_peak,
            processes_total: stats.processes_total,
            stalled_on_cpu_seconds: seconds(stats.stalled_on_cpu),
            stalled_on_memory_seconds: seconds(stats.stalled_on_memory),
            stalled_on_io_seconds: seconds(stats.stalled_on_io),
            oom_kills: stats.oom_kills,
            processes_refused: stats.processes_refused,
        }
    }
}

/// `None` for a normal end.
fn reason_name(reason: Option<StopReason>) -> Option<&'static str> {
    Some(match reason? {
        StopReason::CpuTime => "cpu-time",
        StopReason::Memory => "memory",
        StopReason::Timeout => "timeout",
        StopReason::Processes => "processes",
        _ => "requested",
    })
}

/// Prints which limit the job has reached: an exit status or a signal does not tell that.
pub(super) fn print_limit_reason(reason: Option<StopReason>) {
    match reason {
        Some(StopReason::CpuTime) => error("the --cpu-time limit was reached: the job was killed"),
        Some(StopReason::Memory) => {
            error("the --memory limit was reached: the kernel killed members")
        }
        Some(StopReason::Processes) => error("the --processes limit was reached: fork() failed"),
        _ => {}
    }
}
