//! The client against buses that are friendly, that refuse, and that send what they should not.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use super::{
    wire::{ERROR_NAME, REPLY_SERIAL},
    *,
};

const SHORT_TIME: Duration = Duration::from_millis(500);

/// What comes of a bus that does this. The machine may stall for a minute.
fn meet(bus: impl FnOnce(UnixStream) + Send + 'static) -> Result<()> {
    meet_for(Duration::from_secs(180), bus)
}

/// What comes of a bus that does this, and that is given so long.
fn meet_for(time: Duration, bus: impl FnOnce(UnixStream) + Send + 'static) -> Result<()> {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    let thread = thread::spawn(move || bus(theirs));
    let came = Bus::greet(ours.into(), 1000, Instant::now() + time)
        .and_then(|mut bus| bus.start_scope("onejob-x.scope", "a job"));
    thread.join().expect("a bus");
    came
}

/// Reads what is sent until it contains this.
fn until(bus: &mut UnixStream, what: &[u8]) {
    until_or_closed(bus, what).expect("more");
}

/// The same; an error if the other end has had enough.
fn until_or_closed(bus: &mut UnixStream, what: &[u8]) -> std::io::Result<()> {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.windows(what.len()).any(|window| window == what) {
        bus.read_exact(&mut byte)?;
        read.push(byte[0]);
    }
    Ok(())
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
    friendly_or_closed(bus).expect("more");
}

/// The same; an error if the other end has had enough.
fn friendly_or_closed(bus: &mut UnixStream) -> std::io::Result<()> {
    until_or_closed(bus, b"AUTH EXTERNAL 31303030\r\n")?;
    bus.write_all(b"OK 0123\r\n")?;
    until_or_closed(bus, b"Hello\0")?;
    bus.write_all(&message(RETURN, "x", 1, "s", words(&[":1.9"])))?;
    until_or_closed(bus, b"JobRemoved'\0")?;
    bus.write_all(&message(RETURN, "x", 2, "", Writer::default()))?;
    until_or_closed(bus, b"TimeoutStopUSec\0")
}

/// A scope is there when its job is done also if that is told first.
#[test]
fn scope_is_ready_when_job_removed_arrives_early() {
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

/// Nonsense is recognised and a bus that hangs is left alone.
#[test]
fn malformed_replies_and_hangs_are_errors() {
    let long = vec![b'x'; 4096];
    let endless = {
        let mut head = vec![b'l', RETURN, 0, 1];
        head.extend([0xff; 12]);
        head
    };
    for after in [&endless[..], &[0; 64][..], &b"HTTP/1.1 400 Bad Request\r\n"[..]] {
        let after = after.to_vec();
        let came = meet(move |mut bus| {
            until(&mut bus, b"\r\n");
            bus.write_all(b"OK 0123\r\n").expect("sent");
            until(&mut bus, b"Hello\0");
            bus.write_all(&after).expect("sent");
            let _ = bus.read(&mut [0]);
        });
        assert!(matches!(came, Err(Failure::Nonsense(_))), "{came:?}");
    }
    let came = meet(|mut bus| {
        friendly(&mut bus);
        let mut whole = message(RETURN, "x", 3, "o", words(&["/job/4"]));
        // The length of a text that goes beyond the message.
        let at = whole.len() - 11;
        whole[at] = 0xf0;
        bus.write_all(&whole).expect("sent");
        let _ = bus.read(&mut [0]);
    });
    assert!(matches!(came, Err(Failure::Nonsense(_))), "{came:?}");
    let came = meet(move |mut bus| {
        until(&mut bus, b"\r\n");
        let _ = bus.write_all(&long);
        let _ = bus.read(&mut [0]);
    });
    assert!(matches!(came, Err(Failure::Nonsense(_))), "{came:?}");
    let start = Instant::now();
    let came = meet_for(SHORT_TIME, |mut bus| {
        until(&mut bus, b"\r\n");
        thread::sleep(Duration::from_millis(600));
    });
    assert!(matches!(came, Err(Failure::Slow)), "{came:?}");
    assert!(start.elapsed() >= SHORT_TIME);
}

/// Sends signals until the other end is closed.
fn flood(bus: &mut UnixStream) {
    let mut body = Writer::default();
    body.text(&"x".repeat(30_000));
    let noise = message(SIGNAL, "Noise", 0, "s", body);
    while bus.write_all(&noise).is_ok() {}
}

/// A bus that sends other signals without end is left at the deadline, whichever answer is awaited.
#[test]
fn endless_signals_end_at_the_deadline() {
    for answers in [0, 3] {
        let start = Instant::now();
        // On a machine that stalls the time is over before the flood begins.
        let came = meet_for(SHORT_TIME, move |mut bus| {
            let begun = if answers > 0 {
                let reply = message(RETURN, "x", answers, "o", words(&["/job/4"]));
                friendly_or_closed(&mut bus).and_then(|()| bus.write_all(&reply))
            } else {
                until_or_closed(&mut bus, b"\r\n").and_then(|()| bus.write_all(b"OK 0123\r\n"))
            };
            if begun.is_ok() {
                flood(&mut bus);
            }
        });
        assert!(matches!(came, Err(Failure::Slow)), "{came:?}");
        assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
    }
}

/// What is kept of a bus that ends job after job of our unit has a bound.
#[test]
fn endless_jobs_of_one_unit_are_refused() {
    let came = meet(|mut bus| {
        friendly(&mut bus);
        while bus.write_all(&removed("/job/1", "done")).is_ok() {}
    });
    assert!(matches!(came, Err(Failure::Nonsense(_))), "{came:?}");
}

/// The words of a refusal that go into an error message have a bound.
#[test]
fn an_endless_refusal_is_cut() {
    let came = meet(|mut bus| {
        friendly(&mut bus);
        let mut why = Writer::default();
        why.text(&"no ".repeat(20_000));
        bus.write_all(&message(ERROR, "a.b", 3, "s", why)).expect("sent");
    });
    assert!(matches!(&came, Err(Failure::Refused(why)) if why.len() == 300), "{came:?}");
}

/// What a friendly bus and others send, for the fuzz loop.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let mut noise = Writer::default();
    noise.text("noise");
    let all = [
        message(RETURN, "x", 1, "s", words(&[":1.9"])),
        message(RETURN, "x", 3, "o", words(&["/job/4"])),
        removed("/job/4", "done"),
        message(ERROR, "a.b", 3, "s", words(&["Interactive authentication required."])),
        message(SIGNAL, "Noise", 0, "s", noise),
    ];
    let hello = b"OK 0123\r\n".to_vec();
    let mut seeds: Vec<_> = all.iter().map(|one| [&hello[..], one].concat()).collect();
    seeds.push([hello, all.concat()].concat());
    seeds
}
