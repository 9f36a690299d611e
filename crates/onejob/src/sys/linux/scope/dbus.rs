//! As much of D-Bus as it takes to have systemd make a scope (D-Bus specification 0.43, interface
//! `org.freedesktop.systemd1.Manager`): authenticate, one call, wait for its job to be done.
//!
//! Nothing that is read is believed further than it is checked, and nothing takes longer than the
//! deadline: whoever listens there may hang, refuse, or talk nonsense.

use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use super::super::{
    floor::call::{POLLIN, POLLOUT, PollFd},
    is_past, wait_for,
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
    signals: VecDeque<Message>,
    serial: u32,
}

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
    /// Authenticates as `user`, whom the socket itself already proves.
    pub(super) fn greet(socket: OwnedFd, user: u32, deadline: Instant) -> Result<Bus> {
        let (read, signals) = (Vec::new(), VecDeque::new());
        let mut bus = Bus { socket, deadline, read, signals, serial: 0 };
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
        loop {
            let signal = self.signal()?;
            if signal.member != "JobRemoved" || signal.signature != "uoss" {
                continue;
            }
            let mut body = Reader::new(&signal.body);
            body.u32()?;
            let (path, _, result) =
                (body.text()?.to_owned(), body.text()?.to_owned(), body.text()?);
            if path == job {
                return match result {
                    "done" => Ok(()),
                    result => Err(Failure::Refused(format!("the job of the scope is {result}"))),
                };
            }
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
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    fn signal(&mut self) -> Result<Message> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        const HEAD: usize = 16;
        // What concerns us is far smaller.
        const MOST: usize = 1 << 16;
        self.fill(HEAD)?;
        let mut head = Reader::new(self.read.get(4..HEAD).unwrap_or(&[]));
        let (body, _, fields) = (head.u32()? as usize, head.u32()?, head.u32()? as usize);
        if self.read.first() != Some(&b'l') || self.read.get(3) != Some(&1) {
            return Err(Failure::Nonsense("another byte order or version"));
        }
        if body > MOST || fields > MOST {
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

    fn wait(&self, events: i16) -> Result<()> {
        if is_past(Some(self.deadline)) {
            return Err(Failure::Slow);
        }
        wait_for(&mut [PollFd::new(self.socket.as_raw_fd(), events)], Some(self.deadline));
        Ok(())
    }
}

// Kinds of messages, and the fields of their headers.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// One that came.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    member: String,
    error: String,
    signature: String,
    reply_to: u32,
    body: Vec<u8>,
}

impl Message {
    /// `fields` is the length of the header's array, `start` where the body begins.
    fn parse(whole: &[u8], fields: usize, start: usize) -> Result<Message> {
        let mut message = Message {
            kind: *whole.get(1).unwrap_or(&0),
            body: whole.get(start..).unwrap_or(&[]).to_vec(),
            ..Message::default()
        };
        // Read as a whole, for alignment counts from the beginning.
        let end = 16 + fields;
        let mut reader = Reader { bytes: whole.get(..end).unwrap_or(&[]), at: 16 };
        while reader.at < end {
            reader.align(8);
            if reader.at >= end {
                break;
            }
            let code = reader.byte()?;
            match (code, reader.signature()?) {
                (_, "u") => {
                    let number = reader.u32()?;
                    if code == REPLY_SERIAL {
                        message.reply_to = number;
                    }
                }
                (_, "g") => {
                    let signature = reader.signature()?.to_owned();
                    if code == SIGNATURE {
                        message.signature = signature;
                    }
                }
                (_, "s" | "o") => {
                    let text = reader.text()?.to_owned();
                    match code {
                        MEMBER => message.member = text,
                        ERROR_NAME => message.error = text,
                        _ => {}
                    }
                }
                _ => return Err(Failure::Nonsense("an unknown header")),
            }
        }
        Ok(message)
    }

    fn refusal(&self) -> Failure {
        let words = match self.signature.starts_with('s') {
            true => Reader::new(&self.body).text().unwrap_or_default().to_owned(),
            false => String::new(),
        };
        Failure::Refused(if words.is_empty() { self.error.clone() } else { words })
    }
}

/// Marshalled values: each is aligned to its size.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.bytes().chain([0]));
    }

    /// Its length counts from the first element, which is aligned to `to`.
    fn array(&mut self, to: usize, fill: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(to);
        let start = self.0.len();
        fill(self);
        let size = ((self.0.len() - start) as u32).to_le_bytes();
        self.0[length..length + 4].copy_from_slice(&size);
    }

    fn property(&mut self, name: &str, signature: &str, value: impl FnOnce(&mut Writer)) {
        self.align(8);
        self.text(name);
        self.signature(signature);
        value(self);
    }

    fn field(&mut self, code: u8, signature: &str, value: impl FnOnce(&mut Writer)) {
        self.align(8);
        self.0.push(code);
        self.signature(signature);
        value(self);
    }
}

