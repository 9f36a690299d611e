//! A service manager that creates no scope does not prevent a job.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{ONEJOB, Scratch, onejob, outcome, text};

/// An ordinary user, without a service manager.
const USER: u32 = 54_324;

/// Accepts a client.
const OK: &[u8] = b"OK 1\r\n";

/// Accepts a client, and sends a signal of 60,000 bytes.
fn endless() -> Vec<u8> {
    const LEN: u32 = 60_000;
    let (mut sent, len) = (OK.to_vec(), LEN.to_le_bytes());
    sent.extend(b"l\x04\x00\x01");
    sent.extend(len);
    // Number 1; 14 bytes of header: field 3 (the member), a text, and padding.
    sent.extend(b"\x01\0\0\0\x0e\0\0\0\x03\x01s\0\x05\0\0\0Noise\0\0\0");
    sent.resize(sent.len() + LEN as usize, b'x');
    sent
}

/// The report of `onejob doctor` for an ordinary user with this runtime directory.
fn doctor(program: &Path, runtime: &Path) -> serde_json::Value {
    let mut doctor = onejob(&["doctor", "--json"]);
    if rustix::process::geteuid().is_root() {
        doctor = std::process::Command::new(program);
        doctor.args(["doctor", "--json"]).uid(USER).gid(USER);
    }
    // Whatever a bus sends, onejob must not need more memory than this.
    // SAFETY: setrlimit is async-signal-safe.
    unsafe {
        doctor.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1 << 28, rlim_max: 1 << 28 };
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            Ok(())
        })
    };
    doctor.env("XDG_RUNTIME_DIR", runtime).env_remove("DBUS_SESSION_BUS_ADDRESS");
    let output = outcome(&mut doctor);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["mechanisms"][0]["mechanism"], "cgroup");
    report
}

/// A bus that is missing, hangs, refuses, floods or sends invalid data is reported in time, and the
/// next mechanism is used.
#[test]
fn unusable_bus() {
    let scratch = Scratch::new();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // In a directory in which that user may execute it.
    let program = scratch.path().join("onejob");
    let copied = std::process::Command::new("cp").arg(ONEJOB).arg(&program).status();
    assert!(copied.unwrap().success());
    let bus = scratch.path().join("bus");
    let endless = endless();
    for (answer, told) in [
        (None, "no bus at"),
        (Some(&b""[..]), "does not answer"),
        (Some(b"REJECTED EXTERNAL\r\n"), "refuses"),
        (Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak D-Bus"),
        (Some(b"OK 1\r\nl\x02\xff\x01garbage of all kinds, garbage of all kinds"), "D-Bus"),
        (Some(&endless), "does not answer"),
    ] {
        if let Some(answer) = answer {
            let _ = fs::remove_file(&bus);
            let listener = UnixListener::bind(&bus).unwrap();
            fs::set_permissions(&bus, fs::Permissions::from_mode(0o777)).unwrap();
            let (answer, repeats) = (answer.to_owned(), answer == endless);
            thread::spawn(move || {
                for mut stream in listener.incoming().map_while(Result::ok) {
                    let _ = stream.write_all(&answer);
                    let signal = answer.get(OK.len()..).unwrap_or(&[]);
                    while repeats && stream.write_all(signal).is_ok() {}
                    // Keeps the connection open until the other end closes it.
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            });
        }
        // The shortest of three, since the machine may stall.
        let tries = [(); 3].map(|()| {
            let start = Instant::now();
            (doctor(&program, scratch.path()), start.elapsed())
        });
        let took = tries.iter().map(|(_, took)| *took).min().unwrap();
        assert!(took < Duration::from_millis(2500), "{told}: {took:?}");
        let [(report, _), ..] = tries;
        let cgroup = &report["mechanisms"][0];
        if cgroup["available"] == true {
            common::skip!("this user can make cgroups without a scope");
        }
        let reason = cgroup["reason"].as_str().unwrap();
        assert!(reason.contains("systemd makes no scope") && reason.contains(told), "{reason}");
        assert!(cgroup["hint"].as_str().unwrap().contains("linger"), "{cgroup}");
        assert_eq!(report["run_uses"], "subreaper", "the next mechanism");
    }
}
