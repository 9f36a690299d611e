//! `onejob init`: the init process of a container, or below another init.

use onejob::Job;

use super::not_found;
use crate::{
    args::{DEFAULT_GRACE, InitArgs, StopArgs},
    exit::Exit,
    failure::Failure,
    os::{self, ProcessGroup},
    output::warn,
    supervise::{self, InitMode, LeftoverPolicy, Options, Outcome, Setup, SignalMode},
};

pub(super) fn init(args: &InitArgs) -> Result<Exit, Failure> {
    if let Some(why) = os::why_no_init() {
        return Err(Failure::new(why));
    }
    let lifelines = args.lifelines.take()?;
    if args.warn && !os::is_pid_1() {
        warn("not running as PID 1: orphans from outside CMD's tree are not reaped");
    }
    let mut rewrites = supervise::stop_rewrites(args.setsid);
    rewrites.extend(&args.rewrite);
    let setup = Setup::new(Options {
        command: &args.command,
        process_group: if args.setsid { ProcessGroup::NewSession } else { ProcessGroup::New },
        mode: SignalMode::Init(InitMode {
            to_group: args.group || args.setsid,
            rewrites,
            kill_after: args.grace,
            stops_with_child: true,
            ..InitMode::default()
        }),
        timeout: None,
        stop: StopArgs { signal: args.signal, grace: args.grace.unwrap_or(DEFAULT_GRACE) },
        leftovers: LeftoverPolicy::Stop,
        lifelines,
    })?;
    let job = supervise::init_job(args.mechanism, Job::new)?;
    let started = setup.start(job).map_err(|failure| not_found::explain(failure, &args.command));
    let outcome = started?.run()?;
    Ok(exit(&outcome, &args.success))
}

fn exit(outcome: &Outcome, success: &[u8]) -> Exit {
    match outcome.status {
        _ if outcome.lifeline_lost => Exit::LifelineLost,
        Some(status) if supervise::is_success(os::exit_code(status), success) => Exit::Success,
        Some(status) => Exit::ChildStatus(status),
        None => Exit::InternalError,
    }
}
