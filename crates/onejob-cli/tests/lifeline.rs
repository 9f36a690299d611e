//! `--lifeline FD`: the tree lives as long as the other end.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    HANG, LOST, Marked as _, ONEJOB, STUBBORN_TREE, Scratch, eventually, inits::original, is_error,
    kill, line, lives, mechanisms, onejob, outcome, pty::Pty, read, run, skip, sleeps, text, wait,
};

/// `onejob run` and `onejob init` with the tree and this standard input as their lifeline.
fn started(verb: &[&str], scratch: &Scratch, stdin: impl Into<Stdio>) -> Child {
    let mut command = onejob(verb);
    command.args(["--lifeline", "0", "-k", ".3", "--", "sh", "-c", STUBBORN_TREE]);
    command.current_dir(scratch.path()).marked(scratch).stdin(stdin).stdout(Stdio::null());
    let child = command.spawn().unwrap();
    line_in(scratch, "ready");
    child
}

fn line_in(scratch: &Scratch, name: &str) {
    eventually(&format!("there is {name}"), || scratch.file(name).exists());
}

fn verbs() -> Vec<Vec<String>> {
    let verb = |verb: &str, mechanism: &String| {
        vec![verb.to_owned(), "--mechanism".to_owned(), mechanism.clone()]
    };
    mechanisms().iter().flat_map(|m| [verb("run", m), verb("init", m)]).collect()
}

/// The tree lives until `cut` is called, and is gone then.
#[track_caller]
fn dies_with(stdin: impl Fn() -> (OwnedFd, Box<dyn FnOnce()>)) {
    for verb in verbs() {
        let scratch = Scratch::new();
        let verb: Vec<_> = verb.iter().map(String::as_str).collect();
        let (stdin, cut) = stdin();
        let mut process = started(&verb, &scratch, stdin);
        std::thread::sleep(Duration::from_millis(200));
        assert!(lives(process.id()), "{verb:?}: it ended before the lifeline was cut");
        cut();
        assert_eq!(wait(&mut process).code(), Some(LOST), "{verb:?}");
        scratch.marked_are_gone();
    }
}

/// The tree ends when the other end of a pipe is closed.
#[test]
fn closed_pipe() {
    dies_with(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), Box::new(|| drop(writer)))
    });
}

/// Unread data does not hide that a pipe was closed.
#[test]
fn closed_pipe_with_unread_data() {
    dies_with(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"unread data").unwrap();
        (reader.into(), Box::new(|| drop(writer)))
    });
}

/// The tree ends when a socket is closed, and not when its peer only shuts down writing.
#[test]
fn closed_socket() {
    dies_with(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"unread data").unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        (ours.into(), Box::new(|| drop(theirs)))
    });
}

/// The tree ends when the peer closes a TCP connection.
#[test]
fn closed_tcp_connection() {
    dies_with(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        (ours.into(), Box::new(|| drop(theirs)))
    });
}

/// The tree ends when its terminal hangs up, also if SIGHUP is ignored.
#[test]
fn terminal_hangup() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut command = Command::new("bash");
        // The shell ignores SIGHUP, and every process below inherits that.
        let line = format!(
            "trap '' HUP; {ONEJOB} run --mechanism {mechanism} --lifeline 0 -k .3 -- sh -c '{}'; \
             echo $? >status",
            STUBBORN_TREE.replace('\'', "'\\''")
        );
        command.args(["-c", &line]).current_dir(scratch.path()).marked(&scratch);
        let mut pty = Pty::start(&mut command);
        line_in(&scratch, "ready");
        pty.close();
        assert_eq!(common::line(&scratch.file("status")), LOST.to_string(), "{mechanism}");
        scratch.marked_are_gone();
    }
}

/// CMD can read a standard input that is the lifeline.
#[test]
fn standard_input_is_readable_by_cmd() {
    for mechanism in mechanisms() {
        let args =
            ["--lifeline", "0", "--", "sh", "-c", "read x; echo \"got $x\"; read y; echo $y"];
        let mut command = run(&mechanism, &args);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").unwrap();
        let mut said = String::new();
        process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "got one\ntwo\n", "{mechanism}");
        assert_eq!(wait(&mut process).code(), Some(0));
        drop(stdin);
    }
}

/// A descriptor above 2 is watched, and CMD does not inherit it.
#[test]
fn other_descriptor_is_not_inherited() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let line = format!(
            "mkfifo life; {ONEJOB} run --mechanism {mechanism} --lifeline 7 -k .3 -- sh -c 'ls \
             /proc/self/fd >fds; echo >ready; exec sleep 1000' 7<life; echo $? >status"
        );
        let mut command = Command::new("bash");
        command.args(["-c", &line]).current_dir(scratch.path()).marked(&scratch);
        let mut shell = command.spawn().unwrap();
        line_in(&scratch, "life");
        let writer = fs::File::options().write(true).open(scratch.file("life")).unwrap();
        line_in(&scratch, "ready");
        assert!(!read(scratch.file("fds")).lines().any(|number| number == "7"));
        drop(writer);
        assert_eq!(common::line(&scratch.file("status")), LOST.to_string(), "{mechanism}");
        wait(&mut shell);
        scratch.marked_are_gone();
    }
}

