//! Ways to escape that exist on Linux only.

use std::{
    fs,
    process::{Command, Stdio},
};

use testkit::{Bins, Environment, KillOnDrop, eventually, proc};

use crate::{
    case::{Case, Scenario},
    matrix::{every_case, every_case_where},
    proof,
};

#[test]
fn a_setsid_grandchild_dies_with_the_job() {
    every_case(&Scenario::helper("setsid"), |case| {
        let escapee = case.escapee();
        assert_eq!(escapee.stat().sid, escapee.pid, "it leads a session");
        case.ends_without_survivors();
    });
}

/// A member that ignores SIGTERM, SIGINT and SIGHUP dies with the job.
#[test]
fn term_int_and_hup_ignored() {
    every_case(&Scenario::helper("stubborn"), |case| {
        let escapee = case.escapee();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            assert!(proc::has_signal(escapee.pid, "SigIgn", signal), "signal {signal}");
        }
        case.ends_without_survivors();
    });
}

#[test]
fn a_stopped_member_dies_with_the_job() {
    every_case(&Scenario::helper("stopped"), |case| {
        case.escapee().awaits_state('T');
        case.ends_without_survivors();
    });
}

/// A member without descriptors dies with the job.
#[test]
fn descriptors_closed() {
    every_case(&Scenario::helper("closed"), |case| {
        let escapee = case.escapee();
        eventually("a process without descriptors", || {
            let open = fs::read_dir(format!("/proc/{}/fd", escapee.pid)).expect("readable").count();
            (open == 0).then_some(())
        });
        case.ends_without_survivors();
    });
}

/// A renamed member with an empty environment dies with the job.
#[test]
fn renamed_with_empty_environment() {
    every_case(&Scenario::helper("renamed"), |case| {
        let escapee = case.escapee();
        assert_eq!(escapee.stat().comm, ") T 1 1 (x");
        let environment = fs::read(format!("/proc/{}/environ", escapee.pid)).expect("readable");
        assert_eq!(environment, b"");
        case.ends_without_survivors();
    });
}

#[test]
fn a_clone_parent_child_dies_with_the_job() {
    every_case(&Scenario::helper("clone-parent"), |case| {
        let main = case.helper("main");
        let escapee = case.escapee();
        assert_eq!(escapee.starter, Some(main.pid));
        assert_eq!(escapee.stat().ppid, main.stat().ppid, "a sibling of its starter");
        case.ends_without_survivors();
    });
}

/// The child of a vfork and its blocked parent die with the job.
#[test]
fn vfork_child_and_blocked_parent() {
    every_case(&Scenario::helper("vfork"), |case| {
        let parent = case.helper("vforker");
        parent.awaits_state('D');
        assert_eq!(case.escapee().stat().ppid, parent.pid);
        case.ends_without_survivors();
    });
}

/// A process with an ended leader thread dies with the job.
#[test]
fn leader_thread_has_exited() {
    every_case(&Scenario::helper("leader-gone"), |case| {
        let escapee = case.escapee();
        escapee.awaits_state('Z');
        assert!(proc::is_alive(escapee.pid), "another thread is alive");
        case.ends_without_survivors();
    });
}

/// A member that is a subreaper, and the orphan that it has adopted, die with the job.
#[test]
fn subreaper_member_with_an_orphan() {
    every_case(&Scenario::helper("subreaper"), |case| {
        let subreaper = case.helper("subreaper");
        proof::left_the_session(&subreaper);
        assert_eq!(case.escapee().stat().ppid, subreaper.pid, "adopted by a member");
        case.ends_without_survivors();
    });
}

