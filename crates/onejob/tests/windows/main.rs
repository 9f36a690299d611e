//! The guarantees on Windows, checked by the handles of processes and never by the library.
#![cfg(windows)]

mod helpers;
mod spawning;

use std::{
    collections::HashSet,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use helpers::{Held, Report, eventually, helper, outsider};
use windows_sys::Win32::{
    Security::{
        ACL, ACL_REVISION, InitializeAcl, InitializeSecurityDescriptor, PSECURITY_DESCRIPTOR,
        SECURITY_ATTRIBUTES, SECURITY_DESCRIPTOR, SetSecurityDescriptorDacl,
    },
    System::{JobObjects::CreateJobObjectW, Threading::CreateEventW},
};

use onejob::{Containment, Job, Kill, OwnerDeath, ProcessId, Signal};

/// Not a test by itself: runs the role of this process if it is a helper of a test.
#[test]
fn run_role() {
    helpers::run_role();
}

/// A process with the same program outside of the job, which must survive.
struct Bystander(std::process::Child, #[expect(dead_code, reason = "held")] Report);

impl Bystander {
    fn new() -> Bystander {
        let report = Report::new();
        let child = outsider("sleeper", &report.0).spawn().expect("a bystander");
        Bystander(child, report)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let alive = matches!(self.0.try_wait(), Ok(None));
        let _ = self.0.kill();
        let _ = self.0.wait();
        assert!(alive || thread::panicking(), "a bystander was ended");
    }
}

#[test]
fn a_list_of_sixty_members() {
    // The first buffer has room for eight.
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    job.spawn(helper("many-60", &report.0)).expect("a member");
    let helpers = report.helpers("sleeper", 60);
    assert_eq!(job.processes().expect("a list").len(), 61);
    let listed: HashSet<_> = job.pids().expect("a list").into_iter().collect();
    assert!(listed.len() == 61 && helpers.iter().all(|helper| listed.contains(&helper.0)));
    job.kill().expect("killed");
    assert!(helpers.iter().all(|helper| !helper.lives()), "SURVIVED");
    assert!(job.pids().expect("a list").is_empty());
}

/// The requests of an owner. Each one is as likely to be interrupted as any other.
const REQUESTS: [&str; 7] =
    ["new", "setsid", "daemon-grandchild", "hoppers", "list", "stop 20", "drop"];

/// Nothing is left of an owner that is terminated at one of fifty random moments.
#[test]
fn random_terminations_of_the_owner() {
    let request = |word: &str, report: &testkit::Report| match word {
        "new" => "new job-object".to_owned(),
        "setsid" | "daemon-grandchild" | "hoppers" => {
            format!("spawn {} {word} {}", testkit::Bins::get().helper().display(), report.arg())
        }
        word => word.to_owned(),
    };
    let (mut with_members, mut random) = (0, 0x2545_f491_u32);
    for death in 0..50 {
        let mut sandbox = testkit::Sandbox::new(testkit::Environment::JobObject);
        let report = testkit::Report::new();
        let mut owner = testkit::Owner::start(&mut sandbox, testkit::Environment::JobObject);
        let mut bystanders = testkit::Bystanders::beside(&sandbox, owner.group());
        REQUESTS.iter().for_each(|word| owner.send(&request(word, &report)));
        for word in &REQUESTS[..death % REQUESTS.len()] {
            owner.receive(word).unwrap_or_else(|error| panic!("{word}: {error}"));
        }
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        thread::sleep(Duration::from_millis(u64::from(random >> 16) % 60));
        with_members += usize::from(sandbox.live().len() > 1);
        owner.kill();
        sandbox.wait_until_empty(|_| false);
        bystanders.assert_alive();
    }
    assert!(with_members >= 20, "only {with_members} died with members");
}

#[test]
fn an_enclosed_program_kills_all_but_itself() {
    let (_bystander, report) = (Bystander::new(), Report::new());
    let outer = Job::new().expect("an outer job");
    let mut alone = outsider("encloser", &report.0).spawn().expect("a program");
    assert!(alone.wait().expect("a status").success(), "{:?}", report.lines());
    // The same inside another job.
    let mut nested = outer.spawn(helper("encloser", &report.0)).expect("a member");
    assert!(nested.wait().expect("a status").success(), "{:?}", report.lines());
    assert_eq!(report.pids("enclosed").len(), 2, "alive after the drop");
    let left = ["generation", "sleeper", "hopper"].into_iter().flat_map(|role| report.pids(role));
    assert_eq!(left.filter_map(Held::open).filter(Held::lives).count(), 0, "SURVIVED");
}

#[test]
fn an_outer_job_takes_the_inner_one_down() {
    let (_bystander, report) = (Bystander::new(), Report::new());
    let outer = Job::new().expect("an outer job");
    outer.spawn(helper("owner", &report.0)).expect("an owner inside");
    let helpers = report.helpers("generation", 4);
    outer.kill().expect("killed");
    eventually("the inner job's end", || helpers.iter().all(|it| !it.lives()).then_some(()));
}

/// Another process opens a named job, which dies with its owner.
#[test]
fn named_job_opened_by_another_process() {
    let report = Report::new();
    let name = format!("test{}", std::process::id());
    let mut owner = outsider(&format!("holder-{name}"), &report.0).spawn().expect("an owner");
    report.helpers("holder", 1);
    let member = report.helpers("sleeper", 1).remove(0);
    let view = Job::open(&name).expect("opened");
    assert_eq!(view.name(), Some(&*name));
    assert_eq!(view.processes().expect("a list")[0].pid(), member.0);
    assert!(Job::builder().name(&name).build().expect_err("in use").is_name_taken());
    let entry = onejob::jobs().expect("a list").find(|it| it.name.as_deref() == Some(&*name));
    let entry = entry.expect("listed");
    assert_eq!(entry.owner.expect("known").pid(), owner.id());
    assert_eq!(Job::open(&entry.id[..8]).expect("by its id").name(), Some(&*name));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| view.wait());
        owner.kill().expect("terminated");
        owner.wait().expect("a status");
        waiter.join().expect("no panic").expect("waited");
    });
    eventually("the members' end", || (!member.lives()).then_some(()));
    assert!(Job::open(&name).expect_err("gone").is_not_found());
    assert!(Job::open("no-such-job-anywhere").expect_err("missing").is_not_found());
    // Also while a view of the old job is open.
    eventually("the name is free", || Job::builder().name(&name).build().ok());
    assert!(view.is_empty().expect("it has ended"));
    drop((member, view));
}

