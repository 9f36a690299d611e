//! The same things over and over: nothing may be left of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use onejob::{Job, Mechanism};

use crate::{
    Answer,
    job::{command, reply},
};

/// `cycle COUNT MECHANISM [PROGRAM ARGS…]`: makes a job and drops it, with a member that has ended if there
/// is a program.
pub(crate) fn cycle(args: &[&str]) -> Answer {
    let [count, mechanism, program @ ..] = args else { return Err("cycle COUNT MECHANISM".into()) };
    let mechanism = reply(mechanism.parse())?;
    for _ in 0..number(count)? {
        let job = reply(Job::builder().mechanism(mechanism).build())?;
        if !program.is_empty() {
            reply(reply(job.spawn(&mut command(program)?))?.wait())?;
        }
    }
    Ok(String::new())
}

/// `churn MILLISECONDS MECHANISM PROGRAM ARGS…`: four threads that make jobs, start members and end both in
/// each way. Answers how many jobs that were.
pub(crate) fn churn(args: &[&str]) -> Answer {
    let [millis, mechanism, program @ ..] = args else { return Err("churn MS MECHANISM".into()) };
    let mechanism: Mechanism = reply(mechanism.parse())?;
    let end = Instant::now() + Duration::from_millis(number(millis)?);
    let threads: Vec<Result<u64, String>> = thread::scope(|scope| {
        let start = |first| scope.spawn(move || churn_until(end, mechanism, program, first));
        let threads: Vec<_> = (0..4).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let jobs: Result<Vec<u64>, String> = threads.into_iter().collect();
    Ok(jobs?.into_iter().sum::<u64>().to_string())
}

fn churn_until(
    end: Instant,
    mechanism: Mechanism,
    program: &[&str],
    first: u64,
) -> Result<u64, String> {
    let mut jobs = 0;
    while Instant::now() < end {
        let builder = Job::builder().mechanism(mechanism);
        let job = reply(match (jobs + first) % 3 {
            0 => builder.listed().build(),
            _ => builder.build(),
        })?;
        let mut command = command(program)?;
        for _ in 0..=jobs % 3 {
            reply(job.spawn(&mut command))?;
        }
        match (jobs + first) % 4 {
            0 => reply(job.kill()).map(drop)?,
            1 => reply(job.stop(Duration::from_secs(10))).map(drop)?,
            2 => reply(job.freeze())?,
            _ => {}
        }
        jobs += 1;
    }
    Ok(jobs)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("not a number: {word:?}"))
}
