//! Invalid messages to a guard and from a guard, and records of other versions.

use std::{
    fs,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{MemfdFlags, OFlags, memfd_create, open},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg,
        sendmsg, sendmsg_addr, socket_with, socketpair,
    },
};
use testkit::{Fixture, Owner, eventually, every_environment};

use crate::requests::{jobs, refused};

/// The first word of each message of this version.
const VERSION: u32 = 0x6f6a_0001;
const SPAWN: u32 = 2;
const FAILED: u32 = 4;

/// A message with `more` after its header.
fn message(version: u32, kind: u32, numbers: [u64; 2], more: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    [version, kind, 0, 0].iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    numbers.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes.extend(more);
    bytes
}

/// The socket at which the guard of the job `dev` receives requests.
fn socket_file(fixture: &Fixture, owner: &mut Owner) -> PathBuf {
    fixture.sandbox.runtime_dir().join(format!("{}.socket", owner.ok("id")))
}

fn datagrams() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .expect("a socket")
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("a pair")
}

fn send(to: &PathBuf, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)), "as many as fit");
    }
    let address = SocketAddrUnix::new(to).expect("a short path");
    let data = [IoSlice::new(bytes)];
    // The kernel limits the descriptors in flight of a user to RLIMIT_NOFILE (ETOOMANYREFS): wait until
    // the guard has received some.
    let socket = datagrams();
    testkit::eventually("fewer descriptors in flight", || {
        match sendmsg_addr(&socket, &address, &data, &mut control, SendFlags::empty()) {
            Err(rustix::io::Errno::TOOMANYREFS) => None,
            sent => Some(sent.expect("sent")),
        }
    });
}

/// The 32-bit words of the next message; empty at the end of the socket.
fn receive(socket: impl AsFd, fds: &mut Vec<OwnedFd>) -> Vec<u32> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 65536];
    let data = &mut [std::io::IoSliceMut::new(&mut bytes)];
    let came = recvmsg(socket, data, &mut control, RecvFlags::CMSG_CLOEXEC).expect("received");
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let words = bytes[..came.bytes].chunks_exact(4);
    words.map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes"))).collect()
}

/// A guard survives every datagram, closes the descriptors that it does not use, and replies to each
/// datagram that brings a reply socket.
#[test]
fn hostile_datagrams() {
    every_environment(|environment| {
        if environment.mechanism() != "subreaper" {
            return;
        }
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        owner.ok(&fixture.spawn("sleep"));
        let socket = socket_file(&fixture, &mut owner);
        let guards = fixture.sandbox.named("onejob-guard");
        let open_files = || {
            let count =
                |pid: &i32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
            guards.iter().map(count).collect::<Vec<_>>()
        };
        // A guard that sleeps has finished the last request and has closed its descriptors.
        view.ok("stats");
        let is_asleep = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(") S ")
        };
        let settled = || guards.iter().all(is_asleep).then(open_files);
        let before = eventually("the guards are asleep", settled);

        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, 0.into()).expect("a device");
        let zero = open("/dev/zero", OFlags::RDWR | OFlags::CLOEXEC, 0.into()).expect("a device");
        let short = memfd_create("short", MemfdFlags::CLOEXEC).expect("a memory file");
        rustix::io::write(&short, &[0xff; 640]).expect("room");
        let [null, zero, short] = [&null, &zero, &short].map(|fd| fd.as_fd());
        let (pipe, _writer) = rustix::pipe::pipe().expect("a pipe");
        let spawn = |numbers, more: &[u8]| message(VERSION, SPAWN, numbers, more);
        let large = 16 << 20;
        // A message that announces further descriptors, which a socket without any, or with other messages,
        // should provide.
        let announcing = |count: u32| {
            let mut bytes = spawn([0, 0], &[0; 600]);
            bytes[12..16].copy_from_slice(&count.to_ne_bytes());
            bytes
        };
        let (empty, _theirs) = pair();
        let wrong: Vec<OwnedFd> = [vec![], message(VERSION, FAILED, [0, 0], &[]), vec![0xff; 32]]
            .iter()
            .map(|bytes| {
                let (ours, theirs) = pair();
                let fds = [null; 3];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
                assert!(pushed, "they fit");
                let data = [IoSlice::new(bytes)];
                sendmsg(&ours, &data, &mut control, SendFlags::empty()).expect("sent");
                theirs
            })
            .collect();
        let with_reply: Vec<(Vec<u8>, Vec<BorrowedFd<'_>>)> = vec![
            (vec![], vec![null; 10]),
            (vec![0xff; 7], vec![null; 3]),
            (vec![0xff; 31], vec![]),
            (vec![0xff; 320], vec![null; 2]),
            (vec![0; 320], vec![null; 2]),
            (message(VERSION + 1, SPAWN, [0, 0], &[0; 600]), vec![null]),
            (message(VERSION - 1, SPAWN, [0, 0], &[]), vec![null]),
            (message(VERSION, SPAWN, [0, 0], &[])[..24].to_vec(), vec![null]),
            (spawn([0, 0], &[]), vec![]),
            (spawn([0, 0], &[0xff; 320]), vec![null; 2]),
            (spawn([0, 0], &[0; 600]), vec![null; 251]),
            (spawn([0, u64::MAX], &[0xff; 8192]), vec![null; 9]),
            (spawn([640, 0], &[]), vec![null, short, null]),
            (spawn([4096, 0], &[]), vec![null, short]),
            (spawn([u64::MAX, 0], &[]), vec![null, short]),
            (spawn([large, 1], &[]), vec![null, zero]),
            (spawn([4096, 1], &[]), vec![null, pipe.as_fd()]),
            (spawn([4096, 1], &[]), vec![null]),
            (announcing(1), vec![null]),
            (announcing(u32::MAX), vec![null, null]),
            (announcing(3), vec![null, empty.as_fd()]),
            (announcing(3), vec![null, wrong[0].as_fd()]),
            (announcing(2), vec![null, wrong[1].as_fd()]),
            (announcing(20_000), vec![null, wrong[2].as_fd()]),
        ];
        for (bytes, fds) in &with_reply {
            let (reply, theirs) = pair();
            let all: Vec<_> = [theirs.as_fd()].into_iter().chain(fds.iter().copied()).collect();
            send(&socket, bytes, &all);
            // Also without a reply socket.
            send(&socket, bytes, fds);
            drop(all);
            drop(theirs);
            let said = receive(&reply, &mut Vec::new());
            let beginning: Vec<_> = bytes.iter().take(12).collect();
            assert_eq!(said.get(..2), Some(&[VERSION, FAILED][..]), "{environment}: {beginning:?}");
            assert!(receive(&reply, &mut Vec::new()).is_empty(), "a second reply");
        }
        // The replies to these are never read, and the reply socket is full before the last one.
        let (_reply, theirs) = pair();
        (0..2_000).for_each(|_| send(&socket, &spawn([0, 0], &[]), &[theirs.as_fd()]));
        drop(theirs);
        for _ in 0..100 {
            send(&socket, &[], &[null; 200]);
        }

        view.ok("stats");
        let after = eventually("the guards are asleep", settled);
        assert_eq!(after, before, "{environment}: the guards' open files");
        view.ok(&fixture.spawn("sleep"));
        assert_eq!(view.ok("list").split_whitespace().count(), 2, "{environment}");
        owner.ok("kill");
        owner.ok("drop");
        drop((owner, view));
        fixture.assert_clean();
    });
}

