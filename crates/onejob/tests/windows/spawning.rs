//! A child starts in the job, with the same attributes as a child of std.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    os::windows::io::{AsHandle as _, AsRawHandle as _},
};

use onejob::{Command, Job, Stdio};
use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};

use crate::helpers::{Report, helper, outsider};

const AWKWARD: [&str; 14] = [
    "",
    " ",
    "a b",
    "\"",
    "a\"b",
    r"a\",
    r"a b\",
    r#"a\"b"#,
    r#"\\""#,
    "\t",
    "ünïcödé ✓ 🦀",
    "%PATH%",
    "a&b|c>d<e^f",
    "--",
];

fn output(job: &Job, command: &mut Command) -> String {
    let mut child = job.spawn(command.stdout(Stdio::piped())).expect("started");
    let mut text = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut text).expect("read");
    assert!(child.wait().expect("a status").success());
    String::from_utf8_lossy(&text).into_owned()
}

/// A child gets the same arguments, variables and directory as a child of std.
#[test]
fn arguments_environment_directory_match_std() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    let folder = std::env::temp_dir();
    let mut ours = helper("echo", &report.0);
    ours.arg("--").args(AWKWARD).env("Ünï", "wert ✓").env("onejob_case", "1").env_remove("Temp");
    let mut stds = outsider("echo", &report.0);
    stds.arg("--").args(AWKWARD).env("Ünï", "wert ✓").env("onejob_case", "1").env_remove("Temp");
    let stds = stds
        .current_dir(&folder)
        .stdout(std::process::Stdio::piped())
        .output()
        .expect("std starts it");
    let stds = String::from_utf8_lossy(&stds.stdout).into_owned();
    assert_eq!(output(&job, ours.current_dir(&folder)), stds);
    assert!(stds.contains("🦀") && stds.contains("wert") && !stds.contains("\"TEMP\""), "{stds}");
}

/// Batch files get the same arguments as with std. Line breaks are an error.
#[test]
fn batch_file_arguments_match_std() {
    let job = Job::new().expect("a job");
    let script = std::env::temp_dir().join(format!("onejob {} args.bat", std::process::id()));
    fs::write(&script, "@echo off\r\necho [%1] [%2] [%3]\r\nexit /b 7\r\n").expect("a script");
    let args = ["%PATH%", "a&echo hit", "plain"];
    let stds = std::process::Command::new(&script).args(args).output().expect("std starts it");
    let mut child =
        job.spawn(Command::new(&script).args(args).stdout(Stdio::piped())).expect("started");
    let mut text = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut text).expect("read");
    assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&stds.stdout));
    assert!(!text.is_empty());
    assert_eq!(child.wait().expect("a status"), stds.status);
    let refused = job.spawn(Command::new(&script).arg("a\r\nb")).expect_err("refused");
    assert!(refused.is_invalid_input(), "{refused}");
    let _ = fs::remove_file(script);
}

#[test]
fn no_handle_leaks() {
    let report = Report::new();
    // In a new process: other tests open handles meanwhile.
    let status = outsider("handles", &report.0).status().expect("started");
    assert!(status.success(), "{:?}", report.lines());
}

#[test]
fn every_exit_code_arrives_whole() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    for code in [0, 1, 259, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff_u32] {
        let mut child = job.spawn(helper(&format!("exit-{code}"), &report.0)).expect("started");
        assert_eq!(child.wait().expect("a status").code(), Some(code as i32));
    }
}

/// A program that cannot be started is the same error as with std, and no process is left.
#[test]
fn spawn_errors_match_std() {
    let job = Job::new().expect("a job");
    let dir = std::env::temp_dir();
    let text = dir.join(format!("onejob-{}.exe", std::process::id()));
    fs::write(&text, "no program").expect("a file");
    let programs: [OsString; 4] = [
        "no-such-program-anywhere".into(),
        r"C:\nowhere\at\all.exe".into(),
        dir.clone().into(),
        text.clone().into(),
    ];
    job.spawn(Command::new(&programs[0])).expect_err("missing");
    for program in &programs {
        let ours = job.spawn(Command::new(program)).expect_err("refused");
        let stds = std::process::Command::new(program).spawn().expect_err("refused");
        assert!(ours.is_exec(), "{ours}");
        assert_eq!(ours.is_not_found(), stds.kind() == std::io::ErrorKind::NotFound, "{ours}");
    }
    let absent = job.spawn(Command::new("cmd").current_dir(r"C:\nowhere")).expect_err("absent");
    assert!(absent.is_not_found() && !absent.is_exec(), "{absent}");
    assert!(job.spawn(Command::new("")).expect_err("empty").is_invalid_input());
    assert!(job.is_empty().expect("observable"));
    let _ = fs::remove_file(text);
}

