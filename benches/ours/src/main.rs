//! The worker for onejob: a program that uses the library.
//!
//! One request a line on standard input, one answer a line: `ok NUMBERS…` or `err TEXT`. Times are
//! in nanoseconds.

use std::{
    hint::black_box,
    io::{self, BufRead, Write},
    thread,
    time::{Duration, Instant},
};

use onejob::{Child, Command, Job, Mechanism, Result};

#[derive(Default)]
struct Owner {
    /// The job that exists between requests.
    job: Option<Job>,
    /// Other jobs.
    more: Vec<Job>,
    ballast: Option<Ballast>,
}

fn main() {
    let mut owner = Owner::default();
    for line in io::stdin().lock().lines().map_while(std::result::Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match owner.answer(&words) {
            Ok(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
                println!("ok {}", numbers.join(" "));
            }
            Err(error) => println!("err {error}"),
        }
        io::stdout().flush().expect("a reader");
    }
}

impl Owner {
    fn answer(&mut self, words: &[&str]) -> Result<Vec<u64>> {
        match *words {
            ["job", mechanism] => {
                self.job = None;
                self.job = Some(new(mechanism)?);
                Ok(vec![])
            }
            ["drop"] => {
                self.job = None;
                Ok(vec![])
            }
            ["reap-orphans"] => {
                become_subreaper();
                Ok(vec![])
            }
            ["ballast", megabytes] => {
                self.ballast = Some(Ballast::new(number(megabytes)));
                Ok(vec![])
            }
            ["spawn", count, program] => {
                let job = self.job();
                each(number(count), || spawn_and_wait(job, program))
            }
            ["spawn-in-new-job", mechanism, count, program] => {
                each(number(count), || spawn_and_wait(&new(mechanism)?, program))
            }
            ["first", mechanism, program] => {
                let begin = Instant::now();
                let job = new(mechanism)?;
                spawn_and_wait(&job, program)?;
                let ended = nanoseconds(begin);
                drop(job);
                Ok(vec![ended, nanoseconds(begin)])
            }
            ["threads", threads, count, program] => self.threads(number(threads), number(count), program),
            ["tree", ref command @ ..] => {
                let child = self.start(command)?;
                Ok(vec![u64::from(child.pid())])
            }
            ["pids", count] => {
                let job = self.job();
                each(number(count), || job.pids().map(|pids| drop(black_box(pids))))
            }
            ["identities", count] => {
                let job = self.job();
                each(number(count), || job.processes().map(|all| drop(black_box(all))))
            }
            ["kill"] => self.kill(),
            ["kill-and-reap-beside"] => self.kill_and_reap_beside(),
            ["stop"] => {
                let begin = Instant::now();
                self.job().stop(Duration::from_secs(30))?;
                Ok(vec![nanoseconds(begin)])
            }
            ["jobs", mechanism, count, program] => self.jobs(mechanism, number(count), program),
            ["drop-jobs"] => {
                let begin = Instant::now();
                self.more.clear();
                Ok(vec![nanoseconds(begin)])
            }
            _ => panic!("unknown: {words:?}"),
        }
    }

    fn job(&self) -> &Job {
        self.job.as_ref().expect("`job` comes first")
    }

    fn start(&self, command: &[&str]) -> Result<Child> {
        self.job().spawn(Command::new(command[0]).args(&command[1..]))
    }

    /// Kills the job and then reaps the members that are children of this process, like the worker in C.
    fn kill(&self) -> Result<Vec<u64>> {
        let begin = Instant::now();
        self.job().kill()?;
        reap_children();
        Ok(vec![nanoseconds(begin)])
    }

    /// The same with a thread that reaps during the kill: this costs two more wake-ups, and is faster with many
    /// members.
    fn kill_and_reap_beside(&self) -> Result<Vec<u64>> {
        let reaper = thread::spawn(reap_children);
        // It must be waiting before the first member dies.
        thread::sleep(Duration::from_millis(2));
        let begin = Instant::now();
        self.job().kill()?;
        reaper.join().expect("no panic");
        Ok(vec![nanoseconds(begin)])
    }

    fn threads(&self, threads: u64, count: u64, program: &str) -> Result<Vec<u64>> {
        let job = self.job();
        let begin = Instant::now();
        thread::scope(|scope| {
            let spawn = || (0..count).try_for_each(|_| spawn_and_wait(job, program));
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(spawn)).collect();
            all.into_iter().try_for_each(|one| one.join().expect("no panic"))
        })?;
        Ok(vec![nanoseconds(begin) / (threads * count)])
    }

    /// Makes jobs and keeps them, each with one member that has ended.
    fn jobs(&mut self, mechanism: &str, count: u64, program: &str) -> Result<Vec<u64>> {
        let begin = Instant::now();
        for _ in 0..count {
            let job = new(mechanism)?;
            spawn_and_wait(&job, program)?;
            self.more.push(job);
        }
        Ok(vec![nanoseconds(begin)])
    }
}

fn new(mechanism: &str) -> Result<Job> {
    let mechanism = mechanism.parse::<Mechanism>()?;
    Job::builder().mechanism(mechanism).build()
}

fn spawn_and_wait(job: &Job, program: &str) -> Result<()> {
    let status = job.spawn(Command::new(program))?.wait()?;
    assert!(status.success(), "{program} has failed: {status}");
    Ok(())
}

/// The time divided by `count`.
fn each(count: u64, mut work: impl FnMut() -> Result<()>) -> Result<Vec<u64>> {
    let begin = Instant::now();
    (0..count).try_for_each(|_| work())?;
    Ok(vec![nanoseconds(begin) / count])
}

fn nanoseconds(begin: Instant) -> u64 {
    begin.elapsed().as_nanos() as u64
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

/// Waits until both guards have started: from then on they are not children of this process.
fn become_subreaper() {
    // SAFETY: a flag of this process.
    let set = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    assert_eq!(set, 0, "every Linux since 3.4 can");
}

fn reap_children() {
    loop {
        // SAFETY: the pointer to the status is null, which `waitpid` permits.
        let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) };
        if pid < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Memory in use, in pages of the usual size: a fork must copy their page tables.
struct Ballast {
    at: *mut libc::c_void,
    size: usize,
}

impl Ballast {
    fn new(megabytes: u64) -> Ballast {
        let size = (megabytes as usize) << 20;
        // SAFETY: fresh memory without other references; one byte of each page is written.
        unsafe {
            let (prot, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let at = libc::mmap(std::ptr::null_mut(), size, prot, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED, "{megabytes} MB of memory");
            libc::madvise(at, size, libc::MADV_NOHUGEPAGE);
            for offset in (0..size).step_by(4096) {
                at.cast::<u8>().add(offset).write_volatile(1);
            }
            Ballast { at, size }
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // SAFETY: this process has mapped it, and no reference into it exists.
        unsafe { libc::munmap(self.at, self.size) };
    }
}
