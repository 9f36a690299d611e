//! An owner of several jobs that does several things at once, one line of requests after the other.
//!
//! A line is `SLOT VERB ARGS…`, or several of these separated by ` & `, which then run in one thread
//! each. The answer is one line: `+ TEXT` or `- ERROR` for each, separated by ` & `. The first output
//! line is its pid. At the end of its standard input it drops its jobs and exits.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::Duration,
};

use onejob::{Child, Command, Error, Job, JobBuilder, Limits, ProcessId, Signal, Stdio};
use testkit::lifetime_limit;

type Answer = Result<String, String>;

#[derive(Default)]
struct Slot {
    job: RwLock<Option<Job>>,
    children: Mutex<Vec<Child>>,
    others: Mutex<Vec<process::Child>>,
}

#[derive(Default)]
struct Owner {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    outsiders: Mutex<Vec<process::Child>>,
}

fn main() {
    lifetime_limit::apply(2 * lifetime_limit::LIFETIME_SECONDS);
    println!("+ {}", process::id());
    let owner = Owner::default();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let requests: Vec<_> = line.split(" & ").collect();
        let answers = owner.at_once(&requests);
        println!("{}", answers.join(" & "));
        let _ = io::stdout().flush();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the text one line without separators.
fn written(answer: Answer) -> String {
    let (sign, text) = match answer {
        Ok(text) => ('+', text),
        Err(text) => ('-', text),
    };
    format!("{sign} {}", text.replace('\n', "; ").replace(" & ", " + "))
}

impl Owner {
    /// If no thread can be started, the requests run one after the other.
    fn at_once(&self, requests: &[&str]) -> Vec<String> {
        if let [request] = requests {
            return vec![written(self.answer(request))];
        }
        thread::scope(|scope| {
            let threads = requests.iter().map(|request| {
                let thread =
                    thread::Builder::new().spawn_scoped(scope, || written(self.answer(request)));
                thread.map_err(|_| written(self.answer(request)))
            });
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(|thread| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| "! a panic".to_owned()),
                Err(answer) => answer,
            });
            joined.collect()
        })
    }

    fn answer(&self, request: &str) -> Answer {
        let words: Vec<_> = request.split_whitespace().collect();
        let [slot, verb, args @ ..] = &*words else { return Err("SLOT VERB ARGS…".into()) };
        let slot = locked(&self.slots).entry((*slot).to_owned()).or_default().clone();
        match *verb {
            "new" | "open" => {
                let made = if *verb == "new" {
                    described(args)?.build()
                } else {
                    Job::open(args.first().ok_or("which job?")?)
                };
                let before = slot.job.write().map_err(|_| "a panic")?.replace(said(made)?);
                drop(before);
                Ok(String::new())
            }
            "drop" => {
                drop(slot.job.write().map_err(|_| "a panic")?.take());
                Ok(String::new())
            }
            "release" => {
                let job = slot.job.write().map_err(|_| "a panic")?.take();
                said(job.ok_or("no job")?.release()).map(|()| String::new())
            }
            "outsider" => {
                let child = std_command(args)?.spawn().map_err(|error| error.to_string())?;
                let pid = child.id().to_string();
                locked(&self.outsiders).push(child);
                Ok(pid)
            }
            "outsiders-end" => {
                for mut child in locked(&self.outsiders).drain(..) {
                    let ended = child.kill().and_then(|()| child.wait());
                    ended.map_err(|error| error.to_string())?;
                }
                Ok(String::new())
            }
            // Like the end of a program that does not drop its jobs: no destructor runs.
            "quit" => process::exit(0),
            "exec" => {
                let error = std::os::unix::process::CommandExt::exec(&mut std_command(args)?);
                Err(error.to_string())
            }
            "reap" => slot.reap(),
            "jobs" => said(onejob::jobs()).map(|jobs| jobs.count().to_string()),
            _ => {
                let job = slot.job.read().map_err(|_| "a panic")?;
                slot.act(job.as_ref().ok_or("no job")?, verb, args)
            }
        }
    }
}

impl Slot {
    /// Waits for all processes that were started in this slot.
    fn reap(&self) -> Answer {
        let mut answers = Vec::new();
        for mut child in locked(&self.children).drain(..) {
            answers.push(match child.wait() {
                Ok(status) => format!("{} {status}", child.pid()),
                Err(error) => format!("{} failed: {error}", child.pid()),
            });
        }
        for mut child in locked(&self.others).drain(..) {
            child.wait().map_err(|error| error.to_string())?;
        }
        Ok(answers.join(", "))
    }

