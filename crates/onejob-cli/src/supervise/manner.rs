//! What is done with signals and with the time while CMD runs.

use std::{
    ffi::OsString,
    process::ExitStatus,
    time::{Duration, Instant},
};

use onejob::{Child, Signal};

use super::Session;
use crate::{
    exit::Failure,
    os::{self, Hearing, Place, Received},
    output::{talk, tell, warn},
};

/// How we stand between CMD and the world.
#[derive(Debug)]
pub(crate) enum Manner {
    /// As env(1) or nice(1): CMD is in our process group, and gets by itself what that gets. When
    /// the time is over, the whole tree is stopped.
    Transparent,
    /// As the first process of a system: every signal is CMD's, every orphan ours.
    Init(Forwarding),
    /// As timeout(1): an end that is asked for is passed on, and when the time is over, one is.
    Limited(Limited),
}

/// How an init passes signals on.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    /// To CMD's process group instead of CMD alone.
    pub(crate) to_group: bool,
    /// What becomes of a signal that is not to be passed on as it is.
    pub(crate) rewrites: Vec<(Signal, Option<Signal>)>,
    /// How long CMD may take once it was asked to end.
    pub(crate) patience: Option<Duration>,
    /// Whether a signal that stops CMD stops us, too.
    pub(crate) suspends: bool,
    /// Whether it is worth a word when a process is reaped that CMD did not wait for.
    pub(crate) warns_of_orphans: bool,
}

/// What a time limit does.
#[derive(Debug)]
pub(crate) struct Limited {
    /// Sent when the time is over.
    pub(crate) signal: Signal,
    /// When to kill after a first signal.
    pub(crate) kill_after: Option<Duration>,
    /// Whether CMD stays in our process group, and is alone in getting signals.
    pub(crate) foreground: bool,
    pub(crate) verbose: bool,
    /// CMD, as messages call it.
    pub(crate) name: String,
}

impl Manner {
    pub(super) fn hearing(&self) -> Hearing {
        match self {
            Manner::Transparent => Hearing::ButStops,
            Manner::Init(_) => Hearing::All,
            Manner::Limited(limited) => Hearing::Ends(limited.signal),
        }
    }

    /// Makes way for CMD; answers which signals that is going to send us.
    pub(super) fn make_way(&self, place: Place) -> Vec<Signal> {
        match (self, place) {
            (Manner::Init(_), Place::Session) => os::leave_terminal(),
            _ => Vec::new(),
        }
    }

    pub(super) fn after_start(&self, command: &[OsString], child: &Child) {
        if let Manner::Init(_) = self {
            let program = command.first().map(OsString::as_os_str).unwrap_or_default();
            tell(2, format_args!("started {program:?} as process {}", child.pid()));
            // What was ours to find relative names by is no business of ours any more, and must not
            // keep a file system from being unmounted.
            let _ = std::env::set_current_dir("/");
        }
    }

    pub(super) fn ended(&self, status: Option<ExitStatus>) {
        if let (Manner::Init(_), Some(status)) = (self, status) {
            tell(2, format_args!("the command has ended: {status}"));
        }
    }
}

/// Reaps who has come back to us, if that is our office.
pub(super) fn reap(manner: &Manner, child: &Child) {
    if let Manner::Init(init) = manner {
        os::reap_orphans(child.pid(), |pid| match init.warns_of_orphans {
            true => warn(format_args!("reaped process {pid}, which nobody had waited for")),
            false => tell(3, format_args!("reaped process {pid}")),
        });
    }
}

impl Session {
    /// A signal has come while CMD runs.
    pub(super) fn hear(&mut self, received: Received) -> Result<(), Failure> {
        match &self.manner {
            Manner::Transparent => {
                if received.is_for_cmd(&self.job, &self.child) {
                    told(received.signal, self.child.signal(received.signal));
                }
            }
            Manner::Init(_) if received.signal == Signal::CHLD => reap(&self.manner, &self.child),
            Manner::Init(_) if received.is_ours() => {}
            Manner::Init(_) if self.swallowed.contains(&received.signal) => {
                self.swallowed.retain(|signal| *signal != received.signal);
            }
            Manner::Init(init) => {
                let waits = self.deadline.is_some();
                let hurry = init.pass_on(received.signal, &self.child).filter(|_| !waits);
                if let Some(patience) = hurry {
                    self.deadline = Instant::now().checked_add(patience);
                }
            }
            Manner::Limited(_) if received.is_ours() => {}
            Manner::Limited(_) if received.signal == Signal::ALRM => {
                self.end.timed_out = true;
                self.expire()?;
            }
            Manner::Limited(_) => self.send(received.signal)?,
        }
        Ok(())
    }

    /// The time that was set is over; whether that ends the watch.
    pub(super) fn is_over(&mut self) -> Result<bool, Failure> {
        match self.manner {
            Manner::Transparent => {
                self.end.timed_out = true;
                return Ok(true);
            }
            Manner::Init(_) => {
                self.end.killed = true;
                self.job.kill()?;
            }
            Manner::Limited(_) => {
                self.end.timed_out = true;
                self.expire()?;
            }
        }
        Ok(false)
    }

    /// Ends CMD and its tree for taking too long.
    fn expire(&mut self) -> Result<(), Failure> {
        let Manner::Limited(limited) = &self.manner else { return Ok(()) };
        self.send(limited.signal)
    }

    /// As timeout(1): the first signal starts the time after which there is a kill.
    fn send(&mut self, signal: Signal) -> Result<(), Failure> {
        let Manner::Limited(limited) = &mut self.manner else { return Ok(()) };
        if let Some(patience) = limited.kill_after.take() {
            limited.signal = Signal::KILL;
            self.deadline = Instant::now().checked_add(patience);
        }
        if limited.verbose {
            let name = signal.to_string();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            talk(format_args!("sending signal {name} to command '{}'", limited.name));
        }
        let wakes = ![Signal::KILL, Signal::CONT].contains(&signal);
        let foreground = limited.foreground;
        if signal == Signal::KILL {
            self.end.killed = true;
            return Ok(self.job.kill().map(drop)?);
        }
        for signal in [Some(signal), wakes.then_some(Signal::CONT)].into_iter().flatten() {
            // Who has changed its user is out of reach of the polite rung.
            let _ = match (self.end.timed_out, foreground) {
                (true, _) => self.job.signal(signal).map(drop),
                (false, true) => self.child.signal(signal),
                (false, false) => {
                    os::signal_own_group(signal);
                    // It may have made a group of its own.
                    os::signal_if_elsewhere(&self.child, signal)
                }
            };
        }
        Ok(())
    }
}

impl Forwarding {
    /// Passes a signal on; how long CMD may take from now on, if it was asked to end.
    fn pass_on(&self, received: Signal, child: &Child) -> Option<Duration> {
        const ENDS: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TERM];
        const STOPS: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let rewritten = self.rewrites.iter().rev().find(|(from, _)| *from == received);
        match rewritten.map_or(Some(received), |(_, to)| *to) {
            Some(signal) => {
                tell(3, format_args!("passing on {signal} for {received}"));
                told(
                    signal,
                    match self.to_group {
                        true => os::signal_group(child, signal),
                        false => child.signal(signal),
                    },
                );
            }
            None => tell(3, format_args!("{received} is not passed on")),
        }
        if self.suspends && STOPS.contains(&received) {
            os::suspend();
        }
        self.patience.filter(|_| ENDS.contains(&received))
    }
}

fn told(signal: Signal, sent: onejob::Result<()>) {
    if let Err(error) = sent {
        warn(format_args!("{signal} is not passed on: {error}"));
    }
}
