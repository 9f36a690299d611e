//! What a whole tree has used, for people and for programs: `onejob stats`, and at the end of
//! `onejob run --stats`.

use std::time::{Duration, Instant};

use onejob::{Accounting, Job, Stats, StopReason};
use serde::Serialize;

use crate::{
    args::{self, StatsForm},
    exit::{Exit, Failure},
    output::{data, line, talk},
    render::json,
};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows. What nobody has
/// counted is null.
#[derive(Serialize)]
struct Used {
    user_seconds: Option<f64>,
    system_seconds: Option<f64>,
    memory_bytes: Option<u64>,
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
struct Ended {
    schema: u32,
    /// Why the tree ended, or what was refused to it: `asked`, `timeout`, `cpu-time`, `memory`,
    /// `processes`.
    reason: &'static str,
    real_seconds: f64,
    #[serde(flatten)]
    used: Used,
}

/// While the job lives.
#[derive(Serialize)]
struct Living<'a> {
    schema: u32,
    id: Option<&'a str>,
    name: Option<&'a str>,
    members: usize,
    #[serde(flatten)]
    used: Used,
}

/// `onejob stats JOB`
pub(crate) fn stats(args: &args::Stats) -> Exit {
    match look(args) {
        Ok(text) => data(&text).err().unwrap_or(Exit::Success),
        Err(failure) => failure.report(),
    }
}

fn look(args: &args::Stats) -> Result<String, Failure> {
    let job = Job::open(&args.job)?;
    let stats = job.stats()?;
    let (members, used) = (stats.processes, Used::of(&stats));
    Ok(match args.json {
        true => json(&Living { schema: 1, id: job.id(), name: job.name(), members, used }),
        false => format!("{members} members, {}\n", text(&stats)),
    })
}

/// What `time(1)` says and more, on stderr.
pub(crate) fn tell(job: &Job, form: StatsForm, started: Instant, reason: StopReason) {
    let real = started.elapsed();
    let stats = match job.stats() {
        Ok(stats) => known(stats, job),
        Err(error) => return talk(error),
    };
    match form {
        StatsForm::Text => talk(format_args!("real {:.3} s, {}", real.as_secs_f64(), text(&stats))),
        StatsForm::Json => {
            let ended = Ended {
                schema: 1,
                reason: word(reason),
                real_seconds: real.as_secs_f64(),
                used: Used::of(&stats),
            };
            // Strings and numbers always serialise.
            line(&serde_json::to_string(&ended).unwrap_or_default());
        }
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

fn text(stats: &Stats) -> String {
    let seconds = |time: Option<Duration>| {
        time.map_or("unknown".to_owned(), |time| format!("{:.3} s", time.as_secs_f64()))
    };
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
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

impl Used {
    fn of(stats: &Stats) -> Used {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Used {
            user_seconds: seconds(stats.cpu_user),
            system_seconds: seconds(stats.cpu_system),
            memory_bytes: stats.memory,
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

fn word(reason: StopReason) -> &'static str {
    match reason {
        StopReason::CpuTime => "cpu-time",
        StopReason::Memory => "memory",
        StopReason::Timeout => "timeout",
        StopReason::Processes => "processes",
        _ => "asked",
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