/// If the guard has another version than a view, the error of the view states which of the two is older
/// and which command to use.
#[test]
fn guard_of_another_version() {
    every_environment(|environment| {
        if environment.mechanism() != "subreaper" {
            return;
        }
        for (version, said) in [(VERSION + 1, "a newer version"), (VERSION - 1, "an older version")]
        {
            let mut fixture = Fixture::new(environment);
            let mut owner = fixture.process();
            owner.ok(&fixture.new_job("dev"));
            let file = socket_file(&fixture, &mut owner);
            fs::remove_file(&file).expect("the guard's socket");
            let fake = datagrams();
            bind(&fake, &SocketAddrUnix::new(&file).expect("a short path")).expect("bound");
            if let Some(uid) = environment.uid() {
                std::os::unix::fs::chown(&file, Some(uid), Some(uid)).expect("root");
            }
            let answering = std::thread::spawn(move || {
                let mut fds = Vec::new();
                let request = receive(&fake, &mut fds);
                let answer = message(version, FAILED, [0, 0], &[]);
                rustix::net::send(&fds[0], &answer, SendFlags::empty()).expect("sent");
                request
            });
            let mut view = fixture.process();
            view.ok("open dev");
            let error = view.request(&fixture.spawn("sleep")).expect_err("a refusal");
            assert!(
                error.contains(said) && error.contains("use the version"),
                "{environment}: {error}"
            );
            assert_eq!(
                answering.join().expect("the thread ends")[..2],
                [VERSION, SPAWN],
                "a request"
            );
            owner.ok("drop");
            drop((owner, view));
            fixture.assert_clean();
        }
    });
}

/// A record of another format is listed as long as its owner lives. It cannot be opened, and it is not
/// removed.
#[test]
fn record_of_another_version() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.ok(&fixture.new_job("dev"));
        let id = owner.ok("id");
        let file = fixture.sandbox.runtime_dir().join(&id);
        let ours = fs::read_to_string(&file).expect("a record");
        assert!(ours.starts_with("format 1\n"), "{ours}");
        let mut view = fixture.process();
        for (format, said) in [("2", "a newer version"), ("0", "an older version")] {
            // In place: the owner holds a lock on this file.
            let other = ours.replacen("format 1", &format!("format {format}"), 1);
            fs::write(&file, other).expect("writable");
            for which in ["dev", &id] {
                let error = refused(&mut view, &format!("open {which}"), "unsupported");
                assert!(error.contains(said) && error.contains("use the version"), "{error}");
            }
            assert_eq!(jobs(&mut view).len(), 1, "{environment}: it is listed");
            let error = view.request(&fixture.new_job("dev")).expect_err("the name is taken");
            assert!(error.contains(said), "{environment}: {error}");
        }
        fs::write(&file, ours).expect("writable");
        view.ok("open dev");
        owner.ok("drop");
        drop((owner, view));
        fixture.assert_clean();
    });
}