/// A listed job can be opened, and its note can be read after its end.
#[test]
fn listed_job_and_its_notes_after_the_end() {
    let listed = |id: &str| onejob::jobs().expect("a list").any(|it| it.id == id);
    assert!(Job::new().expect("a job").id().is_none(), "not listed");
    let job = Job::builder().listed().note("first").build().expect("a job");
    let id = job.id().expect("listed").to_owned();
    assert!(listed(&id) && job.name().is_none());
    let view = Job::open(&id).expect("opened");
    assert_eq!(view.note().expect("readable").as_deref(), Some("first"));
    job.set_note("second").expect("written");
    assert!(view.set_note("x").expect_err("a view").is_unsupported());
    assert!(job.wait_closed(None).expect_err("the owner").is_unsupported());
    assert!(job.set_note(&"x".repeat(1 << 20)).expect_err("too long").is_invalid_input());
    assert!(!view.wait_closed(Some(Duration::from_millis(50))).expect("observable"));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| view.wait_closed(None));
        thread::sleep(Duration::from_millis(50));
        drop(job);
        assert!(waiter.join().expect("no panic").expect("waited"));
    });
    assert_eq!(view.note().expect("readable").as_deref(), Some("second"));
    assert!(!listed(&id) && Job::open(&id).expect_err("gone").is_not_found());
    assert!(view.is_empty().expect("it has ended") && view.kill().is_ok());
    assert!(view.processes().expect_err("it has ended").is_stale());
}

