//! `onejob kill`: the tree below a pid, and no other process.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, Stdio},
};

use common::{
    Marked as _, Scratch, eventually, is_error, is_root, kill, line, lives, onejob, outcome,
    recorder::{Recorders, recorder},
    skip, text, wait,
};

/// A shell with a child, a grandchild, and a process that has left the session.
fn tree(scratch: &Scratch, name: &str) -> Child {
    let script = format!(
        "sleep 1000 & sh -c 'sleep 1000 & wait' & setsid sh -c 'echo $$ >{name}; sleep 1000 & \
         wait' & wait"
    );
    let child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(scratch.path())
        .marked(scratch)
        .spawn()
        .unwrap();
    line(&scratch.file(name));
    eventually("six processes of the tree", || scratch.marked().len() >= 6);
    child
}

fn says(args: &[&str], code: i32) -> String {
    let output = outcome(&mut onejob(args));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    let is_ours = |line: &str| line.starts_with("onejob: ") || line.starts_with("hint: ");
    assert!(stderr.lines().all(is_ours), "{args:?}: {stderr}");
    stderr
}

/// The tree below a pid ends, and no other process.
#[test]
fn tree_below_a_pid() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let mut bystander = Command::new("sleep").arg("1000").marked(&other).spawn().unwrap();
    let mut root = tree(&scratch, "ready");
    assert_eq!(says(&["kill", &root.id().to_string()], 0), "");
    assert_eq!(wait(&mut root).signal(), Some(libc::SIGTERM));
    scratch.marked_are_gone();
    assert!(lives(bystander.id()));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// Several trees are stopped in parallel.
#[test]
fn several_trees_in_parallel() {
    let scratch = Scratch::new();
    let recorders = Recorders::new(&scratch);
    let mut trees: Vec<Child> = (0..3)
        .map(|_| recorders.below(Command::new(recorder()).marked(&scratch)).spawn().unwrap())
        .collect();
    recorders.ready(3);
    let pids: Vec<_> = trees.iter().map(|tree| tree.id().to_string()).collect();
    let start = std::time::Instant::now();
    let args = [&["kill", "-k", "2s"][..], &pids.each()].concat();
    assert_eq!(says(&args, 0), "");
    eprintln!("three grace periods of 2 s took {:?}", start.elapsed());
    for tree in &mut trees {
        assert_eq!(wait(tree).signal(), Some(libc::SIGKILL));
        assert!(recorders.got(tree.id()).contains(&libc::SIGTERM));
    }
}

trait Each {
    fn each(&self) -> Vec<&str>;
}

impl Each for Vec<String> {
    fn each(&self) -> Vec<&str> {
        self.iter().map(String::as_str).collect()
    }
}

/// `--now` sends no other signal than SIGKILL.
#[test]
fn now_sends_sigkill_only() {
    let scratch = Scratch::new();
    let recorders = Recorders::new(&scratch);
    let mut root = recorders.below(Command::new(recorder()).marked(&scratch)).spawn().unwrap();
    recorders.ready(1);
    assert_eq!(says(&["kill", "--now", &root.id().to_string()], 0), "");
    assert_eq!(wait(&mut root).signal(), Some(libc::SIGKILL));
    assert_eq!(recorders.got(root.id()), [] as [i32; 0]);
}

/// `-s` chooses the first signal.
#[test]
fn first_signal() {
    let scratch = Scratch::new();
    let mut root = Command::new("sleep").arg("1000").marked(&scratch).spawn().unwrap();
    assert_eq!(says(&["kill", "-s", "USR1", &root.id().to_string()], 0), "");
    assert_eq!(wait(&mut root).signal(), Some(libc::SIGUSR1));
}

