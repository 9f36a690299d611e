//! Standard streams and other descriptors.

use std::{
    fs,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd},
};

use onejob::{Command, Stdio};

use crate::common::{alone, for_each_mechanism, job};

/// The standard streams are right even if the descriptors for them have the numbers 0 to 2.
#[test]
fn stdio_with_colliding_descriptors() {
    const NAME: &str = "descriptors::stdio_with_colliding_descriptors";
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        // The last round has closed 0: the job must not get that number.
        let null = std::fs::File::open("/dev/null").expect("the null device").into_raw_fd();
        let job = job(mechanism);
        // SAFETY: this process does not read standard input, and nothing else owns the new descriptor.
        unsafe {
            libc::dup2(null, 0);
            libc::close(null);
            libc::close(0);
        }
        // The lowest free number is 0: a pipe end of the owner gets a number that the child needs.
        let (out_reader, out_writer) = std::io::pipe().expect("a pipe");
        let (err_reader, err_writer) = std::io::pipe().expect("a pipe");
        let numbers = [out_reader.as_raw_fd(), out_writer.as_raw_fd()];
        assert!(numbers.contains(&0), "a pipe must have the descriptor 0: {numbers:?}");
        let mut child = job
            .spawn(
                Command::new("sh")
                    .args(["-c", "cat; echo out; echo err >&2"])
                    .stdin(Stdio::piped())
                    .stdout(OwnedFd::from(out_writer))
                    .stderr(OwnedFd::from(err_writer)),
            )
            .expect("started");
        child.stdin.take().expect("piped").write_all(b"in\n").expect("read");
        child.wait().expect("a status");
        let read = |mut reader: std::io::PipeReader| {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("text");
            text
        };
        assert_eq!(read(out_reader), "in\nout\n");
        assert_eq!(read(err_reader), "err\n");
    });
}

#[test]
fn swapped_streams_are_swapped() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let dup = || writer.as_fd().try_clone_to_owned().expect("a copy");
        let mut child = job
            .spawn(
                Command::new("sh").args(["-c", "echo a; echo b >&2"]).stdout(dup()).stderr(dup()),
            )
            .expect("started");
        child.wait().expect("a status");
        drop(writer);
        let mut text = String::new();
        (&reader).read_to_string(&mut text).expect("text");
        assert_eq!(text, "a\nb\n");
    });
}

/// The library leaks no descriptor, neither into the child nor in the owner.
#[test]
fn no_descriptor_leaks_into_the_child() {
    const NAME: &str = "descriptors::no_descriptor_leaks_into_the_child";
    if !alone(NAME, |_| {}) {
        return;
    }
    let open = || fs::read_dir("/proc/self/fd").expect("a list").count();
    for_each_mechanism(|mechanism| {
        let round = || {
            let job = job(mechanism);
            job.spawn(Command::new("true")).expect("started").wait().expect("a status");
            job.spawn(Command::new("/nowhere")).expect_err("missing");
            job.spawn(Command::new("sleep").arg("300")).expect("started");
            job.stop(std::time::Duration::from_secs(60)).expect("stopped");
        };
        round();
        let before = open();
        (0..20).for_each(|_| round());
        assert_eq!(open(), before, "descriptors of the owner");
    });
}