#[test]
fn a_job_without_access_is_not_opened() {
    let id = format!("forbidden{}", std::process::id());
    let wide = |text: String| text.encode_utf16().chain([0]).collect::<Vec<u16>>();
    let object = wide(format!(r"Local\onejob,{id}"));
    let created = testkit::proc::own_creation();
    let card = wide(format!(r"Local\onejob-card,{id},{},{created},1,", std::process::id()));
    // SAFETY: the structures live through the calls, the names end with a NUL, and both handles stay
    // open to the end of the test program.
    unsafe {
        let mut list: ACL = std::mem::zeroed();
        let mut descriptor: SECURITY_DESCRIPTOR = std::mem::zeroed();
        let descriptor: PSECURITY_DESCRIPTOR = (&raw mut descriptor).cast();
        assert_ne!(InitializeAcl(&raw mut list, size_of::<ACL>() as u32, ACL_REVISION), 0);
        assert_ne!(InitializeSecurityDescriptor(descriptor, 1), 0);
        // An empty access control list.
        assert_ne!(SetSecurityDescriptorDacl(descriptor, 1, &raw const list, 0), 0);
        let attributes = SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: descriptor,
            bInheritHandle: 0,
        };
        assert!(!CreateJobObjectW(&raw const attributes, object.as_ptr()).is_null());
        assert!(!CreateEventW(std::ptr::null(), 1, 0, card.as_ptr()).is_null());
    }
    let error = Job::open(&id).expect_err("forbidden");
    assert!(error.is_permission_denied() && !error.is_not_found(), "{error}");
    assert!(
        !onejob::jobs().expect("a list").any(|job| job.id == id),
        "a job without access is listed"
    );
}

#[test]
fn a_window_of_a_member_is_closed() {
    // Under Wine the desktop process is a child of the first process that uses a window: this one, not a member.
    drop(testkit::Sandbox::new(testkit::Environment::JobObject));
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    let mut window = job.spawn(helper("window", &report.0)).expect("a member");
    report.helpers("window", 1);
    let report = job.stop(Duration::from_secs(180)).expect("stopped");
    assert!(report.signaled == 1 && !report.killed, "{report:?}");
    assert_eq!(window.wait().expect("a status").code(), Some(42), "it ended by itself");
}

#[test]
fn a_view_kills_the_job_and_its_drop_does_not() {
    let (report, name) = (Report::new(), format!("view{}", std::process::id()));
    let job = Job::builder().name(&name).build().expect("a job");
    job.spawn(helper("sleeper", &report.0)).expect("a member");
    let member = report.helpers("sleeper", 1).remove(0);
    drop(Job::open(&name).expect("opened"));
    assert!(member.lives());
    Job::open(&name).expect("opened").kill().expect("killed");
    assert!(!member.lives());
}

#[test]
fn a_released_job_lives_on() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    job.spawn(helper("sleeper", &report.0)).expect("a member");
    let member = report.helpers("sleeper", 1).remove(0);
    job.release().expect("released");
    thread::sleep(Duration::from_millis(200));
    assert!(member.lives());
    member.terminate();
}

/// An adopted process and its new children are members.
#[test]
fn adopted_process_and_its_children_are_members() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    let mut child = outsider("many-3", &report.0).spawn().expect("a process");
    job.adopt(&ProcessId::of(child.id()).expect("an identity")).expect("adopted");
    job.adopt(&ProcessId::of(child.id()).expect("an identity")).expect("already a member");
    let helpers = report.helpers("many", 1);
    job.kill().expect("killed");
    assert!(helpers.iter().all(|helper| !helper.lives()));
    child.wait().expect("a status");
    let stale = ProcessId::of(std::process::id()).expect("an identity");
    assert!(job.adopt(&stale).expect_err("this process").is_invalid_input());
    report.pids("sleeper").into_iter().filter_map(Held::open).for_each(|it| it.terminate());
}