/// An invalid argument gives 125 and one error, and nothing is signalled.
#[test]
fn invalid_arguments() {
    let scratch = Scratch::new();
    let mut good = Command::new("sleep").arg("1000").marked(&scratch).spawn().unwrap();
    let pid = good.id().to_string();
    for bad in ["0", "1", "-5", "-9", "", "x", "1x", "+7", "4294967295", "99999999999999999999"] {
        let said = says(&["kill", "--now", &pid, bad], 125);
        assert!(is_error(&said) && said.contains("\nhint: "), "{said}");
    }
    says(&["kill", "-s", "FOO", &pid], 125);
    says(&["kill", "-k", "soon", &pid], 125);
    says(&["kill", "--now", "-k", "5", &pid], 125);
    says(&["kill"], 125);
    assert!(lives(good.id()));
    kill(good.id(), libc::SIGKILL);
    wait(&mut good);
}

/// onejob refuses its own pid.
#[test]
fn own_pid() {
    let sh = ["-c", "exec \"$0\" kill $$", common::ONEJOB];
    let output = outcome(Command::new("sh").args(sh));
    assert_eq!(output.status.code(), Some(125), "{}", output.status);
    assert!(text(&output.stderr).contains("itself"));
}

/// The parent of onejob can be ended.
#[test]
fn parent_pid() {
    let scratch = Scratch::new();
    let script = "sleep 1000 & \"$0\" kill --now $$ & wait; echo survived";
    let mut sh = Command::new("sh");
    let sh = sh.args(["-c", script, common::ONEJOB]).marked(&scratch).stdout(Stdio::piped());
    let output = sh.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGKILL));
    scratch.marked_are_gone();
}

/// A process that has exited gives 1, and the other targets are stopped.
#[test]
fn exited_process() {
    let scratch = Scratch::new();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mut root = Command::new("sleep").arg("1000").marked(&scratch).spawn().unwrap();
    let said = says(&["kill", &gone.id().to_string(), &root.id().to_string()], 1);
    assert!(said.contains(&gone.id().to_string()), "{said}");
    assert_eq!(wait(&mut root).signal(), Some(libc::SIGTERM));
}

/// A kernel thread is refused.
#[test]
fn kernel_thread() {
    let is_kernel_thread = |pid: &u32| common::stat(*pid, 1).as_deref() == Some("2");
    let Some(thread) = common::pids().into_iter().find(is_kernel_thread) else {
        skip!("no kernel thread is visible here");
    };
    let said = says(&["kill", "--now", &thread.to_string()], 1);
    assert!(is_error(&said), "{said}");
    assert!(lives(thread));
}

/// A process of another user is refused.
#[test]
fn process_of_another_user() {
    let scratch = Scratch::new();
    // Other users may not be able to read the build directory; the descriptor works for them.
    let program = std::fs::File::open(common::ONEJOB).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&program);
    let mut command = Command::new(format!("/proc/self/fd/{fd}"));
    let other = common::pids().into_iter().find(belongs_to_another_user);
    if !is_root() && other.is_none() {
        skip!("all processes here belong to the same user");
    }
    let mut sleep = Command::new("sleep").arg("1000").marked(&scratch).spawn().unwrap();
    let target = if is_root() {
        command.uid(65534).gid(65534);
        sleep.id()
    } else {
        other.unwrap_or_default()
    };
    let output = outcome(command.args(["kill", "--now", &target.to_string()]).current_dir("/"));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{} {said}", output.status);
    assert!(is_error(&said), "{said}");
    assert!(lives(target) && lives(sleep.id()));
    sleep.kill().unwrap();
    sleep.wait().unwrap();
}

/// Whether this is a program (not a kernel thread) that another user runs.
fn belongs_to_another_user(pid: &u32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let folder = format!("/proc/{pid}");
    let owner = std::fs::metadata(&folder).map(|folder| folder.uid()).ok();
    *pid != 1
        && owner.is_some_and(|owner| owner != rustix::process::geteuid().as_raw())
        && common::stat(*pid, 1).as_deref() != Some("2")
        && lives(*pid)
}
