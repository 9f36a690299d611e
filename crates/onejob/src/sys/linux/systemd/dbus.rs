//! As much of D-Bus as it takes to have systemd make a scope (D-Bus specification 0.43, interface
//! `org.freedesktop.systemd1.Manager`): authenticate, one call, wait for its job to be done.
//!
//! What is read is checked before it is used. The deadline holds whatever the bus does: hang, refuse,
//! send what is not D-Bus, or send without end. Of what it sends only one message and the ends of this
//! unit's jobs are kept.

#[cfg(test)]
pub(crate) mod tests;
mod wire;

use std::{fmt, io, os::fd::OwnedFd, time::Instant};

use crate::sys::linux::{
    deadline::{has_passed, wait_for},
    nostd::syscall::{POLLIN, POLLOUT, PollFd},
};
use wire::{
    CALL, DESTINATION, ERROR, INTERFACE, MEMBER, Message, PATH, RETURN, Reader, SIGNAL, SIGNATURE,
    Writer,
};

/// Why there is no scope.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not answer in time.
    Slow,
    /// It said no, in its own words.
    Refused(String),
    /// What it said is not D-Bus.
    Nonsense(&'static str),
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Slow => f.write_str("its bus does not answer"),
            Failure::Refused(why) => write!(f, "it refuses: {why}"),
            Failure::Nonsense(what) => write!(f, "its bus does not speak D-Bus ({what})"),
            Failure::Io(error) => write!(f, "its bus: {error}"),
        }
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Failure {
        Failure::Io(errno.into())
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// A connection that is already made, by the process which the calls are to be from.
pub(super) struct Bus {
    socket: OwnedFd,
    deadline: Instant,
    read: Vec<u8>,
    unit: String,
    ended: Vec<EndedJob>,
    serial: u32,
}

/// A job of systemd's for our unit, which is done.
struct EndedJob {
    path: String,
    result: String,
}

/// So many jobs of one unit may end while we wait for one of them: it has been given one.
const MAX_ENDED: usize = 16;

/// The largest body, and the largest header: the messages that matter are far smaller.
const MAX_PART: usize = 1 << 16;

const DRIVER: Destination = Destination {
    name: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};
const SYSTEMD: Destination = Destination {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const JOB_REMOVED: &str = "type='signal',sender='org.freedesktop.systemd1',\
    path='/org/freedesktop/systemd1',interface='org.freedesktop.systemd1.Manager',\
    member='JobRemoved'";

struct Destination {
    name: &'static str,
    path: &'static str,
    interface: &'static str,
}

impl Bus {
    fn new(socket: OwnedFd, deadline: Instant) -> Bus {
        let (read, unit, ended) = (Vec::new(), String::new(), Vec::new());
        Bus { socket, deadline, read, unit, ended, serial: 0 }
    }

    /// Authenticates as `user`, whom the socket itself already proves.
    pub(super) fn greet(socket: OwnedFd, user: u32, deadline: Instant) -> Result<Bus> {
        let mut bus = Bus::new(socket, deadline);
        let hex: String = user.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.send(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let answer = bus.line()?;
        if !answer.starts_with("OK ") {
            return Err(match answer.starts_with("REJECTED") || answer.starts_with("ERROR") {
                true => Failure::Refused(format!("{user} is not let in ({answer})")),
                false => Failure::Nonsense("no answer to AUTH"),
            });
        }
        bus.send(b"BEGIN\r\n")?;
        bus.call(&DRIVER, "Hello", "", |_| {})?;
        Ok(bus)
    }

    /// Has systemd make a scope around the process that connected, and hand it over to it.
    pub(super) fn start_scope(&mut self, unit: &str, description: &str) -> Result<()> {
        self.unit = unit.to_owned();
        self.call(&DRIVER, "AddMatch", "s", |body| body.text(JOB_REMOVED))?;
        let reply = self.call(&SYSTEMD, "StartTransientUnit", "ssa(sv)a(sa(sv))", |body| {
            body.text(unit);
            body.text("fail");
            body.array(8, |properties| {
                // 0 is who calls, whatever its number is in systemd's PID namespace.
                properties.property("PIDs", "au", |value| value.array(4, |pids| pids.u32(0)));
                properties.property("Delegate", "b", |value| value.u32(1));
                properties.property("Description", "s", |value| value.text(description));
                properties.property("CollectMode", "s", |value| value.text("inactive-or-failed"));
                // Guards are deaf to the request to end: at a logout the members have this long.
                properties.property("TimeoutStopUSec", "t", |value| value.u64(10_000_000));
            });
            body.array(8, |_| {});
        })?;
        let job = Reader::new(&reply.body).text()?.to_owned();
        match self.result_of(&job)?.as_str() {
            "done" => Ok(()),
            result => Err(Failure::Refused(format!("the job of the scope is {result}"))),
        }
    }

    /// Has systemd end a scope that it has been asked for, and which is of no use. Waits for the
    /// answer: it obeys nobody who is gone.
    pub(super) fn stop_scope(&mut self, unit: &str, deadline: Instant) -> Result<()> {
        self.deadline = deadline;
        self.call(&SYSTEMD, "StopUnit", "ss", |body| {
            body.text(unit);
            body.text("replace");
        })?;
        Ok(())
    }

    fn call(
        &mut self,
        to: &Destination,
        member: &str,
        signature: &str,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<Message> {
        self.serial += 1;
        let mut body = Writer::default();
        fill(&mut body);
        let mut message = Writer(vec![b'l', CALL, 0, 1]);
        message.u32(body.0.len() as u32);
        message.u32(self.serial);
        message.array(8, |fields| {
            fields.field(PATH, "o", |value| value.text(to.path));
            fields.field(INTERFACE, "s", |value| value.text(to.interface));
            fields.field(MEMBER, "s", |value| value.text(member));
            fields.field(DESTINATION, "s", |value| value.text(to.name));
            if !signature.is_empty() {
                fields.field(SIGNATURE, "g", |value| value.signature(signature));
            }
        });
        message.align(8);
        message.0.extend(body.0);
        self.send(&message.0)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                RETURN if message.reply_to == self.serial => return Ok(message),
                ERROR if message.reply_to == self.serial => return Err(message.refusal()),
                _ => self.note(&message)?,
            }
        }
    }

    /// Waits for the end of a job of our unit. It may have been told before the job was named.
    fn result_of(&mut self, job: &str) -> Result<String> {
        loop {
            if let Some(at) = self.ended.iter().position(|ended| ended.path == job) {
                return Ok(self.ended.swap_remove(at).result);
            }
            let message = self.receive()?;
            self.note(&message)?;
        }
    }

    /// Keeps the end of a job of our unit, and nothing else.
    fn note(&mut self, message: &Message) -> Result<()> {
        if message.kind != SIGNAL || message.member != "JobRemoved" || message.signature != "uoss" {
            return Ok(());
        }
        let mut body = Reader::new(&message.body);
        body.u32()?;
        let (path, unit, result) = (body.text()?, body.text()?, body.text()?);
        if unit != self.unit {
            return Ok(());
        }
        if self.ended.len() == MAX_ENDED {
            return Err(Failure::Nonsense("too many jobs of one unit"));
        }
        self.ended.push(EndedJob { path: path.to_owned(), result: result.to_owned() });
        Ok(())
    }

    fn receive(&mut self) -> Result<Message> {
        const HEAD: usize = 16;
        // What has been read already is no reason to go on: a bus may send faster than we read.
        self.check_deadline()?;
        self.fill(HEAD)?;
        let mut head = Reader::new(self.read.get(4..HEAD).unwrap_or(&[]));
        let (body, _, fields) = (head.u32()? as usize, head.u32()?, head.u32()? as usize);
        if self.read.first() != Some(&b'l') || self.read.get(3) != Some(&1) {
            return Err(Failure::Nonsense("another byte order or version"));
        }
        if body > MAX_PART || fields > MAX_PART {
            return Err(Failure::Nonsense("too long a message"));
        }
        let start = (HEAD + fields).next_multiple_of(8);
        self.fill(start + body)?;
        let whole: Vec<u8> = self.read.drain(..start + body).collect();
        Message::parse(&whole, fields, start)
    }

    /// Has at least so many bytes of what came.
    fn fill(&mut self, least: usize) -> Result<()> {
        while self.read.len() < least {
            self.check_deadline()?;
            let mut some = [0; 4096];
            match rustix::io::read(&self.socket, &mut some) {
                Ok(0) => return Err(Failure::Refused("it hung up".to_owned())),
                Ok(len) => self.read.extend(some.get(..len).unwrap_or(&[])),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(POLLIN)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        const LONGEST: usize = 512;
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| Failure::Nonsense("no text"));
            }
            if self.read.len() > LONGEST {
                return Err(Failure::Nonsense("no line"));
            }
            self.fill(self.read.len() + 1)?;
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        use rustix::net::{SendFlags, send};
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or(&[]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(POLLOUT)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn check_deadline(&self) -> Result<()> {
        if has_passed(Some(self.deadline)) { Err(Failure::Slow) } else { Ok(()) }
    }

    fn wait(&self, events: i16) -> Result<()> {
        self.check_deadline()?;
        wait_for(&mut [PollFd::new(&self.socket, events)], Some(self.deadline));
        Ok(())
    }
}

/// All that a bus may send from its answer to `AUTH` on, then a hang-up.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    use std::{io::Write as _, os::unix::net::UnixStream};
    let pair = UnixStream::pair().and_then(|pair| pair.0.set_nonblocking(true).map(|()| pair));
    let Ok((ours, mut theirs)) = pair else { return };
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    // Less than fits into the socket: it is read only later.
    let _ = theirs.write_all(bytes.get(..1 << 16).unwrap_or(bytes));
    let _ = theirs.shutdown(std::net::Shutdown::Write);
    let mut bus = Bus::new(ours.into(), deadline);
    let _ = bus.line();
    while let Ok(message) = bus.receive() {
        assert!(message.body.len() <= MAX_PART);
        if bus.note(&message).is_err() {
            break;
        }
        let _ = message.refusal();
    }
    assert!(bus.ended.len() <= MAX_ENDED && bus.read.len() <= 2 * MAX_PART + 2 * 4096);
}
