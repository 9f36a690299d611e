//! Valid names, and which process gets a name.

use testkit::{Fixture, every_environment};

use crate::requests::{jobs, refused};

#[test]
fn what_is_no_name_is_refused_and_makes_no_file() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let long = "x".repeat(65);
        for bad in ["", "../x", "/etc", ".a", "-a", "a/b", "é", "a=b", "a*", &long] {
            let said = refused(&mut owner, &fixture.new_job(bad), "invalid");
            assert!(said.contains("64"), "no hint: {said}");
        }
        assert!(!fixture.sandbox.runtime_dir().exists(), "{environment}");
        let longest = "x".repeat(64);
        owner.ok(&fixture.new_job(&longest));
        let mut view = fixture.process();
        view.ok(&format!("open {longest}"));
        owner.ok("drop");
        drop((owner, view));
        fixture.assert_clean();
    });
}

/// Exactly one of several concurrent owners gets a name.
#[test]
fn one_of_many_concurrent_claims_wins() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut all: Vec<_> = (0..8).map(|_| fixture.process()).collect();
        for _ in 0..10 {
            let request = fixture.new_job("same");
            all.iter_mut().for_each(|process| process.send(&request));
            let answers: Vec<_> = all.iter_mut().map(|one| one.receive("new")).collect();
            let won = answers.iter().filter(|answer| answer.is_ok()).count();
            let taken = |said: &String| said.starts_with("taken: ");
            let others_fail = answers.iter().filter_map(|a| a.as_ref().err()).all(taken);
            assert!(won == 1 && others_fail, "{environment}: {answers:?}");
            assert_eq!(jobs(&mut all[0]).len(), 1);
            let winner = answers.iter().position(Result::is_ok).expect("one");
            all[winner].ok("drop");
            assert_eq!(fixture.sandbox.runtime_files(), [] as [&str; 0]);
        }
        drop(all);
        fixture.assert_clean();
    });
}

/// An owner that drops its job does not remove the name of another owner's new job.
#[test]
fn name_passed_on_repeatedly_is_never_lost() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut a, mut b) = (fixture.process(), fixture.process());
        let request = fixture.new_job("same");
        a.ok(&request);
        for _ in 0..60 {
            // The other process takes the name as soon as it is free.
            a.send("drop");
            while b.request(&request).is_err() {}
            a.receive("drop").unwrap_or_else(|error| panic!("{environment}: {error}"));
            a.ok("open same");
            a.ok("drop");
            std::mem::swap(&mut a, &mut b);
        }
        a.ok("drop");
        drop((a, b));
        fixture.assert_clean();
    });
}
