//! An owner of several jobs that does several things at once, for the chaos tests.
//!
//! A line of input is `SLOT REQUEST ARGS…`, or several of these separated by ` & `, which then run in one
//! thread each. The answer is one line: `+ TEXT` or `- ERROR` for each, separated by ` & `. The first output
//! line is `+` and the pid. At the end of its standard input it drops its jobs and exits.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
};

use onejob::{Child, Job};
use testkit::Reply as Answer;

use crate::job::{act, builder, command, reply, std_command};

#[derive(Default)]
struct Slot {
    job: RwLock<Option<Job>>,
    children: Mutex<Vec<Child>>,
    others: Mutex<Vec<process::Child>>,
}

#[derive(Default)]
struct Slots {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    outsiders: Mutex<Vec<process::Child>>,
}

pub(crate) fn serve() {
    println!("+ {}", process::id());
    let slots = Slots::default();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let requests: Vec<_> = line.split(" & ").collect();
        println!("{}", slots.at_once(&requests).join(" & "));
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

impl Slots {
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
        let [slot, request, args @ ..] = &*words else { return Err("SLOT REQUEST ARGS…".into()) };
        let slot = locked(&self.slots).entry((*slot).to_owned()).or_default().clone();
        match *request {
            "new" => {
                let job = reply(builder(args)?.build())?;
                let before = slot.job.write().map_err(|_| "a panic")?.replace(job);
                drop(before);
                Ok(String::new())
            }
            "drop" => {
                drop(slot.job.write().map_err(|_| "a panic")?.take());
                Ok(String::new())
            }
            "release" => {
                let job = slot.job.write().map_err(|_| "a panic")?.take();
                reply(job.ok_or("no job")?.release()).map(|()| String::new())
            }
            "outsider" => {
                let mut command = std_command(args)?;
                // The kernel sends SIGHUP to a group that is orphaned with a stopped process in it, and members
                // are in the owner's group.
                #[cfg(unix)]
                std::os::unix::process::CommandExt::process_group(&mut command, 0);
                let child = command.spawn().map_err(|error| error.to_string())?;
                let pid = child.id().to_string();
                locked(&self.outsiders).push(child);
                Ok(pid)
            }
            // Like the end of a program that does not drop its jobs: no destructor runs.
            "quit" => process::exit(0),
            "exec" => {
                let error = std::os::unix::process::CommandExt::exec(&mut std_command(args)?);
                Err(error.to_string())
            }
            "reap" => slot.reap(),
            "jobs" => reply(onejob::jobs()).map(|jobs| jobs.count().to_string()),
            _ => {
                let job = slot.job.read().map_err(|_| "a panic")?;
                slot.act(job.as_ref().ok_or("no job")?, request, args)
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

    fn act(&self, job: &Job, request: &str, args: &[&str]) -> Answer {
        match request {
            "spawn" => {
                let child = reply(job.spawn(&mut command(args)?))?;
                let pid = child.pid().to_string();
                locked(&self.children).push(child);
                Ok(pid)
            }
            "spawn-std" => {
                let child = reply(job.spawn_std(&mut std_command(args)?))?;
                let pid = child.id().to_string();
                locked(&self.others).push(child);
                Ok(pid)
            }
            _ => act(job, request, args),
        }
    }
}