/// Takes marshalled values apart.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: Failure = Failure::Nonsense("a message that is cut off");

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.saturating_add(len)).ok_or(SHORT)?;
        self.at += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1)?.first().copied().ok_or(SHORT)
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| SHORT)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = self.u32()? as usize;
        self.words(len)
    }

    fn signature(&mut self) -> Result<&'a str> {
        let len = self.byte()? as usize;
        self.words(len)
    }

    fn words(&mut self, len: usize) -> Result<&'a str> {
        let text = self.take(len)?;
        self.take(1)?;
        str::from_utf8(text).map_err(|_| Failure::Nonsense("no text"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        thread,
        time::Duration,
    };

    use super::*;

    /// What comes of a bus that does this.
    fn meet(bus: impl FnOnce(UnixStream) + Send + 'static) -> Result<()> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket");
        let thread = thread::spawn(move || bus(theirs));
        let deadline = Instant::now() + Duration::from_millis(500);
        let came = Bus::greet(ours.into(), 1000, deadline)
            .and_then(|mut bus| bus.start_scope("onejob-x.scope", "a job"));
        thread.join().expect("a bus");
        came
    }

    /// Reads what is sent until it contains this.
    fn until(bus: &mut UnixStream, what: &[u8]) {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.windows(what.len()).any(|window| window == what) {
            bus.read_exact(&mut byte).expect("more");
            read.push(byte[0]);
        }
    }

    fn message(kind: u8, member: &str, reply_to: u32, signature: &str, body: Writer) -> Vec<u8> {
        let mut message = Writer(vec![b'l', kind, 0, 1]);
        message.u32(body.0.len() as u32);
        message.u32(7);
        message.array(8, |fields| {
            if reply_to > 0 {
                fields.field(REPLY_SERIAL, "u", |value| value.u32(reply_to));
            }
            let code = if kind == ERROR { ERROR_NAME } else { MEMBER };
            fields.field(code, "s", |value| value.text(member));
            fields.field(SIGNATURE, "g", |value| value.signature(signature));
        });
        message.align(8);
        message.0.extend(body.0);
        message.0
    }

    fn words(words: &[&str]) -> Writer {
        let mut body = Writer::default();
        words.iter().for_each(|word| body.text(word));
        body
    }

    fn removed(job: &str, result: &str) -> Vec<u8> {
        let mut body = Writer::default();
        body.u32(5);
        [job, "onejob-x.scope", result].iter().for_each(|word| body.text(word));
        message(SIGNAL, "JobRemoved", 0, "uoss", body)
    }

    /// Plays the part of a bus until the scope has been asked for.
    fn friendly(bus: &mut UnixStream) {
        until(bus, b"AUTH EXTERNAL 31303030\r\n");
        bus.write_all(b"OK 0123\r\n").expect("sent");
        until(bus, b"Hello\0");
        bus.write_all(&message(RETURN, "x", 1, "s", words(&[":1.9"]))).expect("sent");
        until(bus, b"JobRemoved'\0");
        bus.write_all(&message(RETURN, "x", 2, "", Writer::default())).expect("sent");
        until(bus, b"TimeoutStopUSec\0");
    }

    #[test]
    fn a_scope_is_there_when_its_job_is_done_also_if_that_is_told_first() {
        for early in [false, true] {
            let came = meet(move |mut bus| {
                friendly(&mut bus);
                let reply = message(RETURN, "x", 3, "o", words(&["/job/4"]));
                let done = [removed("/job/3", "failed"), removed("/job/4", "done")].concat();
                let all = if early { [done, reply] } else { [reply, done] };
                // In pieces, as a stream may deliver it.
                all.concat().chunks(7).for_each(|part| bus.write_all(part).expect("sent"));
            });
            assert!(came.is_ok(), "{came:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let came = meet(|mut bus| {
            friendly(&mut bus);
            let why = words(&["Interactive authentication required."]);
            bus.write_all(&message(ERROR, "a.b", 3, "s", why)).expect("sent");
        });
        assert!(matches!(&came, Err(Failure::Refused(why)) if why.contains("Interactive")));
        let came = meet(|mut bus| {
            friendly(&mut bus);
            let reply = message(RETURN, "x", 3, "o", words(&["/job/4"]));
            bus.write_all(&[reply, removed("/job/4", "canceled")].concat()).expect("sent");
        });
        assert!(matches!(&came, Err(Failure::Refused(why)) if why.contains("canceled")));
        let came = meet(|mut bus| {
            until(&mut bus, b"\r\n");
            bus.write_all(b"REJECTED EXTERNAL\r\n").expect("sent");
        });
        assert!(matches!(came, Err(Failure::Refused(_))), "{came:?}");
        let came = meet(drop);
        assert!(matches!(came, Err(Failure::Refused(_) | Failure::Io(_))), "{came:?}");
    }

    #[test]
    fn nonsense_is_recognised_and_a_bus_that_hangs_is_left_alone() {
        let long = vec![b'x'; 4096];
        let endless = {
            let mut head = vec![b'l', RETURN, 0, 1];
            head.extend([0xff; 12]);
            head
        };
        let cut = {
            let mut whole = message(RETURN, "x", 1, "s", words(&[":1.9"]));
            // The length of a text that goes beyond everything.
            let at = whole.len() - 9;
            whole[at] = 0xf0;
            whole
        };
        for after in [&endless[..], &cut[..], &[0; 64][..], &b"HTTP/1.1 400 Bad Request\r\n"[..]] {
            let after = after.to_vec();
            let came = meet(move |mut bus| {
                until(&mut bus, b"\r\n");
                bus.write_all(b"OK 0123\r\n").expect("sent");
                until(&mut bus, b"Hello\0");
                bus.write_all(&after).expect("sent");
                thread::sleep(Duration::from_millis(600));
            });
            assert!(matches!(came, Err(Failure::Nonsense(_) | Failure::Slow)), "{came:?}");
        }
        let came = meet(move |mut bus| {
            until(&mut bus, b"\r\n");
            let _ = bus.write_all(&long);
        });
        assert!(matches!(came, Err(Failure::Nonsense(_))), "{came:?}");
        let start = Instant::now();
        let came = meet(|mut bus| {
            until(&mut bus, b"\r\n");
            thread::sleep(Duration::from_millis(600));
        });
        assert!(matches!(came, Err(Failure::Slow)), "{came:?}");
        assert!(start.elapsed() >= Duration::from_millis(500));
    }
}