/// Members in a nested cgroup that a member has made and frozen die with the job.
#[test]
fn frozen_sub_cgroup_made_by_a_member() {
    every_case_where(Environment::has_cgroups, &Scenario::helper("subcgroup"), |case| {
        let escapee = case.escapee();
        let file = format!("/proc/{}/cgroup", escapee.pid);
        eventually("a member in a cgroup of its own", || {
            let group = fs::read_to_string(&file).expect("readable");
            group.trim_end().ends_with("/made-by-a-member").then_some(())
        });
        let nested = case.fixture.sandbox.nested_cgroups();
        let made = nested.iter().find(|dir| dir.ends_with("made-by-a-member")).expect("there");
        eventually("a frozen cgroup", || {
            let events = fs::read_to_string(made.join("cgroup.events")).ok()?;
            events.contains("frozen 1").then_some(())
        });
        case.ends_without_survivors();
    });
}

/// A member that another member traces dies with the job.
#[test]
fn traced_by_a_member() {
    every_case(&Scenario::helper("traced"), |case| {
        let tracer = case.helper("tracer");
        let escapee = case.escapee();
        escapee.awaits_state('t');
        assert_eq!(proc::status(escapee.pid, "TracerPid"), Some(tracer.pid.to_string()));
        case.ends_without_survivors();
    });
}

/// A member that a process outside of the job traces dies with the job.
#[test]
fn traced_from_outside() {
    every_case(&Scenario::helper("traceable"), |mut case| {
        let escapee = case.escapee();
        // The tracer never waits for the dead tracee. The zombie must not delay the end of the job.
        case._outside = Some(Box::new(trace(&case, escapee.pid)));
        escapee.awaits_state('t');
        case.ends_without_survivors();
    });
}

/// Starts a process outside of the job that traces the member `tracee`.
fn trace(case: &Case, tracee: i32) -> KillOnDrop {
    let mut helper = Command::new(Bins::get().helper());
    helper.arg("trace").arg(case.fixture.report.beside(".tracer")).arg(tracee.to_string());
    let tracer = KillOnDrop(case.fixture.sandbox.start_beside(helper.stdin(Stdio::null())));
    let pid = tracer.0.id().to_string();
    eventually("a traced member", || {
        (proc::status(tracee, "TracerPid").as_deref() == Some(&pid)).then_some(())
    });
    tracer
}

/// Zombies that their parent does not reap do not delay the end of the job.
#[test]
fn zombies_left_unreaped_by_members() {
    every_case(&Scenario::helper("zombies"), |case| {
        let keeper = case.escapee();
        eventually("twenty zombies", || {
            let dead = proc::children(keeper.pid).into_iter().filter_map(proc::stat);
            (dead.filter(|stat| stat.state == 'Z').count() == 20).then_some(())
        });
        case.ends_without_survivors();
    });
}

/// Members are stopped before they are killed: else a shell that sees its child die would run its next command.
#[test]
fn no_member_sees_its_child_die_first() {
    let is_subreaper = |environment: Environment| environment.mechanism() == "subreaper";
    every_case_where(is_subreaper, &Scenario::helper("child-watchers"), |case| {
        case.fixture.report.helpers(&case.fixture.sandbox, "parent", 10);
        let report = case.fixture.report.clone();
        case.ends_without_survivors();
        assert_eq!(report.count("saw-child-die"), 0, "members that saw a child die");
    });
}

/// A setuid member of an ordinary user's job dies or is reported.
#[test]
fn setuid_member_of_an_ordinary_user() {
    if Bins::get().setuid_helper().is_none() {
        eprintln!("SKIPPED: only root can make a program setuid root, and not with nosuid");
        return;
    }
    let scenario = Scenario::new(|report, _| {
        let setuid = Bins::get().setuid_helper().expect("checked").display().to_string();
        let helper = Bins::get().helper().display().to_string();
        vec![helper, "setuid".into(), report.arg().into(), setuid]
    });
    every_case_where(Environment::is_ordinary, &scenario, |case| {
        let escapee = case.escapee();
        assert_eq!(proc::status(escapee.pid, "Uid").as_deref(), Some("0\t0\t0\t0"));
        case.helper("sibling");
        if case.fixture.environment.crosses_setuid() {
            case.ends_without_survivors();
        } else {
            case.reports_survivor(&escapee);
        }
    });
}