/// A child is in the job at its first instruction, and inherits no other handle.
#[test]
fn child_is_inside_from_its_first_instruction() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    let seen = |report: &Report| report.lines().last().cloned().unwrap_or_default();
    job.spawn(helper("inside", &report.0)).expect("started").wait().expect("a status");
    let first = seen(&report);
    // Inheritable handles, which children of std inherit.
    let inheritable: Vec<_> = (0..20).map(|_| std::io::pipe().expect("a pipe")).collect();
    for (reader, writer) in &inheritable {
        for handle in [reader.as_raw_handle(), writer.as_raw_handle()] {
            // SAFETY: an open handle.
            let set = unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, 1) };
            assert_ne!(set, 0);
        }
    }
    let others: Vec<_> = (0..10).map(|_| Job::new().expect("a job")).collect();
    job.spawn(helper("inside", &report.0)).expect("started").wait().expect("a status");
    let second = seen(&report);
    let words = |line: &str| line.split(' ').skip(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&first)[0], "1", "inside a job: {first}");
    let count = |line: &str| words(line)[1].parse::<u32>().expect("a number");
    assert!(count(&first) > 0 && count(&second) < count(&first) + 20, "{first}, then {second}");
    // The check detects inherited handles: a child of std has all of them.
    outsider("inside", &report.0).status().expect("started");
    assert!(count(&seen(&report)) > count(&first) + 20, "{first}, by std {}", seen(&report));
    assert!(!inheritable.is_empty() && !others.is_empty());
}

#[test]
fn streams_are_wired_and_pipes_are_readable() {
    let job = Job::new().expect("a job");
    let mut sort = Command::new("cmd");
    sort.args(["/d", "/c", "set /p x= & call echo got %x%"]).stdin(Stdio::piped());
    let mut child = job.spawn(sort.stdout(Stdio::piped())).expect("started");
    assert!(child.as_handle().try_clone_to_owned().is_ok());
    child.stdin.take().expect("piped").write_all(b"hello\r\n").expect("written");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("read");
    child.wait().expect("a status");
    assert!(!text.is_empty());
}

#[test]
fn programs_are_found_as_std_finds_them() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    let folder = std::env::temp_dir().join(format!("onejob path {}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(std::env::current_exe().expect("a path to this program"), folder.join("found-it.exe"))
        .expect("copied");
    fs::write(folder.join("script-it.bat"), "@exit /b 7\r\n").expect("a script");
    type Env<'a> = &'a [(&'a str, &'a str)];
    let none: Env = &[];
    let here = folder.to_str().expect("text");
    let cases: [(&str, Env, bool); 9] = [
        ("found-it", &[("PATH", here)], true),
        ("found-it.exe", &[("PATH", here)], true),
        ("FOUND-IT", &[("pAtH", here)], true),
        ("found-it", none, false),
        ("script-it.bat", &[("PATH", here)], true),
        // Only `.exe` is added, whatever else is executable.
        ("script-it", &[("PATH", here), ("PATHEXT", ".BAT;.EXE")], false),
        ("cmd", &[("PATH", r"C:\nowhere")], true),
        ("cmd", &[("PATH", "")], true),
        ("no-such-program", &[("PATH", here)], false),
    ];
    for (program, env, found) in cases {
        let mut ours = Command::new(program);
        let mut stds = std::process::Command::new(program);
        for (key, value) in env.iter().chain(&[("ROLE", "exit-7")]) {
            ours.env(key, value);
            stds.env(key, value);
        }
        let args =
            if program == "cmd" { ["/d", "/c", "exit 7"] } else { ["run_role", "--exact", "-q"] };
        stds.args(args).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        ours.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        let stds = stds.status().map(|status| status.code()).map_err(|error| error.kind());
        let ours = job.spawn(&mut ours).and_then(|mut child| child.wait());
        let ours = ours.map(|status| status.code()).map_err(|error| {
            assert!(error.is_exec(), "{program}: {error}");
            std::io::Error::from(error).kind()
        });
        assert_eq!(ours, stds, "{program} with {env:?}");
        assert_eq!(ours.ok(), found.then_some(Some(7)), "{program} with {env:?}");
    }
    drop(report);
    let _ = fs::remove_dir_all(folder);
}