/// Members of a frozen job do not run; the job can be thawed and killed.
#[test]
fn frozen_job_can_be_thawed_and_killed() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    job.spawn(helper("busy", &report.0)).expect("a member");
    let count = report
        .0
        .with_file_name(format!("{}.count", report.0.file_name().expect("a file").display()));
    let read = || fs::read_to_string(&count).ok()?.parse::<u64>().ok();
    let first = eventually("it runs", read);
    eventually("it continues", || read().filter(|now| *now > first));
    job.freeze().expect("frozen");
    thread::sleep(Duration::from_millis(50));
    let before = fs::read(&count).expect("a count");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fs::read(&count).expect("a count"), before, "a frozen member has run");
    assert!(job.spawn(helper("sleeper", &report.0)).is_err(), "a frozen job accepts a member");
    job.thaw().expect("thawed");
    eventually("it runs again", || (fs::read(&count).expect("a count") != before).then_some(()));
    job.freeze().expect("frozen");
    job.kill().expect("killed");
    assert!(job.is_empty().expect("observable"));
    let _ = fs::remove_file(count);
}

/// A wait ends with the last member, and a timeout is exact.
#[test]
fn wait_ends_with_the_last_member_or_timeout() {
    let (report, job) = (Report::new(), Job::new().expect("a job"));
    job.wait().expect("an empty job");
    job.spawn(helper("orphan-parent", &report.0)).expect("a member");
    let orphan = report.helpers("sleeper", 1).remove(0);
    let start = Instant::now();
    assert!(!job.wait_timeout(Duration::from_millis(100)).expect("observable"));
    assert!(start.elapsed() >= Duration::from_millis(100));
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| job.wait())).collect();
        orphan.terminate();
        waiters.into_iter().for_each(|it| it.join().expect("no panic").expect("waited"));
    });
    assert!(job.is_empty().expect("observable"));
}

/// `stop_tree` ends the tree below a process without a job.
#[test]
fn stop_tree_without_a_job() {
    let (_bystander, report) = (Bystander::new(), Report::new());
    let mut root = outsider("generation-1", &report.0).spawn().expect("a tree");
    let helpers = report.helpers("generation", 4);
    let id = ProcessId::of(root.id()).expect("an identity");
    onejob::stop_tree(&id, Signal::TERM, Duration::from_millis(100)).expect("stopped");
    assert!(helpers.iter().all(|helper| !helper.lives()), "SURVIVED");
    root.wait().expect("a status");
    let gone = onejob::stop_tree(&id, Signal::TERM, Duration::ZERO).expect_err("gone");
    assert!(gone.is_stale() || gone.is_not_found(), "{gone}");
}

#[test]
fn guarantees_and_unsupported_operations() {
    let job = Job::builder().require(Containment::Tracked).require(Kill::Atomic);
    let job = job.require(OwnerDeath::Kernel).build().expect("all guarantees of the mechanism");
    let text = job.guarantees().to_string();
    assert!(text.starts_with("job-object: containment=tracked kill=atomic owner-death=kernel"));
    let sealed =
        Job::builder().require(Containment::Sealed).build().expect_err("no mechanism seals");
    assert!(sealed.is_unmet_requirement(), "{sealed}");
    assert!(job.signal(Signal::HUP).expect_err("no signals").is_unsupported());
    let reports = onejob::probe_mechanisms();
    assert!(reports.len() == 1 && reports[0].guarantees.is_some(), "{reports:?}");
    if reports[0].reason.contains("Wine") {
        let error = Job::builder().memory_max(1 << 30).build().expect_err("Wine ignores it");
        assert!(error.is_unmet_requirement(), "{error}");
    }
    assert!(job.spawn_std(&mut Command::new("cmd")).expect_err("no attributes").is_unsupported());
}