    fn act(&self, job: &Job, verb: &str, args: &[&str]) -> Answer {
        let number = || {
            let word = args.first().ok_or("an argument is missing")?;
            word.parse::<u64>().map_err(|error| error.to_string())
        };
        let millis = || Ok::<_, String>(Duration::from_millis(number()?));
        let nothing = |()| String::new();
        match verb {
            "spawn" => {
                let (program, args) = args.split_first().ok_or("nothing to start")?;
                let mut command = Command::new(program);
                command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
                let child = said(job.spawn(&mut command))?;
                let pid = child.pid().to_string();
                locked(&self.children).push(child);
                Ok(pid)
            }
            "spawn-std" => {
                let child = said(job.spawn_std(&mut std_command(args)?))?;
                let pid = child.id().to_string();
                locked(&self.others).push(child);
                Ok(pid)
            }
            "adopt" => {
                let pid = u32::try_from(number()?).map_err(|error| error.to_string())?;
                said(ProcessId::of(pid).and_then(|id| job.adopt(&id))).map(nothing)
            }
            "list" => said(job.processes()).map(|all| pids(&all)),
            "pids" => said(job.pids())
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            "tree" => said(job.tree()).map(|tree| tree.roots.len().to_string()),
            "empty" => said(job.is_empty()).map(|empty| empty.to_string()),
            "wait" => said(job.wait()).map(nothing),
            "wait-timeout" => said(job.wait_timeout(millis()?)).map(|empty| empty.to_string()),
            "stop" => said(job.stop(millis()?)).map(|report| format!("{report:?}")),
            "kill" => said(job.kill()).map(|report| format!("{report:?}")),
            "signal" => {
                let word = args.first().ok_or("which signal?")?;
                let signal: Signal = said(word.parse())?;
                said(job.signal(signal)).map(|reached| reached.to_string())
            }
            "freeze" => said(job.freeze()).map(nothing),
            "thaw" => said(job.thaw()).map(nothing),
            "stats" => said(job.stats()).map(|stats| format!("{stats:?}")),
            "guarantees" => Ok(job.guarantees().to_string()),
            "limit" => said(job.set_limits(&limits(args)?)).map(nothing),
            "limits" => said(job.limits()).map(|limits| format!("{limits:?}")),
            "note" => said(job.set_note(&args.join(" "))).map(nothing),
            _ => Err(format!("unknown verb {verb:?}")),
        }
    }
}

fn std_command(args: &[&str]) -> Result<process::Command, String> {
    let (program, args) = args.split_first().ok_or("nothing to start")?;
    let mut command = process::Command::new(program);
    command.args(args).stdin(process::Stdio::null()).stdout(process::Stdio::null());
    Ok(command)
}

/// From `MECHANISM [name=NAME] [listed] [note=NOTE]`.
fn described(args: &[&str]) -> Result<JobBuilder, String> {
    let mut builder = Job::builder();
    for word in args {
        builder = match word.split_once('=') {
            Some(("name", name)) => builder.name(name),
            Some(("note", note)) => builder.note(note),
            _ if *word == "listed" => builder.listed(),
            _ => builder.mechanism(said(word.parse())?),
        };
    }
    Ok(builder)
}

/// From `cpu-time=MS`, `affinity=MASK`, `processes=N`.
fn limits(args: &[&str]) -> Result<Limits, String> {
    args.iter().try_fold(Limits::new(), |limits, word| {
        let (kind, value) = word.split_once('=').ok_or("KIND=VALUE")?;
        let value: u64 = value.parse().map_err(|_| "no number")?;
        Ok(match kind {
            "cpu-time" => limits.cpu_time_max(Duration::from_millis(value)),
            "affinity" => limits.affinity(value),
            "processes" => limits.processes_max(value as u32),
            _ => return Err(format!("unknown limit {kind:?}")),
        })
    })
}

fn pids(processes: &[onejob::Process]) -> String {
    processes.iter().map(|process| process.pid().to_string()).collect::<Vec<_>>().join(" ")
}

fn said<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| match error.survivors() {
        [] => error.to_string(),
        survivors => format!("survivors {}: {error}", pids(survivors)),
    })
}