/// Standard output can be the lifeline.
#[test]
fn standard_output() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let line = format!(
            "{{ {ONEJOB} run --mechanism {mechanism} --lifeline 1 -- sh -c 'echo here; exec sleep \
             1000'; echo $? >status; }} | head -1"
        );
        let output = outcome(
            Command::new("bash").args(["-c", &line]).current_dir(scratch.path()).marked(&scratch),
        );
        assert_eq!(text(&output.stdout), "here\n");
        assert_eq!(common::line(&scratch.file("status")), LOST.to_string(), "{mechanism}");
        scratch.marked_are_gone();
    }
}

/// CMD's own status is returned when it exits first; `--wait-all` ends with the lifeline.
#[test]
fn status_of_cmd_and_wait_all() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = run(&mechanism, &["--lifeline", "0", "sh", "-c", "exit 7"]);
        assert_eq!(command.stdin(reader).status().unwrap().code(), Some(7), "{mechanism}");
        drop(writer);

        let (reader, writer) = std::io::pipe().unwrap();
        let tree = "setsid sleep 1000 & echo >ready; exit 7";
        let mut command = run(&mechanism, &["--lifeline", "0", "--wait-all", "sh", "-c", tree]);
        command.current_dir(scratch.path()).marked(&scratch).stdin(reader).stdout(Stdio::null());
        let mut process = command.spawn().unwrap();
        line_in(&scratch, "ready");
        drop(writer);
        assert_eq!(wait(&mut process).code(), Some(LOST), "{mechanism}");
        scratch.marked_are_gone();
    }
}

/// Nothing is started if the other end is closed already.
#[test]
fn already_closed() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let mut command = run(&mechanism, &["--lifeline", "0", "touch", "started"]);
        let output = command.stdin(reader).current_dir(scratch.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(LOST), "{mechanism}");
        assert!(
            text(&output.stderr).starts_with("onejob: the other end of the lifeline is closed")
        );
        assert!(!scratch.file("started").exists());
    }
}

/// A descriptor without another end is refused.
#[test]
fn descriptor_without_other_end() {
    let scratch = Scratch::new();
    let refused = |redirections: &str, fd: &str, says: &str| {
        for verb in ["run", "init"] {
            let line = format!("{ONEJOB} {verb} --lifeline {fd} -- touch started {redirections}");
            let mut command = Command::new("bash");
            let output = outcome(command.args(["-c", &line]).current_dir(scratch.path()));
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{line}: {stderr}");
            assert!(is_error(&stderr) && stderr.contains(says), "{line}: {stderr}");
            assert!(!scratch.file("started").exists(), "{line}");
        }
    };
    refused("</etc/passwd", "0", "a regular file has no other end");
    refused("</dev/null", "0", "no other end");
    refused("7</", "7", "no other end");
    refused("<&-", "0", "not open");
    refused("", "7", "not open");
    refused("3<&-", "3", "not open");
    refused("8<>life", "8", "a regular file has no other end");
    Command::new("mkfifo").arg(scratch.file("fifo")).status().unwrap();
    refused("8<>fifo", "8", "its other end is open in onejob");
    refused("8<>fifo 7<fifo", "7", "its other end is open in onejob");
    for fd in ["x", "-1", "", "1.5", "99999999999"] {
        refused("", &format!("'{fd}'"), "invalid descriptor");
    }
    let output = outcome(&mut onejob(&["run", "--lifeline", "0", "--keep", "true"]));
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("--keep"));
}

/// Waiting for a lifeline causes no wake-ups.
#[test]
fn waiting_causes_no_wakeups() {
    let scratch = Scratch::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"unread data").unwrap();
    let mut process = started(&["run"], &scratch, reader);
    std::thread::sleep(Duration::from_millis(200));
    let before = sleeps(process.id());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sleeps(process.id()), before);
    drop(writer);
    assert_eq!(wait(&mut process).code(), Some(LOST));
}

/// An OpenSSH server of the current user on a free port of the loopback interface.
struct Sshd {
    server: Child,
    folder: PathBuf,
    port: u16,
}

