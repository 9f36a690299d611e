//! The guarantees of a job depend on the capabilities of its owner and its guards, not on their user.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};

use testkit::{Bins, Environment, LineProcess, Report, Sandbox, eventually, proc, scratch_dir};

/// A user without other processes.
const OTHER: &str = "54322";

/// How the owner is started, and whether it can signal members that have changed their user.
struct Host {
    what: &'static str,
    prefix: &'static [&'static str],
    environment: Environment,
    crosses_setuid: bool,
    /// How a member changes its user.
    change: Change,
}

enum Change {
    /// A process of root calls `setuid`.
    Drop,
    /// It executes a program that is setuid root.
    Execute,
    /// It cannot: the user of the setuid program does not exist in the user namespace.
    Cannot,
}

const WITHOUT_KILL: &[&str] = &["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"];
const WITH_KILL: &[&str] = &[
    "setpriv",
    "--reuid",
    "54321",
    "--regid",
    "54321",
    "--clear-groups",
    "--inh-caps",
    "+kill",
    "--ambient-caps",
    "+kill",
];
const ORDINARY: &[&str] =
    &["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps", "-kill"];

/// The table: in each row a kill proves whether `crosses_setuid` is true.
const HOSTS: &[Host] = &[
    Host {
        what: "root",
        prefix: &[],
        environment: Environment::SubreaperRoot,
        crosses_setuid: true,
        change: Change::Drop,
    },
    Host {
        what: "root without CAP_KILL",
        prefix: WITHOUT_KILL,
        environment: Environment::SubreaperRoot,
        crosses_setuid: false,
        change: Change::Drop,
    },
    Host {
        what: "root without CAP_KILL, in a cgroup",
        prefix: WITHOUT_KILL,
        environment: Environment::CgroupRoot,
        crosses_setuid: true,
        change: Change::Drop,
    },
    Host {
        what: "an ordinary user",
        prefix: ORDINARY,
        environment: Environment::SubreaperRoot,
        crosses_setuid: false,
        change: Change::Execute,
    },
    Host {
        what: "an ordinary user with CAP_KILL",
        prefix: WITH_KILL,
        environment: Environment::SubreaperRoot,
        crosses_setuid: true,
        change: Change::Execute,
    },
    Host {
        what: "root of a user namespace",
        prefix: &["unshare", "--user", "--map-root-user"],
        environment: Environment::SubreaperRoot,
        crosses_setuid: true,
        change: Change::Cannot,
    },
];

fn is_here() -> bool {
    let is_here = Environment::here().contains(&Environment::CgroupRoot);
    if !is_here {
        eprintln!("SKIPPED: only root can give capabilities");
    }
    is_here
}

/// The command line that starts `program` on the host.
fn command_line(host: &Host, program: &str) -> Vec<String> {
    let words = host.prefix.iter().copied().chain([program]);
    words.map(str::to_owned).collect()
}

/// Starts a member that changes its user, and returns its pid; `None` if this host has no setuid programs.
fn changed_member(host: &Host, sandbox: &Sandbox, owner: &mut LineProcess) -> Option<i32> {
    let report = Report::new();
    let (helper, arg) = (Bins::get().helper(), report.arg().to_owned());
    match host.change {
        Change::Drop => {
            owner.ok(&format!(
                "spawn setpriv --reuid {OTHER} --regid {OTHER} --clear-groups sleep 300"
            ));
            let changed = |pid: &i32| {
                proc::status(*pid, "Uid").is_some_and(|uid| uid.starts_with(&format!("{OTHER}\t")))
            };
            let found = || sandbox.live_pids().into_iter().find(changed);
            Some(eventually("a member of another user", found))
        }
        Change::Execute | Change::Cannot => {
            let setuid = Bins::get().setuid_helper()?;
            if matches!(host.change, Change::Cannot) {
                owner.ok(&format!("spawn {} sleep {arg}", setuid.display()));
                let listed = owner.ok("list");
                return Some(listed.trim().parse().expect("one member"));
            }
            owner.ok(&format!("spawn {} setuid {arg} {}", helper.display(), setuid.display()));
            Some(report.helper(sandbox, "escapee").pid)
        }
    }
}

/// A kill ends a member that has changed its user if the guarantees state that, and else reports it.
#[test]
fn members_of_another_user_die_where_promised() {
    if !is_here() {
        return;
    }
    for host in HOSTS {
        eprintln!("{}", host.what);
        let mechanism = host.environment.mechanism();
        let mut sandbox = Sandbox::new(host.environment);
        let line = command_line(host, &Bins::get().owner().display().to_string());
        let mut owner = LineProcess::start(&mut sandbox, line[0].as_ref(), |command| {
            command.args(&line[1..]);
        });
        owner.receive("the start").expect("a greeting");
        owner.ok(&format!("new {mechanism}"));
        let said = owner.ok("guarantees");
        let word = if host.crosses_setuid { "crosses-setuid=yes" } else { "crosses-setuid=no" };
        assert!(said.contains(word), "{}: {said}", host.what);
        let Some(member) = changed_member(host, &sandbox, &mut owner) else {
            eprintln!("SKIPPED: no program can be made setuid here");
            continue;
        };
        match owner.request("kill") {
            Ok(_) => assert!(!proc::is_alive(member), "{}: the member lives", host.what),
            Err(error) => {
                assert!(!host.crosses_setuid, "{}: {error}", host.what);
                assert!(error.starts_with(&format!("survivors {member}:")), "{error}");
            }
        }
        assert_eq!(proc::is_alive(member), !host.crosses_setuid, "{}", host.what);
        // This test runs as root and can kill it.
        if proc::is_alive(member) {
            proc::kill(member);
        }
        owner.end();
        sandbox.wait_until_empty(|_| false);
    }
}

/// `--require crosses-setuid` succeeds exactly if the guarantees include it.
#[test]
fn what_is_required_is_what_is_promised() {
    if !is_here() {
        return;
    }
    for host in HOSTS {
        let mut sandbox = Sandbox::new(host.environment);
        let line = command_line(host, &Bins::get().onejob().display().to_string());
        let said = scratch_dir().join("said");
        let file = std::fs::File::create(&said).expect("a scratch directory");
        let mut run = sandbox.start(line[0].as_ref(), |command: &mut Command| {
            command.args(&line[1..]).args(["run", "--mechanism", host.environment.mechanism()]);
            command.args(["--require", "crosses-setuid", "--", "true"]);
            command.stdin(Stdio::null()).stderr(file);
        });
        let status = run.wait().expect("a child of this process").code();
        let said = std::fs::read_to_string(said).expect("text");
        let expected = if host.crosses_setuid { 0 } else { 125 };
        assert_eq!(status, Some(expected), "{}: {said}", host.what);
        sandbox.wait_until_empty(|_| false);
    }
}
