//! `onejob init`: the first process of a container, or of what is to be like one.

use onejob::{Job, Mechanism, Signal};

use crate::{
    args,
    exit::{Exit, Failure},
    os::{self, Lifeline, Place},
    output::warn,
    supervise::{End, Forwarding, Manner, Plan, Rest, supervise},
};

pub(crate) fn init(args: &args::Init) -> Exit {
    be_init(args).unwrap_or_else(|failure| failure.report())
}

fn be_init(args: &args::Init) -> Result<Exit, Failure> {
    if let Some(why) = os::why_no_init() {
        return Err(Failure::new(why));
    }
    let lifeline = args.lifeline.map(Lifeline::hold).transpose().map_err(Failure::new)?;
    if args.warn && !os::is_first() {
        warn("this is not PID 1: orphans from outside CMD's tree are not reaped here");
    }
    let mut rewrites = stops_for(args.setsid);
    rewrites.extend(&args.rewrite);
    let plan = Plan {
        command: &args.command,
        place: if args.setsid { Place::Session } else { Place::Group },
        manner: Manner::Init(Forwarding {
            to_group: args.group || args.setsid,
            rewrites,
            patience: args.grace,
            suspends: true,
            ..Forwarding::default()
        }),
        timeout: None,
        signal: args.signal,
        grace: args.grace.unwrap_or(args::GRACE),
        rest: Rest::Stop,
        lifeline,
    };
    let end = supervise(plan, &mut || job(args.mechanism))?;
    Ok(exit(&end, &args.success))
}

fn exit(end: &End, success: &[u8]) -> Exit {
    match end.status {
        _ if end.cut => Exit::Cut,
        Some(status) if is_success(os::code(status), success) => Exit::Success,
        Some(status) => Exit::Like(status),
        None => Exit::Ours,
    }
}

/// Whether an exit status is among those that are to be a 0.
pub(crate) fn is_success(code: i32, success: &[u8]) -> bool {
    success.iter().any(|one| i32::from(*one) == code)
}

/// How a session of its own is stopped: no shell above it has job control there, and the kernel lets
/// nobody be stopped whom nobody would wake.
pub(crate) fn stops_for(session: bool) -> Vec<(Signal, Option<Signal>)> {
    let stops = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
    stops.into_iter().filter(|_| session).map(|from| (from, Some(Signal::STOP))).collect()
}

/// The job of an init.
///
/// PID 1 needs neither cgroup nor guards: every orphan of its namespace is its own, and the kernel
/// ends everybody with it. Below another init we are a subreaper, and the job is as any.
pub(crate) fn job(mechanism: Option<Mechanism>) -> Result<Job, Failure> {
    let builder = Job::builder();
    let job = match mechanism {
        None if os::is_first() => builder.mechanism(Mechanism::Subreaper).enclose()?,
        None => builder.build()?,
        Some(mechanism) => builder.mechanism(mechanism).build()?,
    };
    // After the guards are there: they are nobody's children of ours.
    os::adopt_orphans().map_err(|e| Failure::os("become a subreaper", e))?;
    Ok(job)
}
