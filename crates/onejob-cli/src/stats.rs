//! What the whole tree has used, for people and for programs.

use std::time::{Duration, Instant};

use onejob::{Accounting, Job, Stats, StopReason};
use serde::Serialize;

use crate::{args::StatsForm, output::talk};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows. Times are in
/// seconds, memory and traffic in bytes; what nobody has counted is null.
#[derive(Serialize)]
struct Report {
    schema: u32,
    /// Why the tree ended, or what was refused to it: `asked`, `timeout`, `cpu-time`, `memory`,
    /// `processes`.
    reason: &'static str,
    real: f64,
    user: Option<f64>,
    system: Option<f64>,
    memory_peak: Option<u64>,
    io_read: Option<u64>,
    io_written: Option<u64>,
    processes_peak: Option<u64>,
    processes_total: Option<u64>,
    stalled_on_cpu: Option<f64>,
    stalled_on_memory: Option<f64>,
    stalled_on_io: Option<f64>,
    oom_kills: Option<u64>,
    processes_refused: Option<u64>,
}

/// What `time(1)` says and more, on stderr.
pub(crate) fn tell(job: &Job, form: StatsForm, started: Instant, reason: StopReason) {
    let real = started.elapsed();
    let stats = match job.stats() {
        Ok(stats) => known(stats, job),
        Err(error) => return talk(error),
    };
    match form {
        StatsForm::Text => talk(text(&stats, real)),
        StatsForm::Json => talk_json(&Report::of(&stats, real, reason)),
    }
}

/// Accounting that knows only the living says nothing when they have ended.
fn known(stats: Stats, job: &Job) -> Stats {
    let given = job.guarantees();
    let mut known = stats;
    if given.cpu_accounting < Accounting::Waited {
        (known.cpu_user, known.cpu_system) = (None, None);
    }
    if given.memory_accounting < Accounting::Waited {
        known.memory_peak = None;
    }
    known
}

fn text(stats: &Stats, real: Duration) -> String {
    let seconds = |time: Option<Duration>| {
        time.map_or("unknown".to_owned(), |time| format!("{:.3} s", time.as_secs_f64()))
    };
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let mut text = format!(
        "real {:.3} s, user {}, system {}, peak memory {}",
        real.as_secs_f64(),
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

impl Report {
    fn of(stats: &Stats, real: Duration, reason: StopReason) -> Report {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Report {
            schema: 1,
            reason: word(reason),
            real: real.as_secs_f64(),
            user: seconds(stats.cpu_user),
            system: seconds(stats.cpu_system),
            memory_peak: stats.memory_peak,
            io_read: stats.io_read,
            io_written: stats.io_written,
            processes_peak: stats.processes_peak,
            processes_total: stats.processes_total,
            stalled_on_cpu: seconds(stats.stalled_on_cpu),
            stalled_on_memory: seconds(stats.stalled_on_memory),
            stalled_on_io: seconds(stats.stalled_on_io),
            oom_kills: stats.oom_kills,
            processes_refused: stats.processes_refused,
        }
    }
}

fn word(reason: StopReason) -> &'static str {
    match reason {
        StopReason::CpuTime => "cpu-time",
        StopReason::Memory => "memory",
        StopReason::Timeout => "timeout",
        StopReason::Processes => "processes",
        _ => "asked",
    }
}

fn talk_json(report: &Report) {
    match serde_json::to_string(report) {
        Ok(line) => crate::output::line(&line),
        // Strings and numbers always serialise.
        Err(error) => talk(format_args!("failed to write JSON: {error}")),
    }
}

/// Says what a limit has done, since a signal alone does not.
pub(crate) fn tell_reason(reason: StopReason) {
    match reason {
        StopReason::CpuTime => talk("the CPU time was used up (--cpu-time), and all were killed"),
        StopReason::Memory => talk("memory was out, and the system killed (--memory)"),
        StopReason::Processes => talk("processes too many were refused (--processes)"),
        _ => {}
    }
}