impl Sshd {
    /// `None` where OpenSSH is not installed.
    fn start(scratch: &Scratch) -> Option<Sshd> {
        let (sshd, keygen) = (original("sshd")?, original("ssh-keygen")?);
        original("ssh")?;
        let folder = scratch.path().to_owned();
        for key in ["host", "user"] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            assert!(command.status().unwrap().success());
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized")).unwrap();
        if common::is_root() {
            // The directory for privilege separation of a server of root, which is usually made at boot.
            let _ = fs::create_dir("/run/sshd");
        }
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut server = Sshd::serve(&sshd, &folder, port);
            let deadline = Instant::now() + HANG;
            // Another process may have bound the port in between.
            let listens = format!("Server listening on 127.0.0.1 port {port}.");
            while server.try_wait().unwrap().is_none() {
                if log(&folder).contains(&listens) {
                    return Some(Sshd { server, folder, port });
                }
                assert!(Instant::now() < deadline, "sshd does not listen: {}", log(&folder));
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("no port for sshd: {}", log(&folder))
    }

    fn serve(sshd: &Path, folder: &Path, port: u16) -> Child {
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f", "/dev/null"]);
        for option in [
            format!("Port={port}"),
            "ListenAddress=127.0.0.1".to_owned(),
            format!("HostKey={}", file("host")),
            format!("AuthorizedKeysFile={}", file("authorized")),
            "PidFile=none".to_owned(),
            "StrictModes=no".to_owned(),
            "UsePAM=no".to_owned(),
            "PasswordAuthentication=no".to_owned(),
            "PermitRootLogin=prohibit-password".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        let log = fs::File::create(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// A line for the far shell, run through a client that the test can cut off.
    fn client(&self, options: &str, line: &str) -> Command {
        let mut command = Command::new("ssh");
        let key = self.folder.join("user");
        command.args(options.split_whitespace());
        command.args(["-F", "none", "-p", &self.port.to_string(), "-i", key.to_str().unwrap()]);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        ] {
            command.args(["-o", option]);
        }
        command.args(["127.0.0.1", line]).env_remove("SSH_AUTH_SOCK");
        command
    }
}

fn log(folder: &Path) -> String {
    read(folder.join("log"))
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The remote tree ends within two seconds after an ssh connection broke.
#[test]
fn broken_ssh_connection() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else {
        skip!("OpenSSH is not installed");
    };
    // Only a server of root can make terminals.
    let options = if common::is_root() { &["", "-n", "-tt"][..] } else { &["", "-n"] };
    let mechanisms = mechanisms();
    let all = mechanisms.iter().flat_map(|m| options.iter().map(move |options| (m, *options)));
    for (mechanism, options) in all {
        // The shortest of three, since the machine may stall.
        let best = (0..3).map(|_| cut_off(&sshd, mechanism, options)).min().unwrap();
        eprintln!("{mechanism} ssh {options}: gone after {best:?}");
        assert!(best < Duration::from_secs(2), "{mechanism} {options}: only after {best:?}");
    }
}

/// How long a tree with daemons lives on after its client was killed.
fn cut_off(sshd: &Sshd, mechanism: &str, options: &str) -> Duration {
    let scratch = Scratch::new();
    let tree = STUBBORN_TREE.replace('\'', "'\\''");
    // Without input, the output is the lifeline.
    let fd = if options == "-n" { 1 } else { 0 };
    let line = format!(
        "cd {}; {} exec {ONEJOB} run --mechanism {mechanism} --lifeline {fd} -k .5 -- sh -c \
         '{tree}'",
        scratch.str(),
        scratch.mark(),
    );
    let mut ssh = sshd.client(options, &line);
    let mut client =
        ssh.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    eventually("the far tree is ready", || {
        assert!(client.try_wait().unwrap().is_none(), "ssh ended: {}", log(&sshd.folder));
        scratch.file("ready").exists()
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(scratch.marked().len() >= 3, "the far tree lives as long as the connection");
    let start = Instant::now();
    kill(client.id(), libc::SIGKILL);
    wait(&mut client);
    scratch.marked_are_gone();
    start.elapsed()
}

/// A detached job outlives its ssh connection, and the next connection finds it.
#[test]
fn detached_job_over_ssh() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else {
        skip!("OpenSSH is not installed");
    };
    for mechanism in mechanisms() {
        let place = Scratch::new();
        let home = place.str();
        let far = |line: &str| {
            let mark = place.mark();
            let setting = format!("export {mark} ONEJOB_RUNTIME_DIR={home}/run HOME={home}");
            sshd.client("-n", &format!("cd {home}; {setting}; {line}"))
        };
        let run = format!("{ONEJOB} run --mechanism {mechanism}");
        let daemon = "setsid sleep 300 & echo $! > daemon; exec sleep 300";
        // A process tied to the connection ends when the server has noticed its end.
        let tied = "echo $$ > tied; exec sleep 300";
        let mut client = far(&format!(
            "{run} -d -n far -- sh -c '{daemon}'; exec {run} --lifeline 1 -- sh -c '{tied}'"
        ));
        let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
        let [daemon, tied] =
            ["daemon", "tied"].map(|name| line(&place.file(name)).parse::<u32>().unwrap());
        kill(client.id(), libc::SIGKILL);
        wait(&mut client);
        eventually("the end of the process tied to the connection", || !lives(tied));
        assert!(lives(daemon), "{mechanism}: the detached job died with the connection");
        let found = outcome(&mut far(&format!("{ONEJOB} ls --json")));
        let jobs: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
        let far_job = jobs["jobs"].as_array().unwrap().iter().find(|job| job["name"] == "far");
        assert_eq!(far_job.unwrap()["members"], 2, "{mechanism}: {jobs}");
        let ended = outcome(&mut far(&format!("{ONEJOB} kill --now far")));
        assert!(ended.status.success(), "{mechanism}: {}", text(&ended.stderr));
        eventually("the daemon is gone", || !lives(daemon));
    }
}
